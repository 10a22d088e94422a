//! The simulated logic of a target in one pass over its values, and one back.
//!
//! Rounding and masking as a formula of tensors is a chain of a dozen operations, each of which
//! reads and writes the whole tensor, and as many in the backward pass. As one [`Operation`] it
//! reads and writes each value once:
//!
//! ```text
//! forward    x' = mask * (clamp(round(x / s) + z, qmin, qmax) - z) * s
//! backward   dx = mask * dx'        zero where the range cuts x off, if the gradient is clipped
//! ```
//!
//! Where nothing else holds the memory of `x` it is changed in place, and so is the gradient.
//! For the backward pass are kept: the mask, of size 1 along what it does not distinguish; with
//! [`RoundGradient::Clipped`] a byte for each value, whether the range cuts it off; otherwise nothing.
//!
//! [`composed`] is the formula, for every backend, and the reference of the loops that stand in its
//! place: `cpu` for `flex` and libtorch, `cube` for `wgpu` and CUDA. They compute the same values bit for
//! bit.

// What cannot be done here comes back as it is, for the next that may.
#![allow(clippy::result_large_err)]

pub(crate) mod composed;
#[cfg(any(feature = "flex", feature = "tch"))]
mod cpu;
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
mod cube;
pub(crate) mod learned;
pub(crate) mod learned_range;
mod runs;
#[cfg(test)]
mod tests;

use burn::tensor::{Bool, Tensor};

use crate::simulate::block::Grid;
use crate::simulate::flat::FlatTensor;
use crate::simulate::gradient::{self, GradientRule};
use crate::simulate::round_gradient::RoundGradient;

/// Rounding to a grid. The tensors broadcast against the values.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // There is one for a target.
pub(crate) enum Rounding<const D: usize> {
    /// To the integers of a range.
    Affine {
        scale: Tensor<D>,
        zero_point: Tensor<D>,
        qmin: f32,
        qmax: f32,
    },
    /// To the sign, with `sign(0) = 1`, times the scale.
    Sign { scale: Tensor<D> },
}

/// Rounding, then a product with a mask; each may be absent. The tensors are on a device without
/// automatic differentiation and have the type of the values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operation<const D: usize> {
    pub(crate) rounding: Option<(Rounding<D>, RoundGradient)>,
    /// Factors, broadcast against the values.
    pub(crate) mask: Option<Tensor<D>>,
}

/// Result of an operation.
pub(crate) struct Outcome<const D: usize> {
    pub(crate) value: Tensor<D>,
    /// The values that the range cuts off, where they are asked for.
    pub(crate) outside: Option<Tensor<D, Bool>>,
}

impl<const D: usize> Operation<D> {
    /// The values that the operation makes of `x`; gradients flow to `x` alone.
    pub(crate) fn apply(self, x: Tensor<D>) -> Tensor<D> {
        if self.rounding.is_none() && self.mask.is_none() {
            return x;
        }
        let is_clipped =
            matches!(&self.rounding, Some((_, gradient)) if *gradient == RoundGradient::Clipped);
        let tracked = gradient::replace(x, |x| {
            let Outcome { value, outside } = self.forward(x, is_clipped);
            let mask = self.mask.clone();
            let rule = match (&mask, &outside) {
                (None, None) => GradientRule::identity(),
                _ => GradientRule::new(move |gradient| {
                    backward(gradient, mask.clone(), outside.clone())
                }),
            };
            (value, rule)
        });
        tracked.unwrap_or_else(|x| composed::tracked(x, &self))
    }

    /// The values on a device without automatic differentiation.
    fn forward(&self, x: Tensor<D>, with_outside: bool) -> Outcome<D> {
        #[cfg(any(feature = "flex", feature = "tch"))]
        let x = match cpu::forward(x, self, with_outside) {
            Ok(outcome) => return outcome,
            Err(x) => x,
        };
        #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
        let x = match cube::forward(x, self, with_outside) {
            Ok(outcome) => return outcome,
            Err(x) => x,
        };
        composed::forward(x, self, with_outside)
    }
}

/// The gradient of the argument.
fn backward<const D: usize>(
    gradient: Tensor<D>,
    mask: Option<Tensor<D>>,
    outside: Option<Tensor<D, Bool>>,
) -> Tensor<D> {
    #[cfg(any(feature = "flex", feature = "tch"))]
    let gradient = match cpu::backward(gradient, mask.as_ref(), outside.as_ref()) {
        Ok(gradient) => return gradient,
        Err(gradient) => gradient,
    };
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
    let gradient = match cube::backward(gradient, mask.as_ref(), outside.as_ref()) {
        Ok(gradient) => return gradient,
        Err(gradient) => gradient,
    };
    composed::backward(gradient, mask, outside)
}

/// Smallest and largest value of each block of `values`, read once, where the blocks lie along one
/// dimension at most and the backend has a loop for it; none flows back.
///
/// A NaN in a block makes both NaN.
///
/// # Shapes
///
/// - values: any, a multiple of the grid and not empty
/// - result: `[grid.len()]` each
pub fn extremes(values: &FlatTensor, grid: &Grid) -> Option<[Tensor<1>; 2]> {
    let split = grid.split(&values.shape)?;
    let values = values.values.clone().detach().without_autodiff();
    #[cfg(any(feature = "flex", feature = "tch"))]
    return cpu::extremes(values, split).ok();
    #[cfg(not(any(feature = "flex", feature = "tch")))]
    {
        let _ = (values, split);
        None
    }
}

/// The results of `each` for the numbers of each block, computed in the processor's memory where they
/// lie there as `f32`; none of tensors elsewhere, with automatic differentiation, or of different
/// lengths.
///
/// Nothing is waited for, so it is not counted as a [read](crate::reads).
///
/// A chain of tensor operations costs the same for one number as for a thousand, and the scales of a
/// model are made of some twenty such operations for each target in each step.
///
/// # Shapes
///
/// - numbers, result: `[blocks]`
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::by_block;
///
/// let device = Device::flex();
/// let low = Tensor::<1>::from_floats([1.0, 2.0], &device);
/// let high = Tensor::<1>::from_floats([5.0, 8.0], &device);
/// let [width] = by_block([&low, &high], |[low, high]| [high - low]).unwrap();
/// assert_eq!(width.into_data().try_to_vec::<f32>().unwrap(), [4.0, 6.0]);
/// ```
pub fn by_block<const N: usize, const M: usize>(
    numbers: [&Tensor<1>; N],
    each: impl Fn([f32; N]) -> [f32; M],
) -> Option<[Tensor<1>; M]> {
    #[cfg(any(feature = "flex", feature = "tch"))]
    return cpu::by_block(numbers, each);
    #[cfg(not(any(feature = "flex", feature = "tch")))]
    {
        let _ = (numbers, each);
        None
    }
}
