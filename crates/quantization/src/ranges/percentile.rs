//! The range without the outermost values.
//!
//! For values with a few large outliers whose frequency is known. With the percentage `p`:
//!
//! ```text
//! symmetric  range = (-t, t), the smallest t with |x| <= t for p % of the values
//! affine     range = (a, b), the largest a with x >= a and the smallest b with x <= b for p % each
//! ```
//!
//! 100 % is `min_max`. The bounds are those of histogram bins: at most one bin, 1 / 1024 of the
//! largest magnitude, too wide.
//!
//! # References
//!
//! Wu et al., *Integer Quantization for Deep Learning Inference: Principles and Empirical
//! Evaluation*, arXiv 2004.09602, section 5.2, for the symmetric range. Deviation: the affine range
//! treats its ends alike and apart, so that values without negatives keep their zero.

use burn_compress_core::{QuantDtype, QuantScheme};

use super::histogram::Histogram;
use super::histogram_estimator::ClipSearch;

/// The range that holds a percentage of the values on either side.
#[derive(Clone, Copy, Debug)]
pub struct Percentile {
    percent: f64,
}

impl Percentile {
    /// `percent` is more than 50 and at most 100.
    pub fn new(percent: f64) -> Self {
        Self { percent }
    }

    /// The number of steps in `counts` until the wanted part of the values has come.
    fn reach(self, counts: impl Iterator<Item = (i64, u64)>, total: u64) -> Option<i64> {
        // 99.9 has no exact binary form: of 1000 values it must not mean 999.0000000000001.
        let exact = 1.0 - 4.0 * f64::EPSILON;
        let wanted = (self.percent * total as f64 / 100.0 * exact).ceil() as u64;
        let mut seen = 0;
        for (bin, count) in counts {
            seen += count;
            if seen >= wanted {
                return Some(bin);
            }
        }
        None
    }
}

impl ClipSearch for Percentile {
    fn range(
        &self,
        histogram: &Histogram,
        (low, high): (f32, f32),
        _dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> (f32, f32) {
        let total = histogram.total();
        let upper = |histogram: &Histogram| {
            let bin = self.reach(histogram.counts().iter().copied(), total);
            bin.map_or(f32::MAX, |bin| {
                ((bin + 1) as f64 * histogram.width()) as f32
            })
        };
        match scheme {
            QuantScheme::Symmetric => {
                let limit = upper(&histogram.magnitudes());
                (low.max(-limit), high.min(limit))
            }
            QuantScheme::Affine => {
                let bin = self.reach(histogram.counts().iter().rev().copied(), total);
                let lower = bin.map_or(f32::MIN, |bin| (bin as f64 * histogram.width()) as f32);
                (low.max(lower).min(0.0), high.min(upper(histogram)).max(0.0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(values: &[f32], percent: f64, scheme: QuantScheme) -> (f32, f32) {
        let mut histogram = Histogram::new();
        histogram.add(values);
        let low = values.iter().copied().fold(0.0, f32::min);
        let high = values.iter().copied().fold(0.0, f32::max);
        Percentile::new(percent).range(&histogram, (low, high), QuantDtype::INT8, scheme)
    }

    #[test]
    fn the_outermost_values_are_left_out() {
        // -10, -9, .., 89: 1 is the width of nothing, bins are 89 / 1024 < 1 / 8 wide.
        let values: Vec<f32> = (-10..90).map(|x| x as f32).collect();
        // 95 % reach from below to 84, from above to -5.
        let (low, high) = range(&values, 95.0, QuantScheme::Affine);
        assert!((-5.0..-4.8).contains(&low), "{low}");
        assert!((84.0..84.2).contains(&high), "{high}");
        // |x|: 0, 1 .. 10 twice, 11 .. 89; 5 of 100 are above 84.
        let (low, high) = range(&values, 95.0, QuantScheme::Symmetric);
        assert_eq!(low, -10.0);
        assert!((84.0..84.2).contains(&high), "{high}");
    }

    #[test]
    fn one_of_a_thousand_is_left_out() {
        let mut values: Vec<f32> = (0..999).map(|x| x as f32 / 1000.0).collect();
        values.push(100.0);
        for scheme in [QuantScheme::Symmetric, QuantScheme::Affine] {
            // A bin is 1 / 16 wide.
            let (_, high) = range(&values, 99.9, scheme);
            assert!((0.99..1.07).contains(&high), "{high}");
        }
    }

    #[test]
    fn the_whole_is_the_extremes() {
        let values = [-3.0, 0.1, 7.0];
        assert_eq!(range(&values, 100.0, QuantScheme::Affine), (-3.0, 7.0));
        assert_eq!(range(&values, 100.0, QuantScheme::Symmetric), (-3.0, 7.0));
    }

    #[test]
    fn values_without_negatives_keep_their_zero() {
        let values: Vec<f32> = (100..200).map(|x| x as f32).collect();
        let (low, high) = range(&values, 99.0, QuantScheme::Affine);
        assert_eq!(low, 0.0);
        assert!((198.0..198.3).contains(&high), "{high}");
    }
}
