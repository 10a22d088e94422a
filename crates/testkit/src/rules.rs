//! The rules that the algorithms are tested with.

use burn_compress::config::{ConfigList, Settings};
use burn_compress::distillation::DistillationSettings;
use burn_compress::pruning::PruningSettings;
use burn_compress::quantization::QuantizationSettings;

/// The ratio of [`half_of_the_channels`].
pub(crate) const RATIO: f64 = 0.5;

/// Half of each of the four convolutions.
pub fn half_of_the_channels() -> ConfigList<PruningSettings> {
    list(r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#)
}

/// Inputs and weights of the four convolutions in symmetric int8, eight targets.
pub fn int8() -> ConfigList<QuantizationSettings> {
    list(
        r#"[{
            "op_types": ["Conv2d"], "target_names": ["_input_", "weight"],
            "quant_dtype": "int8", "quant_scheme": "symmetric"
        }]"#,
    )
}

/// As [`int8`], with the batch norms of three convolutions folded into them.
pub(crate) fn int8_with_folded_norms() -> ConfigList<QuantizationSettings> {
    list(
        r#"[{
            "op_types": ["Conv2d"], "target_names": ["_input_", "weight"],
            "quant_dtype": "int8", "quant_scheme": "symmetric", "fuse": true
        }]"#,
    )
}

/// The weights of the four convolutions in one bit. A binary grid has no zero, so an input would
/// lose its removed channels to ones.
pub(crate) fn binary(folds: bool) -> ConfigList<QuantizationSettings> {
    list(&format!(
        r#"[{{
            "op_types": ["Conv2d"], "target_names": ["weight"], "quant_dtype": "int1",
            "fuse": {folds}
        }}]"#
    ))
}

/// The outputs of the four convolutions.
pub fn hidden_states() -> ConfigList<DistillationSettings> {
    list(r#"[{"op_types": ["Conv2d"], "lambda": 0.1}]"#)
}

/// The output of the last layer.
pub fn logits() -> ConfigList<DistillationSettings> {
    list(r#"[{"op_names": ["head"], "lambda": 0.1}]"#)
}

fn list<S: Settings>(json: &str) -> ConfigList<S> {
    ConfigList::from_json(json).expect("the rules of the kit are valid")
}
