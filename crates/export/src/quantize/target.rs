//! Runtimes that execute an exported file, and what each of them can execute in integers.
//!
//! | target           | activations                  | weights                           | bias  |
//! |------------------|------------------------------|-----------------------------------|-------|
//! | `OnnxRuntime`    | int8 or uint8, any zero point | int8, one scale a channel         | int32 |
//! | `OnnxRuntimeX86` | the same                     | uint8 with zero point 128, or int8 of 7 bits | int32 |
//! | `TensorRt`       | int8, zero point 0           | int8, one scale a channel         | float |
//! | `Float`          | not quantized                | the values that are simulated     | float |
//!
//! All want one scale for a whole activation. onnxruntime executes a convolution in integers if its
//! input and output are quantized; TensorRT needs the input only.
//!
//! # Saturation on x86
//!
//! Processors without VNNI multiply eight-bit numbers by `vpmaddubsw`, which adds two products in 16
//! bits. Both operands near the end of their range pass `2 * 255 * 127 = 64770 > 32767`, and the sum
//! is cut off without a warning. Weights in uint8 take another path, and weights of at most 64 stay
//! below the limit: `2 * 255 * 64 = 32640`.

use serde::{Deserialize, Serialize};

/// Largest magnitude of an int8 weight whose products with uint8 do not saturate, see the
/// [module](self).
const UNSATURATED: i32 = 64;

/// Runtime that an exported file is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnnxTarget {
    /// onnxruntime on processors with integer dot products: x86 with VNNI, ARM.
    OnnxRuntime,
    /// onnxruntime on any x86: exact on processors without VNNI as well, a little slower on the
    /// others.
    #[default]
    OnnxRuntimeX86,
    /// TensorRT with explicit quantization.
    TensorRt,
    /// Any runtime, in floating point: parameters have the values that were simulated, inputs and
    /// outputs are not quantized.
    Float,
}

impl OnnxTarget {
    /// Whether anything is quantized.
    pub(crate) fn is_integer(self) -> bool {
        self != Self::Float
    }

    /// Whether activations may have a zero point other than 0, and be unsigned.
    pub(crate) fn takes_zero_points(self) -> bool {
        self != Self::TensorRt
    }

    /// Whether the bias is an int32 of the scale of the products.
    pub(crate) fn has_integer_bias(self) -> bool {
        matches!(self, Self::OnnxRuntime | Self::OnnxRuntimeX86)
    }

    /// Whether `operator` is executed in integers only with a quantizer right behind it.
    pub(crate) fn needs_quantized_output(self, operator: &str) -> bool {
        self != Self::TensorRt && !matches!(operator, "Gemm" | "MatMul")
    }

    /// Whether `operator` becomes part of the convolution before it, so that nothing has to be quantized
    /// between the two.
    pub(crate) fn fuses_behind_convolutions(self, operator: &str) -> bool {
        self == Self::TensorRt && matches!(operator, "Relu" | "Clip" | "Add")
    }

    /// Whether `operator` can be executed in integers.
    pub(crate) fn executes(self, operator: &str) -> bool {
        match self {
            Self::Float => false,
            Self::TensorRt => matches!(
                operator,
                "Conv"
                    | "ConvTranspose"
                    | "Gemm"
                    | "MatMul"
                    | "Add"
                    | "AveragePool"
                    | "GlobalAveragePool"
                    | "MaxPool"
                    | "Concat"
            ),
            Self::OnnxRuntime | Self::OnnxRuntimeX86 => matches!(
                operator,
                "Conv"
                    | "Gemm"
                    | "MatMul"
                    | "Add"
                    | "Mul"
                    | "AveragePool"
                    | "GlobalAveragePool"
                    | "MaxPool"
                    | "Concat"
                    | "Sigmoid"
                    | "Softmax"
                    | "LeakyRelu"
            ),
        }
    }

    /// Whether products with weights of four bits are an operator of their own.
    pub(crate) fn unpacks_weights(self) -> bool {
        matches!(self, Self::OnnxRuntime | Self::OnnxRuntimeX86)
    }

    /// Whether weights of this largest magnitude are stored unsigned, with zero point 128.
    pub(crate) fn shifts_weights(self, largest: i32) -> bool {
        self == Self::OnnxRuntimeX86 && largest > UNSATURATED
    }
}

impl std::fmt::Display for OnnxTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::OnnxRuntimeX86 => "onnxruntime on x86",
            Self::TensorRt => "TensorRT",
            Self::Float => "floating point",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wide_weights_are_shifted() {
        assert!(OnnxTarget::OnnxRuntimeX86.shifts_weights(65));
        assert!(!OnnxTarget::OnnxRuntimeX86.shifts_weights(64));
        assert!(!OnnxTarget::OnnxRuntime.shifts_weights(127));
        assert!(!OnnxTarget::TensorRt.shifts_weights(127));
    }

    #[test]
    fn names_are_written_as_words() {
        let written = serde_json::to_string(&OnnxTarget::OnnxRuntimeX86).unwrap();
        assert_eq!(written, r#""onnx_runtime_x86""#);
    }
}
