//! Smallest and largest values.

use burn::tensor::Tensor;

use super::memory::memory;
use super::vector::{Loop, vectorized};

/// Values that are compared side by side.
const LANES: usize = 16;

/// Steps in which the results of the lanes are put together.
const HALVES: [usize; 4] = [8, 4, 2, 1];

/// Smallest and largest value of each block of `values`, which are `[outer, blocks, inner]`, read
/// once; both are NaN where one of the values is.
///
/// # Errors
///
/// `values` themselves, on another backend and in another type than `f32`.
pub(in crate::simulate::operation) fn extremes(
    values: Tensor<1>,
    [_, blocks, inner]: [usize; 3],
) -> Result<[Tensor<1>; 2], Tensor<1>> {
    let memory = memory(values)?;
    let values = memory.values();
    let mut found = vec![Extremes::NONE; blocks];
    vectorized(Search {
        values,
        inner,
        found: &mut found,
    });
    let per_block = |value: fn(&Extremes) -> f32| memory.beside(found.iter().map(value).collect());
    Ok([per_block(Extremes::smallest), per_block(Extremes::largest)])
}

/// Extremes of the values so far.
#[derive(Clone, Copy)]
struct Extremes {
    smallest: f32,
    largest: f32,
    any_nan: bool,
}

impl Extremes {
    const NONE: Self = Self {
        smallest: f32::INFINITY,
        largest: f32::NEG_INFINITY,
        any_nan: false,
    };

    /// With one value more; comparisons pass a NaN by.
    #[inline(always)]
    fn with(self, value: f32) -> Self {
        Self {
            smallest: smaller(value, self.smallest),
            largest: larger(value, self.largest),
            any_nan: self.any_nan | value.is_nan(),
        }
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self {
            smallest: smaller(other.smallest, self.smallest),
            largest: larger(other.largest, self.largest),
            any_nan: self.any_nan | other.any_nan,
        }
    }

    fn smallest(&self) -> f32 {
        if self.any_nan {
            f32::NAN
        } else {
            self.smallest
        }
    }

    fn largest(&self) -> f32 {
        if self.any_nan { f32::NAN } else { self.largest }
    }
}

#[inline(always)]
fn smaller(value: f32, known: f32) -> f32 {
    if value < known { value } else { known }
}

#[inline(always)]
fn larger(value: f32, known: f32) -> f32 {
    if value > known { value } else { known }
}

/// The search through all values.
struct Search<'a> {
    values: &'a [f32],
    /// Neighbours in one block.
    inner: usize,
    found: &'a mut [Extremes],
}

impl Loop for Search<'_> {
    #[inline(always)]
    fn run(self) {
        match self.inner {
            ..LANES => columns(self.values, self.inner, self.found),
            inner => neighbours(self.values, inner, self.found),
        }
    }
}

/// Blocks of few neighbours: each place of a row by itself, then those of a block together.
#[inline(always)]
fn columns(values: &[f32], inner: usize, found: &mut [Extremes]) {
    let width = found.len() * inner;
    if width == 0 {
        return;
    }
    let mut smallest = vec![f32::INFINITY; width];
    let mut largest = vec![f32::NEG_INFINITY; width];
    let mut nans = vec![0_u32; width];
    for row in values.chunks_exact(width) {
        side_by_side(row, &mut smallest, &mut largest, &mut nans);
    }
    for place in 0..width {
        let block = &mut found[place / inner];
        *block = block.and(Extremes {
            smallest: smallest[place],
            largest: largest[place],
            any_nan: nans[place] != 0,
        });
    }
}

/// Blocks of many neighbours.
#[inline(always)]
fn neighbours(values: &[f32], inner: usize, found: &mut [Extremes]) {
    let blocks = found.len();
    for (at, values) in values.chunks_exact(inner).enumerate() {
        let mut smallest = [f32::INFINITY; LANES];
        let mut largest = [f32::NEG_INFINITY; LANES];
        let mut nans = [0_u32; LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            side_by_side(chunk, &mut smallest, &mut largest, &mut nans);
        }
        for half in HALVES {
            let (low, high) = smallest.split_at_mut(half);
            for lane in 0..half {
                low[lane] = smaller(high[lane], low[lane]);
            }
            let (low, high) = largest.split_at_mut(half);
            for lane in 0..half {
                low[lane] = larger(high[lane], low[lane]);
            }
            let (low, high) = nans.split_at_mut(half);
            for lane in 0..half {
                low[lane] |= high[lane];
            }
        }
        let lanes = Extremes {
            smallest: smallest[0],
            largest: largest[0],
            any_nan: nans[0] != 0,
        };
        let together = rest.iter().fold(lanes, |all, &value| all.with(value));
        found[at % blocks] = found[at % blocks].and(together);
    }
}

/// Extremes of as many series of values as there are places, with one value more each.
#[inline(always)]
fn side_by_side(values: &[f32], smallest: &mut [f32], largest: &mut [f32], nans: &mut [u32]) {
    let count = values.len();
    let (smallest, largest) = (&mut smallest[..count], &mut largest[..count]);
    let nans = &mut nans[..count];
    for i in 0..count {
        let value = values[i];
        smallest[i] = smaller(value, smallest[i]);
        largest[i] = larger(value, largest[i]);
        nans[i] |= u32::from(value.is_nan());
    }
}
