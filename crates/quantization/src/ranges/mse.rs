//! The range with the least squared error.
//!
//! For weights, and for few bits: clipping the largest values costs less than a grid that is too
//! coarse for all others. The range of the extremes is shrunk in steps of one percent:
//!
//! ```text
//! range(c) = c (min x, max x)                                  c = 0.01, 0.02, .., 1.00
//! error(c) = sum over all x of (x - x')^2, x' quantized with the scale and zero point of range(c)
//! ```
//!
//! The values are those of a histogram, each taken for the middle of its bin. Of two equal errors
//! the wider range wins.
//!
//! # References
//!
//! Nagel et al., *A White Paper on Neural Network Quantization*, arXiv 2106.08295, section 3.1.
//! Deviation: one factor shrinks both ends, where the paper searches both ends of an affine range.

use burn_compress_core::{QuantDtype, QuantScheme};

use super::histogram::Histogram;
use super::histogram_estimator::ClipSearch;
use crate::qparams;

/// Steps of the search.
const STEPS: u8 = 100;

/// The range with the least squared error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mse;

impl ClipSearch for Mse {
    fn range(
        &self,
        histogram: &Histogram,
        (low, high): (f32, f32),
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> (f32, f32) {
        let mut best = (f64::INFINITY, (low, high));
        for step in (1..=STEPS).rev() {
            let factor = f32::from(step) / f32::from(STEPS);
            let candidate = (low * factor, high * factor);
            // The extremes are finite, and so is what lies between them.
            let parameters = qparams::compute_one(candidate.0, candidate.1, dtype, scheme);
            let Ok((scale, zero_point)) = parameters else {
                continue;
            };
            let error = squared_error(histogram, scale, zero_point, dtype);
            if error < best.0 {
                best = (error, candidate);
            }
        }
        best.1
    }
}

/// The sum of the squared differences that quantization makes.
fn squared_error(histogram: &Histogram, scale: f32, zero_point: f32, dtype: QuantDtype) -> f64 {
    let (scale, zero_point) = (f64::from(scale), f64::from(zero_point));
    let (qmin, qmax) = (f64::from(dtype.qmin()), f64::from(dtype.qmax()));
    let width = histogram.width();
    let errors = histogram.counts().iter().map(|&(bin, count)| {
        let x = (bin as f64 + 0.5) * width;
        let q = ((x / scale).round_ties_even() + zero_point).clamp(qmin, qmax);
        let error = (q - zero_point) * scale - x;
        count as f64 * error * error
    });
    errors.sum()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn search(values: &[f32], dtype: &str, scheme: QuantScheme) -> (f32, f32) {
        let mut histogram = Histogram::new();
        histogram.add(values);
        let low = values.iter().copied().fold(0.0, f32::min);
        let high = values.iter().copied().fold(0.0, f32::max);
        Mse.range(&histogram, (low, high), dtype.parse().unwrap(), scheme)
    }

    #[test]
    fn one_outlier_does_not_spoil_two_bits() {
        // int2 is {-s, 0, s}. A thousand ones and one 2: with s = c 2, ones cost (1 - 2c)^2 each
        // and the outlier (2 - 2c)^2; 1000 (2c - 1) + (2c - 2) = 0 for c = 0.5005.
        let mut values = vec![1.0; 1000];
        values.push(2.0);
        let (low, high) = search(&values, "int2", QuantScheme::Symmetric);
        assert_eq!((low, high), (0.0, 1.0));
    }

    #[test]
    fn even_values_keep_their_range() {
        let values: Vec<f32> = (-100..=100).map(|x| x as f32).collect();
        let (low, high) = search(&values, "int8", QuantScheme::Symmetric);
        assert!(low < -98.0 && high > 98.0, "{low} {high}");
    }

    #[rstest]
    #[case("int4", QuantScheme::Symmetric)]
    #[case("uint4", QuantScheme::Affine)]
    #[case("uint1", QuantScheme::Affine)]
    fn no_worse_than_the_extremes(#[case] dtype: &str, #[case] scheme: QuantScheme) {
        // Mostly small, with a long tail.
        let values: Vec<f32> = (0..500).map(|i| (i as f32 / 100.0 - 2.0).powi(5)).collect();
        let (low, high) = search(&values, dtype, scheme);
        let dtype = dtype.parse().unwrap();
        let error = |low: f32, high: f32| {
            let (s, z) = qparams::compute_one(low, high, dtype, scheme).unwrap();
            let quantize = |x: f32| {
                let q = ((x / s).round_ties_even() + z).clamp(dtype.qmin(), dtype.qmax());
                (q - z) * s
            };
            values
                .iter()
                .map(|&x| (x - quantize(x)).powi(2))
                .sum::<f32>()
        };
        assert!(error(low, high) <= 1.001 * error(-32.0, values[499]));
        assert!(high < values[499], "this tail is worth clipping");
    }
}
