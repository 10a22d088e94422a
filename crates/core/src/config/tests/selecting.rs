use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// The selected targets of one rule.
fn targets(layers: &[LayerInfo], rule: &str) -> Vec<String> {
    let selected = read(&format!("[{rule}]")).select(layers).unwrap();
    selected.iter().map(|one| one.id().to_string()).collect()
}

fn select_error(layers: &[LayerInfo], json: &str) -> String {
    read(json).select(layers).unwrap_err().to_string()
}

#[rstest]
#[case::types(
    r#"{"op_types": ["Conv2d"]}"#,
    "conv1.weight conv1.bias blocks.0.weight"
)]
#[case::names(
    r#"{"op_names": ["fc", "conv1"]}"#,
    "conv1.weight conv1.bias fc.weight fc.bias"
)]
#[case::names_of_types(
    r#"{"op_names": ["fc", "conv1"], "op_types": ["Linear"]}"#,
    "fc.weight fc.bias"
)]
#[case::pattern_from_the_start(r#"{"op_names_re": ["c"]}"#, "conv1.weight conv1.bias")]
#[case::pattern_passes_over_what_has_no_target(
    r#"{"op_names_re": [".*"]}"#,
    "conv1.weight conv1.bias blocks.0.weight fc.weight fc.bias"
)]
#[case::names_and_patterns(
    r#"{"op_names": ["fc"], "op_names_re": ["blocks\\."]}"#,
    "blocks.0.weight fc.weight fc.bias"
)]
#[case::exclusions(
    r#"{"op_types": ["Conv2d", "Linear"], "exclude_op_names": ["fc"],
        "exclude_op_names_re": ["b"]}"#,
    "conv1.weight conv1.bias"
)]
#[case::excluded_type(
    r#"{"op_names_re": ["blocks", "fc"], "exclude_op_types": ["Linear"]}"#,
    "blocks.0.weight"
)]
#[case::bias_where_there_is_one(
    r#"{"op_types": ["Conv2d"], "target_names": ["bias"]}"#,
    "conv1.bias"
)]
#[case::named_target_beyond_the_default(
    r#"{"op_names": ["norm"], "target_names": ["gamma"]}"#,
    "norm.gamma"
)]
fn selects(#[case] rule: &str, #[case] expected: &str) {
    assert_eq!(targets(&model(), rule).join(" "), expected);
}

#[test]
fn selects_inputs_and_outputs_of_wrapped_layers() {
    assert_eq!(
        targets(
            &wrapped_model(),
            r#"{"op_types": ["Conv2d", "Relu"], "exclude_op_names": ["blocks.0"],
                "target_names": ["_input_", "_output_1", "weight"]}"#
        ),
        [
            "conv1._input_0",
            "conv1._output_1",
            "conv1.weight",
            "relu._input_0",
            "relu._output_1"
        ]
    );
}

#[test]
fn settings_of_a_target_are_over_those_of_the_rule() {
    let config = read(
        r#"[{"op_names": ["conv1"], "ratio": 0.5, "group": "a",
             "target_settings": {"bias": {"ratio": 0.25, "block": [-1]}}}]"#,
    );
    let selected = config.select(&model()).unwrap();
    let weight = Toy {
        ratio: Some(0.5),
        group: Some("a".to_string()),
        ..Toy::default()
    };
    let bias = Toy {
        ratio: Some(0.25),
        block: Some(vec![-1]),
        ..weight.clone()
    };
    assert_eq!(selected[0].settings, weight);
    assert_eq!(selected[1].settings, bias);
}

#[test]
fn the_order_is_that_of_the_model() {
    let config = read(r#"[{"op_names": ["fc"]}, {"op_names": ["blocks.0"]}]"#);
    let selected = config.select(&model()).unwrap();
    let order: Vec<_> = selected
        .iter()
        .map(|one| (one.layer.path.as_str(), one.rule))
        .collect();
    assert_eq!(order, [("blocks.0", 1), ("fc", 0), ("fc", 0)]);
}

/// What is expected is in the message word by word: the message is what the user gets.
#[rstest]
#[case::no_rules("[]", "the configuration has no rules")]
#[case::no_positive_key(
    r#"[{"ratio": 0.5, "exclude_op_names": ["fc"]}]"#,
    "rule 0 selects no layers: give it at least one of `op_types`, `op_names` and `op_names_re`"
)]
#[case::misspelt_name(
    r#"[{"op_names": ["fc"]}, {"op_names": ["conv11"]}]"#,
    "rule 1: `op_names` names `conv11`, which is no layer of the model, did you mean `conv1`?"
)]
#[case::name_without_likeness(
    r#"[{"op_names": ["zzz"]}]"#,
    "The layers are `conv1`, `norm`, `relu`, `blocks.0` and `fc`"
)]
#[case::name_of_a_container(
    r#"[{"op_names": ["blocks"]}]"#,
    "a module that contains `blocks.0`: name these, select them with the pattern `blocks\\.`"
)]
#[case::misspelt_excluded_name(
    r#"[{"op_types": ["Conv2d"], "exclude_op_names": ["conv2"]}]"#,
    "`exclude_op_names` names `conv2`"
)]
#[case::unknown_type(
    r#"[{"op_types": ["BatchNorm2d"]}]"#,
    "names the type `BatchNorm2d`, which no layer of the model has, did you mean `BatchNorm`? Its \
     types are `Conv2d`, `BatchNorm` and `Linear`"
)]
#[case::type_that_shows_only_in_a_wrapper(
    r#"[{"op_types": ["Relu"]}]"#,
    "the types of `relu` are unknown, because a layer without parameters shows its type only in a \
     wrapper: declare such a field as `Wrapper<Relu>`"
)]
#[case::unknown_excluded_type(
    r#"[{"op_types": ["Conv2d"], "exclude_op_types": ["Lstm"]}]"#,
    "`exclude_op_types` names the type `Lstm`"
)]
#[case::empty_type(r#"[{"op_types": [""]}]"#, "names the type ``")]
#[case::bad_pattern(
    r#"[{"op_names_re": ["conv(1"]}]"#,
    "`op_names_re` has the pattern `conv(1`, which is no regular expression"
)]
#[case::pattern_without_match(
    r#"[{"op_names_re": ["layer\\d"]}]"#,
    "the pattern `layer\\d`, which matches no layer"
)]
#[case::pattern_that_matches_later(
    r#"[{"op_names_re": ["0$"]}]"#,
    "this one matches later in `blocks.0`: begin it with `.*`"
)]
#[case::excluding_pattern_without_match(
    r#"[{"op_types": ["Conv2d"], "exclude_op_names_re": ["x"]}]"#,
    "`exclude_op_names_re` has the pattern `x`, which matches no layer"
)]
#[case::names_of_other_types(
    r#"[{"op_names": ["fc"], "op_types": ["Conv2d"]}]"#,
    "rule 0 selects no layer: the layers that it names (`fc`) are none of the types `Conv2d`"
)]
#[case::all_excluded(
    r#"[{"op_types": ["Linear"], "exclude_op_names": ["fc"]}]"#,
    "rule 0 selects no layer: all that it selects (`fc`) is excluded"
)]
#[case::unknown_target(
    r#"[{"op_types": ["Conv2d"], "target_names": ["weights"]}]"#,
    "`target_names` has `weights`, but no layer of the rule has that parameter, did you mean \
     `weight`? (they have `weight` and `bias`)"
)]
#[case::no_bias_anywhere(
    r#"[{"op_names": ["blocks.0"], "target_names": ["weight", "bias"]}]"#,
    "`target_names` has `bias`, but no layer of the rule has that parameter"
)]
#[case::running_statistics_are_no_target(
    r#"[{"op_names": ["norm"], "target_names": ["running_mean"]}]"#,
    "`target_names` has `running_mean`, but no layer"
)]
#[case::named_layer_without_target(
    r#"[{"op_names": ["fc", "norm"]}]"#,
    "layer `norm` (BatchNorm) has none of the rule's targets, its parameters are `gamma` and `beta`"
)]
#[case::only_layers_without_target(
    r#"[{"op_names_re": ["relu"]}]"#,
    "layer `relu` has none of the rule's targets, it has no parameters"
)]
#[case::no_target_names(
    r#"[{"op_names": ["fc"], "target_names": []}]"#,
    "layer `fc` (Linear) has none of the rule's targets"
)]
#[case::settings_without_target(
    r#"[{"op_names": ["fc"], "target_names": ["weight"], "target_settings": {"bias": {}}}]"#,
    "`target_settings` has `bias`, which is no target of the rule (its targets are `weight`)"
)]
#[case::not_wrapped(
    r#"[{"op_names": ["conv1"], "target_names": ["_output_"]}]"#,
    "rule 0: `conv1._output_0` cannot be reached without a wrapper around the layer. Change the \
     field `conv1: Conv2d` to `conv1: Wrapper<Conv2d>`; `.into()` makes the wrapper"
)]
#[case::not_wrapped_in_a_list(
    r#"[{"op_names": ["blocks.0"], "target_names": ["_input_"]}]"#,
    "Change the field `blocks: Vec<Conv2d>` to `blocks: Vec<Wrapper<Conv2d>>`"
)]
#[case::not_wrapped_of_unknown_type(
    r#"[{"op_names": ["relu"], "target_names": ["_output_"]}]"#,
    "Change the field `relu: L` to `relu: Wrapper<L>`, where `L` is the type of the layer"
)]
#[case::selected_twice(
    r#"[{"op_types": ["Conv2d"]}, {"op_names": ["fc"]}, {"op_names_re": ["conv1"]}]"#,
    "rule 2: `conv1.weight` is already selected by rule 0"
)]
#[case::named_twice(
    r#"[{"op_names": ["fc"], "target_names": ["weight", "weight"]}]"#,
    "rule 0: `fc.weight` is already selected by rule 0"
)]
#[case::invalid_settings(
    r#"[{"op_names": ["fc"], "ratio": 1.5}]"#,
    "rule 0: the settings of `weight` of layer `fc` (Linear) are invalid: `ratio` is 1.5 for weight"
)]
fn refuses_to_select(#[case] json: &str, #[case] expected: &str) {
    let message = select_error(&model(), json);
    assert!(message.contains(expected), "{message}");
}

proptest! {
    #[test]
    fn selecting_takes_each_target_once_in_the_order_of_the_model(
        rules in proptest::collection::vec(
            (
                proptest::sample::subsequence(vec!["Conv2d", "Linear", "BatchNorm"], 0..3),
                proptest::sample::subsequence(vec!["conv1", "norm", "blocks.0", "fc"], 0..4),
            ),
            1..3,
        ),
    ) {
        let layers = model();
        let rules = rules
            .into_iter()
            .map(|(types, names)| Rule::<Toy>::new().with_op_types(types).with_op_names(names));
        if let Ok(selected) = ConfigList::new(rules.collect()).select(&layers) {
            let positions: Vec<usize> = selected
                .iter()
                .map(|one| layers.iter().position(|layer| *layer == one.layer).unwrap())
                .collect();
            prop_assert!(positions.is_sorted());
            let ids: std::collections::BTreeSet<_> = selected.iter().map(Selected::id).collect();
            prop_assert_eq!(ids.len(), selected.len());
        }
    }
}
