//! Labels that depend on several dimensions of a tensor at once.
//!
//! A reshape `[12] -> [3, 4]` takes the channels of one dimension apart: row `h` of the result holds
//! the channels `4 h .. 4 h + 4`, as the features of an attention head. No label belongs to an index
//! of either dimension alone, so that the two are labelled together:
//!
//! ```text
//! dims 0 1      a b c d
//!               e f g h     one part a row
//!               i j k l
//! ```
//!
//! The last dimension of a split is the one that becomes smaller in a cut. All others keep their
//! size, so that every part has to keep equally many labels, not necessarily those of the same
//! columns: what is at column 1 of a cut tensor is the second kept label of each row. Where labels
//! are joined along a dimension they no longer depend on it, and a split that is left with one
//! dimension is an ordinary [`Axis`].

use super::labels::{Axis, Labels};

/// Labels along several dimensions of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Split {
    /// The dimensions; the last one is the one that becomes smaller.
    pub dims: Vec<usize>,
    /// Their sizes.
    pub sizes: Vec<usize>,
    /// The labels and values, row-major over `dims` in their order.
    pub axis: Axis,
}

impl Split {
    /// One dimension.
    pub fn plain(dim: usize, axis: Axis) -> Self {
        Self {
            dims: vec![dim],
            sizes: vec![axis.labels.len()],
            axis,
        }
    }

    /// The dimension that becomes smaller.
    pub fn last(&self) -> usize {
        self.dims[self.dims.len() - 1]
    }

    /// How many parts keep equally many labels.
    pub fn parts(&self) -> usize {
        self.sizes[..self.sizes.len() - 1].iter().product()
    }

    /// The place of `dim` among the dimensions.
    pub fn place(&self, dim: usize) -> Option<usize> {
        self.dims.iter().position(|&d| d == dim)
    }

    /// The distance between neighbours along the dimension at `place`.
    fn stride(&self, place: usize) -> usize {
        self.sizes[place + 1..].iter().product()
    }

    /// The coordinate along the dimension at `place` of the label at `index`.
    pub fn coordinate(&self, index: usize, place: usize) -> usize {
        index / self.stride(place) % self.sizes[place]
    }

    /// The index of the first label of the line along `place` that the label at `index` is in.
    fn start(&self, index: usize, place: usize) -> usize {
        index - self.coordinate(index, place) * self.stride(place)
    }

    /// The labels at `keep` of the dimension at `place`, in that order.
    pub fn take(&self, place: usize, keep: &[usize]) -> Option<Self> {
        let stride = self.stride(place);
        let outer: usize = self.sizes[..place].iter().product();
        let line = self.sizes[place] * stride;
        let rows = (0..outer).flat_map(|o| keep.iter().map(move |k| o * line + k * stride));
        let indices: Vec<usize> = rows.flat_map(|first| first..first + stride).collect();
        let mut sizes = self.sizes.clone();
        sizes[place] = keep.len();
        Some(Self {
            dims: self.dims.clone(),
            sizes,
            axis: self.axis.take(indices.into_iter())?,
        })
    }

    /// The split with its dimensions at other places, in the order of `dims`.
    pub fn ordered(&self, dims: &[usize]) -> Option<Self> {
        let places: Option<Vec<usize>> = dims.iter().map(|&dim| self.place(dim)).collect();
        let places = places?;
        let sizes: Vec<usize> = places.iter().map(|&place| self.sizes[place]).collect();
        let source = |index: usize| {
            let mut rest = index;
            let mut found = 0;
            for (&place, &size) in places.iter().zip(&sizes).rev() {
                found += rest % size * self.stride(place);
                rest /= size;
            }
            found
        };
        let axis = self.axis.take((0..self.axis.labels.len()).map(source))?;
        Some(Self {
            dims: dims.to_vec(),
            sizes,
            axis,
        })
    }

    /// Whether the class is the same all along the dimension at `place`.
    fn is_constant(&self, labels: &Labels, place: usize) -> bool {
        let class = |index: usize| self.axis.labels[index].map(|atom| labels.find(atom));
        (0..self.axis.labels.len()).all(|index| class(index) == class(self.start(index, place)))
    }

    /// The split without the dimensions on which its labels do not depend; one dimension stays.
    pub fn simplified(mut self, labels: &Labels) -> Self {
        let mut place = 0;
        while place < self.dims.len() && self.dims.len() > 1 {
            match self.is_constant(labels, place) {
                true => self = self.without(place),
                false => place += 1,
            }
        }
        self
    }

    /// Joins the labels along the dimension at `place`. What has no label makes the others of its line
    /// stay, for the reason `why`.
    pub fn join_along(self, labels: &mut Labels, place: usize, why: usize) -> Self {
        for index in 0..self.axis.labels.len() {
            let first = self.start(index, place);
            match (self.axis.labels[first], self.axis.labels[index]) {
                (Some(x), Some(y)) => labels.join(x, y),
                (Some(x), None) | (None, Some(x)) => labels.protect(x, why),
                (None, None) => {}
            }
        }
        self.without(place)
    }

    /// The split without the dimension at `place`, along which its labels belong together. A value is
    /// known where it is the same all along.
    fn without(&self, place: usize) -> Self {
        let firsts: Vec<usize> = (0..self.axis.labels.len())
            .filter(|&index| self.coordinate(index, place) == 0)
            .collect();
        let line =
            |first: usize| (0..self.sizes[place]).map(move |at| first + at * self.stride(place));
        let label = |&first: &usize| line(first).find_map(|index| self.axis.labels[index]);
        let value = |&first: &usize| {
            let known = self.axis.value[first];
            line(first)
                .all(|index| self.axis.value[index] == known)
                .then_some(known)
                .flatten()
        };
        let mut less = self.clone();
        less.dims.remove(place);
        less.sizes.remove(place);
        less.axis.labels = firsts.iter().map(label).collect();
        less.axis.value = firsts.iter().map(value).collect();
        less
    }
}

/// A factor of a reshape: a dimension of size `size` that both an input and an output dimension are
/// made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Factor {
    pub size: usize,
    pub input: usize,
    pub output: usize,
}

/// The factors, in row-major order, of a run of dimensions `input` that becomes one of `output`;
/// none where the two cannot be made of the same factors.
pub(super) fn factors(input: &[usize], output: &[usize]) -> Option<Vec<Factor>> {
    let (mut factors, mut i, mut o) = (Vec::new(), input.len(), output.len());
    let (mut left, mut right) = (1, 1);
    loop {
        while left == 1 && i > 0 {
            i -= 1;
            left = input[i];
        }
        while right == 1 && o > 0 {
            o -= 1;
            right = output[o];
        }
        if left == 1 && right == 1 {
            break;
        }
        let size = left.min(right);
        if size <= 1 || !left.is_multiple_of(size) || !right.is_multiple_of(size) {
            return None;
        }
        factors.push(Factor {
            size,
            input: i,
            output: o,
        });
        (left, right) = (left / size, right / size);
    }
    factors.reverse();
    Some(factors)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels 0, 1, .. of zeros along dimensions 0, 1, .. of these sizes.
    fn split(sizes: &[usize], labels: &mut Labels) -> Split {
        let count: usize = sizes.iter().product();
        let atoms = (0..count).map(|_| Some(labels.fresh())).collect();
        Split {
            dims: (0..sizes.len()).collect(),
            sizes: sizes.to_vec(),
            axis: Axis::new(atoms, vec![Some(0.0); count]).unwrap(),
        }
    }

    fn atoms(split: &Split) -> Vec<usize> {
        split.axis.labels.iter().flatten().copied().collect()
    }

    #[test]
    fn a_split_is_reordered_and_cut() {
        let mut labels = Labels::default();
        let split = split(&[2, 3], &mut labels);
        let swapped = split.ordered(&[1, 0]).unwrap();
        assert_eq!((swapped.sizes.clone(), swapped.last()), (vec![3, 2], 0));
        assert_eq!(atoms(&swapped), [0, 3, 1, 4, 2, 5]);
        assert_eq!(atoms(&split.take(1, &[2, 0]).unwrap()), [2, 0, 5, 3]);
        assert_eq!(atoms(&split.take(0, &[1]).unwrap()), [3, 4, 5]);
    }

    #[test]
    fn labels_that_are_joined_along_a_dimension_do_not_depend_on_it() {
        let mut labels = Labels::default();
        let split = split(&[2, 3], &mut labels);
        assert_eq!(split.clone().simplified(&labels), split);
        let why = labels.reason("why".into());
        let rows = split.clone().join_along(&mut labels, 1, why);
        assert_eq!((rows.dims.clone(), atoms(&rows)), (vec![0], vec![0, 3]));
        assert_eq!(labels.find(5), 3);
        assert_eq!(split.simplified(&labels), rows);
    }

    #[test]
    fn runs_have_common_factors() {
        let factor = |size, input, output| Factor {
            size,
            input,
            output,
        };
        assert_eq!(
            factors(&[12], &[3, 1, 4]),
            Some(vec![factor(3, 0, 0), factor(4, 0, 2)])
        );
        assert_eq!(
            factors(&[3, 8], &[6, 4]),
            Some(vec![factor(3, 0, 0), factor(2, 1, 0), factor(4, 1, 1)])
        );
        assert_eq!(factors(&[3, 2], &[2, 3]), None);
        assert_eq!(factors(&[1, 1], &[1]), Some(Vec::new()));
    }
}
