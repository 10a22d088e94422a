//! Settings of pruning.

use super::Row;

pub(super) const PRUNING: &[Row] = &[
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
