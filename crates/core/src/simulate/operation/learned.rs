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
//! ```
//!
//! with a factor `g` of the gradient of scales. For the backward pass the values are kept; the sums
//! over a block are added up in `f64` where the backend has a loop.
//!
//! # References
//!
//! Esser et al., *Learned Step Size Quantization*, arXiv 1902.08153; Bhalgat et al., *LSQ+: Improving
//! low-bit quantization through learnable offsets and better initialization*, arXiv 2004.09576.

use std::sync::Arc;

use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData};

use super::learned_range::LearnedRange;
use super::{Operation, Rounding};
use crate::simulate::block::Grid;
use crate::simulate::flat::{FlatTensor, in_dtype};
use crate::simulate::gradient::{LearnedRule, replace_learned};
use crate::simulate::round_gradient::RoundGradient;

/// The scale that stands for a trained number: its magnitude, and at least [`f32::EPSILON`].
///
/// A step of training beyond zero comes out on the other side. So scales stay positive without a
/// correction after the step that the optimizer would not know of.
///
/// # Shapes
///
/// - trained, result: `[any]`
pub fn positive_scale(trained: Tensor<1>) -> Tensor<1> {
    trained.abs().clamp_min(f32::EPSILON)
}

/// Rounds to a grid whose scale and zero point are trained, computed in `f32`.
///
/// Gradients flow to all three, as far as they are part of a graph. The value is that of
/// [`fake_quantize`](super::super::fake_quantize::fake_quantize) with the
/// [positive](positive_scale) scale, bit for bit; it comes out in the type of `value`.
///
/// # Shapes
///
/// - value: any, a multiple of the grid
/// - scale, zero_point: `[grid.len()]`
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::fake_quantize::{LearnedRange, fake_quantize_learned};
/// use burn_compress_core::{FlatTensor, Grid};
///
/// let device = Device::flex().autodiff();
/// let scale = Tensor::<1>::from_floats([0.5], &device).require_grad();
/// let zero_point = Tensor::<1>::zeros([1], &device);
/// let x = FlatTensor::new(Tensor::<1>::from_floats([0.3, 9.0], &device));
/// let range = LearnedRange { qmin: -3.0, qmax: 3.0, factor: 1.0 };
/// let y = fake_quantize_learned(x, &Grid::per_tensor(1), scale.clone(), zero_point, range).values;
/// assert_eq!(y.to_data().try_to_vec::<f32>().unwrap(), [0.5, 1.5]);
/// // round(0.6) - 0.6 = 0.4 inside, qmax = 3 above.
/// let gradient = scale.grad(&y.sum().backward()).unwrap().into_data();
/// assert!((gradient.try_to_vec::<f32>().unwrap()[0] - 3.4).abs() < 1e-6);
/// ```
pub fn fake_quantize_learned(
    value: FlatTensor,
    grid: &Grid,
    scale: Tensor<1>,
    zero_point: Tensor<1>,
    range: LearnedRange,
) -> FlatTensor {
    let FlatTensor { values: x, shape } = value;
    let given = x.dtype();
    let single = |tensor| in_dtype(tensor, DType::F32);
    let (x, parameters) = (single(x), [scale, zero_point].map(single));
    let grid = Arc::new(LearnedGrid::new(grid.clone(), shape, range));
    let of_rule = grid.clone();
    let forward = move |x: Tensor<1>, [trained, zero_point]: [Tensor<1>; 2]| {
        let scale = positive_scale(trained.clone());
        let value = of_rule.forward(x.clone(), scale.clone(), zero_point.clone());
        let rule: LearnedRule = Arc::new(move |gradient| {
            let kept = (x.clone(), scale.clone(), zero_point.clone());
            let (gradient, [of_scale, of_zero_point]) = of_rule.backward(gradient, kept);
            let sign = single(trained.clone().lower_elem(0.0).float()) * -2.0 + 1.0;
            (gradient, [of_scale * sign, of_zero_point])
        });
        (value, rule)
    };
    let any_graph = x.is_autodiff() || parameters.iter().any(Tensor::is_autodiff);
    let values = match any_graph {
        false => {
            let [trained, zero_point] = parameters;
            grid.forward(x, positive_scale(trained), zero_point)
        }
        true => replace_learned(x, parameters, forward)
            .unwrap_or_else(|(x, parameters)| grid.tracked(x, parameters)),
    };
    FlatTensor {
        values: in_dtype(values, given),
        shape: grid.shape.clone(),
    }
}

/// Blocks of a value and the range that it is rounded to.
pub(super) struct LearnedGrid {
    grid: Grid,
    shape: Vec<usize>,
    range: LearnedRange,
    /// The value as `[outer, blocks, inner]`, where its blocks lie along one dimension.
    split: Option<[usize; 3]>,
}

impl LearnedGrid {
    pub(super) fn new(grid: Grid, shape: Vec<usize>, range: LearnedRange) -> Self {
        let split = grid.split(&shape);
        Self {
            grid,
            shape,
            range,
            split,
        }
    }

    /// The values without automatic differentiation.
    fn forward(&self, x: Tensor<1>, scale: Tensor<1>, zero_point: Tensor<1>) -> Tensor<1> {
        match self.split {
            Some(split) => {
                let of_block = |values: Tensor<1>| values.reshape([1, split[1], 1]);
                let elements = x.dims();
                self.round(x.reshape(split), of_block(scale), of_block(zero_point))
                    .reshape(elements)
            }
            None => self.round(x, self.spread(scale), self.spread(zero_point)),
        }
    }

    fn round<const D: usize>(
        &self,
        x: Tensor<D>,
        scale: Tensor<D>,
        zero_point: Tensor<D>,
    ) -> Tensor<D> {
        let LearnedRange { qmin, qmax, .. } = self.range;
        let rounding = Rounding::Affine {
            scale,
            zero_point,
            qmin,
            qmax,
        };
        let rounding = Some((rounding, RoundGradient::StraightThrough));
        let mask = None;
        Operation { rounding, mask }.apply(x)
    }

    /// The gradients of value, scale and zero point.
    fn backward(
        &self,
        gradient: Tensor<1>,
        (x, scale, zero_point): (Tensor<1>, Tensor<1>, Tensor<1>),
    ) -> (Tensor<1>, [Tensor<1>; 2]) {
        #[cfg(any(feature = "flex", feature = "tch"))]
        let gradient = match self.split {
            Some([_, blocks, inner]) => {
                let runs = super::runs::Runs { blocks, inner };
                match super::cpu::learned(gradient, [&x, &scale, &zero_point], runs, self.range) {
                    Ok(gradients) => return gradients,
                    Err(gradient) => gradient,
                }
            }
            None => gradient,
        };
        let (outside, slope) = self.slopes(x, scale.clone(), zero_point);
        let of_scale = self.sum(gradient.clone() * slope) * self.range.factor;
        let cut_off = gradient.clone() * in_dtype(outside.clone().float(), DType::F32);
        let of_zero_point = self.sum(cut_off) * scale.neg();
        (gradient.mask_fill(outside, 0.0), [of_scale, of_zero_point])
    }

    /// Which values the range cuts off, and `q - p` or, where it does, `q - z`.
    fn slopes(
        &self,
        x: Tensor<1>,
        scale: Tensor<1>,
        zero_point: Tensor<1>,
    ) -> (Tensor<1, burn::tensor::Bool>, Tensor<1>) {
        let LearnedRange { qmin, qmax, .. } = self.range;
        let (scale, zero_point) = (self.spread(scale), self.spread(zero_point));
        let whole = zero_point.clone().floor();
        let steps = x / scale + (zero_point.clone() - whole.clone());
        let position = steps.clone() + whole.clone();
        let outside = position.clone().clamp(qmin, qmax);
        let outside = outside.not_equal(position.clone());
        let rounded = (steps.round() + whole).clamp(qmin, qmax);
        let inside = rounded.clone() - position;
        let slope = inside.mask_where(outside.clone(), rounded - zero_point);
        (outside, slope)
    }

    /// The operation by what Burn can differentiate: differences that are exactly zero carry the
    /// gradients.
    pub(super) fn tracked(&self, x: Tensor<1>, [trained, zero_point]: [Tensor<1>; 2]) -> Tensor<1> {
        let plain = |tensor: &Tensor<1>| tensor.clone().detach().without_autodiff();
        let carry = |path: Tensor<1>| path.clone() - path.detach();
        let scale = positive_scale(plain(&trained));
        let fixed = (plain(&x), scale.clone(), plain(&zero_point));
        let (outside, slope) = self.slopes(fixed.0.clone(), fixed.1.clone(), fixed.2.clone());
        let mut result = self.forward(fixed.0, fixed.1, fixed.2);
        if x.is_autodiff() {
            result = carry(x.mask_fill(outside.clone(), 0.0)) + result;
        }
        if trained.is_autodiff() {
            let sign = in_dtype(plain(&trained).lower_elem(0.0).float(), DType::F32) * -2.0 + 1.0;
            result = carry(self.spread(trained * sign) * (slope * self.range.factor)) + result;
        }
        if zero_point.is_autodiff() {
            let slope = self.spread(scale).neg() * in_dtype(outside.float(), DType::F32);
            result = carry(self.spread(zero_point) * slope) + result;
        }
        result
    }

    /// One value a block, for each element.
    fn spread(&self, per_block: Tensor<1>) -> Tensor<1> {
        match self.grid.len() {
            // One block broadcasts by itself.
            1 => per_block,
            _ => self.grid.expand(per_block, &self.shape),
        }
    }

    /// The sum over each block.
    fn sum(&self, values: Tensor<1>) -> Tensor<1> {
        match self.split {
            Some(split) => {
                let sums: Tensor<3> = values.reshape(split).sum_dim(2).sum_dim(0);
                sums.reshape([split[1]])
            }
            None => {
                let device = values.device();
                let blocks = self.grid.block_of_each_element(&self.shape);
                let blocks = Tensor::<1, Int>::from_data(TensorData::from(&blocks[..]), &device);
                let sums = Tensor::zeros([self.grid.len()], (&device, values.dtype()));
                sums.select_assign(0, blocks, values, IndexingUpdateOp::Add)
            }
        }
    }
}
