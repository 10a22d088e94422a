//! Smallest and largest values.

use burn::tensor::Tensor;

use super::memory::memory;
use super::vector::{Loop, vectorized};

/// Values that are compared side by side.
const LANES: usize = 16;

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
        let is_smaller = value < self.smallest;
        let is_larger = value > self.largest;
        Self {
            smallest: if is_smaller { value } else { self.smallest },
            largest: if is_larger { value } else { self.largest },
            any_nan: self.any_nan | value.is_nan(),
        }
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self {
            smallest: self.with(other.smallest).smallest,
            largest: self.with(other.largest).largest,
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
            1 => each_its_own(self.values, self.found),
            inner => neighbours(self.values, inner, self.found),
        }
    }
}

/// Rows with a value of each block.
#[inline(always)]
fn each_its_own(values: &[f32], found: &mut [Extremes]) {
    for row in values.chunks_exact(found.len().max(1)) {
        for (found, &value) in found.iter_mut().zip(row) {
            *found = found.with(value);
        }
    }
}

/// Blocks of `inner` neighbours.
#[inline(always)]
fn neighbours(values: &[f32], inner: usize, found: &mut [Extremes]) {
    let blocks = found.len();
    for (at, values) in values.chunks_exact(inner.max(1)).enumerate() {
        let mut smallest = [f32::INFINITY; LANES];
        let mut largest = [f32::NEG_INFINITY; LANES];
        let mut nans = [0_u32; LANES];
        let chunks = values.chunks_exact(LANES);
        let mut rest = Extremes::NONE;
        for &value in chunks.remainder() {
            rest = rest.with(value);
        }
        for chunk in chunks {
            for lane in 0..LANES {
                let value = chunk[lane];
                smallest[lane] = if value < smallest[lane] {
                    value
                } else {
                    smallest[lane]
                };
                largest[lane] = if value > largest[lane] {
                    value
                } else {
                    largest[lane]
                };
                nans[lane] |= u32::from(value.is_nan());
            }
        }
        for lane in 0..LANES {
            rest = rest.and(Extremes {
                smallest: smallest[lane],
                largest: largest[lane],
                any_nan: nans[lane] != 0,
            });
        }
        found[at % blocks] = found[at % blocks].and(rest);
    }
}
