//! Quantizers that a user writes: fused, folded, stopped and resumed, cut and saved as built-in ones.

mod algorithm;
mod laws;
mod rules;

use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Built, Chain, HALF, outcome};
use burn_compress_tests::nets::{NetConfig, dummy_input, evaluator};
use rstest::rstest;
use tempfile::TempDir;

const STEPS: usize = 9;
const NET: NetConfig = NetConfig {
    stem: 4,
    width: 6,
    dropout: 0.0,
};
/// Folds the batch norms behind the stem and in the block.
const QUANTIZE: &str = r#"[
    {"op_types": ["Conv2d"], "quant_dtype": "int8", "fuse": true,
     "target_settings": {"weight": {"granularity": "out_channel"}}},
    {"op_names": ["head"], "quant_dtype": "uint4", "quant_scheme": "affine"}
]"#;

fn plain(seed: u64) -> Chain {
    Compressor::from_model(NET.init(seed), evaluator(STEPS))
}

fn config() -> ConfigList<QuantizationSettings> {
    ConfigList::from_json(QUANTIZE).unwrap()
}

/// Adds a quantizer to a chain.
type Quantize = fn(Chain) -> Built;

/// Pruner, quantizer and distiller.
fn fused(quantize: Quantize, seed: u64) -> Chain {
    let distill = r#"[{"op_names": ["head"], "lambda": 0.1}]"#;
    chains::prune_by_schedule(plain(seed), HALF, AgpConfig::new(2, 3))
        .and_then(quantize)
        .and_then(|chain| chains::distill(chain, distill, &NET.init(100), 0.7))
        .unwrap()
}

#[rstest]
#[case::power_of_two(rules::power_of_two)]
#[case::estimator(rules::mean_of_extremes)]
#[case::learned(rules::learned)]
#[case::algorithm(algorithm::frozen)]
fn stopped_at_any_step_it_ends_bit_for_bit_the_same(#[case] quantize: Quantize) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let budget = Budget::steps(STEPS);
    let whole = outcome(fused(quantize, 1), &budget);
    for stop in [0, 1, 4, STEPS - 1, STEPS] {
        let mut chain = fused(quantize, 1);
        chain.advance(&budget, Some(stop)).unwrap();
        chain.save_checkpoint(&path).unwrap();
        let resumed = fused(quantize, 7).resume(&path).unwrap();
        let found = outcome(resumed, &budget);
        assert_eq!(found.difference(&whole), [""; 0], "stopped at {stop}");
    }
}

#[rstest]
#[case::power_of_two(rules::power_of_two)]
#[case::estimator(rules::mean_of_extremes)]
#[case::learned(rules::learned)]
#[case::algorithm(algorithm::frozen)]
fn masked_channels_are_cut_and_the_small_model_is_saved(#[case] quantize: Quantize) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small.bin");
    let compressed = fused(quantize, 1).compress(Budget::steps(STEPS)).unwrap();
    let small = ModelSpeedup::new(compressed, dummy_input()).speedup_model();
    let small = small.unwrap();
    assert_eq!(small.model.stem.weight.dims(), [2, 1, 3, 3]);
    save_small(&small.model, &small.state, &path).unwrap();
    let (loaded, state) = load_small(NET.init(3), &path).unwrap();
    assert_eq!(state.calibration, small.state.calibration);
    let images = Tensor::<4>::ones([2, 1, 6, 6], &Device::flex()) * 0.3;
    let [a, b] = [&loaded, &small.model].map(|net| net.forward(images.clone()).into_data());
    assert_eq!(a, b);
}
