//! Which layers and targets a rule selects, in every mode, and the lists of rules themselves.

use burn_compress::distillation::DistillationSettings;
use burn_compress::prelude::*;
use burn_compress::quantization::QuantizationSettings;

use crate::fixtures::{MODES, chain};
use crate::table::Cases;

/// The keys of a rule, the variant of the error and what it says; `SETTING` stands for a setting
/// that the mode has.
const RULES: &[(&str, &str, &[&str])] = &[
    (
        r#"SETTING"#,
        "NoSelector",
        &["rule 0", "`op_types`", "`op_names_re`"],
    ),
    (
        r#""op_types": [], SETTING"#,
        "NoSelector",
        &["rule 0", "`op_types`"],
    ),
    (
        r#""op_names": [], "op_types": [], SETTING"#,
        "NoSelector",
        &["rule 0"],
    ),
    (
        r#""exclude_op_names": ["stem"], SETTING"#,
        "NoSelector",
        &["rule 0", "excluding keys alone"],
    ),
    (
        r#""op_types": "Conv2d", SETTING"#,
        "Value",
        &["rule 0", "`op_types`"],
    ),
    (
        r#""op_types": [3], SETTING"#,
        "Value",
        &["rule 0", "`op_types`"],
    ),
    (
        r#""op_types": null, SETTING"#,
        "Value",
        &["rule 0", "`op_types`"],
    ),
    (
        r#""op_types": {"Conv2d": true}, SETTING"#,
        "Value",
        &["rule 0", "`op_types`"],
    ),
    (
        r#""op_names": "stem", SETTING"#,
        "Value",
        &["rule 0", "`op_names`"],
    ),
    (
        r#""op_types": ["Conv3d"], SETTING"#,
        "UnknownType",
        &["rule 0", "`Conv3d`", "`Conv2d`"],
    ),
    (
        r#""op_types": ["conv2d"], SETTING"#,
        "UnknownType",
        &["rule 0", "`conv2d`", "`Conv2d`"],
    ),
    (
        r#""op_types": [""], SETTING"#,
        "UnknownType",
        &["rule 0", "``"],
    ),
    (
        r#""op_types": ["Wrapper<Conv2d>"], SETTING"#,
        "UnknownType",
        &["rule 0", "`Conv2d`"],
    ),
    (
        r#""op_types": ["Net"], SETTING"#,
        "UnknownType",
        &["rule 0", "`Net`"],
    ),
    (
        r#""op_names": ["stm"], SETTING"#,
        "UnknownName",
        &["rule 0", "`stm`", "did you mean `stem`"],
    ),
    (
        r#""op_names": ["conv1"], SETTING"#,
        "UnknownName",
        &["`conv1`", "`block.conv1`"],
    ),
    (
        r#""op_names": [""], SETTING"#,
        "UnknownName",
        &["rule 0", "``"],
    ),
    (
        r#""op_names": ["stem.weight"], SETTING"#,
        "UnknownName",
        &["rule 0", "`stem.weight`"],
    ),
    (
        r#""op_names": ["block"], SETTING"#,
        "UnknownName",
        &["rule 0", "`block`"],
    ),
    (
        r#""op_names_re": ["("], SETTING"#,
        "Pattern",
        &["rule 0", "`(`", "no regular expression"],
    ),
    (
        r#""op_names_re": ["conv"], SETTING"#,
        "NoMatch",
        &["`conv`", "start of the full path"],
    ),
    (
        r#""op_types": ["Conv2d"], "exclude_op_names": ["stom"], SETTING"#,
        "UnknownName",
        &["rule 0", "`exclude_op_names`", "did you mean `stem`"],
    ),
    (
        r#""op_types": ["Conv2d"], "exclude_op_types": ["Conv2d"], SETTING"#,
        "Empty",
        &["rule 0 selects no layer"],
    ),
    (
        r#""op_types": ["Linear"], "op_names": ["stem"], SETTING"#,
        "Empty",
        &["rule 0 selects no layer"],
    ),
    (
        r#""op_types": ["Conv2d"], "exclude_op_names_re": [".*"], SETTING"#,
        "Empty",
        &["rule 0 selects no layer"],
    ),
    (
        r#""op_type": ["Conv2d"], SETTING"#,
        "UnknownKey",
        &["rule 0", "`op_type`", "did you mean `op_types`"],
    ),
    (
        r#""op_types": ["Conv2d"], "exclude_names": ["stem"], SETTING"#,
        "UnknownKey",
        &["rule 0", "`exclude_names`"],
    ),
    (
        r#""op_types": ["Conv2d"], "target_names": "weight", SETTING"#,
        "Value",
        &["rule 0", "`target_names`"],
    ),
    (
        r#""op_types": ["Conv2d"], "target_names": [""], SETTING"#,
        "Value",
        &["rule 0", "`target_names`"],
    ),
    (
        r#""op_types": ["Conv2d"], "target_names": ["_output_x"], SETTING"#,
        "Value",
        &["rule 0", "`target_names`", "_output_x"],
    ),
    (
        r#""op_types": ["Conv2d"], "target_settings": {"weight": 3}, SETTING"#,
        "Value",
        &["rule 0", "`target_settings"],
    ),
    (
        r#""op_types": ["Conv2d"], "op_types": ["Linear"], SETTING"#,
        "Syntax",
        &["the key `op_types` is written twice"],
    ),
    (
        r#""op_types": ["Conv2d"], "target_settings": {"weight": {}, "weight": {}}, SETTING"#,
        "Syntax",
        &["the key `weight` is written twice"],
    ),
    (
        r#""op_types": ["Conv2d"], "target_settings": {"weight": {"a": 1, "a": 1}}, SETTING"#,
        "Syntax",
        &["the key `a` is written twice"],
    ),
    (
        r#""op_types": ["Conv2d"], "target_settings": {"weight": {"colour": 1}}, SETTING"#,
        "UnknownKey",
        &["rule 0", "target_settings.weight.colour"],
    ),
];

/// Whole lists.
const LISTS: &[(&str, &str, &[&str])] = &[
    ("", "Syntax", &["JSON"]),
    ("[", "Syntax", &["JSON", "line 1"]),
    ("[{]", "Syntax", &["JSON", "line 1"]),
    ("null", "Syntax", &["JSON", "rules"]),
    ("3", "Syntax", &["JSON", "rules"]),
    (r#""prune""#, "Syntax", &["JSON", "rules"]),
    ("{}", "Syntax", &["JSON", "rules"]),
    ("[]", "NoRules", &["no rules", "leave the compressor out"]),
    (r#"[3]"#, "Syntax", &["JSON"]),
];

pub fn fill(cases: &mut Cases) {
    for (mode, build, setting) in MODES {
        for &(keys, variant, parts) in RULES {
            let rules = format!("[{{{}}}]", keys.replace("SETTING", setting));
            let name = format!("{mode}: {rules}");
            cases.refused(name, variant, parts, move || build(&rules));
        }
        for &(list, variant, parts) in LISTS {
            cases.refused(format!("{mode}: {list}"), variant, parts, move || {
                build(list)
            });
        }
        let twice = format!(
            r#"[{{"op_types": ["Conv2d"], {setting}}}, {{"op_names": ["stem"], {setting}}}]"#
        );
        let parts = ["rule 1", "`stem.", "rule 0", "exclude"];
        cases.refused(format!("{mode}: {twice}"), "Duplicate", parts, move || {
            build(&twice)
        });
        let second = format!(
            r#"[{{"op_names": ["stem"], {setting}}}, {{"op_names": ["stam"], {setting}}}]"#
        );
        let parts = ["rule 1", "`stam`", "did you mean `stem`"];
        cases.refused(
            format!("{mode}: {second}"),
            "UnknownName",
            parts,
            move || build(&second),
        );
    }
    targets(cases);
    toml(cases);
}

/// Targets that a layer does not have, or that a mode cannot act on.
fn targets(cases: &mut Cases) {
    let [(_, prune, _), (_, quantize, _), (_, distill, _)] = MODES;
    for (build, rule, variant, parts) in [
        (
            prune,
            r#""op_names": ["stem"], "target_names": ["kernel"], "sparse_ratio": 0.5"#,
            "UnknownTarget",
            &["rule 0", "`kernel`", "`weight`"][..],
        ),
        (
            prune,
            r#""op_names": ["stem"], "target_names": [], "sparse_ratio": 0.5"#,
            "NoTarget",
            &["rule 0", "stem", "`target_names`"],
        ),
        (
            prune,
            r#""op_names": ["relu"], "sparse_ratio": 0.5"#,
            "NoTarget",
            &["rule 0", "relu", "exclude"],
        ),
        (
            prune,
            r#""op_names": ["stem"], "sparse_ratio": 0.5,
               "target_settings": {"_output_0": {"sparse_ratio": 0.5}}"#,
            "UnusedSettings",
            &["rule 0", "`_output_0`", "`target_names`"],
        ),
        (
            quantize,
            r#""op_names": ["plain"], "target_names": ["_output_"]"#,
            "NotWrapped",
            &["`plain._output_0`", "Wrapper<Linear>"],
        ),
        (
            quantize,
            r#""op_names": ["plain"], "target_names": ["_input_"]"#,
            "NotWrapped",
            &["`plain._input_0`", "Wrapper<Linear>"],
        ),
        (
            distill,
            r#""op_names": ["plain"]"#,
            "NotWrapped",
            &["`plain._output_0`", "Wrapper<Linear>"],
        ),
        (
            distill,
            r#""op_types": ["Conv2d"], "target_names": ["weight"]"#,
            "Invalid",
            &["rule 0", "`weight` is a parameter", "`_output_`"],
        ),
        (
            quantize,
            r#""op_names": ["stem"], "target_names": ["weight", "weight"]"#,
            "Duplicate",
            &["`stem.weight`"],
        ),
    ] {
        let rules = format!("[{{{rule}}}]");
        cases.refused(rules.clone(), variant, parts, move || build(&rules));
    }
}

/// Lists in TOML, which can hold what JSON cannot.
fn toml(cases: &mut Cases) {
    type Read = fn(&str) -> crate::table::Attempt;
    let readers: [(&str, Read, &str); 3] = [
        (
            "pruning",
            |text| {
                let config = ConfigList::<PruningSettings>::from_toml(text)?;
                Ok(config.select(chain().layers()).map(|_| ())?)
            },
            "sparse_ratio",
        ),
        (
            "quantization",
            |text| {
                let config = ConfigList::<QuantizationSettings>::from_toml(text)?;
                Ok(config.select(chain().layers()).map(|_| ())?)
            },
            "quant_dtype",
        ),
        (
            "distillation",
            |text| {
                let config = ConfigList::<DistillationSettings>::from_toml(text)?;
                Ok(config.select(chain().layers()).map(|_| ())?)
            },
            "lambda",
        ),
    ];
    for (mode, read, key) in readers {
        for (text, variant, parts) in [
            ("rules = [", "Syntax", vec!["TOML"]),
            ("rules = 3", "Syntax", vec!["TOML", "rules"]),
            ("", "Syntax", vec!["TOML", "rules"]),
            (
                "[[rule]]\nop_types = [\"Conv2d\"]",
                "Syntax",
                vec!["TOML", "rules"],
            ),
            ("rules = []", "NoRules", vec!["no rules"]),
            (
                "mode = 1\n[[rules]]\nop_types = [\"Conv2d\"]",
                "Syntax",
                vec!["TOML", "mode"],
            ),
            (
                "[[rules]]\nop_types = [\"Conv2d\"]\nKEY = nan",
                "Value",
                vec!["rule 0", key],
            ),
            (
                "[[rules]]\nop_types = [\"Conv2d\"]\nKEY = -inf",
                "Value",
                vec!["rule 0", key],
            ),
            (
                "[[rules]]\nop_types = [\"Conv2d\"]\nKEY = 1979-05-27",
                "Value",
                vec!["rule 0", key],
            ),
            (
                "[[rules]]\nop_types = [\"Conv2d\"]\nKEYS = 1",
                "UnknownKey",
                vec!["rule 0", key],
            ),
        ] {
            let text = text.replace("KEY", key);
            let name = format!("{mode}: {}", text.replace('\n', " "));
            cases.refused(name, variant, parts, move || read(&text));
        }
    }
}
