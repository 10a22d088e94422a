//! The factor of a learned scale's gradient.
//!
//! The gradients are those of [`fake_quantize_learned`] with
//!
//! ```text
//! g  =  1 / sqrt(qmax n)    with the n values of the tensor, batch included
//! ```

use burn::tensor::Tensor;
use burn_compress_core::fake_quantize::{LearnedRange, fake_quantize_learned};
use burn_compress_core::{FlatTensor, Grid, QuantDtype};

use crate::QuantizationError;

/// Rounds to a grid whose scale, and zero point if it requires a gradient, are learned.
///
/// The value is that of the standard simulation bit for bit.
///
/// # Shapes
///
/// - value: any, a multiple of the grid
/// - scale, zero_point: `[grid.len()]`
pub(super) fn quantize(
    value: FlatTensor,
    grid: &Grid,
    scale: Tensor<1>,
    zero_point: Tensor<1>,
    dtype: QuantDtype,
) -> FlatTensor {
    let elements = value.values.dims()[0] as f64;
    let range = LearnedRange {
        qmin: dtype.qmin(),
        qmax: dtype.qmax(),
        factor: 1.0 / (f64::from(dtype.qmax()) * elements).sqrt(),
    };
    fake_quantize_learned(value, grid, scale, zero_point, range)
}

/// [`quantize`] with a check of the shapes.
///
/// # Errors
///
/// [`QuantizationError::Grid`] when the grid does not divide the shape, or when there is not one
/// scale and one zero point for each block.
pub(crate) fn checked_quantize(
    value: FlatTensor,
    grid: &Grid,
    scale: Tensor<1>,
    zero_point: Tensor<1>,
    dtype: QuantDtype,
) -> Result<FlatTensor, QuantizationError> {
    let one_each = [&scale, &zero_point].map(|tensor| tensor.dims()[0] == grid.len());
    if !fit(grid, &value.shape) || one_each != [true, true] {
        return Err(QuantizationError::Grid {
            blocks: grid.blocks().to_vec(),
            shape: value.shape,
        });
    }
    Ok(quantize(value, grid, scale, zero_point, dtype))
}

/// Whether the blocks tile a tensor of this shape.
pub(super) fn fit(grid: &Grid, shape: &[usize]) -> bool {
    let blocks = grid.blocks();
    let tile = |(&size, &blocks): (&usize, &usize)| blocks > 0 && size % blocks == 0;
    grid.len() == 1 || (blocks.len() == shape.len() && shape.iter().zip(blocks).all(tile))
}

#[cfg(test)]
mod tests;
