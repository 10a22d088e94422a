//! Bad input, one kind after the other: a typed error that says where, what was found and what to
//! do, and never a panic.

use std::error::Error as StdError;
use std::fs;

use burn::module::{Module, Param};
use burn::nn::conv::Conv2d;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::config::ConfigError;
use burn_compress::graph::GraphError;
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;
use burn_compress::speedup::SpeedupError;
use burn_compress::{CalibrationEntry, Error, Grid, Mask, Masks, RoundGradient};
use burn_compress_tests::nets::{
    Batch, Net, NetConfig, SIDE, batches, bits, dummy_input, evaluator,
};
use rstest::rstest;
use tempfile::TempDir;

type Chain = Compressor<Net, Batch>;
type Built = Result<Chain, Box<dyn StdError>>;

const STEPS: usize = 8;
const ALL: &str = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;
const QUANTIZE: &str = r#"[{"op_types": ["Conv2d"], "quant_dtype": "int8"}]"#;

fn net() -> Net {
    NetConfig::default().init(1)
}

fn chain() -> Chain {
    Compressor::from_model(net(), evaluator(STEPS))
}

fn id(target: &str) -> TargetId {
    target.parse().unwrap()
}

fn prune(rules: &str) -> Built {
    let config = ConfigList::from_json(rules)?;
    Ok(L1NormPruner::from_compressor(
        chain(),
        &config,
        PrunerConfig::new(),
    )?)
}

fn quantize(rules: &str) -> Built {
    let config = ConfigList::from_json(rules)?;
    Ok(QatQuantizer::from_compressor(
        chain(),
        &config,
        QatConfig::new(),
    )?)
}

fn distill(rules: &str) -> Built {
    distill_from(chain(), rules, NetConfig::default().init(2))
}

fn distill_from(chain: Chain, rules: &str, teacher: Net) -> Built {
    Ok(DynamicLayerwiseDistiller::from_compressor(
        chain,
        &ConfigList::from_json(rules)?,
        &teacher,
        |teacher: &Net, batch: &Batch| teacher.forward(batch.images.clone()),
        DistillConfig::new(1.0),
    )?)
}

#[track_caller]
fn assert_says(error: &dyn ToString, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

/// The error of the configuration inside of an error of a compressor.
fn config_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a ConfigError> {
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return Some(error);
    }
    match (
        error.downcast_ref::<Error>(),
        error.downcast_ref::<PruningError>(),
    ) {
        (Some(Error::Config(error)), _) => Some(error),
        (_, Some(PruningError::Config(error))) => Some(error),
        (_, Some(PruningError::Core(Error::Config(error)))) => Some(error),
        _ => None,
    }
}

type Build = fn(&str) -> Built;

#[rstest]
#[case::misspelt_key(
    prune as Build,
    r#"[{"op_types": ["Conv2d"], "sparse_ration": 0.5}]"#,
    &["rule 0", "`sparse_ration`", "did you mean `sparse_ratio`"]
)]
#[case::misspelt_selector(
    quantize,
    r#"[{"op_type": ["Conv2d"]}]"#,
    &["rule 0", "`op_type`", "did you mean `op_types`"]
)]
#[case::misspelt_key_of_a_target(
    quantize,
    r#"[{"op_types": ["Conv2d"], "target_settings": {"weight": {"quant_dtyp": "int8"}}}]"#,
    &["rule 0", "target_settings.weight.quant_dtyp", "`quant_dtype`"]
)]
#[case::misspelt_layer(
    prune,
    r#"[{"op_names": ["block.conv3"], "sparse_ratio": 0.5}]"#,
    &["rule 0", "`op_names`", "`block.conv3`", "did you mean", "`block.conv1`", "`block.conv2`"]
)]
#[case::last_part_of_a_path(
    prune,
    r#"[{"op_names": ["conv1"], "sparse_ratio": 0.5}]"#,
    &["`conv1`", "did you mean `block.conv1`"]
)]
#[case::unknown_type(
    prune,
    r#"[{"op_types": ["Conv3d"], "sparse_ratio": 0.5}]"#,
    &["rule 0", "the type `Conv3d`", "`Conv2d`"]
)]
#[case::second_rule(
    quantize,
    r#"[{"op_names": ["stem"]}, {"op_types": ["Dense"]}]"#,
    &["rule 1", "`Dense`"]
)]
#[case::pattern_without_a_match(
    prune,
    r#"[{"op_names_re": ["conv.*"], "sparse_ratio": 0.5}]"#,
    &["rule 0", "`conv.*`", "matches no layer", "start of the full path"]
)]
#[case::broken_pattern(
    prune,
    r#"[{"op_names_re": ["conv("], "sparse_ratio": 0.5}]"#,
    &["rule 0", "`conv(`", "no regular expression"]
)]
#[case::nothing_selected(
    prune,
    r#"[{"op_types": ["Conv2d"], "exclude_op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#,
    &["rule 0 selects no layer"]
)]
#[case::no_selector(prune, r#"[{"sparse_ratio": 0.5}]"#, &["rule 0", "`op_types`", "`op_names_re`"])]
#[case::no_rules(distill, "[]", &["no rules", "leave the compressor out"])]
#[case::no_json(prune, "[{]", &["JSON", "line 1"])]
#[case::no_list(prune, r#"{"sparse_ratio": 0.5}"#, &["JSON", "rules"])]
#[case::output_of_a_plain_layer(
    quantize,
    r#"[{"op_names": ["plain"], "target_names": ["_output_"]}]"#,
    &["rule 0", "`plain._output_0`", "Wrapper<Linear>"]
)]
#[case::hidden_state_of_a_plain_layer(
    distill,
    r#"[{"op_names": ["plain"]}]"#,
    &["rule 0", "`plain._output_0`", "Wrapper<Linear>"]
)]
#[case::unknown_target(
    prune,
    r#"[{"op_names": ["stem"], "target_names": ["kernel"], "sparse_ratio": 0.5}]"#,
    &["rule 0", "`kernel`", "`weight`"]
)]
#[case::selected_twice(
    quantize,
    r#"[{"op_types": ["Conv2d"]}, {"op_names": ["stem"]}]"#,
    &["rule 1", "`stem.", "rule 0", "exclude"]
)]
#[case::text_for_a_number(
    prune,
    r#"[{"op_types": ["Conv2d"], "sparse_ratio": "half"}]"#,
    &["rule 0", "`sparse_ratio`", "half"]
)]
#[case::text_for_a_list(
    prune,
    r#"[{"op_types": "Conv2d", "sparse_ratio": 0.5}]"#,
    &["rule 0", "`op_types`"]
)]
#[case::number_for_a_name(
    quantize,
    r#"[{"op_types": ["Conv2d"], "quant_dtype": 8}]"#,
    &["rule 0", "`quant_dtype`"]
)]
#[case::dtype(
    quantize,
    r#"[{"op_types": ["Conv2d"], "quant_dtype": "int16"}]"#,
    &["rule 0", "`quant_dtype`", "`int16`", "1 to 8 bits"]
)]
#[case::scheme(
    quantize,
    r#"[{"op_types": ["Conv2d"], "quant_scheme": "asymmetric"}]"#,
    &["rule 0", "`quant_scheme`", "asymmetric", "affine"]
)]
#[case::granularity_name(
    quantize,
    r#"[{"op_types": ["Conv2d"], "granularity": "channel"}]"#,
    &["rule 0", "`granularity`", "`channel`", "per_channel"]
)]
#[case::granularity_of_an_output(
    quantize,
    r#"[{"op_types": ["Conv2d"], "granularity": "out_channel"}]"#,
    &["rule 0", "stem", "_input_0", "`per_channel`"]
)]
#[case::blocks_that_do_not_divide_a_quantized_weight(
    quantize,
    r#"[{"op_names": ["stem"], "target_names": ["weight"], "granularity": [4, -1, -1, -1]}]"#,
    &["rule 0", "stem", "weight", "block size 4", "[6, 1, 3, 3]"]
)]
#[case::blocks_that_do_not_divide_a_pruned_weight(
    prune,
    r#"[{"op_names": ["stem"], "sparse_ratio": 0.5, "granularity": [4, -1, -1, -1]}]"#,
    &["rule 0", "stem", "weight", "block size 4", "size 6", "-1"]
)]
#[case::ratio_above_one(
    prune,
    r#"[{"op_types": ["Conv2d"], "sparse_ratio": 1.5}]"#,
    &["rule 0", "stem", "`sparse_ratio` is 1.5", "0 to 1"]
)]
#[case::negative_ratio(
    prune,
    r#"[{"op_types": ["Conv2d"], "sparse_ratio": -0.1}]"#,
    &["`sparse_ratio` is -0.1", "0 to 1"]
)]
#[case::ratio_and_threshold(
    prune,
    r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "sparse_threshold": 0.1}]"#,
    &["stem", "`sparse_ratio` and `sparse_threshold` exclude each other", "remove one"]
)]
#[case::no_goal(prune, r#"[{"op_types": ["Conv2d"]}]"#, &["stem", "set `sparse_ratio`"])]
#[case::negative_lambda(
    distill,
    r#"[{"op_types": ["Conv2d"], "lambda": -1}]"#,
    &["rule 0", "stem", "`lambda` is -1", "not negative"]
)]
#[case::loss(
    distill,
    r#"[{"op_types": ["Conv2d"], "apply_method": "l1"}]"#,
    &["rule 0", "`apply_method`", "l1", "mse"]
)]
#[case::hidden_parameter(
    distill,
    r#"[{"op_types": ["Conv2d"], "target_names": ["weight"]}]"#,
    &["rule 0", "`weight` is a parameter", "`_output_`"]
)]
#[case::empty_link(
    distill,
    r#"[{"op_types": ["Conv2d"], "link": []}]"#,
    &["rule 0", "`link` is empty", "`auto`"]
)]
fn configurations(#[case] build: Build, #[case] rules: &str, #[case] parts: &[&str]) {
    let error = build(rules).unwrap_err();
    assert!(config_error(error.as_ref()).is_some(), "{error:?}");
    assert_says(&error, parts);
}

#[test]
fn a_ratio_that_is_not_a_number() {
    for (number, shown) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let settings = PruningSettings {
            sparse_ratio: Some(number),
            ..PruningSettings::default()
        };
        let rule = Rule::new()
            .with_op_types(["Conv2d"])
            .with_settings(settings);
        let config = ConfigList::new(vec![rule]);
        let pruner = PrunerConfig::new();
        let error = L1NormPruner::from_compressor(chain(), &config, pruner).unwrap_err();
        assert_says(
            &error,
            &[
                "rule 0",
                "stem",
                &format!("`sparse_ratio` is {shown}"),
                "0 to 1",
            ],
        );
    }
    // TOML can write them down.
    let read = |line: &str| {
        let toml = format!("[[rules]]\nop_types = [\"Conv2d\"]\n{line}\n");
        ConfigList::<DistillationSettings>::from_toml(&toml)
    };
    assert_says(
        &read("lambda = nan").unwrap_err(),
        &["rule 0", "`lambda`", "finite"],
    );
    let error = read("target_settings._output_.lambda = -inf").unwrap_err();
    assert_says(
        &error,
        &["rule 0", "`target_settings._output_.lambda`", "finite"],
    );
    assert!(read("lambda = 0.5").is_ok());
}

/// A network whose convolution is not wrapped.
#[derive(Module, Debug)]
struct Unwrapped {
    conv: Conv2d,
}

#[test]
fn an_unwrapped_convolution_names_the_change_to_make() {
    let conv = net().stem.into_inner();
    let evaluator = Evaluator::<Unwrapped, Tensor<4>>::new()
        .with_data(|_| Vec::new())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|net: &Unwrapped, x: &Tensor<4>| net.conv.forward(x.clone()).mean());
    let rules = r#"[{"op_names": ["conv"], "target_names": ["_output_"]}]"#;
    let config = ConfigList::from_json(rules).unwrap();
    let error =
        QatQuantizer::new(Unwrapped { conv }, &config, evaluator, QatConfig::new()).unwrap_err();
    assert!(matches!(
        error,
        Error::Config(ConfigError::NotWrapped { .. })
    ));
    assert_says(&error, &["`conv._output_0`", "Wrapper<Conv2d>"]);
}

#[test]
fn masks_that_cannot_be_masks() {
    let error = Mask::new(vec![1.0, 0.5], [2]).unwrap_err();
    assert!(matches!(error, Error::InvalidMask { .. }));
    assert_says(&error, &["value 1 is 0.5", "only 0 and 1"]);
    assert_says(&Mask::new(vec![f32::NAN], [1]).unwrap_err(), &["NaN"]);
    assert_says(
        &Mask::new(vec![1.0; 5], [2, 3]).unwrap_err(),
        &["5 values", "[2, 3]"],
    );
    // Read from a file.
    let read = |text: &str| serde_json::from_str::<Mask>(text).unwrap_err();
    assert_says(
        &read(r#"{"values": [0.5], "shape": [1]}"#),
        &["value 0 is 0.5"],
    );
    assert_says(
        &read(r#"{"values": [1], "shape": [6, 1, 3, 3]}"#),
        &["1 values", "[6, 1, 3, 3]"],
    );
}

#[rstest]
#[case::rank(&[6])]
#[case::channels(&[1, 5, 1, 1])]
#[case::batch(&[3, 6, 1, 1])]
fn masks_of_outputs_whose_shape_is_not_known_yet(#[case] shape: &[usize]) {
    let mut chain = chain();
    let mask = Mask::new(vec![1.0; shape.iter().product()], shape).unwrap();
    chain
        .update_masks(&Masks::from([(id("stem._output_0"), mask)]))
        .unwrap();
    let error = chain.compress(Budget::steps(1)).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
    assert_says(
        &error,
        &[
            "`stem._output_0`",
            "[8, 6, 6, 6]",
            &format!("{shape:?}"),
            "the mask",
        ],
    );
}

#[test]
fn masks_of_another_shape() {
    let mut chain = chain();
    let good = Mask::new(vec![0.0; 6], [6]).unwrap();
    let wrong = Mask::new(vec![1.0; 8], [8]).unwrap();
    let masks = Masks::from([(id("stem.bias"), good), (id("bn.gamma"), wrong)]);
    let error = chain.update_masks(&masks).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }));
    assert_says(&error, &["`bn.gamma`", "[6]", "[8]", "the mask"]);
    assert!(chain.masks().is_empty(), "nothing was changed");

    let unknown = Masks::from([(id("stm.weight"), Mask::new(vec![1.0], [1]).unwrap())]);
    let error = chain.update_masks(&unknown).unwrap_err();
    assert!(matches!(error, Error::UnknownTarget { .. }));
    assert_says(&error, &["`stm.weight`", "did you mean `stem`"]);
}

#[test]
fn scales_that_cannot_be_scales() {
    let entry = |scale: Vec<f32>, grid: &[usize]| CalibrationEntry {
        dtype: "int8".to_string(),
        scheme: "symmetric".to_string(),
        qmin: -127.0,
        qmax: 127.0,
        grid: Grid::new(grid),
        gradient: RoundGradient::StraightThrough,
        enabled: true,
        scale: Some(scale),
        zero_point: Some(vec![0.0; grid.iter().product()]),
        minimum: None,
        maximum: None,
    };
    let mut chain = chain();
    let all: &[usize] = &[];
    for (scale, grid, part) in [
        (vec![0.0], all, "a scale is 0"),
        (vec![f32::NAN], all, "a scale is NaN"),
        (vec![1.0, 1.0], all, "2 scale values for 1 blocks"),
        (
            vec![1.0; 4],
            &[4, 1, 1, 1],
            "the grid [4, 1, 1, 1] does not divide the shape [6, 1, 3, 3]",
        ),
        (
            vec![1.0; 6],
            &[6],
            "the grid [6] does not divide the shape [6, 1, 3, 3]",
        ),
        (vec![], &[0, 1, 1, 1], "no block"),
    ] {
        let calibration = [(id("stem.weight"), entry(scale, grid))]
            .into_iter()
            .collect();
        let error = chain.update_calibration(&calibration).unwrap_err();
        assert!(matches!(error, Error::InvalidCalibration { .. }));
        assert_says(&error, &["`stem.weight`", part]);
    }
    assert!(chain.calibration().unwrap().is_empty());
}

/// Batches of which the third holds a NaN.
fn spoiled(epoch: usize) -> Vec<Batch> {
    let mut batches = batches(5, epoch);
    batches[2].images = batches[2].images.clone() * f32::NAN;
    batches
}

#[test]
fn data_that_is_not_a_number() {
    let evaluator = || evaluator(STEPS).with_data(spoiled);
    let chain = Compressor::from_model(net(), evaluator());
    let error = chain.compress(Budget::steps(STEPS)).unwrap_err();
    assert!(
        matches!(error, Error::LossNotFinite { step: 2, .. }),
        "{error}"
    );
    assert_says(&error, &["step 2", "NaN", "check the data"]);
    // A quantizer sees it before the loss does, and where.
    let config = ConfigList::from_json(QUANTIZE).unwrap();
    let chain = QatQuantizer::new(net(), &config, evaluator(), QatConfig::new()).unwrap();
    let error = chain.compress(Budget::steps(STEPS)).unwrap_err();
    assert!(matches!(error, Error::Observation { .. }), "{error}");
    assert_says(
        &error,
        &["cannot quantize `stem._input_0`: block 0", "not finite"],
    );
    assert_eq!(
        error.to_string().matches("cannot quantize").count(),
        1,
        "{error}"
    );
}

#[test]
fn a_quantizer_that_does_not_check_fails_at_the_loss() {
    let config = ConfigList::from_json(QUANTIZE).unwrap();
    let quantizer = QatConfig::new().with_check_finite(false);
    let evaluator = evaluator(STEPS).with_data(spoiled);
    let chain = QatQuantizer::new(net(), &config, evaluator, quantizer).unwrap();
    let error = chain.compress(Budget::steps(STEPS)).unwrap_err();
    assert!(
        matches!(error, Error::LossNotFinite { step: 2, .. }),
        "{error}"
    );
}

fn with_nan_weight() -> Net {
    let mut net = net();
    net.stem.weight = net.stem.weight.clone().map(|weight| weight * f32::NAN);
    net
}

#[test]
fn weights_that_are_not_numbers() {
    let config = ConfigList::from_json(ALL).unwrap();
    let pruner = PrunerConfig::new();
    let chain = L1NormPruner::new(with_nan_weight(), &config, evaluator(STEPS), pruner).unwrap();
    let error = chain.compress(Budget::none()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Algorithm {
                algorithm: "L1NormPruner",
                ..
            }
        ),
        "{error}"
    );
    assert_says(&error, &["stem.weight", "NaN", "divergence"]);

    let config = ConfigList::from_json(QUANTIZE).unwrap();
    let quantizer = QatConfig::new();
    let chain = QatQuantizer::new(with_nan_weight(), &config, evaluator(STEPS), quantizer).unwrap();
    let error = chain.compress(Budget::steps(STEPS)).unwrap_err();
    assert_says(&error, &["`stem.weight`", "not finite"]);
}

#[rstest]
#[case::steps(Budget::steps(3))]
#[case::epochs(Budget::epochs(3))]
fn an_epoch_without_a_batch(#[case] budget: Budget) {
    let evaluator = evaluator(STEPS).with_data(|_| Vec::new());
    let error = Compressor::from_model(net(), evaluator)
        .compress(budget)
        .unwrap_err();
    assert!(matches!(error, Error::NoBatches { epoch: 0 }), "{error}");
    assert_says(&error, &["epoch 0", "no batch"]);
}

#[test]
fn a_later_epoch_without_a_batch() {
    let evaluator = evaluator(STEPS).with_data(|epoch| {
        if epoch < 1 {
            batches(5, epoch)
        } else {
            Vec::new()
        }
    });
    let error = Compressor::from_model(net(), evaluator)
        .compress(Budget::steps(8))
        .unwrap_err();
    assert!(matches!(error, Error::NoBatches { epoch: 1 }), "{error}");
}

#[test]
fn a_loss_that_is_no_number() {
    let evaluator = evaluator(STEPS)
        .with_loss(|net: &Net, batch: &Batch| net.forward(batch.images.clone()).flatten::<1>(0, 1));
    let error = Compressor::from_model(net(), evaluator)
        .compress(Budget::steps(1))
        .unwrap_err();
    assert!(matches!(error, Error::LossShape { .. }), "{error}");
    assert_says(&error, &["[24]", "mean"]);
}

#[test]
fn budgets_that_are_too_short() {
    let config = ConfigList::from_json(ALL).unwrap();
    let taylor =
        || TaylorPruner::new(net(), &config, evaluator(STEPS), TaylorConfig::new(2)).unwrap();
    let scheduled = AgpPruner::new(taylor(), AgpConfig::new(3, 4)).unwrap();
    let error = scheduled.compress(Budget::steps(11)).unwrap_err();
    assert!(matches!(error, Error::Budget { .. }));
    assert_says(&error, &["AgpPruner", "step 12", "11 steps", "at least 12"]);
    let error = taylor().compress(Budget::none()).unwrap_err();
    assert_says(&error, &["TaylorPruner", "step 2", "0 steps"]);
    let late = QatConfig::new().with_start_step(5);
    let rules = ConfigList::from_json(QUANTIZE).unwrap();
    let chain = QatQuantizer::new(net(), &rules, evaluator(STEPS), late).unwrap();
    let error = chain.compress(Budget::steps(5)).unwrap_err();
    assert_says(
        &error,
        &["QatQuantizer", "step 5", "5 steps", "with_start_step"],
    );
}

#[test]
fn schedules_that_schedule_nothing() {
    let error = AgpPruner::new(chain(), AgpConfig::new(2, 3)).unwrap_err();
    assert_says(&error, &["AgpPruner", "an empty chain"]);
    let error = AgpPruner::new(quantize(QUANTIZE).unwrap(), AgpConfig::new(2, 3)).unwrap_err();
    assert_says(&error, &["AgpPruner", "QatQuantizer"]);
    let error = AgpPruner::new(prune(ALL).unwrap(), AgpConfig::new(0, 3)).unwrap_err();
    assert_says(&error, &["every 0 steps", "at least 1"]);
    let config = ConfigList::from_json(ALL).unwrap();
    let taylor =
        |steps| TaylorPruner::new(net(), &config, evaluator(STEPS), TaylorConfig::new(steps));
    let error = AgpPruner::new(taylor(4).unwrap(), AgpConfig::new(3, 2)).unwrap_err();
    assert_says(&error, &["`interval` is 3", "training steps"]);
    assert_says(
        &taylor(0).unwrap_err(),
        &["`training_steps` is 0", "at least 1"],
    );
}

#[test]
fn a_missing_dummy_input() {
    let evaluator = Evaluator::new()
        .with_data(|epoch| batches(5, epoch))
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(1e-2)
        .with_loss(Net::loss);
    let config = ConfigList::from_json(ALL).unwrap();
    let error = L1NormPruner::new(net(), &config, evaluator, PrunerConfig::new()).unwrap_err();
    assert!(
        matches!(error, PruningError::Core(Error::MissingEvaluator { .. })),
        "{error}"
    );
    assert_says(
        &error,
        &["L1NormPruner", "a dummy input", "`.with_dummy_input(..)`"],
    );
}

/// Images of the wrong number of channels.
fn wrong_images() -> DummyInput<Net> {
    let images = Tensor::<4>::ones([1, 3, SIDE, SIDE], &Device::flex());
    DummyInput::new(images, |net: &Net, images| net.forward(images))
}

#[test]
fn a_forward_pass_that_panics() {
    let config = ConfigList::from_json(ALL).unwrap();
    let fuse = |dummy_input: DummyInput<Net>| {
        let evaluator = evaluator(STEPS).with_dummy_input(dummy_input);
        L1NormPruner::new(net(), &config, evaluator, PrunerConfig::new()).unwrap_err()
    };
    let error = fuse(wrong_images());
    assert!(matches!(
        error,
        PruningError::Core(Error::Graph(GraphError::Forward { .. }))
    ));
    assert_says(&error, &["forward pass failed", "dummy input"]);
    let images = Tensor::<4>::ones([1, 1, SIDE, SIDE], &Device::flex());
    let error = fuse(DummyInput::new(
        images,
        |_: &Net, _images: Tensor<4>| -> Tensor<2> { panic!("out of cheese") },
    ));
    assert_says(&error, &["forward pass failed", "out of cheese"]);

    let compressed = prune(ALL).unwrap().compress(Budget::none()).unwrap();
    let error = ModelSpeedup::new(compressed, wrong_images())
        .speedup_model()
        .unwrap_err();
    assert_says(&error, &["forward pass failed"]);
}

#[test]
fn coupled_layers_of_which_only_one_is_selected() {
    let rules = r#"[{"op_names": ["block.conv2"], "sparse_ratio": 0.5}]"#;
    let error = prune(rules).unwrap_err();
    assert_says(
        &error,
        &[
            "block.conv2.weight",
            "coupled with those of `block.project`",
            "select or exclude both",
        ],
    );
    let rules = r#"[
        {"op_names": ["block.conv2"], "sparse_ratio": 0.5},
        {"op_names": ["block.project"], "sparse_ratio": 0.25}
    ]"#;
    assert_says(
        &prune(rules).unwrap_err(),
        &["block.project", "block.conv2", "differ", "the same"],
    );
}

#[test]
fn the_last_layer_keeps_its_outputs() {
    let error = prune(r#"[{"op_names": ["head"], "sparse_ratio": 0.5}]"#).unwrap_err();
    let pruning = error.downcast_ref::<PruningError>();
    let Some(PruningError::Target { source, .. }) = pruning else {
        panic!("{error}")
    };
    assert!(matches!(**source, PruningError::Protected { .. }));
    assert_says(
        &error,
        &[
            "head.weight",
            "cannot be removed",
            "output",
            "exclude the layer",
        ],
    );
}

#[test]
fn a_wrapper_that_the_model_does_not_call() {
    #[derive(Module, Debug)]
    struct Idle {
        used: Wrapper<Linear>,
        idle: Wrapper<Linear>,
    }

    let device = Device::flex();
    let linear = || Wrapper::new(LinearConfig::new(2, 2).init(&device));
    let batch = Tensor::<2>::ones([1, 2], &device);
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|net: &Idle, x: &Tensor<2>| net.used.forward(x.clone()).mean());
    let config = ConfigList::from_json(r#"[{"op_types": ["Linear"]}]"#).unwrap();
    let model = Idle {
        used: linear(),
        idle: linear(),
    };
    let chain = QatQuantizer::new(model, &config, evaluator, QatConfig::new()).unwrap();
    let error = chain.compress(Budget::steps(1)).unwrap_err();
    assert!(matches!(error, Error::Unreached { .. }), "{error}");
    assert_says(&error, &["`idle._input_0`", "through its `Wrapper`"]);
}

#[test]
fn teachers_that_cannot_teach() {
    let rules = r#"[{"op_names": ["stem"], "link": "stom"}]"#;
    let error = distill(rules).unwrap_err();
    assert_says(
        &error,
        &[
            "teacher cannot be linked",
            "`stom._output_0`",
            "did you mean `stem`",
        ],
    );

    let rules = r#"[{"op_names": ["block.conv1"], "link": "plain"}]"#;
    let error = distill(rules).unwrap_err();
    assert_says(&error, &["teacher", "`plain._output_0`", "Wrapper<Linear>"]);

    // Each layer has a teacher, but of another width.
    let wide = NetConfig {
        stem: 10,
        ..NetConfig::default()
    }
    .init(2);
    let rules = r#"[{"op_names": ["block.conv2"], "link": "stem"}]"#;
    let error = distill_from(chain(), rules, wide)
        .unwrap()
        .compress(Budget::steps(1))
        .unwrap_err();
    assert!(matches!(error, Error::Algorithm { .. }), "{error}");
    assert_says(
        &error,
        &[
            "student layer `block.conv2`",
            "[8, 8, 6, 6]",
            "teacher layer `stem`",
            "[8, 10, 6, 6]",
        ],
    );
}

#[test]
fn a_teacher_that_does_not_call_the_linked_layer() {
    let rules = ConfigList::from_json(r#"[{"op_names": ["block.conv1"]}]"#).unwrap();
    let chain = DynamicLayerwiseDistiller::from_compressor(
        chain(),
        &rules,
        &net(),
        |teacher: &Net, batch: &Batch| teacher.stem.forward(batch.images.clone()),
        DistillConfig::new(1.0),
    );
    let error = chain.unwrap().compress(Budget::steps(1)).unwrap_err();
    assert_says(
        &error,
        &[
            "teacher layer `block.conv1`",
            "does not reach its `Wrapper`",
        ],
    );
}

/// A small model in a file.
fn saved(path: &std::path::Path) -> Speedup<Net> {
    let compressed = prune(ALL).unwrap().compress(Budget::none()).unwrap();
    let small = ModelSpeedup::new(compressed, dummy_input())
        .speedup_model()
        .unwrap();
    save_small(&small.model, &small.state, path).unwrap();
    small
}

#[test]
fn damaged_files_of_small_models() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    saved(&path);
    let bytes = fs::read(&path).unwrap();
    let refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let error = load_small(net(), &path).unwrap_err();
        assert!(matches!(error, SpeedupError::Format { .. }), "{error}");
        assert_says(
            &error,
            &[&path.display().to_string(), "not a usable small model"],
        );
    };
    for length in [0, 5, 20, 28, 300, bytes.len() - 1] {
        refused(&bytes[..length]);
    }
    for part in 0..16 {
        let mut damaged = bytes.clone();
        damaged[(bytes.len() - 1) * part / 15] ^= 4;
        refused(&damaged);
    }
    refused(b"no model at all, but long enough to be one");
    let error = load_small(net(), folder.path().join("none")).unwrap_err();
    assert!(matches!(error, SpeedupError::Io { .. }), "{error}");
    assert_says(&error, &["none"]);
}

#[test]
fn files_of_other_models() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    saved(&path);
    // A network that is narrower than the small one.
    let narrow = NetConfig {
        width: 2,
        ..NetConfig::default()
    }
    .init(1);
    let error = load_small(narrow, &path).unwrap_err();
    assert!(
        matches!(error, SpeedupError::Architecture { .. }),
        "{error}"
    );
    assert_says(&error, &["block.", "does not belong to this model"]);
    let linear = LinearConfig::new(4, 4).init(&Device::flex());
    let error = load_small(linear, &path).unwrap_err();
    assert_says(&error, &["it has no `weight`"]);
    // A checkpoint of a run is no small model, and the other way round.
    let checkpoint = folder.path().join("checkpoint");
    chain().save_checkpoint(&checkpoint).unwrap();
    assert!(matches!(
        load_small(net(), &checkpoint),
        Err(SpeedupError::Format { .. })
    ));
    let error = chain().resume(&path).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    assert_says(&error, &[&path.display().to_string(), "not a checkpoint"]);
}

#[test]
fn an_ordinary_load_of_a_small_file_fails_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    let small = saved(&path);
    let full = net();
    let before = bits(&full);
    assert!(full.clone().try_load_file(&path).is_err());
    // A record of the small model does not fit either.
    let record = folder.path().join("record.bpk");
    small.model.clone().save_file(&record).unwrap();
    let error = full.clone().try_load_file(&record).unwrap_err();
    assert_says(&format!("{error:?}"), &["stem.weight"]);
    assert!(bits(&full) == before);
    let (loaded, state) = load_small(full, &path).unwrap();
    assert_eq!(bits(&loaded), bits(&small.model));
    assert_eq!(state, small.state);
}

#[test]
fn a_small_model_that_cannot_be_saved() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    let mut small = saved(&path);
    let before = fs::read(&path).unwrap();
    small.model.head.weight =
        Param::from_data(TensorData::from([[f32::INFINITY; 3]; 5]), &Device::flex());
    let error = save_small(&small.model, &small.state, &path).unwrap_err();
    assert!(matches!(error, SpeedupError::NotFinite { .. }), "{error}");
    assert_says(&error, &["`head.weight`", "nothing was saved"]);
    assert_eq!(fs::read(&path).unwrap(), before);
}
