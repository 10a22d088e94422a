//! Pruners, quantizers and distillers in one run: their order, what they share and what they leave
//! alone.

use std::any::Any;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex};

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;
use burn_compress::speedup::SpeedupError;
use burn_compress::{Algorithm, BoxError, Error, Masks, Mode, RoundGradient, Run, fake_quantize};
use burn_compress_tests::nets::{
    Batch, Net, NetConfig, Outcome, bits, dummy_input, evaluator, values,
};
use rstest::rstest;

type Chain = Compressor<Net, Batch>;
type Built = Result<Chain, Box<dyn StdError>>;

const STEPS: usize = 16;
const PRUNE: &str = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;
const QUANTIZE: &str = r#"[
    {"op_types": ["Conv2d"], "quant_dtype": "int8",
     "target_settings": {"weight": {"granularity": "out_channel"}}},
    {"op_types": ["Linear"], "quant_dtype": "int8"}
]"#;
const DISTILL: &str = r#"[{"op_types": ["Conv2d"], "lambda": 0.1, "apply_method": "mse"}]"#;

fn net() -> Net {
    NetConfig::default().init(1)
}

fn chain() -> Chain {
    Compressor::from_model(net(), evaluator(STEPS))
}

/// Taylor scores, their masks growing by AGP after every third step up to step 12.
fn pruned(chain: Chain, rules: &str) -> Built {
    let config = ConfigList::from_json(rules)?;
    let chain = TaylorPruner::from_compressor(chain, &config, TaylorConfig::new(2))?;
    Ok(AgpPruner::new(chain, AgpConfig::new(3, 4))?)
}

fn quantized(chain: Chain, rules: &str) -> Built {
    let config = QatConfig::new().with_start_step(4);
    Ok(QatQuantizer::from_compressor(
        chain,
        &ConfigList::from_json(rules)?,
        config,
    )?)
}

fn distilled(chain: Chain, rules: &str) -> Built {
    Ok(DynamicLayerwiseDistiller::from_compressor(
        chain,
        &ConfigList::from_json(rules)?,
        &NetConfig::default().init(100),
        |teacher: &Net, batch: &Batch| teacher.forward(batch.images.clone()),
        DistillConfig::new(0.5),
    )?)
}

fn fused(order: [Mode; 3]) -> Chain {
    order.into_iter().fold(chain(), |chain, mode| {
        match mode {
            Mode::Pruning => pruned(chain, PRUNE),
            Mode::Quantization => quantized(chain, QUANTIZE),
            Mode::Distillation => distilled(chain, DISTILL),
        }
        .unwrap()
    })
}

fn id(target: &str) -> TargetId {
    target.parse().unwrap()
}

/// The channels that a mask removes along dimension 0.
fn removed(masks: &Masks, target: &str) -> Vec<usize> {
    let removed = masks[&id(target)].removed_along(0);
    removed
        .iter()
        .enumerate()
        .filter_map(|(at, &removed)| removed.then_some(at))
        .collect()
}

#[test]
fn all_orders_of_fusing_end_bit_for_bit_the_same() {
    use Mode::{Distillation as D, Pruning as P, Quantization as Q};
    let orders = [
        [P, Q, D],
        [P, D, Q],
        [Q, P, D],
        [Q, D, P],
        [D, P, Q],
        [D, Q, P],
    ];
    let first = Outcome::of(&fused(orders[0]).compress(Budget::steps(STEPS)).unwrap());
    // All three do something, or the comparison would say nothing.
    assert_eq!(removed(&first.masks, "block.conv1.weight").len(), 4);
    assert!(first.calibration[&id("block.conv1.weight")].enabled);
    assert!(
        first
            .history
            .steps
            .iter()
            .all(|record| record.loss != record.task_loss)
    );
    for order in &orders[1..] {
        let found = Outcome::of(&fused(*order).compress(Budget::steps(STEPS)).unwrap());
        assert_eq!(found.difference(&first), [""; 0], "{order:?}");
    }
}

/// Two layers of one number each.
#[derive(Module, Debug)]
struct Numbers {
    a: Wrapper<Linear>,
    b: Wrapper<Linear>,
}

impl Numbers {
    fn new(a: f32, b: f32) -> Self {
        let device = Device::flex();
        let linear = |value: f32| {
            let mut linear = LinearConfig::new(1, 1).with_bias(false).init(&device);
            linear.weight = Param::from_data(TensorData::from([[value]]), &device);
            Wrapper::new(linear)
        };
        Self {
            a: linear(a),
            b: linear(b),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.b.forward(self.a.forward(x))
    }

    /// A chain over `a = 2`, `b = 3` whose input is 1, so that the task loss is 6.
    fn chain() -> Compressor<Self, Tensor<2>> {
        let batch = Tensor::<2>::ones([1, 1], &Device::flex());
        let evaluator = Evaluator::new()
            .with_data(move |_epoch| vec![batch.clone()])
            .with_optimizer(SgdConfig::new().init())
            .with_learning_rate(0.1)
            .with_loss(|model: &Self, x: &Tensor<2>| model.forward(x.clone()).mean());
        Compressor::from_model(Self::new(2.0, 3.0), evaluator)
    }

    /// The total loss of the first step of `chain`.
    fn total(chain: Compressor<Self, Tensor<2>>) -> f64 {
        let compressed = chain.compress(Budget::steps(1)).unwrap();
        let record = compressed.history().steps[0];
        assert_eq!(record.task_loss, 6.0);
        record.loss
    }
}

/// Makes `factor * loss + offset` of the loss.
struct Affine {
    factor: f32,
    offset: f32,
}

impl Algorithm<Numbers, Tensor<2>> for Affine {
    fn name(&self) -> &'static str {
        "Affine"
    }

    fn mode(&self) -> Mode {
        Mode::Distillation
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        _batch: &Tensor<2>,
        _run: Run<'_, Numbers>,
    ) -> Result<Tensor<1>, BoxError> {
        Ok(loss * self.factor + self.offset)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[test]
fn losses_are_nested_newest_first() {
    let total = |affine: [(f32, f32); 2]| {
        let mut chain = Numbers::chain();
        for (factor, offset) in affine {
            chain.push(Affine { factor, offset });
        }
        Numbers::total(chain)
    };
    // The newer one, 3 L + 10, is the inner one: 2 (3 * 6 + 10) + 1.
    assert_eq!(total([(2.0, 1.0), (3.0, 10.0)]), 57.0);
    // 3 (2 * 6 + 1) + 10.
    assert_eq!(total([(3.0, 10.0), (2.0, 1.0)]), 49.0);
}

#[test]
fn two_distillers_nest_newest_first() {
    // Hidden states of the student 2 and 6, of the teacher 1 and 2: distances 1 and 16.
    let distilled = |chain, layer: &str, lambda: f64, origin: f64| {
        let rules = format!(r#"[{{"op_names": ["{layer}"], "lambda": {lambda}}}]"#);
        DynamicLayerwiseDistiller::from_compressor(
            chain,
            &ConfigList::from_json(&rules).unwrap(),
            &Numbers::new(1.0, 2.0),
            |teacher: &Numbers, x: &Tensor<2>| teacher.forward(x.clone()),
            DistillConfig::new(origin),
        )
        .unwrap()
    };
    let a_first = distilled(distilled(Numbers::chain(), "a", 0.25, 0.5), "b", 2.0, 0.25);
    // 0.5 (0.25 * 6 + 2 * 16) + 0.25 * 1.
    assert_eq!(Numbers::total(a_first), 17.0);
    let b_first = distilled(distilled(Numbers::chain(), "b", 2.0, 0.25), "a", 0.25, 0.5);
    // 0.25 (0.5 * 6 + 0.25 * 1) + 2 * 16.
    assert_eq!(Numbers::total(b_first), 32.8125);
}

#[test]
fn compressors_meet_in_one_space_a_target() {
    let chain = fused([Mode::Pruning, Mode::Quantization, Mode::Distillation]);
    let mut ids: Vec<String> = chain.spaces().map(|space| space.id().to_string()).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
    let modes = |target: &str| {
        let space = chain.space(&id(target)).unwrap();
        [Mode::Pruning, Mode::Quantization, Mode::Distillation].map(|mode| space.is_claimed(mode))
    };
    assert_eq!(modes("stem.weight"), [true, true, false]);
    assert_eq!(modes("stem._output_0"), [false, true, true]);
    assert_eq!(modes("stem._input_0"), [false, true, false]);
    assert_eq!(modes("bn.gamma"), [true, false, false]);
    assert_eq!(
        chain.algorithms(),
        ["AgpPruner", "QatQuantizer", "DynamicLayerwiseDistiller"]
    );
}

#[test]
fn a_pruned_and_quantized_weight_is_the_mask_times_the_rounded_weight() {
    let chain = pruned(chain(), PRUNE)
        .and_then(|chain| quantized(chain, QUANTIZE))
        .unwrap();
    let compressed = chain.compress(Budget::steps(STEPS)).unwrap();
    let (masks, calibration) = (compressed.masks(), compressed.calibration().unwrap());
    let device = Device::flex();
    let conv = &compressed.model().block.conv1;
    let entry = &calibration[&id("block.conv1.weight")];
    let per_channel = |values: &Option<Vec<f32>>| {
        Tensor::<4>::from_data(
            TensorData::new(values.clone().unwrap(), [8, 1, 1, 1]),
            &device,
        )
    };
    let (scale, zero_point) = (per_channel(&entry.scale), per_channel(&entry.zero_point));
    let gradient = RoundGradient::StraightThrough;
    let rounded = fake_quantize(
        conv.weight.base(),
        scale,
        zero_point,
        -127.0,
        127.0,
        gradient,
    );
    let mask = masks[&id("block.conv1.weight")].values().to_vec();
    let mask = Tensor::<4>::from_data(TensorData::new(mask, [8, 6, 3, 3]), &device);
    let host = |tensor: Tensor<4>| tensor.into_data().try_to_vec::<f32>().unwrap();
    let found = host(conv.weight.val());
    assert_eq!(found, host(rounded * mask));
    assert_eq!(
        found.iter().filter(|&&value| value == 0.0).count() / (6 * 9),
        4
    );
    assert_ne!(found, host(conv.weight.base()));
}

#[test]
fn a_second_evaluator_is_ignored() {
    let other = Evaluator::new()
        .with_data(|_epoch| Vec::<Batch>::new())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.5)
        .with_loss(|net: &Net, batch: &Batch| net.loss(batch) * 1000.0);
    let run = |chain: Chain| Outcome::of(&chain.compress(Budget::steps(3)).unwrap());
    assert_eq!(run(chain().with_evaluator(other.clone())), run(chain()));
    // A chain without one takes it: its data is empty.
    let empty = Compressor::from_model(net(), Evaluator::new()).with_evaluator(other);
    let error = empty.compress(Budget::steps(3)).unwrap_err();
    assert!(matches!(error, Error::NoBatches { epoch: 0 }), "{error}");
}

#[test]
fn an_evaluator_that_is_given_late_trains_like_one_that_is_given_first() {
    let late = Compressor::from_model(net(), Evaluator::new()).with_evaluator(evaluator(STEPS));
    let run = |chain| {
        let chain = pruned(chain, PRUNE).unwrap();
        Outcome::of(&chain.compress(Budget::steps(STEPS)).unwrap())
    };
    assert_eq!(run(late), run(chain()));
}

/// What a constructor says that lacks something of the evaluator.
fn missing(built: Built) -> String {
    let error = built.unwrap_err();
    let core =
        error
            .downcast_ref::<Error>()
            .or_else(|| match error.downcast_ref::<PruningError>() {
                Some(PruningError::Core(error)) => Some(error),
                _ => None,
            });
    assert!(
        matches!(core, Some(Error::MissingEvaluator { .. })),
        "{error}"
    );
    error.to_string()
}

#[test]
fn a_missing_evaluator_is_an_error_of_the_constructor() {
    let bare = || Compressor::from_model(net(), Evaluator::new());
    let taylor = |chain| -> Built {
        let config = ConfigList::from_json(PRUNE)?;
        Ok(TaylorPruner::from_compressor(
            chain,
            &config,
            TaylorConfig::new(2),
        )?)
    };
    let agp = |chain| -> Built {
        let config = ConfigList::from_json(PRUNE)?;
        let uncoupled = PrunerConfig::new().with_coupled(false);
        let chain = L1NormPruner::from_compressor(chain, &config, uncoupled)?;
        Ok(AgpPruner::new(chain, AgpConfig::new(1, 1))?)
    };
    for (text, name) in [
        (missing(taylor(bare())), "TaylorPruner"),
        (missing(agp(bare())), "AgpPruner"),
        (missing(quantized(bare(), QUANTIZE)), "QatQuantizer"),
        (
            missing(distilled(bare(), DISTILL)),
            "DynamicLayerwiseDistiller",
        ),
    ] {
        assert!(
            text.starts_with(name) && text.contains("with_data"),
            "{text}"
        );
    }
    // One part after the other.
    let base = || {
        Evaluator::<Net, Batch>::new()
            .with_data(|_| Vec::new())
            .with_loss(Net::loss)
    };
    let over = |evaluator| missing(taylor(Compressor::from_model(net(), evaluator)));
    assert!(over(base()).contains("`.with_optimizer(..)`"));
    let optimizer = || SgdConfig::new().init();
    assert!(over(base().with_optimizer(optimizer())).contains("`.with_learning_rate(..)`"));
    // Coupled channels need the graph.
    let trains = base().with_optimizer(optimizer()).with_learning_rate(0.1);
    assert!(over(trains).contains("`.with_dummy_input(..)`"));
}

#[test]
fn two_pruners_prune_different_layers() {
    let rules = |layers: &str, ratio: f64| {
        format!(r#"[{{"op_names": [{layers}], "sparse_ratio": {ratio}}}]"#)
    };
    let chain = pruned(chain(), &rules(r#""stem""#, 0.5)).unwrap();
    let config = ConfigList::from_json(&rules(r#""block.conv1""#, 0.25)).unwrap();
    let chain = L2NormPruner::from_compressor(chain, &config, PrunerConfig::new()).unwrap();
    let masks = chain.compress(Budget::steps(STEPS)).unwrap().masks();
    assert_eq!(removed(&masks, "stem.weight").len(), 3);
    assert_eq!(removed(&masks, "block.conv1.weight").len(), 2);
    assert!(!masks.contains_key(&id("block.conv2.weight")));
}

#[rstest]
#[case::pruning(pruned as fn(Chain, &str) -> Built, PRUNE, "stem.weight", "pruning")]
#[case::quantization(quantized, QUANTIZE, "stem._input_0", "quantization")]
#[case::distillation(distilled, DISTILL, "stem._output_0", "distillation")]
fn a_target_has_one_compressor_of_a_mode(
    #[case] build: fn(Chain, &str) -> Built,
    #[case] rules: &str,
    #[case] target: &str,
    #[case] mode: &str,
) {
    let text = build(build(chain(), rules).unwrap(), rules)
        .unwrap_err()
        .to_string();
    for part in [
        target,
        mode,
        "already the target of another",
        "exclude `stem`",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[rstest]
#[case::none(Budget::none())]
#[case::training(Budget::steps(4))]
fn norm_pruners_that_are_fused_directly_generate_masks(#[case] budget: Budget) {
    type Fuse = fn(Chain, &ConfigList<PruningSettings>) -> Result<Chain, PruningError>;
    let pruners: [Fuse; 3] = [
        |chain, config| L1NormPruner::from_compressor(chain, config, PrunerConfig::new()),
        |chain, config| L2NormPruner::from_compressor(chain, config, PrunerConfig::new()),
        |chain, config| LevelPruner::from_compressor(chain, config, PrunerConfig::new()),
    ];
    let config = ConfigList::from_json(PRUNE).unwrap();
    for fuse in pruners {
        let chain = distilled(chain(), DISTILL).unwrap();
        let masks = fuse(chain, &config)
            .unwrap()
            .compress(budget.clone())
            .unwrap()
            .masks();
        let mask = &masks[&id("block.conv2.weight")];
        assert_eq!(mask.sparsity(), 0.5);
    }
}

/// The groups of the network: the weights and all that follows them, and their channels.
const GROUPS: [(&[&str], usize); 3] = [
    (&["stem.weight", "stem.bias", "bn.gamma", "bn.beta"], 6),
    (
        &[
            "block.conv1.weight",
            "block.conv1.bias",
            "block.bn1.gamma",
            "block.bn1.beta",
        ],
        8,
    ),
    (
        &[
            "block.conv2.weight",
            "block.conv2.bias",
            "block.bn2.gamma",
            "block.bn2.beta",
            "block.project.weight",
            "block.project.bias",
        ],
        8,
    ),
];

fn ratio(ratio: f64) -> String {
    format!(r#"[{{"op_types": ["Conv2d"], "sparse_ratio": {ratio}}}]"#)
}

#[rstest]
#[case(0.0)]
#[case(0.1)]
#[case(0.3)]
#[case(0.5)]
#[case(0.7)]
#[case(0.99)]
fn every_group_loses_exactly_its_part(#[case] goal: f64) {
    let masks = [
        pruned(chain(), &ratio(goal))
            .unwrap()
            .compress(Budget::steps(STEPS))
            .unwrap()
            .masks(),
        {
            let config = ConfigList::from_json(&ratio(goal)).unwrap();
            let chain = L1NormPruner::from_compressor(chain(), &config, PrunerConfig::new());
            chain.unwrap().compress(Budget::none()).unwrap().masks()
        },
    ];
    for masks in masks {
        for (members, channels) in GROUPS {
            let first = removed(&masks, members[0]);
            assert_eq!(first.len(), (channels as f64 * goal) as usize);
            for member in members {
                assert_eq!(removed(&masks, member), first, "{member}");
            }
        }
    }
}

#[test]
fn at_least_one_channel_stays() {
    let chain = pruned(chain(), &ratio(1.0)).unwrap();
    let compressed = chain.compress(Budget::steps(STEPS)).unwrap();
    for (members, channels) in GROUPS {
        assert_eq!(removed(&compressed.masks(), members[0]).len(), channels - 1);
    }
    let small = ModelSpeedup::new(compressed, dummy_input())
        .speedup_model()
        .unwrap();
    assert_eq!(small.model.stem.weight.dims(), [1, 1, 3, 3]);
    assert_eq!(small.model.block.conv2.weight.dims(), [1, 1, 3, 3]);
}

#[test]
fn without_that_protection_the_speedup_names_the_empty_layer() {
    let config = ConfigList::from_json(&ratio(1.0)).unwrap();
    let pruner = PrunerConfig::new().with_keep_at_least_one(false);
    let chain = L1NormPruner::from_compressor(chain(), &config, pruner).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let error = ModelSpeedup::new(compressed, dummy_input())
        .speedup_model()
        .unwrap_err();
    assert!(matches!(error, SpeedupError::NothingLeft { .. }), "{error}");
    assert!(error.to_string().contains("`stem`"), "{error}");
}

#[test]
fn teacher_and_original_model_stay_as_they_were() {
    let model = net();
    let before = bits(&model);
    // Clones share their running statistics.
    let (teacher, student) = (model.clone(), model.clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let chain = DynamicLayerwiseDistiller::new(
        student,
        &ConfigList::from_json(DISTILL).unwrap(),
        evaluator(STEPS),
        &teacher,
        move |teacher: &Net, batch: &Batch| {
            record.lock().unwrap().push(bits(teacher));
            teacher.forward(batch.images.clone())
        },
        DistillConfig::new(1.0),
    )
    .unwrap();
    // Neither does training the model that the teacher was taken from.
    let trained = Compressor::from_model(teacher.clone(), evaluator(STEPS));
    let trained = trained.compress(Budget::steps(2)).unwrap().into_model();
    let compressed = chain.compress(Budget::steps(5)).unwrap();
    let mean = |net: &Net| values(net, "bn.running_mean");
    assert_eq!(mean(&model), vec![0.0; 6]);
    assert_ne!(mean(compressed.model()), mean(&model));
    assert_ne!(mean(&trained), mean(&model));
    assert!(bits(&model) == before && bits(&teacher) == before);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 5);
    assert!(seen.iter().all(|teacher| *teacher == before));
}

#[test]
fn the_raw_model_of_a_chain_has_all_its_statistics() {
    let mut trained = chain();
    trained.advance(&Budget::steps(3), None).unwrap();
    let raw = bits(&trained.unwrap_model());
    let compressed = chain().compress(Budget::steps(3)).unwrap();
    assert!(raw == bits(&compressed.unwrap_model()));
}

#[test]
fn a_compressed_model_is_a_teacher_that_simulates() {
    // The masks of a pruned teacher act when it teaches, and stay its own.
    let config = ConfigList::from_json(PRUNE).unwrap();
    let pruner = L1NormPruner::from_compressor(chain(), &config, PrunerConfig::new()).unwrap();
    let teacher = pruner.compress(Budget::none()).unwrap().into_model();
    let rules = r#"[{"op_names": ["stem"], "lambda": 1.0}]"#;
    let first_loss = |teacher: &Net| {
        let chain = DynamicLayerwiseDistiller::from_compressor(
            chain(),
            &ConfigList::from_json(rules).unwrap(),
            teacher,
            |teacher: &Net, batch: &Batch| teacher.forward(batch.images.clone()),
            DistillConfig::new(0.0),
        );
        let compressed = chain.unwrap().compress(Budget::steps(1)).unwrap();
        assert!(compressed.masks().is_empty());
        compressed.history().steps[0].loss
    };
    assert_eq!(first_loss(&net()), 0.0);
    assert!(first_loss(&teacher) > 0.0);
}
