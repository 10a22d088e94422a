//! Weights on the grid of DoReFa, in -1..=1.

use std::sync::Arc;

use burn::tensor::Tensor;
use burn_compress_core::fake_quantize::{binarize, fake_quantize};
use burn_compress_core::{FlatTensor, QuantDtype, RoundGradient, Transform};

use crate::precision;
use crate::targets::FixedQParams;

/// The integers laid over -1..=1.
pub(super) fn weight_grid(dtype: QuantDtype) -> FixedQParams {
    let width = dtype.qmax() - dtype.qmin();
    FixedQParams {
        scale: 2.0 / width,
        zero_point: dtype.qmin() + width / 2.0,
        gradient: RoundGradient::StraightThrough,
    }
}

/// The grid of a weight of one bit: plus and minus its mean magnitude.
pub(super) fn one_bit_grid(dtype: QuantDtype, magnitude: f32) -> FixedQParams {
    let (scale, zero_point) = match dtype.is_signed() {
        true => (magnitude, 0.0),
        // 0 and 1 are half a scale away from zero.
        false => (2.0 * magnitude, 0.5),
    };
    FixedQParams {
        scale,
        zero_point,
        gradient: RoundGradient::StraightThrough,
    }
}

/// A weight as DoReFa uses it.
///
/// Gradients flow through the tangent and the maximum; of one bit they pass unchanged.
///
/// # Shapes
///
/// - weight, result: any
pub fn quantize_weight(weight: FlatTensor, dtype: QuantDtype) -> FlatTensor {
    let given = weight.values.dtype();
    let weight = weight.map(precision::single);
    let values = match dtype.bits() {
        1 => {
            let magnitude = magnitude(weight.clone().constant().values);
            binarize(weight.values, magnitude, RoundGradient::StraightThrough)
        }
        _ => {
            let squeezed = weight.values.tanh();
            let largest = squeezed.clone().abs().max();
            // Weights that are all zero stay so.
            let none = largest.clone().detach().equal_elem(0.0).float();
            let none = precision::single(none);
            let squeezed = squeezed / (largest + none);
            let device = squeezed.device().without_autodiff();
            let single = |number: f32| precision::single(Tensor::from_floats([number], &device));
            let FixedQParams {
                scale,
                zero_point,
                gradient,
            } = weight_grid(dtype);
            let (scale, zero_point) = (single(scale), single(zero_point));
            let (qmin, qmax) = (dtype.qmin(), dtype.qmax());
            fake_quantize(squeezed, scale, zero_point, qmin, qmax, gradient)
        }
    };
    FlatTensor {
        values: precision::in_dtype(values, given),
        shape: weight.shape,
    }
}

/// The mean magnitude, which is never zero.
pub(super) fn magnitude(plain: Tensor<1>) -> Tensor<1> {
    plain.abs().mean().clamp_min(f32::EPSILON)
}

/// Simulation of a weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Squeezed {
    pub(super) dtype: QuantDtype,
}

impl Transform for Squeezed {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        quantize_weight(value, self.dtype)
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(*self)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{close, floats};

    /// A weight and its gradients with the upstream gradients 1, 2, ..
    fn weight(values: &[f32], dtype: &str) -> (Vec<f32>, Vec<f32>) {
        let device = Device::flex().autodiff();
        let leaf = Tensor::<1>::from_floats(values, &device).require_grad();
        let value = FlatTensor::new(leaf.clone());
        let y = quantize_weight(value, dtype.parse().unwrap()).values;
        let upstream: Vec<f32> = (1..=values.len()).map(|i| i as f32).collect();
        let upstream = Tensor::<1>::from_floats(upstream.as_slice(), &device);
        let gradients = (y.clone() * upstream).sum().backward();
        (floats(y), floats(leaf.grad(&gradients).unwrap()))
    }

    #[test]
    fn weights_worked_by_hand() {
        // tanh gives 0.8, -0.4 and -0.6; by the largest 1, -0.5 and -0.75; in 0..=1 1, 0.25 and
        // 0.125; of 3 steps 3, round(0.75) = 1 and round(0.375) = 0.
        let values = [0.8f32.atanh(), (-0.4f32).atanh(), (-0.6f32).atanh()];
        close(&weight(&values, "uint2").0, &[1.0, -1.0 / 3.0, -1.0]);
        // Of 6 steps around zero 3, round(-1.5) and round(-2.25) = -2.
        let found = weight(&values, "int3").0;
        close(&[found[0], found[2]], &[1.0, -2.0 / 3.0]);
        assert_eq!(weight(&[0.0, 0.0], "int3").0, [0.0, 0.0]);
    }

    #[test]
    fn one_bit_is_the_sign_times_the_mean_magnitude() {
        for dtype in ["int1", "uint1"] {
            let (value, gradient) = weight(&[1.0, -3.0, 0.0, 2.0], dtype);
            assert_eq!(value, [1.5, -1.5, 1.5, 1.5]);
            assert_eq!(gradient, [1.0, 2.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn the_gradient_of_weights_agrees_with_finite_differences() {
        let values = [0.7, -1.3, 0.2, -0.4, 0.9];
        let (_, found) = weight(&values, "int4");
        // Rounding adds a constant to t / max|t|.
        let smooth = |moved: usize, by: f64| -> f64 {
            let t: Vec<f64> = values
                .iter()
                .enumerate()
                .map(|(i, &w)| (f64::from(w) + if i == moved { by } else { 0.0 }).tanh())
                .collect();
            let largest = t.iter().fold(0.0f64, |max, t| max.max(t.abs()));
            let each = t.iter().enumerate();
            each.map(|(i, t)| (i + 1) as f64 * t / largest).sum()
        };
        let expected: Vec<f32> = (0..values.len())
            .map(|i| ((smooth(i, 1e-6) - smooth(i, -1e-6)) / 2e-6) as f32)
            .collect();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }
}
