use burn::module::Module;
use burn::tensor::Device;
use burn_compress_core::{Budget, CalibrationEntry, Error};
use rstest::rstest;

use super::*;
use crate::testing::{
    Chain, any, cause, chain, close, floats, learner_agrees, net, nothing_changes_at_the_end,
    resumes, rules,
};

const ALL: &str = r#"[{"op_types": ["Linear"], "quant_dtype": "int4"}]"#;

fn fuse(chain: Chain, config: &str, quantizer: LsqConfig) -> Result<Chain, Error> {
    LsqQuantizer::from_compressor(chain, rules(config), quantizer)
}

fn build() -> Chain {
    fuse(any(), ALL, LsqConfig::new()).unwrap()
}

fn entry(chain: &Chain, target: &str) -> CalibrationEntry {
    let calibration = chain.calibration().unwrap();
    let found = calibration
        .into_iter()
        .find(|(id, _)| id.to_string() == target);
    found.unwrap().1
}

fn start(values: [[f32; 2]; 2], grid: [usize; 2], dtype: &str) -> Vec<f32> {
    let values = FlatTensor::new(Tensor::<2>::from_floats(values, &Device::flex()));
    let dtype = dtype.parse().unwrap();
    LsqConfig::new()
        .start(&values, &Grid::new(grid), dtype, QuantScheme::Symmetric)
        .unwrap()
        .scale
}

#[test]
fn scales_begin_at_the_mean_magnitude() {
    let values = [[1.0, -2.0], [3.0, 0.0]];
    // 2 (6 / 4) / sqrt(7)
    close(&start(values, [1, 1], "int4"), &[3.0 / 7f32.sqrt()]);
    // 2 (4 / 2) / sqrt(15) and 2 (2 / 2) / sqrt(15)
    let root = 15f32.sqrt();
    close(&start(values, [1, 2], "uint4"), &[4.0 / root, 2.0 / root]);
    close(
        &start([[0.0, 1.0], [0.0, 1.0]], [1, 2], "int2"),
        &[0.01, 2.0],
    );
}

#[test]
fn a_step_worked_by_hand() {
    let rules = r#"[{"op_names": ["second"], "target_names": ["weight"], "quant_dtype": "int3"}]"#;
    let identity = [[1.0, 0.0], [0.0, 1.0]];
    let chain = chain(
        net(identity, [[0.3], [1.6]]),
        vec![[[1.0, 2.0], [1.0, 2.0]]],
        0.1,
    );
    let options = LsqConfig::new().with_init(LsqInit::Constant(0.5));
    let mut chain = fuse(chain, rules, options).unwrap();
    chain.advance(&Budget::steps(1), None).unwrap();
    // w / s = 0.6 and 3.2, the loss has the gradient [1, 2] with respect to w'. So [1, 0]
    // arrives at w and (1 (0.4) + 2 (3)) / sqrt(3 * 2) at s.
    close(&floats(chain.model().second.weight.base()), &[0.2, 1.6]);
    let scale = 0.5 - 0.1 * 6.4 / 6f32.sqrt();
    close(&entry(&chain, "second.weight").scale.unwrap(), &[scale]);
    let compressed = chain.finish().unwrap();
    // 0.2 / s = 0.84 and 1.6 / s = 6.7.
    let weight = floats(compressed.model().second.weight.val());
    close(&weight, &[scale, 3.0 * scale]);
}

#[test]
fn every_target_learns() {
    let mut chain = build();
    chain.advance(&Budget::steps(4), Some(1)).unwrap();
    let first = chain.calibration().unwrap();
    assert_eq!(first.len(), 6);
    chain.advance(&Budget::steps(4), None).unwrap();
    for (id, entry) in chain.calibration().unwrap() {
        assert!(entry.enabled && entry.zero_point == Some(vec![0.0]), "{id}");
        assert_ne!(entry.scale, first[&id].scale, "{id}");
    }
}

#[test]
fn scales_have_a_learning_rate_of_their_own() {
    let own = LsqConfig::new().with_learning_rate(Some(0.001));
    let mut chain = fuse(any(), ALL, own).unwrap();
    chain.advance(&Budget::steps(1), None).unwrap();
    let scale = entry(&chain, "first.weight").scale.unwrap()[0];
    // The first step of Adam is the learning rate.
    let start = 2.0 * (0.31 + 0.82 + 0.57 + 0.24) / 4.0 / 7f32.sqrt();
    assert!(
        ((scale - start).abs() - 0.001).abs() < 1e-5,
        "{scale} {start}"
    );
}

#[test]
fn runs_can_be_stopped_and_driven_by_a_learner() {
    resumes("lsq", build);
    let channels = r#"[{"op_types": ["Linear"], "quant_dtype": "uint4",
        "target_settings": {"weight": {"quant_dtype": "int3", "granularity": "out_channel"},
        "_input_0": {"granularity": "per_channel"}}, "target_names": ["_input_0", "weight"]}]"#;
    let own = LsqConfig::new().with_learning_rate(Some(0.01));
    resumes("lsq-channels", || fuse(any(), channels, own).unwrap());
    learner_agrees(build);
    nothing_changes_at_the_end(build);
}

#[test]
fn an_earlier_snapshot_keeps_its_scales() {
    let mut chain = build();
    chain.advance(&Budget::steps(3), Some(1)).unwrap();
    let snapshot = chain.model().valid();
    let x = Tensor::<2>::from_floats([[0.4, 1.2]], &Device::flex());
    let before = floats(snapshot.forward(x.clone()));
    chain.advance(&Budget::steps(3), None).unwrap();
    assert_eq!(floats(snapshot.forward(x)), before);
}

#[test]
fn values_that_cannot_be_quantized_name_their_target() {
    let identity = [[1.0, 0.0], [0.0, 1.0]];
    let cases = [
        (
            r#"[{"op_names": ["first"], "target_names": ["_input_0"]}]"#,
            f32::NAN,
            "not finite",
        ),
        (
            r#"[{"op_names": ["first"], "target_names": ["_input_0"], "quant_dtype": "uint4"}]"#,
            -1.0,
            "no value is positive",
        ),
    ];
    for (rules, value, expected) in cases {
        let batch = vec![[[value, -0.5], [-0.2, 0.0]]];
        let chain = chain(net(identity, [[1.0], [1.0]]), batch, 0.1);
        let mut chain = fuse(chain, rules, LsqConfig::new()).unwrap();
        let error = chain
            .advance(&Budget::steps(1), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`first._input_0`"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[rstest]
#[case(r#""quant_scheme": "affine""#, LsqConfig::new(), "quant_scheme")]
#[case(r#""quant_dtype": "int1""#, LsqConfig::new(), "quant_dtype")]
#[case(r#""observer": "mse""#, LsqConfig::new(), "observer")]
#[case(r#""apply_method": "clamp_round""#, LsqConfig::new(), "apply_method")]
#[case("", LsqConfig::new().with_init(LsqInit::Constant(0.0)), "init")]
#[case("", LsqConfig::new().with_init(LsqInit::Constant(f64::NAN)), "init")]
#[case("", LsqConfig::new().with_learning_rate(Some(-0.1)), "learning_rate")]
fn settings_that_do_not_fit(
    #[case] setting: &str,
    #[case] options: LsqConfig,
    #[case] expected: &str,
) {
    let comma = if setting.is_empty() { "" } else { ", " };
    let rules = format!(r#"[{{"op_types": ["Linear"]{comma}{setting}}}]"#);
    let error = cause(fuse(any(), &rules, options).unwrap_err());
    assert!(
        matches!(error, QuantizationError::Setting { key, .. } if key == expected),
        "{error}"
    );
}

#[test]
fn a_run_must_train() {
    let error = build().compress(Budget::none()).unwrap_err().to_string();
    assert!(error.contains("at least one step"), "{error}");
}
