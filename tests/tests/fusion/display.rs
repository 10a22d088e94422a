//! Chains and results as people read them.

use burn_compress::prelude::*;
use burn_compress_testkit::{half_of_the_channels, hidden_states, int8};

use burn_compress_tests::nets::{NetConfig, evaluator, teach, teacher};

#[test]
fn a_chain_and_its_result_are_tables() {
    let net = NetConfig::default().init(1);
    let pruner = TaylorPruner::new(
        net,
        half_of_the_channels(),
        evaluator(4),
        TaylorConfig::new(2),
    )
    .unwrap();
    let quantizer = QatQuantizer::from_compressor(pruner, int8(), QatConfig::new()).unwrap();
    let chain = DynamicLayerwiseDistiller::from_compressor(
        quantizer,
        hidden_states(),
        &teacher(),
        teach,
        DistillConfig::new(0.1),
    )
    .unwrap();
    let text = chain.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..8],
        [
            "TaylorPruner + QatQuantizer + DynamicLayerwiseDistiller",
            "",
            "layer          type       target     pruned    coupled  quantized       distilled",
            "stem           Conv2d     weight     selected  1        int8 symmetric",
            "stem           Conv2d     bias       selected  1",
            "stem           Conv2d     _input_0                      int8 symmetric",
            "stem           Conv2d     _output_0                                     yes",
            "bn             BatchNorm  gamma      selected  1",
        ]
    );

    let compressed = chain.compress(Budget::steps(4)).unwrap();
    let text = compressed.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("4 steps, the last with a loss of "));
    assert_eq!(
        lines[2..5],
        [
            "layer          type       target     pruned              quantized                distilled",
            "stem           Conv2d     weight     3 of 6 along dim 0  int8 symmetric, 1 scale",
            "stem           Conv2d     bias       3 of 6 along dim 0",
        ]
    );

    let masks = compressed.masks().to_string();
    let first = "stem.weight           [6, 1, 3, 3]  3 of 6 along dim 0";
    assert_eq!(masks.lines().next(), Some(first));
    assert_eq!(masks.lines().count(), 14);
}
