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
//! Exact zeros are left out. Every grid holds them, so they lose nothing; counted, half of all values
//! in one bin behind a rectifier, `Q` would spread them over the neighbours of that bin and make a
//! short range look best, at 8 bits 13 dB of signal to noise where the extremes have 39.
//!
//! The divergence compares shapes, which a few values do not have: with 150 values from a normal
//! distribution 8 bits lose 9 dB against the extremes in the median, with 1000 values 5, with 16
//! values 28. A parameter whose blocks hold fewer than [`FEWEST`] values is an error. Blocks of inputs
//! and outputs that have fewer values other than zero keep their extremes, and a warning names the
//! target. Values that pile up near zero without being zero, as behind a softmax or a SiLU, have the
//! defect of the zeros still: `mse` and `percentile` do better there.
//!
//! The search costs the number of bins times the number of integers.
//!
//! # References
//!
//! Migacz, *8-bit Inference with TensorRT*, GPU Technology Conference 2017. Deviations: the width of
//! the 2048 bins is a power of two ([`Histogram`]), so that 1024 to 2048 of them are in use; exact
//! zeros are left out, where NVIDIA's calibrator gives the first bin the count of the second; the
//! affine scheme; a group of Q that holds nothing but outliers counts as one value, as with none the
//! divergence would be infinite and forbid every threshold in a gap.

use burn_compress_core::{QuantDtype, QuantScheme};

use super::histogram::Histogram;
use super::histogram_estimator::ClipSearch;

/// The number of values that a block needs for its histogram to have a shape.
pub const FEWEST: u64 = 150;

/// Divergences that differ by less are equal: sums in another order differ by as much.
const ROUNDING: f64 = 1e-12;

/// The range with the least Kullback-Leibler divergence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entropy;

impl ClipSearch for Entropy {
    fn range(
        &self,
        histogram: &Histogram,
        (low, high): (f32, f32),
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> (f32, f32) {
        let integers = (dtype.qmax() - dtype.qmin()) as usize + 1;
        let ((mut bins, negative), levels) = match scheme {
            QuantScheme::Symmetric => (histogram.magnitudes().dense(), integers.div_ceil(2)),
            QuantScheme::Affine => (histogram.dense(), integers),
        };
        bins[negative] -= histogram.zeros();
        match threshold(&bins, negative, levels) {
            Some(bins) => {
                let limit = ((bins as f64 + 0.5) * histogram.width()) as f32;
                (low.max(-limit), high.min(limit))
            }
            None => (low, high),
        }
    }

    fn fewest(&self) -> u64 {
        FEWEST
    }
}

/// The number of bins to keep on either side of zero, `None` to keep them all.
///
/// The first `negative` of `bins` are those below zero.
fn threshold(bins: &[u64], negative: usize, levels: usize) -> Option<usize> {
    let positive = bins.len() - negative;
    let sums = Sums::of(bins);
    let mut best = (f64::INFINITY, None);
    for keep in 1..=negative.max(positive) {
        let (start, end) = (negative - keep.min(negative), negative + keep.min(positive));
        if end - start < levels {
            continue;
        }
        let divergence = sums.divergence(start, end, levels);
        if divergence < best.0 - ROUNDING {
            best = (divergence, Some(keep));
        }
    }
    best.1
}

/// Sums over the bins before each one, so that a sum over some is a difference.
struct Sums<'a> {
    bins: &'a [u64],
    /// Values.
    counts: Vec<u64>,
    /// Bins that are not empty.
    used: Vec<usize>,
    /// `n ln n` of the counts.
    entropy: Vec<f64>,
    /// The logarithms of the numbers of bins.
    logarithms: Vec<f64>,
}

impl<'a> Sums<'a> {
    fn of(bins: &'a [u64]) -> Self {
        let (mut counts, mut used, mut entropy) = (vec![0], vec![0], vec![0.0]);
        for (at, &count) in bins.iter().enumerate() {
            counts.push(counts[at] + count);
            used.push(used[at] + usize::from(count > 0));
            entropy.push(entropy[at] + n_ln_n(count));
        }
        Self {
            bins,
            counts,
            used,
            entropy,
            logarithms: (0..=bins.len()).map(|n| (n as f64).ln()).collect(),
        }
    }

    /// The divergence of the quantized bins `start..end`, two at least, from these bins with all
    /// others added to their ends.
    ///
    /// With the count `c` of a bin of P, of `N` in all, and a group of Q with `C` values of P, `O` of
    /// its own, of `M` in all groups, and `U` used bins, `sum P ln(P / Q)` is
    /// `(sum c ln c - sum C ln(O / U)) / N - ln N + ln M`: one term for each group.
    fn divergence(&self, start: usize, end: usize, levels: usize) -> f64 {
        let all = self.counts[self.bins.len()];
        let (below, above) = (self.counts[start], all - self.counts[end]);
        if self.counts[end] == self.counts[start] {
            return f64::INFINITY;
        }
        let (first, last) = (self.bins[start], self.bins[end - 1]);
        let mut sum = self.entropy[end] - self.entropy[start];
        sum += n_ln_n(first + below) - n_ln_n(first) + n_ln_n(last + above) - n_ln_n(last);
        let length = end - start;
        let mut quantized = 0;
        let mut from = start;
        for level in 1..=levels {
            let to = start + level * length / levels;
            let own = self.counts[to] - self.counts[from];
            let mut used = self.used[to] - self.used[from];
            let mut count = own;
            if level == 1 {
                count += below;
                used += usize::from(first == 0 && below > 0);
            }
            if level == levels {
                count += above;
                used += usize::from(last == 0 && above > 0);
            }
            from = to;
            if used == 0 {
                continue;
            }
            // Nothing but outliers: one value, since none would make the divergence infinite.
            let own = own.max(1);
            quantized += own;
            sum -= count as f64 * ((own as f64).ln() - self.logarithms[used]);
        }
        sum / all as f64 - (all as f64).ln() + (quantized as f64).ln()
    }
}

fn n_ln_n(n: u64) -> f64 {
    match n {
        0 => 0.0,
        n => n as f64 * (n as f64).ln(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::qparams;

    /// The divergence of `bins` with so many outliers below and above them.
    fn divergence(bins: &[u64], below: u64, above: u64, levels: usize) -> f64 {
        let all = [&[below], bins, &[above]].concat();
        Sums::of(&all).divergence(1, 1 + bins.len(), levels)
    }

    /// The same bin by bin, as the formula is written.
    fn divergence_of_bins(bins: &[u64], below: u64, above: u64, levels: usize) -> f64 {
        let inside: u64 = bins.iter().sum();
        if inside == 0 {
            return f64::INFINITY;
        }
        let mut reference = bins.to_vec();
        reference[0] += below;
        reference[bins.len() - 1] += above;
        let mut terms = Vec::new();
        let mut quantized = 0.0;
        for level in 0..levels {
            let [from, to] = [level, level + 1].map(|level| level * bins.len() / levels);
            let used: Vec<u64> = reference[from..to]
                .iter()
                .copied()
                .filter(|&n| n > 0)
                .collect();
            if used.is_empty() {
                continue;
            }
            let own = bins[from..to].iter().sum::<u64>().max(1) as f64;
            quantized += own;
            terms.extend(used.iter().map(|&n| (n as f64, own / used.len() as f64)));
        }
        let all = (inside + below + above) as f64;
        let terms = terms.into_iter().map(|(p, q)| {
            let (p, q) = (p / all, q / quantized);
            p * (p / q).ln()
        });
        terms.sum()
    }

    proptest! {
        #[test]
        fn sums_agree_with_a_loop_over_the_bins(
            bins in proptest::collection::vec(prop_oneof![0u64..3, 0u64..5000, Just(0)], 16..200),
            below in 0u64..40,
            above in 0u64..40,
            levels in 2usize..16,
        ) {
            let found = divergence(&bins, below, above, levels);
            let expected = divergence_of_bins(&bins, below, above, levels);
            prop_assert!(found == expected || (found - expected).abs() < 1e-12);
        }
    }

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
        assert!(divergence(&[5, 5, 5, 5], 0, 0, 2).abs() < 1e-12);
    }

    /// Values from a normal distribution, the same ones each time.
    fn normal(count: usize) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut one = || {
            let (radius, angle) = (1.0 - rng.f64(), rng.f64() * std::f64::consts::TAU);
            ((-2.0 * radius.ln()).sqrt() * angle.cos()) as f32
        };
        (0..count).map(|_| one()).collect()
    }

    /// The signal to noise of values that are quantized with this range, in decibel.
    fn quality(
        values: &[f32],
        (low, high): (f32, f32),
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> f64 {
        let (scale, zero_point) = qparams::compute_one(low, high, dtype, scheme).unwrap();
        let (mut signal, mut noise) = (0.0, 0.0);
        for &x in values {
            let q = ((x / scale).round_ties_even() + zero_point).clamp(dtype.qmin(), dtype.qmax());
            signal += f64::from(x).powi(2);
            noise += f64::from((q - zero_point) * scale - x).powi(2);
        }
        10.0 * (signal / noise).log10()
    }

    #[rstest]
    // The extremes have 40 and 15, 46 and 21 dB.
    #[case("int8", QuantScheme::Symmetric, 39.0)]
    #[case("int4", QuantScheme::Symmetric, 15.0)]
    #[case("uint8", QuantScheme::Affine, 44.0)]
    #[case("uint4", QuantScheme::Affine, 20.0)]
    fn a_rectifier_costs_nothing(
        #[case] dtype: &str,
        #[case] scheme: QuantScheme,
        #[case] least: f64,
    ) {
        let dtype = dtype.parse().unwrap();
        let values: Vec<f32> = normal(20_000).into_iter().map(|x| x.max(0.0)).collect();
        let high = values.iter().copied().fold(0.0, f32::max);
        let mut histogram = Histogram::new();
        histogram.add(&values);
        let range = Entropy.range(&histogram, (0.0, high), dtype, scheme);
        let found = quality(&values, range, dtype, scheme);
        assert!(found > least, "{found} dB with {range:?} of 0..{high}");

        // As without the zeros.
        let positive: Vec<f32> = values.into_iter().filter(|&x| x > 0.0).collect();
        let mut histogram = Histogram::new();
        histogram.add(&positive);
        assert_eq!(Entropy.range(&histogram, (0.0, high), dtype, scheme), range);
    }

    #[test]
    fn nothing_but_zeros_has_no_range() {
        let mut histogram = Histogram::new();
        histogram.add(&[0.0; 400]);
        for scheme in [QuantScheme::Symmetric, QuantScheme::Affine] {
            let range = Entropy.range(&histogram, (0.0, 0.0), QuantDtype::INT8, scheme);
            assert_eq!(range, (0.0, 0.0));
        }
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
