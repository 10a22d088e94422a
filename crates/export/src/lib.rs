//! ONNX files of Burn models.
#![warn(missing_docs)]
#![allow(dead_code)]

mod encode;
mod error;
mod graph;
mod proto;

pub use error::ExportError;
