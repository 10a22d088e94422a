//! Settings of distillation.

use super::Row;

pub(super) const DISTILLATION: &[Row] = &[
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
