//! Models of other precision than 32 bits.
//!
//! Ranges are followed, and scales learned, in 32 bits: an average in `bf16` would never move by
//! one percent, and neighbouring integers of 8 bits coincide in halves. Values are rounded in 32
//! bits as well and come out in the precision in which they came.

use burn::tensor::{DType, Tensor};
pub(crate) use burn_compress_core::in_dtype;

/// The values in 32 bits; gradients flow through.
pub(crate) fn single<const D: usize>(values: Tensor<D>) -> Tensor<D> {
    in_dtype(values, DType::F32)
}
