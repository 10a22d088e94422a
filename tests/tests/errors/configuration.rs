//! Rules that are misspelt, contradict each other or do not fit the model.

use std::error::Error as StdError;

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::optim::SgdConfig;
use burn::tensor::Tensor;
use burn_compress::Error;
use burn_compress::config::ConfigError;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{Built, assert_says};
use rstest::rstest;

use crate::fixtures::{chain, distill, net, prune, quantize};

/// The error of the configuration inside of an error of a compressor.
fn config_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a ConfigError> {
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return Some(error);
    }
    error.downcast_ref::<Error>()?.downcast_ref()
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
