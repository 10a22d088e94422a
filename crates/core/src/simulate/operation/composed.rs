//! The operation as a formula of tensors, for every backend.

use burn::tensor::{Bool, Tensor};

use super::{Operation, Outcome, Rounding};
use crate::simulate::flat::in_dtype;
use crate::simulate::round_gradient::RoundGradient;

/// The values and, `with_outside`, which of them the range cuts off; without automatic
/// differentiation.
pub(super) fn forward<const D: usize>(
    x: Tensor<D>,
    operation: &Operation<D>,
    with_outside: bool,
) -> Outcome<D> {
    let (value, outside) = match &operation.rounding {
        Some((rounding, _)) => round(x, rounding, with_outside),
        None => (x, None),
    };
    let value = match &operation.mask {
        Some(mask) => value * mask.clone(),
        None => value,
    };
    Outcome { value, outside }
}

/// The gradient of the argument.
pub(super) fn backward<const D: usize>(
    gradient: Tensor<D>,
    mask: Option<Tensor<D>>,
    outside: Option<Tensor<D, Bool>>,
) -> Tensor<D> {
    let gradient = match mask {
        Some(mask) => gradient * mask,
        None => gradient,
    };
    match outside {
        Some(outside) => gradient.mask_fill(outside, 0.0),
        None => gradient,
    }
}

/// The operation under automatic differentiation, by what Burn can differentiate: a difference that
/// is exactly zero carries the gradient and leaves the value alone.
///
/// An infinite value becomes NaN.
pub(super) fn tracked<const D: usize>(x: Tensor<D>, operation: &Operation<D>) -> Tensor<D> {
    let rounded = match &operation.rounding {
        None => x,
        Some((rounding, gradient)) => {
            let plain = x.clone().detach().without_autodiff();
            let (value, outside) = round(plain, rounding, *gradient == RoundGradient::Clipped);
            let path = match outside {
                Some(outside) => x.mask_fill(outside, 0.0),
                None => x,
            };
            path.clone() - path.detach() + value
        }
    };
    match &operation.mask {
        Some(mask) => rounded * mask.clone(),
        None => rounded,
    }
}

fn round<const D: usize>(
    x: Tensor<D>,
    rounding: &Rounding<D>,
    with_outside: bool,
) -> (Tensor<D>, Option<Tensor<D, Bool>>) {
    match rounding {
        Rounding::Affine {
            scale,
            zero_point,
            qmin,
            qmax,
        } => {
            let whole = zero_point.clone().floor();
            let steps = x / scale.clone() + (zero_point.clone() - whole.clone());
            let outside = with_outside.then(|| {
                let position = steps.clone() + whole.clone();
                // What the clamp moves is outside; so is NaN, which equals nothing.
                position.clone().clamp(*qmin, *qmax).not_equal(position)
            });
            let q = (steps.round() + whole).clamp(*qmin, *qmax);
            ((q - zero_point.clone()) * scale.clone(), outside)
        }
        Rounding::Sign { scale } => {
            let outside = with_outside.then(|| {
                let inside = x.clone().abs().lower_equal(scale.clone());
                inside.bool_not()
            });
            let negative = in_dtype(x.clone().lower_elem(0.0).float(), x.dtype());
            let value = (negative * -2.0 + 1.0) * scale.clone();
            (value.mask_where(x.clone().is_nan(), x), outside)
        }
    }
}
