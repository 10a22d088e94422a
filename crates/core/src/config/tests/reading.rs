use proptest::prelude::*;
use rstest::rstest;

use super::*;

#[rstest]
#[case::misspelt_setting(
    r#"[{"op_names": ["fc"]}, {"op_names": ["fc"], "ration": 0.5}]"#,
    "rule 1: unknown key `ration`, did you mean `ratio`? (the keys are op_types, "
)]
#[case::misspelt_selection_key(
    r#"[{"op_type": ["Conv2d"]}]"#,
    "rule 0: unknown key `op_type`, did you mean `op_types`?"
)]
#[case::renamed_fields_go_by_their_key(
    r#"[{"op_types": ["Conv2d"], "weight": 1.0}]"#,
    "(the keys are op_types, op_names, op_names_re, exclude_op_types, exclude_op_names, \
     exclude_op_names_re, target_names, target_settings, ratio, align, lambda, block, group)"
)]
#[case::misspelt_setting_of_a_target(
    r#"[{"target_settings": {"bias": {"ration": 0.5}}}]"#,
    "rule 0: unknown key `target_settings.bias.ration`, did you mean `ratio`? (the keys are ratio, "
)]
#[case::selection_key_in_a_target(
    r#"[{"target_settings": {"bias": {"op_types": []}}}]"#,
    "unknown key `target_settings.bias.op_types`"
)]
#[case::nested_key(
    r#"[{"align": {"dims": [0], "layr": "fc"}}]"#,
    "rule 0: the value of `align` cannot be used: unknown field `layr`"
)]
#[case::string_for_a_list(
    r#"[{"op_types": "Conv2d"}]"#,
    "rule 0: the value of `op_types` cannot be used: a list of strings is expected: invalid type: \
     string \"Conv2d\""
)]
#[case::string_for_a_number(
    r#"[{"group": "a", "ratio": "half"}]"#,
    "rule 0: the value of `ratio` cannot be used: invalid type: string \"half\", expected f64"
)]
#[case::wrong_value_of_a_target(
    r#"[{"target_settings": {"bias": {"ratio": []}}}]"#,
    "the value of `target_settings.bias.ratio` cannot be used"
)]
#[case::list_for_target_settings(
    r#"[{"target_settings": []}]"#,
    "a map from target to settings is expected"
)]
#[case::no_target(
    r#"[{"target_names": ["_output_x"]}]"#,
    "rule 0: the value of `target_names` cannot be used: a list of targets is expected: \
     `_output_x` is no target"
)]
#[case::no_target_in_settings(
    r#"[{"target_settings": {"_inputs": {}}}]"#,
    "the value of `target_settings._inputs` cannot be used: `_inputs` is no target"
)]
#[case::target_in_two_spellings(
    r#"[{"target_settings": {"_input_": {}, "_input_0": {}}}]"#,
    "`_input_0` has settings already, by its other spelling"
)]
#[case::key_written_twice(
    r#"[{"op_types": ["Conv2d"], "op_types": ["Linear"]}]"#,
    "the key `op_types` is written twice in one rule"
)]
#[case::truncated(
    r#"[{"op_types": ["Conv2d"]"#,
    "cannot be read as JSON, a list of rules `[{..}, ..]` is expected: EOF"
)]
#[case::no_list(r#"{"op_types": ["Conv2d"]}"#, "expected a sequence")]
#[case::no_rule("[1]", "expected a rule (a map)")]
fn refuses_to_read_json(#[case] json: &str, #[case] expected: &str) {
    let message = ConfigList::<Toy>::from_json(json).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
    // The same words also come out of a larger file that holds a configuration.
    let message = serde_json::from_str::<ConfigList<Toy>>(json).unwrap_err();
    let inner =
        expected.strip_prefix("cannot be read as JSON, a list of rules `[{..}, ..]` is expected: ");
    assert!(
        message.to_string().contains(inner.unwrap_or(expected)),
        "{message}"
    );
}

#[rstest]
#[case::truncated("[[rules]]\nop_types = [\"Conv2d\"", "cannot be read as TOML")]
#[case::other_table("[[rule]]\nop_types = [\"Conv2d\"]", "unknown field `rule`")]
#[case::table_beside("rules = []\n[more]", "unknown field `more`")]
#[case::nothing("", "missing field `rules`")]
#[case::misspelt_key(
    "[[rules]]\nop_types = [\"Conv2d\"]\nration = 0.5",
    "rule 0: unknown key `ration`, did you mean `ratio`?"
)]
#[case::wrong_type(
    "[[rules]]\nop_types = [\"Conv2d\"]\nratio = \"half\"",
    "rule 0: the value of `ratio` cannot be used"
)]
fn refuses_to_read_toml(#[case] toml: &str, #[case] expected: &str) {
    let message = ConfigList::<Toy>::from_toml(toml).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn builders_json_and_toml_agree() {
    let half = Toy {
        ratio: Some(0.5),
        ..Toy::default()
    };
    let built = ConfigList::new(vec![
        Rule::new()
            .with_op_types(["Conv2d"])
            .with_op_names_re(["conv"])
            .with_exclude_op_names(["conv1"])
            .with_target_names(["weight", "_output_"])
            .with_settings(half)
            .with_target_settings(
                "_output_",
                Toy {
                    weight: Some(0.1),
                    ..Toy::default()
                },
            ),
    ]);
    let json = r#"[{"op_types": ["Conv2d"], "op_names_re": ["conv"], "exclude_op_names": ["conv1"],
        "target_names": ["weight", "_output_"], "ratio": 0.5, "group": null,
        "target_settings": {"_output_": {"lambda": 0.1}}}]"#;
    let toml = "[[rules]]\nop_types = [\"Conv2d\"]\nop_names_re = [\"conv\"]\n\
        exclude_op_names = [\"conv1\"]\ntarget_names = [\"weight\", \"_output_0\"]\nratio = 0.5\n\n\
        [rules.target_settings._output_0]\nlambda = 0.1\n";
    assert_eq!(read(json), built);
    assert_eq!(ConfigList::from_toml(toml).unwrap(), built);
    assert_eq!(built.to_toml().unwrap(), toml);
}

#[test]
fn a_configuration_can_be_a_part_of_a_larger_file() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Recipe {
        steps: usize,
        pruning: ConfigList<Toy>,
    }
    let text = "steps = 10\n\n[[pruning]]\nop_names = [\"fc\"]\nratio = 0.5\n";
    let recipe: Recipe = toml::from_str(text).unwrap();
    assert_eq!(recipe.pruning.rules[0].settings.ratio, Some(0.5));
    assert_eq!(toml::to_string(&recipe).unwrap(), text);
}

#[test]
fn what_a_format_cannot_hold_is_an_error() {
    #[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Gaps {
        sizes: Option<Vec<Option<u64>>>,
    }
    impl Settings for Gaps {
        const MODE: Mode = Mode::Quantization;
        fn default_targets(_: &LayerInfo) -> Vec<Target> {
            Vec::new()
        }
        fn merge(self, over: &Self) -> Self {
            over.clone()
        }
        fn validate(&self, _: &LayerInfo, _: &Target) -> Result<(), String> {
            Ok(())
        }
    }
    let sizes = Some(vec![Some(u64::MAX), None]);
    let config = ConfigList::new(vec![Rule::new().with_settings(Gaps { sizes })]);
    assert_eq!(
        ConfigList::from_json(&config.to_json().unwrap()).unwrap(),
        config
    );
    let message = config.to_toml().unwrap_err().to_string();
    assert!(message.contains("cannot be written as TOML"), "{message}");
}

#[rstest]
#[case::rule(Toy { ratio: Some(f64::NAN), ..Toy::default() }, "`ratio` is NaN")]
#[case::single_precision(Toy { weight: Some(f32::INFINITY), ..Toy::default() }, "`lambda` is inf")]
fn numbers_that_are_not_finite_are_not_dropped(#[case] settings: Toy, #[case] reason: &str) {
    let of_rule = Rule::new().with_settings(settings.clone());
    let of_target = Rule::new().with_target_settings("weight", settings);
    for rule in [of_rule, of_target] {
        let config = ConfigList::new(vec![rule]);
        for written in [config.to_json(), config.to_toml()] {
            let error = written.unwrap_err();
            assert!(matches!(error, ConfigError::Write { .. }));
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!(serde_json::to_string(&config).is_err());
    }
}

fn any_strings() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[a-zA-Z0-9_.*\\\\\"' é]{0,8}", 0..3)
}

fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![
        "[a-z][a-z_.0-9]{0,8}".prop_map(Target::Param),
        (0usize..4).prop_map(Target::Input),
        (0usize..4).prop_map(Target::Output),
    ]
}

fn any_settings() -> impl Strategy<Value = Toy> {
    let align = (
        proptest::option::of("[a-z]{0,4}"),
        proptest::collection::vec(0usize..4, 0..3),
    )
        .prop_map(|(layer, dims)| Align { layer, dims });
    let thousandths = -2000i32..2000;
    (
        proptest::option::of(thousandths.clone().prop_map(|n| f64::from(n) / 1000.0)),
        proptest::option::of(align),
        proptest::option::of(thousandths.prop_map(|n| n as f32 / 1000.0)),
        proptest::option::of(proptest::collection::vec(-1i64..9, 0..3)),
        proptest::option::of("[a-z é\"\n]{0,6}"),
    )
        .prop_map(|(ratio, align, weight, block, group)| Toy {
            ratio,
            align,
            weight,
            block,
            group,
        })
}

fn any_rule() -> impl Strategy<Value = Rule<Toy>> {
    let six = proptest::collection::vec(any_strings(), 6);
    let targets = proptest::option::of(proptest::collection::vec(any_target(), 0..3));
    let over = proptest::collection::vec((any_target(), any_settings()), 0..3);
    (six, targets, over, any_settings()).prop_map(|(mut six, target_names, over, settings)| {
        let mut next = || six.pop().unwrap_or_default();
        Rule {
            op_types: next(),
            op_names: next(),
            op_names_re: next(),
            exclude_op_types: next(),
            exclude_op_names: next(),
            exclude_op_names_re: next(),
            target_names,
            target_settings: over.into_iter().collect(),
            settings,
        }
    })
}

proptest! {
    #[test]
    fn configurations_survive_json_and_toml(rules in proptest::collection::vec(any_rule(), 0..4)) {
        let config = ConfigList::new(rules);
        let json = config.to_json().unwrap();
        prop_assert_eq!(&ConfigList::from_json(&json).unwrap(), &config, "{}", json);
        let toml = config.to_toml().unwrap();
        prop_assert_eq!(&ConfigList::from_toml(&toml).unwrap(), &config, "{}", toml);
    }

    #[test]
    fn reading_never_panics(text in "[\\[\\]{}\":,a-z_0-9 .]{0,60}") {
        let _ = ConfigList::<Toy>::from_json(&text);
        let _ = ConfigList::<Toy>::from_toml(&text);
    }
}
