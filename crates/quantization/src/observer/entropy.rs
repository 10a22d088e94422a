//! The range that loses the least information.
//!
//! For activations of 8 bits. Each threshold clips the histogram of the values and quantizes what
//! is left; the one whose quantized histogram `Q` is closest to the clipped one `P` wins:
//!
//! ```text
//! P(i)  = the first i bins, with all outliers added to the last of them
//! Q(i)  = the first i bins merged into as many groups as there are integers, each group's values
//!         spread evenly over those of its bins that are not empty in P
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
//! affine scheme; a group of Q that holds nothing but outliers counts as one value, as with none the
//! divergence would be infinite and forbid every threshold in a gap.

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
    let inside: u64 = bins.iter().sum();
    if inside == 0 {
        return f64::INFINITY;
    }
    let last = bins.len() - 1;
    let reference = |at: usize| {
        let low = if at == 0 { below } else { 0 };
        let high = if at == last { above } else { 0 };
        bins[at] + low + high
    };
    let groups = (0..levels).map(|level| {
        let ends = [level, level + 1].map(|level| level * bins.len() / levels);
        let used: Vec<u64> = (ends[0]..ends[1])
            .map(reference)
            .filter(|&count| count > 0)
            .collect();
        let own: u64 = bins[ends[0]..ends[1]].iter().sum();
        (used, own)
    });
    // Nothing but outliers: one value, since none would make the divergence infinite.
    let groups: Vec<(Vec<u64>, u64)> = groups
        .filter(|(used, _)| !used.is_empty())
        .map(|(used, own)| (used, own.max(1)))
        .collect();
    let quantized: u64 = groups.iter().map(|(_, own)| own).sum();
    let all = (inside + below + above) as f64;
    let terms = groups.iter().flat_map(|(used, own)| {
        let q = *own as f64 / used.len() as f64 / quantized as f64;
        used.iter().map(move |&count| {
            let p = count as f64 / all;
            p * (p / q).ln()
        })
    });
    terms.sum()
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
        // In an empty end the outlier takes half of its group: P = 1, 3, 2, 1 of 7 and Q = 2, 2, 1, 1
        // of 6.
        let expected = (1.0 / 7.0) * (3.0 / 7.0f64).ln()
            + (3.0 / 7.0) * (9.0 / 7.0f64).ln()
            + (2.0 / 7.0) * (12.0 / 7.0f64).ln()
            + (1.0 / 7.0) * (6.0 / 7.0f64).ln();
        assert!((divergence(&[1, 3, 2, 0], 0, 1, 2) - expected).abs() < 1e-12);
        assert!((divergence(&[0, 2, 3, 1], 1, 0, 2) - expected).abs() < 1e-12);
        // In an empty group they count as one: P = 1, 3, 0, 2 of 6 and Q = 2, 2, 0, 1 of 5.
        let expected = (1.0 / 6.0) * (5.0 / 12.0f64).ln()
            + 0.5 * 1.25f64.ln()
            + (1.0 / 3.0) * (5.0 / 3.0f64).ln();
        assert!((divergence(&[1, 3, 0, 0], 0, 2, 2) - expected).abs() < 1e-12);
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
    fn a_second_cluster_is_no_outlier() {
        // Zeros, as a rectifier leaves them, and as many values around 1.
        let cluster = |i: u16| f32::from(i % 2) * (1.0 + f32::from(i) / 10_000.0);
        let values: Vec<f32> = (0..1000).map(cluster).collect();
        let mut histogram = Histogram::new();
        histogram.add(&values);
        for scheme in [QuantScheme::Symmetric, QuantScheme::Affine] {
            let (_, high) = Entropy.range(&histogram, (0.0, 1.0999), QuantDtype::INT8, scheme);
            assert!(high > 1.0, "{scheme}: {high}");
        }
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
