//! The errors of an export.

use std::path::PathBuf;

use burn_compress_core::Error;

use crate::quantize::{OnnxTarget, Refusal, lines};

/// An error of exporting a model to ONNX.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// An error of model or graph; as an [`Error`] it is that error again.
    #[error(transparent)]
    Core(#[from] Error),

    /// A file beyond the limit of the format.
    #[error(
        "the ONNX file would have {bytes} bytes, and a protobuf message holds at most {limit}: make the \
         model smaller (prune it, quantize its weights) or export it in parts"
    )]
    TooLarge {
        /// Size of the file.
        bytes: u64,
        /// Largest size.
        limit: u64,
    },

    /// Quantizers and parameters that the target cannot execute.
    #[error("{target} cannot execute this model:{}", lines(refusals))]
    NotExecutable {
        /// The runtime.
        target: OnnxTarget,
        /// All of them.
        refusals: Vec<Refusal>,
    },

    /// The file could not be written.
    #[error("cannot write `{}`: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        reason: String,
    },
}

impl From<ExportError> for Error {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Core(error) => error,
            error => Self::other(error),
        }
    }
}
