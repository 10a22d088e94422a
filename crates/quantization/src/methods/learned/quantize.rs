//! Rounding to a grid whose scale and zero point have gradients.
//!
//! With the scale `s` and the zero point `z` of a block, `p = x / s + z` and `q` its integer,
//! `round(x / s) + z` where `z` is one:
//!
//! ```text
//! x'      =  (clamp(q, qmin, qmax) - z) s
//! dx'/dx  =  1 inside the range, 0 outside
//! dx'/ds  =  g (q - p) inside, g (qmin - z) below, g (qmax - z) above
//! dx'/dz  =  0 inside, -s outside
//! g       =  1 / sqrt(qmax n)    with the n values of the tensor, batch included
//! ```
//!
//! The trained number has the scale as its magnitude: a step beyond zero comes out on the other
//! side. So scales stay positive, and at least [`f32::EPSILON`], without a correction after the
//! step that the optimizer would not know of.

use burn::tensor::Tensor;
use burn_compress_core::{FlatTensor, Grid, QuantDtype};

use crate::{QuantizationError, precision};

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
    let FlatTensor { values: x, shape } = value;
    let given = x.dtype();
    let x = precision::single(x);
    // One block broadcasts by itself.
    let spread = |per_block: Tensor<1>| match grid.len() {
        1 => precision::single(per_block),
        _ => grid.expand(precision::single(per_block), &shape),
    };
    let plain = |tensor: &Tensor<1>| tensor.clone().detach().without_autodiff();
    let (s, z) = (spread(positive(plain(&scale))), spread(plain(&zero_point)));
    let (qmin, qmax) = (dtype.qmin(), dtype.qmax());
    let whole = z.clone().floor();
    let steps = plain(&x) / s.clone() + (z.clone() - whole.clone());
    let position = steps.clone() + whole.clone();
    let outside = position
        .clone()
        .clamp(qmin, qmax)
        .not_equal(position.clone());
    let rounded = (steps.round() + whole).clamp(qmin, qmax);
    let value = (rounded.clone() - z.clone()) * s.clone();
    let mut result = value;
    if x.is_autodiff() {
        result = carry(x.mask_fill(outside.clone(), 0.0)) + result;
    }
    if scale.is_autodiff() {
        let elements = outside.dims()[0] as f64;
        let factor = 1.0 / (f64::from(dtype.qmax()) * elements).sqrt();
        let inside = rounded.clone() - position;
        let slope = inside.mask_where(outside.clone(), rounded - z);
        let sign = plain(&scale).lower_elem(0.0).float() * -2.0 + 1.0;
        result = carry(spread(scale * sign) * (slope * factor)) + result;
    }
    if zero_point.is_autodiff() {
        let slope = s.neg() * precision::single(outside.float());
        result = carry(spread(zero_point) * slope) + result;
    }
    FlatTensor {
        values: precision::in_dtype(result, given),
        shape,
    }
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

/// Exactly zero, with the gradients of `path`.
fn carry(path: Tensor<1>) -> Tensor<1> {
    path.clone() - path.detach()
}

/// Scale of the trained number.
pub(super) fn positive(trained: Tensor<1>) -> Tensor<1> {
    trained.abs().clamp_min(f32::EPSILON)
}

#[cfg(test)]
mod tests;
