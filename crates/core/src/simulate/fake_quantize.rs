//! Fake quantization: rounding a tensor to an integer grid while it stays in floating point.
//!
//! Used wherever training or inference has to feel the error of a low-precision type without
//! running on one. With scale `s`, zero point `z` and the integer range `qmin..=qmax`:
//!
//! ```text
//! q  = clamp(round(x / s) + z, qmin, qmax)      halves to even
//! x' = (q - z) * s
//! ```
//!
//! The zero point is added after the rounding, as integer hardware and the QuantizeLinear operator
//! of ONNX do it. PyTorch and NNI round `z + x / s`, which makes another integer of an exact half
//! wherever `z` is odd. A fractional zero point, as LSQ+ has it while it trains, keeps its fraction
//! within the rounding: `q = clamp(round(x / s + z - floor(z)) + floor(z), qmin, qmax)`, the same
//! for an integer.
//!
//! Rounding has a zero gradient almost everywhere, so the backward pass pretends that it was not
//! there (straight-through estimator); [`RoundGradient`] is how far the pretence goes.
//!
//! The value that comes out is bit for bit `(q - z) * s`. The usual `x + (x' - x).detach()` is off
//! by a rounding error, and then the simulated network is not the one that runs on integers.
//!
//! # References
//!
//! - Bengio et al., *Estimating or Propagating Gradients Through Stochastic Neurons*,
//!   arXiv 1308.3432: the straight-through estimator.
//! - Jacob et al., *Quantization and Training of Neural Networks for Efficient
//!   Integer-Arithmetic-Only Inference*, arXiv 1712.05877: simulated quantization.

use burn::tensor::Tensor;

use crate::simulate::operation::{Operation, Rounding};

pub use crate::simulate::operation::learned::{fake_quantize_learned, positive_scale};
pub use crate::simulate::operation::learned_range::LearnedRange;
pub use crate::simulate::round_gradient::RoundGradient;

/// Rounds `x` to the grid of `scale` and `zero_point` between `qmin` and `qmax`.
///
/// Gradients flow to `x` by `gradient`, never to `scale` or `zero_point`. Without automatic
/// differentiation on the device of `x` only the value is computed.
///
/// # Shapes
///
/// - x: `[d0, d1, ..]`
/// - scale, zero_point: any shape that broadcasts against `x`; `[1, 1, ..]` for one grid for the
///   whole tensor, `[1, C, 1, 1]` for one per channel
/// - result: the shape of `x`
///
/// A NaN stays NaN. An infinite value lands on the nearest end of the grid, except under automatic
/// differentiation on a backend without [a step of its own](crate::gradient::is_supported), where it
/// becomes NaN.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::fake_quantize::{RoundGradient, fake_quantize};
///
/// let device = Device::flex();
/// let x = Tensor::<1>::from_floats([-9.0, 0.2, 0.3, 1.25], &device);
/// let scale = Tensor::from_floats([0.5], &device);
/// let zero_point = Tensor::from_floats([0.0], &device);
/// let y = fake_quantize(x, scale, zero_point, -7.0, 7.0, RoundGradient::StraightThrough);
/// assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [-3.5, 0.0, 0.5, 1.0]);
/// ```
pub fn fake_quantize<const D: usize>(
    x: Tensor<D>,
    scale: Tensor<D>,
    zero_point: Tensor<D>,
    qmin: f32,
    qmax: f32,
    gradient: RoundGradient,
) -> Tensor<D> {
    let rounding = Rounding::Affine {
        scale: scale.detach().without_autodiff(),
        zero_point: zero_point.detach().without_autodiff(),
        qmin,
        qmax,
    };
    let rounding = Some((rounding, gradient));
    Operation {
        rounding,
        mask: None,
    }
    .apply(x)
}

/// Replaces `x` by its sign times `scale`, with `sign(0) = 1`.
///
/// Gradients flow to `x` unchanged, with [`RoundGradient::Clipped`] only where `|x| <= scale`;
/// never to `scale`. The value is bit for bit `scale` or `-scale`.
///
/// # Shapes
///
/// - x: `[d0, d1, ..]`
/// - scale: any shape that broadcasts against `x`; positive
/// - result: the shape of `x`
///
/// A NaN stays NaN.
///
/// # References
///
/// Hubara et al., *Binarized Neural Networks*, arXiv 1602.02830.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::fake_quantize::{RoundGradient, binarize};
///
/// let x = Tensor::<1>::from_floats([-9.0, -0.2, 0.0, 1.25], &Device::flex());
/// let scale = Tensor::from_floats([0.5], &Device::flex());
/// let y = binarize(x, scale, RoundGradient::StraightThrough);
/// assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [-0.5, -0.5, 0.5, 0.5]);
/// ```
pub fn binarize<const D: usize>(
    x: Tensor<D>,
    scale: Tensor<D>,
    gradient: RoundGradient,
) -> Tensor<D> {
    let scale = scale.detach().without_autodiff();
    let rounding = Some((Rounding::Sign { scale }, gradient));
    Operation {
        rounding,
        mask: None,
    }
    .apply(x)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn run(x: &[f32], scale: f32, zero: f32, range: (f32, f32)) -> Vec<f32> {
        let device = Device::flex();
        let x = Tensor::<1>::from_data(TensorData::from(x), &device);
        let scale = Tensor::from_floats([scale], &device);
        let zero = Tensor::from_floats([zero], &device);
        fake_quantize(
            x,
            scale,
            zero,
            range.0,
            range.1,
            RoundGradient::StraightThrough,
        )
        .into_data()
        .try_to_vec()
        .unwrap()
    }

    fn gradient(x: [f32; 6], rule: RoundGradient) -> (Vec<f32>, Vec<f32>) {
        let plain = Device::flex();
        let device = plain.clone().autodiff();
        let x = Tensor::<1>::from_floats(x, &device).require_grad();
        let scale = Tensor::from_floats([0.5], &plain);
        let zero = Tensor::from_floats([1.0], &plain);
        let y = fake_quantize(x.clone(), scale, zero, -3.0, 3.0, rule);
        let weights = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &device);
        let gradients = (y.clone() * weights).sum().backward();
        let gradient = x
            .grad(&gradients)
            .unwrap()
            .into_data()
            .try_to_vec()
            .unwrap();
        (y.into_data().try_to_vec().unwrap(), gradient)
    }

    #[test]
    fn halves_round_to_even() {
        // x / s = -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, so q = -2, -2, 0, 0, 2, 2.
        let y = run(
            &[-1.25, -0.75, -0.25, 0.25, 0.75, 1.25],
            0.5,
            0.0,
            (-7.0, 7.0),
        );
        assert_eq!(y, [-1.0, -1.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn zero_point_moves_the_range() {
        // 0..=15 with zero point 4 and scale 0.25 spans (0 - 4) / 4 = -1 to (15 - 4) / 4 = 2.75.
        let y = run(&[-5.0, -1.0, 0.0, 0.3, 2.75, 9.0], 0.25, 4.0, (0.0, 15.0));
        assert_eq!(y, [-1.0, -1.0, 0.0, 0.25, 2.75, 2.75]);
    }

    #[test]
    fn halves_round_before_an_odd_zero_point_is_added() {
        // x / s = 0.5, 1.5, 2.5 round to 0, 2, 2, so q = 1, 3, 3 and x' = q - 1. Rounding z + x / s =
        // 1.5, 2.5, 3.5 would make 2, 2, 4 of them.
        assert_eq!(
            run(&[0.5, 1.5, 2.5], 1.0, 1.0, (0.0, 255.0)),
            [0.0, 2.0, 2.0]
        );
        // -0.5, -1.5, -2.5 round to -0, -2, -2, so q = 3, 1, 1 with z = 3.
        assert_eq!(
            run(&[-0.5, -1.5, -2.5], 1.0, 3.0, (0.0, 255.0)),
            [0.0, -2.0, -2.0]
        );
        // The range ends where it did: q = clamp(126 + 3) = 127, clamp(-130 + 3) = -127.
        assert_eq!(
            run(&[126.0, -130.5], 1.0, 3.0, (-127.0, 127.0)),
            [124.0, -130.0]
        );
    }

    #[test]
    fn a_fractional_zero_point_keeps_its_fraction() {
        // q = round(0.25 + 1.0) = 1, x' = (1 - 0.25) * 1.
        assert_eq!(run(&[1.0], 1.0, 0.25, (-7.0, 7.0)), [0.75]);
        // z = -1.75 is -2 and a quarter: q = round(1.5 + 0.25) - 2 = 0, x' = 1.75.
        assert_eq!(run(&[1.5], 1.0, -1.75, (-7.0, 7.0)), [1.75]);
    }

    #[test]
    fn nan_stays_nan_and_infinity_is_clipped() {
        let y = run(
            &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY],
            0.5,
            0.0,
            (-7.0, 7.0),
        );
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [3.5, -3.5]);
    }

    #[test]
    fn gradients_pass_everywhere_or_inside_only() {
        // z + x / s = 1 + 2x: -3.2 and 3.4 are outside -3..=3, both ends are inside.
        let x = [-2.1, -2.0, -0.3, 0.3, 1.0, 1.2];
        // q = 1 + round(2x) = -3, -3, 1 + round(-0.6) = 0, 1 + round(0.6) = 2, 3, 3.
        let value = [-2.0, -2.0, -0.5, 0.5, 1.0, 1.0];
        let (y, all) = gradient(x, RoundGradient::StraightThrough);
        assert_eq!(y, value);
        assert_eq!(all, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let (y, inside) = gradient(x, RoundGradient::Clipped);
        assert_eq!(y, value);
        assert_eq!(inside, [0.0, 2.0, 3.0, 4.0, 5.0, 0.0]);
    }

    #[test]
    fn values_lie_on_the_grid_bit_for_bit_and_stay_there() {
        let device = Device::flex().autodiff();
        let points: Vec<f32> = (0..4001).map(|i| (i as f32 - 2000.0) * 0.001_237).collect();
        let (scale, zero) = (0.013_7_f32, 11.0_f32);
        for rule in [RoundGradient::StraightThrough, RoundGradient::Clipped] {
            let quantize = |x: &[f32]| -> Vec<f32> {
                let x = Tensor::<1>::from_data(TensorData::from(x), &device).require_grad();
                let scale = Tensor::from_floats([scale], &device);
                let zero = Tensor::from_floats([zero], &device);
                fake_quantize(x, scale, zero, -127.0, 127.0, rule)
                    .into_data()
                    .try_to_vec()
                    .unwrap()
            };
            let once = quantize(&points);
            for (x, y) in points.iter().zip(&once) {
                let q = ((x / scale).round_ties_even() + zero).clamp(-127.0, 127.0);
                assert_eq!(y.to_bits(), ((q - zero) * scale).to_bits(), "x = {x}");
            }
            assert_eq!(quantize(&once), once);
        }
    }

    #[test]
    fn signs_pass_gradients_everywhere_or_inside_only() {
        let device = Device::flex().autodiff();
        for (rule, expected) in [
            (RoundGradient::StraightThrough, [1.0, 2.0, 3.0, 4.0, 5.0]),
            (RoundGradient::Clipped, [0.0, 2.0, 3.0, 4.0, 0.0]),
        ] {
            // The ends -0.5 and 0.5 of the range belong to it.
            let x = Tensor::<1>::from_floats([-0.6, -0.5, 0.0, 0.5, 7.0], &device).require_grad();
            let scale = Tensor::from_floats([0.5], &device);
            let y = binarize(x.clone(), scale, rule);
            let weights = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0, 5.0], &device);
            let gradients = (y.clone() * weights).sum().backward();
            let gradient = x.grad(&gradients).unwrap().into_data();
            assert_eq!(gradient.try_to_vec::<f32>().unwrap(), expected);
            let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
            assert_eq!(y, [-0.5, -0.5, 0.5, 0.5, 0.5]);
        }
    }

    #[test]
    fn one_grid_per_channel() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[0.3, 0.3], [-0.6, 9.0]], &device);
        let scale = Tensor::from_floats([[0.5, 0.2]], &device);
        let zero = Tensor::from_floats([[0.0, 1.0]], &device);
        let y = fake_quantize(x, scale, zero, -7.0, 7.0, RoundGradient::Clipped);
        // Column 0: q = round(0.6) = 1, round(-1.2) = -1. Column 1: round(1.5) + 1 = 3, clamp(46) = 7.
        let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
        assert_eq!(y, [0.5, 0.4, -0.5, (7.0 - 1.0) * 0.2]);
    }
}
