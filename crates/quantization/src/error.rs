//! What can be wrong with a quantization.

use thiserror::Error;

/// Why values cannot be quantized as asked.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum QuantizationError {
    /// The name of a type is not `int2`..`int8` or `uint2`..`uint8`.
    #[error("unknown quantized type `{found}`: use `int` or `uint` and 2 to 8 bits, as in `int8`")]
    UnknownDtype {
        /// The name that was found.
        found: String,
    },

    /// The name of a granularity is unknown.
    #[error(
        "unknown granularity `{found}`: use `default`, `out_channel`, `in_channel`, \
         `per_channel` or a list of block sizes"
    )]
    UnknownGranularity {
        /// The name that was found.
        found: String,
    },

    /// The granularity does not exist for this kind of target.
    #[error("granularity `{granularity}` on `{target}`: {reason}")]
    Granularity {
        /// The granularity as configured.
        granularity: String,
        /// The target, `weight` or `_input_0`.
        target: String,
        /// What does not fit and what to use instead.
        reason: String,
    },

    /// Block sizes do not divide the shape of the target.
    #[error(
        "block size {block} on `{target}` does not divide dimension {dim} of its shape {shape:?}"
    )]
    BlockSize {
        /// The target.
        target: String,
        /// The dimension of the target, in Burn's layout.
        dim: usize,
        /// The block size along that dimension.
        block: i64,
        /// The shape of the target.
        shape: Vec<usize>,
    },

    /// Blocks were made for another shape.
    #[error("{blocks:?} blocks do not divide a tensor of shape {shape:?}")]
    Grid {
        /// The number of blocks along each dimension.
        blocks: Vec<usize>,
        /// The shape of the tensor.
        shape: Vec<usize>,
    },

    /// A range holds a NaN or an infinity.
    #[error(
        "block {block} has the range {minimum}..{maximum}: the values are not finite, \
         the training has probably diverged"
    )]
    NonFiniteRange {
        /// The block, row-major.
        block: usize,
        /// Smallest value.
        minimum: f32,
        /// Largest value.
        maximum: f32,
    },

    /// The device failed to hand over values.
    #[error("the device failed to hand over values: {0}")]
    Device(String),
}
