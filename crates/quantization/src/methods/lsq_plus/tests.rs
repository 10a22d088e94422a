use burn::tensor::Device;
use burn_compress_core::{Budget, CalibrationEntry, Error};
use rstest::rstest;

use super::*;
use crate::testing::{
    Chain, any, cause, chain, close, learner_agrees, net, nothing_changes_at_the_end, resumes,
    rules,
};

const ALL: &str = r#"[{"op_types": ["Linear"], "quant_dtype": "int4"}]"#;

fn fuse(chain: Chain, config: &str, quantizer: LsqPlusConfig) -> Result<Chain, Error> {
    LsqPlusQuantizer::from_compressor(chain, rules(config), quantizer)
}

fn exact() -> LsqPlusConfig {
    LsqPlusConfig::new().with_round_zero_points(false)
}

fn build() -> Chain {
    fuse(any(), ALL, exact()).unwrap()
}

fn entry(chain: &Chain, target: &str) -> CalibrationEntry {
    let calibration = chain.calibration().unwrap();
    let found = calibration
        .into_iter()
        .find(|(id, _)| id.to_string() == target);
    found.unwrap().1
}

fn start(
    values: [[f32; 2]; 2],
    grid: [usize; 2],
    dtype: &str,
    scheme: QuantScheme,
) -> LearnedStart {
    let values = FlatTensor::new(Tensor::<2>::from_floats(values, &Device::flex()));
    let (grid, dtype) = (Grid::new(grid), dtype.parse().unwrap());
    LsqPlusConfig::new()
        .start(&values, &grid, dtype, scheme)
        .unwrap()
}

#[test]
fn affine_grids_begin_at_the_extremes() {
    let values = [[-1.0, 2.0], [2.0, 2.0]];
    // 3 / 15 and 0 + 1 / 0.2; a range that does not hold zero reaches to it.
    let found = start(values, [1, 2], "uint4", QuantScheme::Affine);
    close(&found.scale, &[0.2, 2.0 / 15.0]);
    close(&found.zero_point, &[5.0, 0.0]);
    // 3 / 6 and -3 + 1 / 0.5
    let found = start(values, [1, 1], "int3", QuantScheme::Affine);
    close(&found.scale, &[0.5]);
    close(&found.zero_point, &[-1.0]);
    let found = start([[0.0; 2]; 2], [1, 1], "int3", QuantScheme::Affine);
    assert_eq!((found.scale, found.zero_point), (vec![0.01], vec![0.0]));
}

#[test]
fn symmetric_grids_begin_at_three_deviations() {
    // Columns: mean 2 and deviation 1, mean -1 and deviation 3.
    let values = [[1.0, -4.0], [3.0, 2.0]];
    let found = start(values, [1, 2], "int4", QuantScheme::Symmetric);
    close(&found.scale, &[5.0 / 7.0, 10.0 / 7.0]);
    assert_eq!(found.zero_point, [0.0, 0.0]);
    let found = start([[0.0; 2]; 2], [1, 1], "int3", QuantScheme::Symmetric);
    assert_eq!(found.scale, [0.01]);
}

#[test]
fn a_step_worked_by_hand() {
    let config = r#"[{"op_names": ["second"], "target_names": ["weight"],
        "quant_dtype": "uint2", "quant_scheme": "affine"}]"#;
    let identity = [[1.0, 0.0], [0.0, 1.0]];
    let chain = chain(
        net(identity, [[0.1], [1.6]]),
        vec![[[1.0, 2.0], [1.0, 2.0]]],
        0.1,
    );
    let options = exact().with_init(LsqInit::Constant(0.5));
    let mut chain = fuse(chain, config, options).unwrap();
    chain.advance(&Budget::steps(1), None).unwrap();
    // z begins at (3 - 0) / 2, so that p = 1.7 and 4.7 in 0..=3. With the gradient [1, 2] at
    // w', (1 (2 - 1.7) + 2 (3 - 1.5)) / sqrt(3 * 2) arrives at s and 2 (-0.5) at z.
    let entry = entry(&chain, "second.weight");
    close(&entry.scale.unwrap(), &[0.5 - 0.1 * 3.3 / 6f32.sqrt()]);
    close(&entry.zero_point.unwrap(), &[1.6]);
}

#[test]
fn inputs_and_outputs_are_affine_unless_told_otherwise() {
    let mut chain = build();
    chain.advance(&Budget::steps(1), None).unwrap();
    for (id, entry) in chain.calibration().unwrap() {
        let symmetric = id.target.is_param();
        assert_eq!(entry.scheme == QuantScheme::Symmetric, symmetric, "{id}");
        assert_eq!(entry.zero_point == Some(vec![0.0]), symmetric, "{id}");
    }
    let symmetric = r#"[{"op_types": ["Linear"], "quant_scheme": "symmetric"}]"#;
    let mut chain = fuse(any(), symmetric, exact()).unwrap();
    chain.advance(&Budget::steps(1), None).unwrap();
    let calibration = chain.calibration().unwrap();
    assert!(
        calibration
            .values()
            .all(|entry| entry.zero_point == Some(vec![0.0]))
    );
}

#[test]
fn zero_points_become_integers_at_the_end() {
    let compressed = |options| {
        let chain = fuse(any(), ALL, options).unwrap();
        let compressed = chain.compress(Budget::steps(3)).unwrap();
        let calibration = compressed.calibration().unwrap();
        let zero_points = calibration.values().map(|entry| entry.zero_point.clone());
        zero_points.flatten().flatten().collect::<Vec<f32>>()
    };
    let (learned, rounded) = (compressed(exact()), compressed(LsqPlusConfig::new()));
    assert!(learned.iter().any(|zero| zero.fract() != 0.0));
    let expected: Vec<f32> = learned.iter().map(|zero| zero.round_ties_even()).collect();
    assert_eq!(rounded, expected);
}

#[test]
fn zeros_stay_zeros_whatever_the_range() {
    let identity = [[1.0, 0.0], [0.0, 1.0]];
    let far = vec![[[5.0, 6.0], [5.5, 5.2]]];
    let config = r#"[{"op_names": ["first"], "target_names": ["_input_0"],
        "quant_dtype": "uint4"}]"#;
    let options = LsqPlusConfig::new().with_learning_rate(Some(0.4));
    let chain = fuse(
        chain(net(identity, [[1.0], [1.0]]), far, 0.01),
        config,
        options,
    )
    .unwrap();
    let compressed = chain.compress(Budget::steps(3)).unwrap();
    let zero_point = compressed.calibration().unwrap()[0].zero_point.clone();
    assert!((0.0..=15.0).contains(&zero_point.unwrap()[0]));
    let zero = Tensor::<2>::zeros([1, 2], &Device::flex());
    assert_eq!(
        crate::testing::floats(compressed.model().first.forward(zero)),
        [0.0; 2]
    );
}

#[test]
fn runs_can_be_stopped_and_driven_by_a_learner() {
    resumes("lsq-plus", build);
    let own = LsqPlusConfig::new().with_learning_rate(Some(0.01));
    let channels = r#"[{"op_types": ["Linear"], "quant_dtype": "uint4", "target_names":
        ["weight"], "quant_scheme": "affine", "granularity": "in_channel"}]"#;
    resumes("lsq-plus-channels", || fuse(any(), channels, own).unwrap());
    learner_agrees(build);
    nothing_changes_at_the_end(build);
}

#[rstest]
#[case(r#""quant_dtype": "int1""#, LsqPlusConfig::new(), "quant_dtype")]
#[case(r#""observer": "min_max""#, LsqPlusConfig::new(), "observer")]
#[case(r#""apply_method": "bypass""#, LsqPlusConfig::new(), "apply_method")]
#[case(
    r#""quant_dtype": "int8""#,
    LsqPlusConfig::new().with_init(LsqInit::Constant(-1.0)),
    "init"
)]
fn settings_that_do_not_fit(
    #[case] setting: &str,
    #[case] options: LsqPlusConfig,
    #[case] expected: &str,
) {
    let rules = format!(r#"[{{"op_types": ["Linear"], {setting}}}]"#);
    let error = cause(fuse(any(), &rules, options).unwrap_err());
    assert!(
        matches!(error, QuantizationError::Setting { key, .. } if key == expected),
        "{error}"
    );
}
