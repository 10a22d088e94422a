//! What the properties share: networks that were pruned, comparisons, counts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::SgdConfig;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_compress::Masks;
use burn_compress::graph::{ChannelGraph, GroupMember, capture};
use burn_compress::layer::{LayerInfo, channel_dims, layers};
use burn_compress::prelude::*;
use burn_compress::speedup::verify::{TOLERANCE, relative_error};
use burn_compress::speedup::{SpeedupError, slice_module};
use burn_compress_tests::random_net::{Net, NetSpec};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use serde_json::{Value, json};

/// Largest relative error in double precision, where a rounding is `1e-16`.
pub const DOUBLE: f64 = 1e-12;
/// Largest relative error in single precision that rounding may explain.
pub const ILL_CONDITIONED: f64 = 1e-4;
/// How networks are counted whose rounding exceeds the tolerance.
pub const ROUNDED: &str = "rounded by more than the tolerance";

pub type Outcome = Result<(), TestCaseError>;

/// What a property counts over its cases.
#[derive(Default)]
pub struct Tally(RefCell<BTreeMap<&'static str, u64>>);

impl Tally {
    pub fn add(&self, what: &'static str, count: u64) {
        *self.0.borrow_mut().entry(what).or_default() += count;
    }

    pub fn get(&self, what: &'static str) -> u64 {
        self.0.borrow().get(what).copied().unwrap_or_default()
    }
}

/// Checks a property and prints what was counted.
pub fn check<S: Strategy>(
    name: &str,
    cases: u32,
    strategy: S,
    property: impl Fn(S::Value, &Tally) -> Outcome,
) -> Tally {
    let mut config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(2026);
    }
    let tally = Tally::default();
    let result = TestRunner::new(config).run(&strategy, |case| {
        property(case, &tally)?;
        tally.add("cases", 1);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
    eprintln!("{name}: {:?}", tally.0.borrow());
    tally
}

/// Channels that are pruned together.
pub struct Group {
    pub layers: Vec<String>,
    pub members: Vec<GroupMember>,
    pub protected: Vec<bool>,
    pub blocks: usize,
    /// Channels that are all that some parameter has of the group, each of which keeps one.
    pub branches: BTreeSet<Vec<usize>>,
    pub ratio: f64,
}

impl Group {
    /// How many channels the ratio removes: the integer part in each block.
    pub fn goal(&self) -> usize {
        let per_block = self.protected.len() / self.blocks;
        self.blocks * (per_block as f64 * self.ratio) as usize
    }

    /// Whether the goal can be reached whatever channels the branches keep.
    pub fn is_reachable(&self) -> bool {
        let staying = self
            .protected
            .iter()
            .filter(|protected| **protected)
            .count();
        let per_block = self.protected.len() / self.blocks;
        let needed = self.branches.len() + staying;
        self.branches.is_empty() || self.goal() / self.blocks + needed <= per_block
    }
}

pub fn output_dim(layer: &LayerInfo) -> Option<usize> {
    let weight = layer
        .param("weight")
        .filter(|weight| weight.shape.len() > 1)?;
    channel_dims(&layer.kind, "weight", weight.shape.len()).output
}

pub fn graph(spec: &NetSpec, net: &Net, device: &Device) -> Result<ChannelGraph, TestCaseError> {
    Ok(ChannelGraph::analyze(&capture(
        net,
        &spec.dummy_input(device),
    )?)?)
}

/// The groups of convolutions, and of the hidden linear layer if asked for, that have a channel to
/// lose, each with one of `ratios`.
pub fn groups(graph: &ChannelGraph, net: &Net, with_linear: bool, ratios: &[f64]) -> Vec<Group> {
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for layer in layers(net) {
        let is_pruned = layer.kind == "Conv2d" || with_linear && layer.path == "hidden";
        let dim = output_dim(&layer).filter(|_| is_pruned);
        if let Some(index) = dim.and_then(|dim| graph.group_of(&layer.path, "weight", dim)) {
            found.entry(index).or_default().push(layer.path);
        }
    }
    let mut groups = Vec::new();
    for ((index, layers), ratio) in found.into_iter().zip(ratios.iter().cycle()) {
        let group = &graph.groups()[index];
        let protected: Vec<bool> = group
            .channels
            .iter()
            .map(|&channel| graph.protected(channel).is_some())
            .collect();
        if protected.iter().all(|&protected| protected) {
            continue;
        }
        // A block cannot lose more than its channels that are free.
        let per_block = protected.len() / group.blocks;
        let free = protected
            .chunks(per_block)
            .map(|block| block.iter().filter(|p| !**p).count());
        let most = free.min().unwrap_or(0) as f64 / per_block as f64;
        let branches = group.members.iter().chain(&group.consumers).map(|member| {
            let all = 0..group.channels.len();
            all.filter(|&channel| !member.positions[channel].is_empty())
                .collect::<Vec<_>>()
        });
        let partial = |branch: &Vec<usize>| (1..group.channels.len()).contains(&branch.len());
        groups.push(Group {
            layers,
            branches: branches.filter(partial).collect(),
            members: group.members.clone(),
            protected,
            blocks: group.blocks,
            ratio: ratio.min(most),
        });
    }
    groups
}

/// The convolutions and linear layers.
pub fn weighted(net: &Net) -> Vec<String> {
    let found = layers(net).into_iter();
    found
        .filter(|layer| output_dim(layer).is_some())
        .map(|layer| layer.path)
        .collect()
}

pub fn pruning_config(groups: &[Group]) -> Result<ConfigList<PruningSettings>, TestCaseError> {
    let rules: Vec<Value> = groups
        .iter()
        .map(|group| json!({"op_names": group.layers, "sparse_ratio": group.ratio}))
        .collect();
    Ok(ConfigList::from_json(&Value::from(rules).to_string())?)
}

pub fn evaluator(spec: &NetSpec, device: &Device) -> Evaluator<Net, Tensor<4>> {
    Evaluator::new().with_dummy_input(spec.dummy_input(device))
}

pub fn mask_of(masks: &Masks, param: &str) -> Option<burn_compress::Mask> {
    masks
        .iter()
        .find(|(id, _)| id.to_string() == param)
        .map(|(_, mask)| mask.clone())
}

/// For each channel of a group, whether the mask of a member keeps it; `None` where the member
/// does not carry the channel.
pub fn kept(masks: &Masks, member: &GroupMember) -> Vec<Option<bool>> {
    let removed = mask_of(masks, &member.param).map(|mask| mask.removed_along(member.dim));
    let keeps = |positions: &Vec<usize>| match (&removed, positions.is_empty()) {
        (_, true) => None,
        (None, false) => Some(true),
        // A depthwise convolution has several filters a channel: one is enough.
        (Some(removed), false) => Some(positions.iter().any(|&position| !removed[position])),
    };
    member.positions.iter().map(keeps).collect()
}

pub fn outputs(net: &Net, images: &Tensor<4>) -> Vec<TensorData> {
    vec![net.forward(images.clone()).into_data()]
}

/// Multiplies parameters by their masks and computes in double precision from then on.
pub struct Double<'a> {
    path: Vec<String>,
    masks: &'a Masks,
}

impl ModuleMapper for Double<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let mask = mask_of(self.masks, &self.path.join("."));
        param.map(|tensor| match mask {
            Some(mask) => {
                let data = TensorData::new(mask.values().to_vec(), mask.shape().to_vec());
                let mask = Tensor::from_data(data, &tensor.device());
                (tensor * mask).cast(DType::F64)
            }
            None => tensor.cast(DType::F64),
        })
    }
}

pub fn double(plain: &Net, masks: &Masks) -> Net {
    // `valid` copies the running statistics, which clones share.
    plain.valid().map(&mut Double {
        path: Vec::new(),
        masks,
    })
}

/// The largest relative error between two networks in double precision.
pub fn double_error(spec: &NetSpec, simulated: &Net, small: &Net) -> Result<f64, TestCaseError> {
    let images = spec.images(3, 3, &Device::flex()).cast(DType::F64);
    Ok(relative_error(
        &outputs(simulated, &images),
        &outputs(small, &images),
    )?)
}

/// The small model computes what the masked one does, on images that are not the dummy input:
/// exactly, as double precision shows, and within the tolerance in single precision. Networks with
/// an ill-conditioned output, whose rounding alone exceeds the tolerance, are counted.
pub fn check_equal(
    spec: &NetSpec,
    compressed: &Compressed<Net>,
    small: &Speedup<Net>,
    tally: &Tally,
) -> Result<f64, TestCaseError> {
    let masked = double(&compressed.unwrap_model(), &compressed.masks());
    let error = double_error(spec, &masked, &double(&small.model, &Masks::new()))?;
    prop_assert!(
        error <= DOUBLE,
        "relative error {error:e} in double precision"
    );
    let (simulated, mut worst) = (compressed.masked_model(), 0.0f64);
    for (stream, count) in [(1, 3), (2, 8)] {
        let images = spec.images(stream, count, &Device::flex());
        let error = relative_error(
            &outputs(&simulated, &images),
            &outputs(&small.model, &images),
        )?;
        worst = worst.max(error);
    }
    prop_assert!(worst <= ILL_CONDITIONED, "relative error {worst:e}");
    let count = if worst <= TOLERANCE { "equal" } else { ROUNDED };
    tally.add(count, 1);
    Ok(worst)
}

/// The small model, or nothing if it was refused because of rounding alone: the same channels
/// removed in double precision change nothing.
pub fn speed_up(
    spec: &NetSpec,
    compressed: &Compressed<Net>,
    tally: &Tally,
) -> Result<Option<Speedup<Net>>, TestCaseError> {
    let dummy_input = spec.dummy_input(&Device::flex());
    let refused = match ModelSpeedup::new(compressed.clone(), dummy_input.clone()).speedup_model() {
        Err(SpeedupError::Differs {
            layer,
            error,
            tolerance,
        }) => SpeedupError::Differs {
            layer,
            error,
            tolerance,
        },
        small => return Ok(Some(small?)),
    };
    let (graph, masks) = (compressed.graph(&dummy_input)?, compressed.masks());
    let mut removed = BTreeSet::new();
    for group in graph.groups() {
        let mut gone: Vec<bool> = group
            .channels
            .iter()
            .map(|&channel| graph.protected(channel).is_none())
            .collect();
        for member in &group.members {
            for (gone, kept) in gone.iter_mut().zip(kept(&masks, member)) {
                *gone &= kept != Some(true);
            }
        }
        let channels = group.channels.iter().zip(gone);
        removed.extend(
            channels
                .filter(|(_, gone)| *gone)
                .map(|(channel, _)| *channel),
        );
    }
    let masked = double(&compressed.unwrap_model(), &masks);
    let small = slice_module(masked.clone(), &graph.slice_plan(&removed)?)?;
    let exact = double_error(spec, &masked, &small)?;
    prop_assert!(
        exact <= DOUBLE,
        "{refused}, and by {exact:e} in double precision"
    );
    tally.add(ROUNDED, 1);
    Ok(None)
}

/// Rounding decides rarely, or the networks are no test.
pub fn check_rounding(tally: &Tally) {
    assert!(
        tally.get(ROUNDED) * 100 <= tally.get("cases"),
        "1 % of the cases at most"
    );
}

/// The report says what a recount of the shapes says.
pub fn check_report(spec: &NetSpec, dense: &Net, small: &Speedup<Net>, device: &Device) -> Outcome {
    let images = spec.images(3, 1, device);
    let (before, after) = (dense.cost(images.clone()), small.model.cost(images));
    let report = &small.report;
    prop_assert_eq!(
        (report.params.dense, report.params.small),
        (before.params, after.params)
    );
    prop_assert_eq!(
        (report.macs.dense, report.macs.small),
        (before.macs, after.macs)
    );
    prop_assert_eq!(small.state.masks.len(), 0);
    Ok(())
}

/// The sizes that the small model has along the dimensions that make a group's channels.
pub fn sizes(small: &Net, group: &[GroupMember]) -> Vec<usize> {
    let found = layers(small);
    let size = |member: &GroupMember| {
        found
            .iter()
            .flat_map(|layer| layer.params.iter().map(move |p| (&layer.path, p)))
            .find(|(path, param)| format!("{path}.{}", param.name) == member.param)
            .map(|(_, param)| param.shape[member.dim])
    };
    group.iter().filter_map(size).collect()
}

/// All values of a model by visiting order: parameters and running statistics.
#[derive(Default)]
pub struct Values(Vec<TensorData>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_data());
    }
}

pub fn values(net: &Net) -> Vec<TensorData> {
    let mut values = Values::default();
    net.visit(&mut values);
    values.0
}

pub fn ratios() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.0..=0.95, 1..=6)
}

/// A network whose coupled channels were pruned.
pub struct Pruned {
    pub dense: Net,
    pub groups: Vec<Group>,
    pub compressed: Compressed<Net>,
}

pub fn prune_coupled(
    spec: &NetSpec,
    ratios: &[f64],
    with_linear: bool,
    l2: bool,
    device: &Device,
) -> Result<Option<Pruned>, TestCaseError> {
    let dense = spec.build(device);
    let groups = groups(&graph(spec, &dense, device)?, &dense, with_linear, ratios);
    if groups.is_empty() {
        return Ok(None);
    }
    let (config, evaluator) = (pruning_config(&groups)?, evaluator(spec, device));
    let options = PrunerConfig::new();
    let pruner = match l2 {
        true => L2NormPruner::new(dense.clone(), &config, evaluator, options)?,
        false => L1NormPruner::new(dense.clone(), &config, evaluator, options)?,
    };
    Ok(Some(Pruned {
        dense,
        groups,
        compressed: pruner.compress(Budget::none())?,
    }))
}

/// Trains two steps with masks and 8-bit quantization of everything.
pub fn prune_and_quantize(
    spec: &NetSpec,
    ratios: &[f64],
    affine: bool,
    per_channel: bool,
    device: &Device,
) -> Result<Option<Pruned>, TestCaseError> {
    let dense = spec.build(device);
    let groups = groups(&graph(spec, &dense, device)?, &dense, true, ratios);
    if groups.is_empty() {
        return Ok(None);
    }
    let batches: Vec<_> = (10..12)
        .map(|stream| spec.images(stream, 4, device))
        .collect();
    let evaluator = evaluator(spec, device)
        .with_data(move |_epoch| batches.clone())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(1e-4)
        .with_loss(|net: &Net, images: &Tensor<4>| net.forward(images.clone()).square().mean());
    let scheme = if affine { "affine" } else { "symmetric" };
    let (port, weight) = if per_channel {
        ("per_channel", "out_channel")
    } else {
        ("default", "default")
    };
    let rules = json!([{
        "op_names": weighted(&dense),
        "quant_dtype": "int8",
        "quant_scheme": scheme,
        "target_names": ["_input_0", "weight", "_output_0"],
        "target_settings": {
            "_input_0": {"granularity": port},
            "weight": {"granularity": weight},
            "_output_0": {"granularity": port},
        },
    }]);
    let quantize = ConfigList::from_json(&rules.to_string())?;
    let pruner = L1NormPruner::new(
        dense.clone(),
        &pruning_config(&groups)?,
        evaluator,
        PrunerConfig::new(),
    )?;
    let quantizer = QatQuantizer::from_compressor(pruner, &quantize, QatConfig::new())?;
    Ok(Some(Pruned {
        dense,
        groups,
        compressed: quantizer.compress(Budget::steps(2))?,
    }))
}
