//! ONNX files of Burn models, plain and compressed, that other runtimes execute.
//!
//! [`export_onnx`] captures the forward pass of a model and writes its operations as ONNX operators:
//!
//! ```text
//! model + DummyInput ──trace──► operations, sizes ──lower──► graph ──quantize──► integers ──encode──► file
//! ```
//!
//! - `trace/`: captures with several sizes, compared operation by operation, so that dimensions of the
//!   inputs can be dynamic.
//! - `lower/`: one rule for every operation. What no operator computes is an error that lists all, each
//!   with its layer.
//! - `quantize/`: a calibration, rewritten for a runtime that computes in integers ([`OnnxTarget`]).
//! - `proto`, `encode`: the messages of ONNX and their bytes; nothing is generated, and no program
//!   beside the compiler is needed.
//!
//! # Running a file
//!
//! In Python:
//!
//! ```text
//! import numpy, onnxruntime
//! session = onnxruntime.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
//! [logits] = session.run(None, {"images": images.astype(numpy.float32)})
//! ```
//!
//! In Rust with the crate `ort`, whose feature `load-dynamic` takes the library that
//! `ORT_DYLIB_PATH` names, such as `libonnxruntime.so` of the Python package.
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
