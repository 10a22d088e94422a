//! Targets that several compressors meet in, and those that only one may have.

use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::prelude::*;
use burn_compress::{Mode, RoundGradient, fake_quantize};
use burn_compress_tests::chains::{Built, Chain, HALF, assert_says, id};
use rstest::rstest;

use crate::fixtures::{DISTILL, QUANTIZE, STEPS, chain, distilled, pruned, quantized, removed};

#[test]
fn compressors_meet_in_one_space_a_target() {
    let mut chain = pruned(chain(), HALF)
        .and_then(|chain| quantized(chain, QUANTIZE))
        .and_then(|chain| distilled(chain, DISTILL))
        .unwrap();
    let chain = chain.chain();
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
    let chain = pruned(chain(), HALF)
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
#[case::pruning(pruned as fn(Chain, &str) -> Built, HALF, "stem.weight", "pruning")]
#[case::quantization(quantized, QUANTIZE, "stem._input_0", "quantization")]
#[case::distillation(distilled, DISTILL, "stem._output_0", "distillation")]
fn a_target_has_one_compressor_of_a_mode(
    #[case] build: fn(Chain, &str) -> Built,
    #[case] rules: &str,
    #[case] target: &str,
    #[case] mode: &str,
) {
    let error = build(build(chain(), rules).unwrap(), rules).unwrap_err();
    let reason = "already the target of another";
    assert_says(&error, &[target, mode, reason, "exclude `stem`"]);
}
