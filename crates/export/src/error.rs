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

    /// A dummy input whose closure makes the inputs.
    #[error(
        "the forward pass has no inputs: its dummy input makes them in the closure, so that they are \
         constants of the graph; make it with `DummyInput::new`"
    )]
    NoInputs,

    /// Inputs of a type that has no other sizes.
    #[error(
        "the inputs cannot be brought to other sizes, which dynamic dimensions need: implement \
         `ForwardInputs::resized` for their type, or export with fixed sizes \
         (`with_dynamic_batch(false)`)"
    )]
    FixedInputs,

    /// A dynamic dimension that the inputs do not have.
    #[error("dimension {axis} of input {input} cannot be dynamic as `{name}`: {reason}")]
    Axis {
        /// Number of the input.
        input: usize,
        /// Dimension of the input.
        axis: usize,
        /// Name of the size.
        name: String,
        /// Reason.
        reason: String,
    },

    /// A forward pass that is another one for other sizes.
    #[error(
        "the forward pass does not follow `{axis}` to other sizes: {reason}; export with a fixed size \
         (`with_dynamic_batch(false)` for the batch, no `with_dynamic_axis` for another dimension)"
    )]
    NotDynamic {
        /// Name of the dynamic dimension.
        axis: String,
        /// Difference that was found.
        reason: String,
    },

    /// A forward pass that is another one for other values of its inputs.
    #[error(
        "the forward pass reads the values of its inputs: {reason}; the file would compute with those of \
         the dummy input. Compute them with operations on tensors"
    )]
    ReadsValues {
        /// Difference that was found.
        reason: String,
    },

    /// Names of inputs or outputs that cannot be used.
    #[error("the {what} names {names:?} cannot be used: {reason}")]
    Names {
        /// `input` or `output`.
        what: &'static str,
        /// The names.
        names: Vec<String>,
        /// Reason.
        reason: String,
    },

    /// Operations that no ONNX operator computes.
    #[error(
        "{} of the forward pass cannot be exported:{}",
        count(unsupported.len(), "operation"),
        listed(unsupported)
    )]
    Unsupported {
        /// All of them.
        unsupported: Vec<UnsupportedOperation>,
    },

    /// Masks that change the statistics of a norm.
    #[error(
        "the masks of `{}`{} take channels out of the statistics of the norm, which no operator of ONNX \
         does: cut them first (`speedup`), or leave the norm out of the pruning rules",
        layers.first().map_or("", String::as_str),
        others(layers.len())
    )]
    MaskedNorm {
        /// The norms.
        layers: Vec<String>,
    },

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

/// An operation of a forward pass that no ONNX operator computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedOperation {
    /// Name of the operation: `conv2d`, or the identifier of a custom one.
    pub operation: String,
    /// The layer whose parameters it reads, or the one before it; empty in front of all layers.
    pub layer: String,
    /// Reason and remedy.
    pub reason: String,
}

fn listed(unsupported: &[UnsupportedOperation]) -> String {
    let line = |found: &UnsupportedOperation| {
        let UnsupportedOperation {
            operation,
            layer,
            reason,
        } = found;
        match layer.is_empty() {
            true => format!("\n  `{operation}` in front of all layers: {reason}"),
            false => format!("\n  `{operation}` at `{layer}`: {reason}"),
        }
    };
    unsupported.iter().map(line).collect()
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

fn others(number: usize) -> String {
    match number {
        0 | 1 => String::new(),
        number => format!(" and {} more", number - 1),
    }
}

impl From<ExportError> for Error {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Core(error) => error,
            error => Self::other(error),
        }
    }
}
