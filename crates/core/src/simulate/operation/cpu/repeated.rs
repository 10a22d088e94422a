//! Values that repeat over the elements of a tensor.

use burn::tensor::Tensor;

use super::memory::floats;
use crate::simulate::operation::runs::Runs;

/// Runs up to this length are written out: a loop over so few elements takes longer to begin than to
/// run.
const SHORT: usize = 64;

/// Values that are written out at least, where there are elements for them, and at most.
const WRITTEN: [usize; 2] = [512, 8192];

/// Elements for each value that is written out, at least; fewer would not pay for the writing.
const USES: usize = 4;

/// One value for each run of elements.
pub(super) struct Repeated {
    pub(super) values: Vec<f32>,
    pub(super) runs: Runs,
}

impl Repeated {
    /// The same value for all elements.
    pub(super) fn single(value: f32, dims: &[usize]) -> Self {
        let runs = Runs {
            blocks: 1,
            inner: dims.iter().product(),
        };
        Self {
            values: vec![value],
            runs,
        }
    }

    /// The values of a tensor that broadcasts against `dims`.
    pub(super) fn of<const D: usize>(tensor: &Tensor<D>, dims: &[usize; D]) -> Option<Self> {
        let runs = Runs::new(&tensor.dims(), dims)?;
        let values = floats(tensor)?;
        Some(Self { values, runs })
    }

    pub(super) fn of_mask<const D: usize>(
        mask: Option<&Tensor<D>>,
        dims: &[usize; D],
    ) -> Option<Self> {
        match mask {
            Some(mask) => Self::of(mask, dims),
            None => Some(Self::single(1.0, dims)),
        }
    }

    /// Writes short runs out, so that each element of a stretch has a value of its own.
    pub(super) fn written_out(self, elements: usize) -> Self {
        let Runs { blocks, inner } = self.runs;
        let period = blocks * inner;
        let [fewest, most] = WRITTEN;
        let is_worthwhile = elements > 0 && elements >= period * USES;
        if blocks < 2 || inner > SHORT || period > most || !is_worthwhile {
            return self;
        }
        let enough = fewest.min(elements / USES);
        let times = enough.div_ceil(period);
        if inner == 1 && times == 1 {
            return self;
        }
        let run = self
            .values
            .iter()
            .flat_map(|&value| std::iter::repeat_n(value, inner));
        let values: Vec<f32> = run.cycle().take(period * times).collect();
        let runs = Runs {
            blocks: values.len(),
            inner: 1,
        };
        Self { values, runs }
    }

    /// The values of the elements from `start` on.
    #[inline(always)]
    pub(super) fn from(&self, start: usize, length: usize) -> Part<'_> {
        let first = self.runs.at(start);
        match self.runs.inner {
            1 if self.runs.blocks > 1 => Part::Each(&self.values[first..first + length]),
            _ => Part::All(self.values[first]),
        }
    }

    /// The values of the elements from `start` on, with those of `other`, which repeat alike.
    #[inline(always)]
    pub(super) fn pairs<'a>(&'a self, other: &'a Self, start: usize, length: usize) -> Pairs<'a> {
        let first = self.runs.at(start);
        let part = first..first + length;
        match self.runs.inner {
            1 if self.runs.blocks > 1 => {
                Pairs::Each(&self.values[part.clone()], &other.values[part])
            }
            _ => Pairs::All(self.values[first], other.values[first]),
        }
    }
}

/// What belongs to neighbouring elements.
pub(super) enum Part<'a> {
    /// One value for all of them.
    All(f32),
    /// A value for each.
    Each(&'a [f32]),
}

/// What belongs to neighbouring elements, of two kinds.
pub(super) enum Pairs<'a> {
    /// Two values for all of them.
    All(f32, f32),
    /// Two values for each.
    Each(&'a [f32], &'a [f32]),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_runs_are_written_out_where_they_are_used_often() {
        let repeated = |blocks: usize, inner: usize| Repeated {
            values: (0..blocks).map(|block| block as f32).collect(),
            runs: Runs { blocks, inner },
        };
        let runs = |repeated: Repeated| (repeated.runs.blocks, repeated.runs.inner);
        // A period of 6 elements, so often that they are at least 512.
        let written = repeated(3, 2).written_out(6000);
        assert_eq!(
            written.values[..8],
            [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 0.0, 0.0]
        );
        assert_eq!(runs(written), (516, 1));
        // No more than a fourth of the elements.
        assert_eq!(runs(repeated(3, 2).written_out(24)), (6, 1));
        assert_eq!(runs(repeated(3, 2).written_out(18)), (3, 2));
        assert_eq!(runs(repeated(3, 65).written_out(6000)), (3, 65));
        assert_eq!(runs(repeated(1, 2).written_out(6000)), (1, 2));
        assert_eq!(runs(repeated(600, 1).written_out(6000)), (600, 1));
    }
}
