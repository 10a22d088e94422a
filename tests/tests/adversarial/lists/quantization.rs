//! Settings of quantization.

use super::Row;

pub(super) const QUANTIZATION: &[Row] = &[
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
