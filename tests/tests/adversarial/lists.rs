//! The settings of every mode: wrong types, numbers out of range, near names, contradictions.

mod distillation;
mod in_code;
mod pruning;
mod quantization;

use burn_compress::prelude::*;

use crate::fixtures::{distill, prune, quantize};
use crate::table::{Attempt, Cases};
use distillation::DISTILLATION;
use pruning::PRUNING;
use quantization::QUANTIZATION;

/// Settings beside `"op_types": ["Conv2d"]`, the variant of the error and parts of its text.
type Row = (&'static str, &'static str, &'static [&'static str]);

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
    in_code::fill(cases);
    links(cases);
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
