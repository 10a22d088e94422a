//! The range that loses the least information.
//!
//! For activations of 8 bits. Each threshold clips the histogram of the values and quantizes what
//! is left; the one whose quantized histogram `Q` is closest to the clipped one `P` wins:
//!
//! ```text
//! P(i)  = the first i bins, with all outliers added to the last of them that is not empty
//! Q(i)  = the first i bins merged into as many groups as there are integers, each group's values
//!         spread evenly over those of its bins that are not empty
//! KL(i) = sum over the bins of P ln(P / Q), both normalised to 1
//! range = (-t, t) with t = (i + 1/2) bin width for the i with the least KL(i)
//! ```
//!
//! In the symmetric scheme the bins are those of `|x|` and the integers those of one sign, 128 for 8
//! bits. In the affine scheme the bins are those of `x` between `-t` and `t` as far as there are
//! values, both ends collect their outliers, and the integers are all of the type.
//!
//! # References
//!
//! Migacz, *8-bit Inference with TensorRT*, GPU Technology Conference 2017. Deviations: the width of
//! the 2048 bins is a power of two ([`Histogram`]), so that 1024 to 2048 of them are in use; the
//! affine scheme; outliers never come to an empty bin, where the divergence would be infinite and
//! forbid every threshold in a gap.

use super::histogram::Histogram;
use super::searched::Search;
use crate::{QuantDtype, QuantScheme};

/// The range with the least Kullback-Leibler divergence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entropy;

impl Search for Entropy {
    fn range(
        &self,
        histogram: &Histogram,
        (low, high): (f32, f32),
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> (f32, f32) {
        let integers = (dtype.qmax() - dtype.qmin()) as usize + 1;
        let ((bins, negative), levels) = match scheme {
            QuantScheme::Symmetric => (histogram.magnitudes().dense(), integers.div_ceil(2)),
            QuantScheme::Affine => (histogram.dense(), integers),
        };
        match threshold(&bins, negative, levels) {
            Some(bins) => {
                let limit = ((bins as f64 + 0.5) * histogram.width()) as f32;
                (low.max(-limit), high.min(limit))
            }
            None => (low, high),
        }
    }
}

/// The number of bins to keep on either side of zero, `None` to keep them all.
///
/// The first `negative` of `bins` are those below zero.
fn threshold(bins: &[u64], negative: usize, levels: usize) -> Option<usize> {
    let positive = bins.len() - negative;
    let mut best = (f64::INFINITY, None);
    for keep in 1..=negative.max(positive) {
        let (start, end) = (negative - keep.min(negative), negative + keep.min(positive));
        if end - start < levels {
            continue;
        }
        let below = bins[..start].iter().sum();
        let above = bins[end..].iter().sum();
        let divergence = divergence(&bins[start..end], below, above, levels);
        if divergence < best.0 {
            best = (divergence, Some(keep));
        }
    }
    best.1
}

/// The divergence of the quantized bins from the bins with the outliers at their ends.
fn divergence(bins: &[u64], below: u64, above: u64, levels: usize) -> f64 {
    let used = |bin: &u64| *bin > 0;
    let (Some(first), Some(last)) = (bins.iter().position(used), bins.iter().rposition(used))
    else {
        return f64::INFINITY;
    };
    let inside: u64 = bins.iter().sum();
    let all = inside + below + above;
    let mut divergence = 0.0;
    for level in 0..levels {
        let (from, to) = (
            level * bins.len() / levels,
            (level + 1) * bins.len() / levels,
        );
        let group = &bins[from..to];
        let spread = group.iter().filter(|bin| used(bin)).count();
        let q = group.iter().sum::<u64>() as f64 / spread as f64 / inside as f64;
        for (at, &count) in group.iter().enumerate().filter(|(_, bin)| used(bin)) {
            let mut p = count;
            if from + at == first {
                p += below;
            }
            if from + at == last {
                p += above;
            }
            let p = p as f64 / all as f64;
            divergence += p * (p / q).ln();
        }
    }
    divergence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_by_hand() {
        // Groups {1, 3} and {2, 0}: Q = 2, 2, 2, 0 of 6; P = 1, 3, 2 of 6.
        let expected = (1.0 / 6.0) * 0.5f64.ln() + 0.5 * 1.5f64.ln();
        assert!((divergence(&[1, 3, 2, 0], 0, 0, 2) - expected).abs() < 1e-12);
        // Two outliers above: P = 1, 3, 2, 4 of 10 and Q = 2, 2, 2, 2 of 8.
        let expected =
            0.1 * 0.4f64.ln() + 0.3 * 1.2f64.ln() + 0.2 * 0.8f64.ln() + 0.4 * 1.6f64.ln();
        assert!((divergence(&[1, 3, 2, 2], 0, 2, 2) - expected).abs() < 1e-12);
        // In the gap at the end the outlier comes to the 2: P = 1, 3, 3 of 7, Q = 2, 2, 2 of 6.
        let expected = (1.0 / 7.0) * (3.0 / 7.0f64).ln() + (6.0 / 7.0) * (9.0 / 7.0f64).ln();
        assert!((divergence(&[1, 3, 2, 0], 0, 1, 2) - expected).abs() < 1e-12);
        assert!((divergence(&[0, 2, 3, 1], 1, 0, 2) - expected).abs() < 1e-12);
        assert_eq!(divergence(&[0, 0], 0, 1, 2), f64::INFINITY);
        assert_eq!(divergence(&[5, 5, 5, 5], 0, 0, 2), 0.0);
    }

    #[test]
    fn a_lone_outlier_is_clipped() {
        // A smooth bump in 16 bins, nothing, and one value far out.
        let mut bins = vec![90, 88, 80, 71, 60, 49, 38, 29, 21, 15, 10, 7, 4, 3, 2, 1];
        bins.resize(64, 0);
        bins[63] = 1;
        let keep = threshold(&bins, 0, 8).unwrap();
        assert!((8..=16).contains(&keep), "{keep}");
        // Without it everything is kept that there is.
        assert!(threshold(&bins[..16], 0, 8).unwrap() >= 8);
        assert_eq!(threshold(&bins[..4], 0, 8), None);
    }

    #[test]
    fn ranges_are_clipped_on_both_sides() {
        let mut histogram = Histogram::new();
        let bell = |i: i32| ((i as f32) / 5000.0 - 1.0).tan();
        let values: Vec<f32> = (0..10_000).map(bell).collect();
        histogram.add(&values);
        histogram.add(&[-100.0, 90.0]);
        for scheme in [QuantScheme::Symmetric, QuantScheme::Affine] {
            let (low, high) = Entropy.range(&histogram, (-100.0, 90.0), QuantDtype::INT8, scheme);
            // 128 integers reach 8 with a bin each; the bell ends at 1.6.
            assert!((-10.0..-1.5).contains(&low), "{scheme}: {low}");
            assert!((1.5..10.0).contains(&high), "{scheme}: {high}");
        }
    }

    #[test]
    fn values_without_negatives_stay_without() {
        let mut histogram = Histogram::new();
        histogram.add(
            &(0..4000)
                .map(|i| (i as f32 / 1000.0).exp())
                .collect::<Vec<_>>(),
        );
        let range = Entropy.range(
            &histogram,
            (0.0, 54.5),
            QuantDtype::UINT8,
            QuantScheme::Affine,
        );
        assert_eq!(range.0, 0.0);
        assert!(range.1 > 10.0 && range.1 <= 54.5, "{range:?}");
    }
}
