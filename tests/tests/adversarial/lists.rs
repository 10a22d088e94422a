//! The settings of every mode: wrong types, numbers out of range, near names, contradictions.

use burn_compress::prelude::*;
use burn_compress::quantization::ObserverKind;

use crate::fixtures::{chain, distill, prune, quantize, rule};
use crate::table::{Attempt, Cases};
use burn_compress_tests::chains;

type Row = (&'static str, &'static str, &'static [&'static str]);

/// What is beside `"op_types": ["Conv2d"]`, the variant of the error and what it says.
const PRUNING: &[Row] = &[
    (
        r#""sparse_ratio": "half""#,
        "Value",
        &["rule 0", "`sparse_ratio`", "half"],
    ),
    (
        r#""sparse_ratio": true"#,
        "Value",
        &["rule 0", "`sparse_ratio`"],
    ),
    (
        r#""sparse_ratio": [0.5]"#,
        "Value",
        &["rule 0", "`sparse_ratio`"],
    ),
    (
        r#""sparse_ratio": {}"#,
        "Value",
        &["rule 0", "`sparse_ratio`"],
    ),
    (
        r#""sparse_ratio": null"#,
        "Invalid",
        &["rule 0", "stem", "set `sparse_ratio`"],
    ),
    (
        r#""sparse_ratio": -0.1"#,
        "Invalid",
        &["rule 0", "stem", "-0.1", "0 to 1"],
    ),
    (
        r#""sparse_ratio": 1.5"#,
        "Invalid",
        &["rule 0", "stem", "1.5", "0 to 1"],
    ),
    (
        r#""sparse_ratio": 50"#,
        "Invalid",
        &["rule 0", "stem", "50", "0 to 1"],
    ),
    (
        r#""sparse_ratio": 1e308"#,
        "Invalid",
        &["rule 0", "stem", "0 to 1"],
    ),
    (
        r#""sparse_ration": 0.5"#,
        "UnknownKey",
        &["rule 0", "did you mean `sparse_ratio`"],
    ),
    (
        r#""sparsity": 0.5"#,
        "UnknownKey",
        &["rule 0", "`sparsity`", "`sparse_ratio`"],
    ),
    (
        r#""quant_dtype": "int8""#,
        "UnknownKey",
        &["rule 0", "`quant_dtype`"],
    ),
    (
        r#""sparse_threshold": "low""#,
        "Value",
        &["rule 0", "`sparse_threshold`"],
    ),
    (
        r#""max_sparse_ratio": 0.5"#,
        "Invalid",
        &["rule 0", "stem", "`sparse_ratio`"],
    ),
    (
        r#""sparse_ratio": 0.5, "max_sparse_ratio": 0"#,
        "Invalid",
        &["rule 0", "stem", "`max_sparse_ratio` is 0", "above 0"],
    ),
    (
        r#""sparse_ratio": 0.5, "max_sparse_ratio": 1.1"#,
        "Invalid",
        &["rule 0", "stem", "`max_sparse_ratio` is 1.1"],
    ),
    (
        r#""sparse_ratio": 0.5, "min_sparse_ratio": -1"#,
        "Invalid",
        &["rule 0", "stem", "`min_sparse_ratio` is -1"],
    ),
    (
        r#""sparse_ratio": 0.5, "min_sparse_ratio": 1"#,
        "Invalid",
        &["rule 0", "stem", "`min_sparse_ratio` is 1", "below 1"],
    ),
    (
        r#""sparse_ratio": 0.5, "min_sparse_ratio": 0.6, "max_sparse_ratio": 0.4"#,
        "Invalid",
        &[
            "rule 0",
            "stem",
            "`min_sparse_ratio` is 0.6",
            "`max_sparse_ratio`",
        ],
    ),
    (
        r#""sparse_ratio": 0.5, "max_sparse_ratio": "all""#,
        "Value",
        &["rule 0", "`max_sparse_ratio`"],
    ),
    (
        r#""sparse_ratio": 0.5, "sparse_threshold": 1"#,
        "Invalid",
        &["rule 0", "stem", "exclude each other", "remove one"],
    ),
    (
        r#""sparse_ratio": 0.5, "round_to": 0"#,
        "Invalid",
        &["stem", "`round_to` is 0", "at least 1"],
    ),
    (
        r#""sparse_ratio": 0.5, "round_to": -4"#,
        "Value",
        &["rule 0", "`round_to`"],
    ),
    (
        r#""sparse_ratio": 0.5, "round_to": 1.5"#,
        "Value",
        &["rule 0", "`round_to`"],
    ),
    (
        r#""sparse_ratio": 0.5, "round_to": "4""#,
        "Value",
        &["rule 0", "`round_to`"],
    ),
    (
        r#""sparse_ratio": 0.5, "global_group_id": "a", "internal_metric_block": 0"#,
        "Invalid",
        &["rule 0", "stem", "`internal_metric_block` is 0"],
    ),
    (
        r#""sparse_ratio": 0.5, "internal_metric_block": 2"#,
        "Invalid",
        &[
            "rule 0",
            "stem",
            "`internal_metric_block`",
            "no effect without",
        ],
    ),
    (
        r#""sparse_ratio": 0.5, "global_group_id": 1.5"#,
        "Value",
        &["rule 0", "`global_group_id`"],
    ),
    (
        r#""sparse_ratio": 0.5, "global_group_id": []"#,
        "Value",
        &["rule 0", "`global_group_id`"],
    ),
    (
        r#""sparse_ratio": 0.5, "dependency_group_id": true"#,
        "Value",
        &["rule 0", "`dependency_group_id`"],
    ),
    (
        r#""sparse_threshold": 0.5, "global_group_id": 1"#,
        "Invalid",
        &["rule 0", "stem", "`global_group_id`"],
    ),
    (r#""global_group_id": 1"#, "Invalid", &["rule 0", "stem"]),
    (r#""pattern": 24"#, "Value", &["rule 0", "`pattern`"]),
    (
        r#""pattern": "2-4""#,
        "Value",
        &["rule 0", "`pattern`", "2-4"],
    ),
    (
        r#""pattern": "4:2""#,
        "Value",
        &["rule 0", "`pattern`", "4:2"],
    ),
    (
        r#""pattern": "0:4""#,
        "Value",
        &["rule 0", "`pattern`", "0:4"],
    ),
    (
        r#""pattern": "2:4:8""#,
        "Value",
        &["rule 0", "`pattern`", "2:4:8"],
    ),
    (
        r#""pattern": "2:4", "sparse_ratio": 0.5"#,
        "Invalid",
        &["rule 0", "stem", "exclude each"],
    ),
    (
        r#""pattern": "2:4""#,
        "Invalid",
        &["rule 0", "stem", "2:4", "exclude the layer"],
    ),
    (
        r#""sparse_ratio": 0.5, "granularity": 4"#,
        "Value",
        &["rule 0", "`granularity`"],
    ),
    (
        r#""sparse_ratio": 0.5, "granularity": {}"#,
        "Value",
        &["rule 0", "`granularity`"],
    ),
    (
        r#""sparse_ratio": 0.5, "granularity": [1.5]"#,
        "Value",
        &["rule 0", "`granularity`"],
    ),
    (
        r#""sparse_ratio": 0.5, "granularity": [0, -1, -1, -1]"#,
        "Invalid",
        &["rule 0", "stem", "block size 0"],
    ),
    (
        r#""sparse_ratio": 0.5, "granularity": [-2, -1, -1, -1]"#,
        "Invalid",
        &["rule 0", "stem", "block size -2"],
    ),
    (
        r#""sparse_ratio": 0.5, "granularity": [3, -1, -1, -1]"#,
        "Invalid",
        &["rule 0", "stem", "block size 3", "divisor or -1"],
    ),
    (
        r#""sparse_ratio": 0.5, "granularity": [1, 1, 1, 1, 1]"#,
        "Invalid",
        &["rule 0", "stem", "more dims", "one size a dim"],
    ),
    (r#""align": "weight""#, "Value", &["rule 0", "`align`"]),
    (r#""align": {}"#, "Value", &["rule 0", "`align`"]),
    (
        r#""align": {"target_name": "weight", "dims": "0"}"#,
        "Value",
        &["rule 0", "`align`"],
    ),
    (
        r#""align": {"target_name": "weight", "dims": [-1]}"#,
        "Value",
        &["rule 0", "`align`"],
    ),
    (
        r#""align": {"target_name": "weight", "dims": [0], "dim": 0}"#,
        "Value",
        &["rule 0", "`align`", "dim"],
    ),
    (
        r#""sparse_ratio": 0.5, "align": {"target_name": "bias", "dims": [0]}"#,
        "Invalid",
        &["rule 0", "stem", "exclude each other"],
    ),
    (
        r#""sparse_ratio": 0.5, "apply_method": "multiply""#,
        "Value",
        &["`apply_method`", "multiply"],
    ),
    (
        r#""sparse_ratio": 0.5, "apply_method": 1"#,
        "Value",
        &["rule 0", "`apply_method`"],
    ),
    (
        r#""sparse_ratio": 0.5, "activation": 5"#,
        "Value",
        &["rule 0", "`activation`"],
    ),
    (
        r#""sparse_ratio": 0.5, "activation": "relu""#,
        "NoEffect",
        &["stem", "`activation`", "L1NormPruner", "remove it"],
    ),
];

const QUANTIZATION: &[Row] = &[
    (r#""quant_dtype": 8"#, "Value", &["rule 0", "`quant_dtype`"]),
    (
        r#""quant_dtype": "int16""#,
        "Value",
        &["rule 0", "`quant_dtype`", "int16", "1 to 8 bits"],
    ),
    (
        r#""quant_dtype": "int0""#,
        "Value",
        &["rule 0", "`quant_dtype`", "int0", "1 to 8 bits"],
    ),
    (
        r#""quant_dtype": "INT8""#,
        "Value",
        &["rule 0", "`quant_dtype`", "INT8"],
    ),
    (
        r#""quant_dtype": """#,
        "Value",
        &["rule 0", "`quant_dtype`"],
    ),
    (
        r#""quant_dtype": "float8""#,
        "Value",
        &["rule 0", "`quant_dtype`", "float8"],
    ),
    (
        r#""quant_dtyp": "int8""#,
        "UnknownKey",
        &["rule 0", "did you mean `quant_dtype`"],
    ),
    (
        r#""bits": 8"#,
        "UnknownKey",
        &["rule 0", "`bits`", "quant_dtype"],
    ),
    (
        r#""sparse_ratio": 0.5"#,
        "UnknownKey",
        &["rule 0", "`sparse_ratio`"],
    ),
    (
        r#""quant_scheme": "asymmetric""#,
        "Value",
        &["rule 0", "`quant_scheme`", "affine"],
    ),
    (
        r#""quant_scheme": true"#,
        "Value",
        &["rule 0", "`quant_scheme`"],
    ),
    (
        r#""quant_dtype": "uint1""#,
        "Invalid",
        &["rule 0", "stem", "`affine`"],
    ),
    (
        r#""quant_dtype": "int1""#,
        "Setting",
        &["`quant_dtype`", "int1"],
    ),
    (
        r#""granularity": "channel""#,
        "Value",
        &["rule 0", "`granularity`", "`channel`"],
    ),
    (r#""granularity": 4"#, "Value", &["rule 0", "`granularity`"]),
    (
        r#""granularity": "out_channel""#,
        "Invalid",
        &["rule 0", "stem", "`per_channel`"],
    ),
    (
        r#""target_names": ["weight"], "granularity": "per_channel""#,
        "Invalid",
        &["rule 0", "stem", "`out_channel`"],
    ),
    (
        r#""target_names": ["weight"], "granularity": []"#,
        "Invalid",
        &["rule 0", "stem", "empty"],
    ),
    (
        r#""target_names": ["weight"], "granularity": [3, -1, -1, -1]"#,
        "Invalid",
        &["rule 0", "stem", "block size 3", "[4, 1, 3, 3]"],
    ),
    (
        r#""target_names": ["weight"], "granularity": [0, -1, -1, -1]"#,
        "Invalid",
        &["rule 0", "stem", "positive, or -1"],
    ),
    (
        r#""target_names": ["weight"], "granularity": [1, 1, 1, 1, 1]"#,
        "Invalid",
        &["rule 0", "stem", "has more dims"],
    ),
    (
        r#""observer": "entropy""#,
        "Value",
        &["rule 0", "`observer`", "entropy"],
    ),
    (r#""observer": 3"#, "Value", &["rule 0", "`observer`"]),
    (
        r#""observer": {"percentile": 50}"#,
        "Invalid",
        &["rule 0", "stem", "more than 50"],
    ),
    (
        r#""observer": {"percentile": 101}"#,
        "Invalid",
        &["rule 0", "stem", "at most 100"],
    ),
    (
        r#""observer": {"percentile": -1}"#,
        "Invalid",
        &["rule 0", "stem", "more than 50"],
    ),
    (
        r#""observer": {"percentile": "99"}"#,
        "Value",
        &["rule 0", "`observer`"],
    ),
    (
        r#""observer": {"quantile": 99}"#,
        "Value",
        &["rule 0", "`observer`", "quantile"],
    ),
    (
        r#""apply_method": "round""#,
        "Value",
        &["rule 0", "`apply_method`", "round"],
    ),
    (
        r#""apply_method": []"#,
        "Value",
        &["rule 0", "`apply_method`"],
    ),
    (r#""fuse": "yes""#, "Value", &["rule 0", "`fuse`"]),
    (
        r#""fuse_names": ["stem", "bn"]"#,
        "Value",
        &["rule 0", "`fuse_names`"],
    ),
    (
        r#""fuse_names": [["stem", "bm"]]"#,
        "Fusion",
        &["stem", "bm"],
    ),
    (
        r#""fuse_names": [["stem", "block.bn1"]]"#,
        "Fusion",
        &["stem", "block.bn1"],
    ),
    (
        r#""fuse_names": [["bn", "stem"]]"#,
        "Fusion",
        &["bn", "stem"],
    ),
];

const DISTILLATION: &[Row] = &[
    (r#""lambda": "much""#, "Value", &["rule 0", "`lambda`"]),
    (r#""lambda": [1]"#, "Value", &["rule 0", "`lambda`"]),
    (
        r#""lambda": -1"#,
        "Invalid",
        &["rule 0", "stem", "`lambda` is -1", "not negative"],
    ),
    (
        r#""lamda": 1"#,
        "UnknownKey",
        &["rule 0", "did you mean `lambda`"],
    ),
    (
        r#""sparse_ratio": 0.5"#,
        "UnknownKey",
        &["rule 0", "`sparse_ratio`"],
    ),
    (
        r#""temperature": 4"#,
        "UnknownKey",
        &["rule 0", "`temperature`"],
    ),
    (r#""link": 3"#, "Value", &["rule 0", "`link`"]),
    (
        r#""link": []"#,
        "Invalid",
        &["rule 0", "stem", "`link` is empty", "`auto`"],
    ),
    (
        r#""link": [""]"#,
        "Value",
        &["rule 0", "`link`", "empty name"],
    ),
    (
        r#""link": ["stem", "stem"]"#,
        "Invalid",
        &["rule 0", "`link` names `stem` twice"],
    ),
    (
        r#""link": "stom""#,
        "Algorithm",
        &["teacher", "`stom._output_0`", "did you mean `stem`"],
    ),
    (
        r#""link": "plain""#,
        "Algorithm",
        &["teacher", "`plain._output_0`", "Wrapper<Linear>"],
    ),
    (
        r#""apply_method": "l1""#,
        "Value",
        &["rule 0", "`apply_method`", "l1", "mse"],
    ),
    (
        r#""channels": "some""#,
        "Value",
        &["rule 0", "`channels`", "some"],
    ),
    (
        r#""channel_dim": 0"#,
        "Invalid",
        &["rule 0", "stem", "`channel_dim` is 0", "batch"],
    ),
    (
        r#""channel_dim": -1"#,
        "Value",
        &["rule 0", "`channel_dim`"],
    ),
    (
        r#""channel_dim": 1.5"#,
        "Value",
        &["rule 0", "`channel_dim`"],
    ),
];

pub fn fill(cases: &mut Cases) {
    type Build = fn(&str) -> Attempt;
    let modes: [(&str, &[Row], Build); 3] = [
        ("pruning", PRUNING, |rules| prune(rules).map(|_| ())),
        ("quantization", QUANTIZATION, |rules| {
            quantize(rules).map(|_| ())
        }),
        ("distillation", DISTILLATION, |rules| {
            distill(rules).map(|_| ())
        }),
    ];
    for (mode, rows, build) in modes {
        for &(settings, variant, parts) in rows {
            let rules = format!(r#"[{{"op_types": ["Conv2d"], {settings}}}]"#);
            cases.refused(format!("{mode}: {settings}"), variant, parts, move || {
                build(&rules)
            });
        }
    }
    in_code(cases);
    links(cases);
}

/// Numbers that JSON cannot hold, in rules that are built in code.
fn in_code(cases: &mut Cases) {
    type Set = fn(&mut PruningSettings, f64);
    let keys: [(&str, Set); 4] = [
        ("sparse_ratio", |settings, value| {
            settings.sparse_ratio = Some(value)
        }),
        ("sparse_threshold", |settings, value| {
            settings.sparse_ratio = None;
            settings.sparse_threshold = Some(value);
        }),
        ("max_sparse_ratio", |settings, value| {
            settings.max_sparse_ratio = Some(value)
        }),
        ("min_sparse_ratio", |settings, value| {
            settings.min_sparse_ratio = Some(value)
        }),
    ];
    for (key, set) in keys {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let parts = [
                "rule 0".to_owned(),
                "stem".to_owned(),
                format!("`{key}` is {value}"),
            ];
            cases.refused(
                format!("{key}: {value} in code"),
                "Invalid",
                parts,
                move || {
                    let mut settings = PruningSettings {
                        sparse_ratio: Some(0.5),
                        ..PruningSettings::default()
                    };
                    set(&mut settings, value);
                    L1NormPruner::from_compressor(chain(), rule(settings), PrunerConfig::new())?;
                    Ok(())
                },
            );
        }
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5] {
        let parts = [
            "stem".to_owned(),
            format!("`lambda` is {value}"),
            "finite".to_owned(),
        ];
        cases.refused(
            format!("lambda: {value} in code"),
            "Invalid",
            parts,
            move || {
                let settings = DistillationSettings {
                    lambda: Some(value),
                    ..DistillationSettings::default()
                };
                let config = rule(settings);
                let options = DistillConfig::new(1.0);
                DynamicLayerwiseDistiller::from_compressor(
                    chain(),
                    &config,
                    &crate::fixtures::net(),
                    chains::teach,
                    options,
                )?;
                Ok(())
            },
        );
    }
    for percent in [f64::NAN, f64::INFINITY, 50.0, 100.1] {
        let parts = ["stem", "`observer`", "percentage"];
        cases.refused(
            format!("percentile: {percent} in code"),
            "Invalid",
            parts,
            move || {
                let settings = QuantizationSettings {
                    observer: Some(ObserverKind::Percentile(percent)),
                    ..QuantizationSettings::default()
                };
                QatQuantizer::from_compressor(chain(), rule(settings), QatConfig::new())?;
                Ok(())
            },
        );
    }
    cases.refused("NaN written as JSON", "Write", ["JSON"], || {
        let settings = PruningSettings {
            sparse_ratio: Some(f64::NAN),
            ..PruningSettings::default()
        };
        rule(settings).to_json()?;
        Ok(())
    });
    cases.refused("no rules in code", "NoRules", ["no rules"], || {
        let config = ConfigList::<PruningSettings>::new(Vec::new());
        L1NormPruner::from_compressor(chain(), &config, PrunerConfig::new())?;
        Ok(())
    });
    cases.refused(
        "a rule without a selector in code",
        "NoSelector",
        ["rule 0"],
        || {
            let config = ConfigList::<QuantizationSettings>::new(vec![Rule::new()]);
            QatQuantizer::from_compressor(chain(), &config, QatConfig::new())?;
            Ok(())
        },
    );
}

/// Settings that follow other targets and layers.
fn links(cases: &mut Cases) {
    for (rules, variant, parts) in [
        (
            r#"[{"op_names": ["stem"], "align": {"module_name": "head", "target_name": "weight", "dims": [0]}}]"#,
            "AlignSource",
            &["stem", "head", "add it to the configuration"][..],
        ),
        (
            r#"[{"op_names": ["stem"], "target_names": ["weight"],
                 "align": {"target_name": "weight", "dims": [0]}}]"#,
            "AlignCycle",
            &["stem.weight", "circle"],
        ),
        (
            r#"[{"op_names": ["stem"], "sparse_ratio": 0.5},
                {"op_names": ["block.conv1"], "sparse_ratio": 0.25, "dependency_group_id": 1},
                {"op_names": ["plain"], "sparse_ratio": 0.5, "dependency_group_id": 1}]"#,
            "GroupSetting",
            &["group `1`", "`sparse_ratio`", "different groups"],
        ),
        (
            r#"[{"op_names": ["block.conv1"], "sparse_ratio": 0.5, "global_group_id": 1},
                {"op_names": ["plain"], "sparse_ratio": 0.25, "global_group_id": 1}]"#,
            "GroupSetting",
            &["group `1`", "`sparse_ratio`"],
        ),
        (
            r#"[{"op_names": ["block.conv1"], "sparse_ratio": 0.5, "dependency_group_id": 1},
                {"op_names": ["plain"], "sparse_ratio": 0.5, "dependency_group_id": 1}]"#,
            "GroupShape",
            &["group `1`", "[5]", "[4]"],
        ),
        (
            r#"[{"op_names": ["head"], "sparse_ratio": 0.5}]"#,
            "Unprunable",
            &["head.weight", "output", "exclude the layer"],
        ),
        (
            r#"[{"op_names": ["block.conv2"], "sparse_ratio": 0.5}]"#,
            "Unprunable",
            &[
                "block.conv2.weight",
                "`block.project`",
                "select or exclude both",
            ],
        ),
        (
            r#"[{"op_names": ["block.conv2"], "sparse_ratio": 0.5},
                {"op_names": ["block.project"], "sparse_ratio": 0.25}]"#,
            "CoupledSettings",
            &["block.project", "block.conv2", "differ"],
        ),
    ] {
        cases.refused(rules, variant, parts, move || {
            prune(rules)?.compress(Budget::none())?;
            Ok(())
        });
    }
    let rules = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.0}]"#;
    cases.right("a ratio of 0 masks nothing", move || {
        let compressed = prune(rules)?.compress(Budget::none())?;
        let sparse = compressed.masks().values().any(|mask| mask.removed() > 0);
        crate::table::ensure(!sparse, "something was masked")
    });
    let rules = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 1.0}]"#;
    cases.right("a ratio of 1 leaves a channel", move || {
        let compressed = prune(rules)?.compress(Budget::none())?;
        let masks = compressed.masks();
        let empty = masks.values().any(|mask| mask.sparsity() == 1.0);
        crate::table::ensure(!empty && !masks.is_empty(), "a layer was emptied")
    });
}
