//! Weights, activations and gradients of DoReFa by hand, and runs that end on their grids.

use burn::tensor::{Device, Tensor};
use burn_compress_core::{Budget, CalibrationEntry};
use rstest::rstest;

use super::*;
use crate::testing::{
    Chain, any, cause, chain, close, floats, learner_agrees, net, resumes, rules,
};

const ALL: &str = r#"[
    {"op_types": ["Linear"], "quant_dtype": "uint3", "quant_scheme": "affine"},
    {"op_types": ["Relu"], "quant_dtype": "uint2", "target_names": ["_output_0"]}
]"#;

fn fuse(chain: Chain, config: &str) -> Result<Chain, Error> {
    DoReFaQuantizer::from_compressor(chain, rules(config), DoReFaConfig::new())
}

fn build() -> Chain {
    fuse(any(), ALL).unwrap()
}

fn entry(chain: &Chain, target: &str) -> CalibrationEntry {
    let calibration = chain.calibration().unwrap();
    let found = calibration
        .into_iter()
        .find(|(id, _)| id.to_string() == target);
    found.unwrap().1
}

#[test]
fn inputs_follow_the_batch_and_end_at_the_average() {
    let config = r#"[{"op_names": ["first"], "target_names": ["_input_0"],
        "quant_dtype": "uint4", "quant_scheme": "affine"}]"#;
    let batches = vec![[[0.0, 1.5], [0.3, 3.0]], [[-1.0, 0.0], [0.5, 2.0]]];
    let chain = chain(net([[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]]), batches, 0.1);
    let mut chain = fuse(chain, config).unwrap();
    chain.advance(&Budget::steps(2), Some(1)).unwrap();
    let first = entry(&chain, "first._input_0");
    close(&first.scale.unwrap(), &[3.0 / 15.0]);
    chain.advance(&Budget::steps(2), None).unwrap();
    let second = entry(&chain, "first._input_0");
    // -1..=2 in steps of 0.2.
    close(&second.scale.unwrap(), &[3.0 / 15.0]);
    assert_eq!(second.zero_point, Some(vec![5.0]));
    close(&second.minimum.unwrap(), &[-0.01]);
    let calibration = chain.finish().unwrap().calibration().unwrap();
    // -0.01..=2.99 in steps of 0.2.
    close(calibration[0].scale.as_ref().unwrap(), &[0.2]);
    assert_eq!(calibration[0].zero_point, Some(vec![0.0]));
}

#[test]
fn outputs_of_activations_are_cut() {
    let config = r#"[{"op_types": ["Relu"], "target_names": ["_output_0"],
        "quant_dtype": "uint2"}]"#;
    let mut chain = fuse(any(), config).unwrap();
    chain.advance(&Budget::steps(1), None).unwrap();
    let compressed = chain.finish().unwrap();
    let x = Tensor::<2>::from_floats([[-1.0, 0.2], [0.7, 9.0]], &Device::flex());
    close(
        &floats(compressed.model().act.forward(x)),
        &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0],
    );
}

#[rstest]
#[case("uint3")]
#[case("int4")]
#[case("int1")]
#[case("uint1")]
fn weights_are_folded_at_the_end(#[case] dtype: &str) {
    let config = format!(
        r#"[{{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "{dtype}",
        "quant_scheme": "affine"}}]"#
    );
    let mut chain = fuse(any(), &config).unwrap();
    chain.advance(&Budget::steps(3), None).unwrap();
    let simulated = floats(chain.model().first.weight.val());
    let x = Tensor::<2>::from_floats([[0.4, -1.2], [0.1, 0.8]], &Device::flex());
    let before = floats(chain.model().valid().forward(x.clone()));
    let compressed = chain.finish().unwrap();
    let model = compressed.model();
    assert_eq!(floats(model.first.weight.val()), simulated);
    assert_eq!(floats(model.forward(x)), before);
    assert_eq!(
        floats(compressed.unwrap_model().first.weight.val()),
        simulated
    );
    assert!(
        compressed
            .calibration()
            .unwrap()
            .values()
            .all(|entry| entry.enabled)
    );
}

#[test]
fn runs_can_be_stopped_and_driven_by_a_learner() {
    resumes("dorefa", build);
    learner_agrees(build);
}

#[rstest]
#[case(
    r#""granularity": "out_channel", "target_names": ["weight"]"#,
    "granularity"
)]
#[case(r#""quant_dtype": "int1""#, "quant_dtype")]
#[case(r#""observer": "mse""#, "observer")]
#[case(r#""apply_method": "clamp_round""#, "apply_method")]
fn settings_that_do_not_fit(#[case] setting: &str, #[case] expected: &str) {
    let rules = format!(r#"[{{"op_types": ["Linear"], {setting}}}]"#);
    let error = cause(fuse(any(), &rules).unwrap_err());
    assert!(
        matches!(error, QuantizationError::Setting { key, .. } if key == expected),
        "{error}"
    );
}

#[test]
fn values_that_are_not_finite_name_their_target() {
    let config = r#"[{"op_names": ["first"], "target_names": ["_input_0"]}]"#;
    let net = net([[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]]);
    let chain = chain(net, vec![[[f32::NAN, 1.0], [0.0, 1.0]]], 0.1);
    let mut chain = fuse(chain, config).unwrap();
    let error = chain
        .advance(&Budget::steps(1), None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`first._input_0`") && error.contains("not finite"),
        "{error}"
    );
}
