//! The configurations of the examples, in the form in which they would stand in a file.

use burn_compress::prelude::*;

/// All convolutions lose `sparsity` of their output channels.
///
/// # Errors
///
/// Never for a sparsity between 0 and 1.
pub fn pruning(sparsity: f64) -> anyhow::Result<ConfigList<PruningSettings>> {
    let rules = format!(r#"[{{"op_types": ["Conv2d"], "sparse_ratio": {sparsity}}}]"#);
    Ok(ConfigList::from_json(&rules)?)
}

/// Int8: the inputs of convolutions per channel, their weights per output channel, the outputs of
/// batch norms per channel.
///
/// # Errors
///
/// Never.
pub fn quantization() -> anyhow::Result<ConfigList<QuantizationSettings>> {
    Ok(ConfigList::from_json(
        r#"[
            {
                "op_types": ["Conv2d"], "quant_dtype": "int8",
                "target_names": ["_input_", "weight"],
                "target_settings": {
                    "_input_": {"granularity": "per_channel"},
                    "weight": {"granularity": "out_channel"}
                }
            },
            {
                "op_types": ["BatchNorm"], "quant_dtype": "int8",
                "target_names": ["_output_"], "granularity": "per_channel"
            }
        ]"#,
    )?)
}

/// Every convolution's output follows the teacher's.
///
/// # Errors
///
/// Never.
pub fn distillation() -> anyhow::Result<ConfigList<DistillationSettings>> {
    let rules = r#"[{"op_types": ["Conv2d"], "lambda": 0.1, "apply_method": "mse"}]"#;
    Ok(ConfigList::from_json(rules)?)
}
