//! What different pruners take from the same four filters, and what else can be asked of them.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;

use crate::own_network::{self, trained};

// ANCHOR: net
/// Four filters of two weights, and how much the head makes of what they find.
const FILTERS: [[f32; 2]; 4] = [[3.0, 0.0], [2.0, 2.0], [2.4, 1.9], [-1.8, 1.7]];
const HEAD: [f32; 4] = [1.0, 1.0, 0.1, 1.0];

#[derive(Module, Debug)]
struct Net {
    conv: Wrapper<Conv2d>,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let (conv, head) = (Conv2dConfig::new([1, 4], [1, 2]), LinearConfig::new(4, 1));
        let mut conv = conv.with_bias(false).init(device);
        let filters = Tensor::<2>::from_floats(FILTERS, device);
        conv.weight = Param::from_tensor(filters.reshape([4, 1, 1, 2]));
        let mut head = head.with_bias(false).init(device);
        head.weight = Param::from_tensor(Tensor::<1>::from_floats(HEAD, device).reshape([4, 1]));
        Self {
            conv: conv.into(),
            head,
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.conv.forward(images).flatten(1, 3))
    }
}

fn evaluator(device: &Device) -> Evaluator<Net, Tensor<4>> {
    let image = Tensor::<4>::ones([1, 1, 1, 2], device);
    Evaluator::new()
        .with_dummy_input(DummyInput::new(image.clone(), Net::forward))
        .with_data(move |_epoch| vec![image.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(1e-6)
        .with_loss(|net: &Net, image: &Tensor<4>| net.forward(image.clone()).mean())
}
// ANCHOR_END: net

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    scores(&device)?;
    single_weights(&device)?;
    let model = trained(&device);
    goals(&model, &device)?;
    learned(&model, &device)
}

/// The filters that a mask removes.
fn removed(compressed: &Compressed<Net>) -> Result<Vec<usize>, Error> {
    let weight: TargetId = "conv.weight".parse()?;
    let gone = compressed.masks()[&weight].removed_along(0);
    Ok((0..4).filter(|&filter| gone[filter]).collect())
}

/// The scores by hand, rounded to two digits behind the point: the smallest go first.
fn by_hand() {
    let hundredths = |values: [f32; 4]| values.map(|value| (100.0 * value).round() as i32);
    let distance = |[a, b]: [f32; 2], [c, d]: [f32; 2]| (a - c).hypot(b - d);
    let l1 = FILTERS.map(|[a, b]| a.abs() + b.abs());
    let l2 = FILTERS.map(|[a, b]| a.hypot(b));
    let fpgm = FILTERS.map(|one| {
        FILTERS
            .iter()
            .map(|other| distance(one, *other))
            .sum::<f32>()
    });
    let taylor = [0, 1, 2, 3].map(|filter: usize| {
        let [a, b] = FILTERS[filter].map(|weight| weight * HEAD[filter]); // times the gradient
        a * a + b * b
    });
    let activation = FILTERS.map(|[a, b]| (a + b).abs());
    assert_eq!(hundredths(l1), [300, 400, 430, 350]);
    assert_eq!(hundredths(l2), [300, 283, 306, 248]);
    assert_eq!(hundredths(fpgm), [932, 646, 661, 1311]);
    assert_eq!(hundredths(taylor), [900, 800, 9, 613]);
    assert_eq!(hundredths(activation), [300, 400, 430, 10]);
}

fn scores(device: &Device) -> Result<(), Error> {
    by_hand();
    // ANCHOR: magnitude
    let net = || Net::new(device);
    let quarter = || on(["Conv2d"]).sparse_ratio(0.25);
    let config = PrunerConfig::new;

    let l1 = L1NormPruner::new(net(), quarter(), evaluator(device), config())?;
    assert_eq!(removed(&l1.compress(Budget::none())?)?, [0]);

    let l2 = L2NormPruner::new(net(), quarter(), evaluator(device), config())?;
    assert_eq!(removed(&l2.compress(Budget::none())?)?, [3]);

    let fpgm = FpgmPruner::new(net(), quarter(), evaluator(device), config())?;
    assert_eq!(removed(&fpgm.compress(Budget::none())?)?, [1]);
    // ANCHOR_END: magnitude

    // ANCHOR: data
    let taylor = TaylorPruner::new(net(), quarter(), evaluator(device), TaylorConfig::new(1))?;
    assert_eq!(removed(&taylor.compress(Budget::steps(1))?)?, [2]);

    let config = ActivationConfig::new(1);
    let activation = ActivationPruner::new(net(), quarter(), evaluator(device), config)?;
    assert_eq!(removed(&activation.compress(Budget::steps(1))?)?, [3]);
    // ANCHOR_END: data
    Ok(())
}

fn single_weights(device: &Device) -> Result<(), Error> {
    // ANCHOR: level
    let quarter = on(["Conv2d"]).sparse_ratio(0.25);
    let level = LevelPruner::new(
        Net::new(device),
        quarter,
        evaluator(device),
        PrunerConfig::new(),
    )?;
    let compressed = level.compress(Budget::none())?;
    let weight: TargetId = "conv.weight".parse()?;
    let expected = [1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]; // without 0 and 1.7
    assert_eq!(compressed.masks()[&weight].values(), expected);

    let small = compressed.speedup()?;
    assert_eq!(small.model.conv.weight.dims(), [4, 1, 1, 2]); // nothing to cut
    // ANCHOR_END: level
    Ok(())
}

fn goals(model: &own_network::Net, device: &Device) -> Result<(), Error> {
    let evaluator = || own_network::evaluator(device);
    // ANCHOR: round_to
    let rules = ConfigList::from([
        named(["conv1"]).sparse_ratio(0.5),
        named(["conv2"]).sparse_ratio(0.4).round_to(8), // 12 of 32 go, 20 stay, rounded up to 24
    ]);
    let pruner = L1NormPruner::new(model.clone(), rules, evaluator(), PrunerConfig::new())?;
    let small = pruner.compress(Budget::none())?.speedup()?.model;
    assert_eq!(small.conv2.weight.dims(), [24, 8, 3, 3]);
    // ANCHOR_END: round_to

    // ANCHOR: global
    let together = on(["Conv2d"])
        .sparse_ratio(0.5)
        .global_group_id("all")
        .max_sparse_ratio(0.75);
    let config = TaylorConfig::new(5);
    let pruner = TaylorPruner::new(model.clone(), together, evaluator(), config)?;
    let small = pruner.compress(Budget::steps(6))?.speedup()?.model;
    let ([first, ..], [second, ..]) = (small.conv1.weight.dims(), small.conv2.weight.dims());
    assert!(first >= 4 && second >= 8); // at most three quarters of each
    // ANCHOR_END: global
    println!("ranked together: {first} of 16 and {second} of 32 channels stay");

    // ANCHOR: pattern
    let rules = named(["conv2"]).pattern("2:4".parse()?);
    let pruner = LevelPruner::new(model.clone(), rules, evaluator(), PrunerConfig::new())?;
    let weight: TargetId = "conv2.weight".parse()?;
    assert_eq!(
        pruner.compress(Budget::none())?.masks()[&weight].sparsity(),
        0.5
    );
    // ANCHOR_END: pattern
    Ok(())
}

fn learned(model: &own_network::Net, device: &Device) -> Result<(), Error> {
    // ANCHOR: slim
    let rules = ConfigList::from([
        on(["Conv2d"]).sparse_ratio(0.5),
        on(["BatchNorm"])
            .with_target_names(["gamma"])
            .sparse_ratio(0.5),
    ]);
    let evaluator = own_network::evaluator(device);
    let pruner = SlimPruner::new(model.clone(), rules, evaluator, SlimConfig::new(20))?;
    let small = pruner.compress(Budget::steps(30))?.speedup()?.model;
    assert_eq!(small.conv2.weight.dims(), [16, 8, 3, 3]);
    // ANCHOR_END: slim
    Ok(())
}
