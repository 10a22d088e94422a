//! Histograms of values.

/// Bins on either side of zero.
const SIDE: i64 = 2048;
/// Below this exponent, every `f32` but zero needs more bins.
const SMALLEST: i32 = -160;

/// A histogram of values that arrive batch by batch, with up to 2048 bins on either side of zero.
///
/// All bins have the same width, a power of two: the smallest one for which 2048 bins reach the
/// largest magnitude that was seen, so that more than 1024 bins are in use on that side. Bin `k`
/// holds the values `k w <= x < (k + 1) w`. When a larger value arrives, neighbouring bins merge.
/// Nothing is lost by that and the result does not depend on the order of the batches. Exact zeros,
/// as a rectifier or a mask leaves them, are in bin 0 and are counted apart as well.
///
/// ```
/// use burn_compress_quantization::ranges::Histogram;
///
/// let mut histogram = Histogram::new();
/// histogram.add(&[-1.0, 0.0, 0.25, 0.25]);
/// assert_eq!((histogram.total(), histogram.width()), (4, 1.0 / 1024.0));
/// assert_eq!(histogram.counts(), [(-1024, 1), (0, 1), (256, 2)]);
/// assert_eq!(histogram.zeros(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    exponent: i32,
    /// Bins that are not empty, in order.
    counts: Vec<(i64, u64)>,
    zeros: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// A histogram of nothing.
    pub fn new() -> Self {
        Self {
            exponent: SMALLEST,
            counts: Vec::new(),
            zeros: 0,
        }
    }

    /// Adds finite values; others are left out.
    pub fn add(&mut self, values: &[f32]) {
        let finite = values.iter().copied().filter(|value| value.is_finite());
        self.zeros += finite.clone().filter(|&value| value == 0.0).count() as u64;
        let largest = finite.clone().fold(0.0, |most: f32, x| most.max(x.abs()));
        let exponent = exponent(largest).max(self.exponent);
        let shift = exponent - self.exponent;
        // Shifting rounds down, as bins on both sides of zero do.
        let old = self
            .counts
            .iter()
            .map(|&(bin, n)| (bin >> shift.min(63), n));
        let width = 2f64.powi(exponent);
        let mut bins: Vec<i64> = finite
            .map(|x| (f64::from(x) / width).floor() as i64)
            .collect();
        bins.sort_unstable();
        let new = bins
            .chunk_by(|a, b| a == b)
            .map(|run| (run[0], run.len() as u64));
        let mut all: Vec<(i64, u64)> = old.chain(new).collect();
        all.sort_unstable_by_key(|&(bin, _)| bin);
        self.counts = all
            .chunk_by(|a, b| a.0 == b.0)
            .map(|run| (run[0].0, run.iter().map(|&(_, n)| n).sum()))
            .collect();
        self.exponent = exponent;
    }

    /// The width of a bin.
    pub fn width(&self) -> f64 {
        2f64.powi(self.exponent)
    }

    /// The bins that are not empty and the number of values in each, from the smallest value on.
    pub fn counts(&self) -> &[(i64, u64)] {
        &self.counts
    }

    /// The number of values.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|&(_, n)| n).sum()
    }

    /// The number of values that are exactly zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// The histogram of the magnitudes.
    pub fn magnitudes(&self) -> Self {
        let mut bins = std::collections::BTreeMap::new();
        for &(bin, n) in &self.counts {
            *bins.entry(bin.max(-bin - 1)).or_insert(0) += n;
        }
        Self {
            exponent: self.exponent,
            counts: bins.into_iter().collect(),
            zeros: self.zeros,
        }
    }

    /// All bins from the first to the last that is used, zero among them, and the number of those
    /// below zero.
    pub(super) fn dense(&self) -> (Vec<u64>, usize) {
        let first = self.counts.first().map_or(0, |&(bin, _)| bin.min(0));
        let last = self.counts.last().map_or(0, |&(bin, _)| bin.max(0));
        let mut dense = vec![0; (last - first + 1) as usize];
        for &(bin, n) in &self.counts {
            dense[(bin - first) as usize] = n;
        }
        (dense, -first as usize)
    }

    /// The histogram as numbers that a checkpoint keeps exactly: exponent, number of zeros, number of
    /// bins, and for each bin its position and its count. A count is two numbers, its halves.
    pub(super) fn to_numbers(&self) -> impl Iterator<Item = f32> {
        let halves = |count: u64| [(count >> HALF) as f32, (count & LOW) as f32];
        let [high, low] = halves(self.zeros);
        let head = [self.exponent as f32, high, low, self.counts.len() as f32];
        let bins = self.counts.iter().flat_map(move |&(bin, count)| {
            let [high, low] = halves(count);
            [bin as f32, high, low]
        });
        head.into_iter().chain(bins)
    }

    /// Reads what [`to_numbers`](Self::to_numbers) gave; `None` where it did not.
    pub(super) fn from_numbers(numbers: &mut impl Iterator<Item = f32>) -> Option<Self> {
        let exponent = numbers.next()? as i32;
        let zeros = count(numbers)?;
        let mut counts = Vec::new();
        for _ in 0..numbers.next()? as usize {
            let bin = numbers.next()? as i64;
            let count = count(numbers)?;
            let in_order = counts.last().is_none_or(|&(last, _)| last < bin);
            if !in_order || !(-SIDE..SIDE).contains(&bin) || count == 0 {
                return None;
            }
            counts.push((bin, count));
        }
        let around_zero = counts.iter().find(|&&(bin, _)| bin == 0);
        let holds_zeros = zeros <= around_zero.map_or(0, |&(_, count)| count);
        (holds_zeros && (SMALLEST..128).contains(&exponent)).then_some(Self {
            exponent,
            counts,
            zeros,
        })
    }
}

/// Whole numbers of this many bits are exact in an `f32`.
const HALF: u32 = 24;
const LOW: u64 = (1 << HALF) - 1;

/// Reads both halves of a count.
fn count(numbers: &mut impl Iterator<Item = f32>) -> Option<u64> {
    let halves = [numbers.next()?, numbers.next()?];
    let valid = halves
        .iter()
        .all(|&half| (0.0..=LOW as f32).contains(&half));
    valid.then_some(((halves[0] as u64) << HALF) | halves[1] as u64)
}

/// The smallest exponent whose bins reach `largest`.
fn exponent(largest: f32) -> i32 {
    let mut exponent = SMALLEST;
    if largest > 0.0 {
        exponent = f64::from(largest).log2().floor() as i32 - 10;
        // The logarithm is rounded and may be one off at a power of two.
        while f64::from(largest) >= SIDE as f64 * 2f64.powi(exponent) {
            exponent += 1;
        }
        while f64::from(largest) < (SIDE / 2) as f64 * 2f64.powi(exponent) {
            exponent -= 1;
        }
    }
    exponent.max(SMALLEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn merging_rounds_down() {
        let mut histogram = Histogram::new();
        // Largest magnitude 2047: width 1.
        histogram.add(&[-3.0, -2.5, -0.5, 0.0, 0.5, 1.0, 2047.0]);
        assert_eq!(histogram.width(), 1.0);
        assert_eq!(
            histogram.counts(),
            [(-3, 2), (-1, 1), (0, 2), (1, 1), (2047, 1)]
        );
        // Width 2: bins -3 and -4 become -2, 0 and 1 become 0.
        histogram.add(&[2048.0, -4.0]);
        assert_eq!(histogram.width(), 2.0);
        assert_eq!(
            histogram.counts(),
            [(-2, 3), (-1, 1), (0, 3), (1023, 1), (1024, 1)]
        );
        let magnitudes = histogram.magnitudes();
        assert_eq!(magnitudes.counts(), [(0, 4), (1, 3), (1023, 1), (1024, 1)]);
    }

    #[test]
    fn dense_bins_hold_zero() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.dense(), (vec![0], 0));
        histogram.add(&[-1.0, -1.0 + 2.0 / 1024.0]);
        let (dense, below) = histogram.dense();
        assert_eq!((dense.len(), below), (1025, 1024));
        assert_eq!(dense[..3], [1, 0, 1]);
    }

    #[test]
    fn zeros_alone_need_no_width() {
        let mut histogram = Histogram::new();
        histogram.add(&[0.0, -0.0]);
        assert_eq!(histogram.counts(), [(0, 2)]);
        histogram.add(&[f32::MAX, f32::MIN_POSITIVE / 2.0, f32::NAN]);
        assert_eq!(histogram.counts(), [(0, 3), (2047, 1)]);
        assert_eq!((histogram.zeros(), histogram.magnitudes().zeros()), (2, 2));
    }

    #[test]
    fn more_zeros_than_bin_0_holds_are_damage() {
        let mut histogram = Histogram::new();
        histogram.add(&[0.0, 1e-9, 1.0]);
        let mut numbers: Vec<f32> = histogram.to_numbers().collect();
        let read = |numbers: &[f32]| Histogram::from_numbers(&mut numbers.iter().copied());
        assert_eq!(read(&numbers), Some(histogram));
        numbers[2] = 3.0;
        assert_eq!(read(&numbers), None);
        numbers[2] = -1.0;
        assert_eq!(read(&numbers), None);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(
            a in proptest::collection::vec(prop_oneof![-1e3f32..1e3, Just(0.0)], 0..50),
            b in proptest::collection::vec(-1e-3f32..1e-2, 0..50),
        ) {
            let (mut ab, mut ba, mut once) = (Histogram::new(), Histogram::new(), Histogram::new());
            ab.add(&a);
            ab.add(&b);
            ba.add(&b);
            ba.add(&a);
            once.add(&[a.clone(), b.clone()].concat());
            prop_assert_eq!(&ab, &ba);
            prop_assert_eq!(&ab, &once);
            prop_assert_eq!(ab.total() as usize, a.len() + b.len());
            prop_assert!(ab.counts().iter().all(|(bin, _)| (-SIDE..SIDE).contains(bin)));
            let mut numbers = ab.to_numbers();
            prop_assert_eq!(Histogram::from_numbers(&mut numbers), Some(ab.clone()));
        }
    }
}
