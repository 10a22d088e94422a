//! Models of other precision than 32 bits.
//!
//! Ranges are followed, and scales learned, in 32 bits: an average in `bf16` would never move by
//! one percent, and neighbouring integers of 8 bits coincide in halves. Values are rounded in 32
//! bits as well and come out in the precision in which they came.

use burn::tensor::{FloatDType, Tensor};

/// The precision of these values.
pub(crate) fn of<const D: usize>(values: &Tensor<D>) -> FloatDType {
    FloatDType::from(values.dtype())
}

/// The values in this precision; gradients flow through.
pub(crate) fn cast<const D: usize>(values: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
    match of(&values) == dtype {
        true => values,
        false => values.cast(dtype),
    }
}

/// The values in 32 bits; gradients flow through.
pub(crate) fn single<const D: usize>(values: Tensor<D>) -> Tensor<D> {
    cast(values, FloatDType::F32)
}
