//! ONNX files of Burn models.
#![warn(missing_docs)]

mod config;
mod encode;
mod error;
mod export;
mod file;
mod graph;
mod lower;
mod proto;
mod quantize;
mod report;
mod trace;

pub use config::{DynamicAxis, OnnxConfig};
pub use error::{ExportError, UnsupportedOperation};
pub use export::{export_graph_cut, export_onnx};
pub use file::OnnxFile;
pub use quantize::{
    ConstantBytes, Difference, FloatNode, FoldedNorm, IntegerNode, LargestBias, OnnxTarget,
    QuantizationReport, Refusal, TensorQuantizer,
};
pub use report::{OnnxReport, OnnxValue};
