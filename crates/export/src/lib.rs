//! ONNX files of Burn models.
#![warn(missing_docs)]
#![allow(dead_code)]

mod encode;
mod error;
mod graph;
mod proto;
mod quantize;

pub use error::ExportError;
pub use quantize::{
    ConstantBytes, Difference, FloatNode, FoldedNorm, IntegerNode, LargestBias, OnnxTarget,
    QuantizationReport, Refusal, TensorQuantizer,
};
