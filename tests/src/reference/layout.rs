//! Names and layouts: the files speak PyTorch, the models speak Burn.
//!
//! | PyTorch | Burn |
//! |---|---|
//! | class `BatchNorm1d`, `BatchNorm2d` | `BatchNorm` |
//! | class `ReLU` | `Relu` |
//! | `weight`, `bias` of a batch norm | `gamma`, `beta` |
//! | `Linear` weight `[out, in]` | `[in, out]` |

use super::array::Array;

/// Burn's name of a PyTorch layer class.
pub fn burn_kind(class: &str) -> &str {
    match class {
        "BatchNorm1d" | "BatchNorm2d" | "BatchNorm3d" => "BatchNorm",
        "ReLU" => "Relu",
        other => other,
    }
}

/// Burn's name of a target of a layer; inputs and outputs keep theirs.
pub fn burn_target<'a>(kind: &str, target: &'a str) -> &'a str {
    match (kind, target) {
        ("BatchNorm", "weight") => "gamma",
        ("BatchNorm", "bias") => "beta",
        _ => target,
    }
}

/// PyTorch's name of a target of a layer.
pub fn torch_target<'a>(kind: &str, target: &'a str) -> &'a str {
    match (kind, target) {
        ("BatchNorm", "gamma") => "weight",
        ("BatchNorm", "beta") => "bias",
        _ => target,
    }
}

/// Whether the two libraries store this parameter transposed.
pub fn is_transposed(kind: &str, target: &str) -> bool {
    kind == "Linear" && target == "weight"
}

/// An array of one target from one layout to the other; its own inverse.
///
/// Works for whatever has the rank of the parameter: values, gradients, masks, scales, metrics.
pub fn convert(kind: &str, target: &str, array: &Array) -> Array {
    match is_transposed(kind, target) && array.shape.len() == 2 {
        true => array.reversed(),
        false => array.clone(),
    }
}
