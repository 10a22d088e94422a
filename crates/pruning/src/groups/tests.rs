//! Coupled groups and single targets on small models.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, PaddingConfig2d};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressed, DummyInput, Evaluator};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_compress_core::TargetId;

use crate::{L1NormPruner, LevelPruner, PrunerConfig};

/// `x + f(x)` behind two branches of 2 and 6 channels, `x = cat(left, right)`.
#[derive(Module, Debug)]
struct Net {
    left: Conv2d,
    right: Conv2d,
    block: Conv2d,
    head: Conv2d,
}

fn net(device: &Device) -> Net {
    let conv = |channels: [usize; 2], value: f64| {
        Conv2dConfig::new(channels, [1, 1])
            .with_padding(PaddingConfig2d::Valid)
            .with_bias(false)
            .with_initializer(Initializer::Constant { value })
            .init(device)
    };
    Net {
        left: conv([1, 2], 0.1),
        right: conv([1, 6], 1.0),
        block: conv([8, 8], 1.0),
        head: conv([8, 1], 1.0),
    }
}

fn evaluator(device: &Device) -> Evaluator<Net, ()> {
    let input = Tensor::<4>::ones([1, 1, 2, 2], device);
    Evaluator::new().with_dummy_input(DummyInput::new(input, |net: &Net, x: Tensor<4>| {
        let x = Tensor::cat(vec![net.left.forward(x.clone()), net.right.forward(x)], 1);
        net.head.forward(net.block.forward(x.clone()) + x)
    }))
}

fn removed(compressed: &Compressed<Net>, target: &str) -> Vec<bool> {
    compressed.masks()[&target.parse::<TargetId>().unwrap()].removed_along(0)
}

/// Which channels of `left` and of `block` go.
fn removed_of_branches(ratio: f64, normalizer: &str) -> (Vec<bool>, Vec<bool>) {
    let device = Device::flex();
    let config = ConfigList::from_json(&format!(
        r#"[{{
            "op_names": ["left", "right", "block"], "sparse_ratio": {ratio},
            "normalizer": "{normalizer}"
        }}]"#
    ));
    let (model, options) = (net(&device), PrunerConfig::new());
    let pruner = L1NormPruner::new(model, config.unwrap(), evaluator(&device), options).unwrap();
    let compressed = pruner.compress(Budget::none()).unwrap();
    let block = removed(&compressed, "block.weight");
    assert_eq!(removed(&compressed, "right.weight"), block[2..]);
    (removed(&compressed, "left.weight"), block)
}

fn count(removed: &[bool]) -> usize {
    removed.iter().filter(|removed| **removed).count()
}

#[test]
fn a_branch_of_a_concatenation_keeps_its_best_channel() {
    // int(8 * 0.75) = 6 of 8 channels go, those of `left` first but for one. With 0.95 that
    // would be 7, but each branch keeps one.
    for (ratio, expected) in [(0.75, 6), (0.95, 6), (0.25, 2)] {
        let (left, block) = removed_of_branches(ratio, "mean");
        assert_eq!(left, [false, true]);
        assert_eq!(count(&block), expected, "{ratio}");
    }
}

#[test]
fn branches_lose_the_same_fraction_by_rank() {
    // Of 8 channels 4 and 6: of the 2 of `left` one, of the 6 of `right` three and five.
    for (ratio, expected) in [(0.5, 4), (0.75, 6), (0.95, 6)] {
        let (left, block) = removed_of_branches(ratio, "rank");
        assert_eq!((count(&left), count(&block)), (1, expected), "{ratio}");
    }
}

#[test]
fn elements_are_not_coupled_even_where_a_channel_has_one() {
    let device = Device::flex();
    let config =
        ConfigList::from_json(r#"[{"op_names": ["left", "right", "block"], "sparse_ratio": 0.5}]"#);
    let (model, options) = (net(&device), PrunerConfig::new());
    let pruner = LevelPruner::new(model, config.unwrap(), evaluator(&device), options).unwrap();
    let compressed = pruner.compress(Budget::none()).unwrap();
    let sparsity =
        |target: &str| compressed.masks()[&target.parse::<TargetId>().unwrap()].sparsity();
    // Each weight alone loses half of its elements.
    assert_eq!(
        ["left.weight", "right.weight", "block.weight"].map(sparsity),
        [0.5; 3]
    );
}
