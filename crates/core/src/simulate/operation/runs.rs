//! Where a tensor that broadcasts has one value for many.

/// How values of a smaller shape repeat in a contiguous tensor: value `(i / inner) % blocks` belongs
/// to element `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) blocks: usize,
    /// Neighbouring elements of one value.
    pub(super) inner: usize,
}

impl Runs {
    /// The runs of `shape`, which broadcasts against `dims`, or none where its values follow each
    /// other in another order: in all cases but leading and trailing dimensions of size 1.
    pub(super) fn new(shape: &[usize], dims: &[usize]) -> Option<Self> {
        let fits = |(&own, &size): (&usize, &usize)| own == size || own == 1;
        if shape.len() != dims.len() || !shape.iter().zip(dims).all(fits) {
            return None;
        }
        let blocks = shape.iter().product();
        let is_single = |&dim: &usize| shape[dim] == 1;
        let behind = (0..dims.len()).rev().take_while(is_single);
        let inner: usize = behind.map(|dim| dims[dim]).product();
        if blocks == 1 {
            return Some(Self { blocks, inner });
        }
        let first = shape.iter().position(|&size| size != 1)?;
        let last = shape.iter().rposition(|&size| size != 1)?;
        (shape[first..=last] == dims[first..=last]).then_some(Self { blocks, inner })
    }

    /// Elements from `start` on until another value, or of values that change with every element the
    /// first again, comes.
    pub(super) fn rest(self, start: usize) -> usize {
        let stride = match self.inner {
            1 => self.blocks,
            inner => inner,
        };
        stride - start % stride.max(1)
    }

    /// Index of the value of element `i`.
    pub(super) fn at(self, i: usize) -> usize {
        (i / self.inner) % self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_repeat_in_runs() {
        let runs = |shape: &[usize], dims: &[usize]| {
            Runs::new(shape, dims).map(|runs| (runs.blocks, runs.inner))
        };
        assert_eq!(runs(&[1, 1], &[4, 6]), Some((1, 24)));
        assert_eq!(runs(&[1, 3, 1, 1], &[2, 3, 4, 5]), Some((3, 20)));
        assert_eq!(runs(&[2, 1, 1, 1], &[2, 3, 4, 5]), Some((2, 60)));
        assert_eq!(runs(&[2, 3, 1, 1], &[2, 3, 4, 5]), Some((6, 20)));
        assert_eq!(runs(&[1, 6], &[4, 6]), Some((6, 1)));
        assert_eq!(runs(&[4, 6], &[4, 6]), Some((24, 1)));
        // A dimension of size 1 of the tensor itself.
        assert_eq!(runs(&[1, 3, 1, 5], &[2, 3, 1, 5]), Some((15, 1)));
        assert_eq!(runs(&[2, 1, 5], &[2, 3, 5]), None);
        assert_eq!(runs(&[3], &[2, 3]), None);
        assert_eq!(runs(&[2, 3], &[2, 5]), None);
    }

    #[test]
    fn each_element_has_the_value_of_its_run() {
        let runs = Runs {
            blocks: 2,
            inner: 3,
        };
        let values: Vec<usize> = (0..12).map(|i| runs.at(i)).collect();
        assert_eq!(values, [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]);
        assert_eq!([0, 1, 5, 6].map(|start| runs.rest(start)), [3, 2, 1, 3]);
        let each = Runs {
            blocks: 4,
            inner: 1,
        };
        assert_eq!([0, 3, 4].map(|start| each.rest(start)), [4, 1, 4]);
    }
}
