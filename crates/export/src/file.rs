//! An ONNX file in memory.

use std::path::Path;

use burn_compress_core::file::write_whole;

use crate::encode::{encode, opset};
use crate::graph::OnnxGraph;
use crate::{ExportError, OnnxReport, QuantizationReport};

/// An ONNX file, ready to be written.
#[derive(Clone, Debug)]
pub struct OnnxFile {
    bytes: Vec<u8>,
    report: OnnxReport,
}

impl OnnxFile {
    pub(crate) fn of(
        graph: &OnnxGraph,
        notes: Vec<String>,
        quantization: Option<QuantizationReport>,
    ) -> Result<Self, ExportError> {
        let bytes = encode(graph)?;
        let mut report = OnnxReport::of(graph, bytes.len(), opset(graph), notes);
        report.quantization = quantization;
        Ok(Self { bytes, report })
    }

    /// The content of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the file holds.
    pub fn report(&self) -> &OnnxReport {
        &self.report
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    ///
    /// Whatever goes wrong while writing.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ExportError> {
        let path = path.as_ref();
        write_whole(path, &[&self.bytes]).map_err(|error| ExportError::Write {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })
    }
}
