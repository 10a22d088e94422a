//! The block grid of a target: blocks of equal shape that tile a tensor.
//!
//! Pruning decides per block. A block of shape `[1, -1, -1, -1]` on a convolution weight is one
//! output channel, a block of shape `[1, 1, 1, 1]` is one element. [`Blocks`] goes from elements to
//! blocks ([`reduce`](Blocks::reduce)) and back ([`expand`](Blocks::expand)).

use std::borrow::Cow;

use burn_compress_core::{Axes, Granularity, Grid};

use crate::PruningError;

/// The grid of blocks over a tensor in row-major order.
///
/// The grid has the rank of the tensor: dim `d` has `shape[d] / block[d]` blocks. Values per block
/// are in row-major order of the grid.
///
/// # Example
///
/// ```
/// use burn_compress_pruning::Blocks;
///
/// // A matrix of two rows, one block a row.
/// let blocks = Blocks::new(&[2, 3], &[1, -1])?;
/// assert_eq!(blocks.grid(), [2, 1]);
///
/// let sums = blocks.reduce(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], |row| row.iter().sum());
/// assert_eq!(sums, [6.0, 15.0]);
/// assert_eq!(blocks.expand(&[true, false]), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), burn_compress_pruning::PruningError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    shape: Vec<usize>,
    block: Vec<usize>,
    grid: Grid,
}

impl Blocks {
    /// Tiles a tensor of `shape` with blocks of shape `block`.
    ///
    /// A size of -1 spans the whole dim. A `block` shorter than `shape` is padded at the front
    /// with 1.
    ///
    /// # Errors
    ///
    /// When
    ///
    /// - the tensor is empty or cannot be indexed;
    /// - the block has too many dims;
    /// - a size is 0, below -1, or does not divide its dim.
    pub fn new(shape: &[usize], block: &[i64]) -> Result<Self, PruningError> {
        Ok(Self::from_grid(shape, Grid::tile(shape, block)?))
    }

    /// The blocks of a granularity on a target of `shape` with the channel dims `axes`.
    ///
    /// [`Granularity::Default`] stands for `default`; as the default it is one block an element.
    ///
    /// ```
    /// use burn_compress_pruning::{Axes, Blocks, Granularity};
    ///
    /// // A linear weight is `[in, out]`: its output channels are the columns.
    /// let axes = Axes::Parameter { output: Some(1), input: Some(0) };
    /// let blocks = Blocks::of(&Granularity::OutChannel, &[12, 16], axes, &Granularity::Default)?;
    /// assert_eq!(blocks.grid(), [1, 16]);
    /// # Ok::<(), burn_compress_pruning::PruningError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Granularity::grid`].
    pub fn of(
        granularity: &Granularity,
        shape: &[usize],
        axes: Axes,
        default: &Granularity,
    ) -> Result<Self, PruningError> {
        let grid = granularity.grid(shape, axes, default)?;
        Ok(Self::from_grid(shape, grid))
    }

    /// The blocks of a grid that tiles a tensor of `shape`.
    fn from_grid(shape: &[usize], grid: Grid) -> Self {
        let block = shape.iter().zip(grid.blocks()).map(|(size, n)| size / n);
        Self {
            shape: shape.to_vec(),
            block: block.collect(),
            grid,
        }
    }

    /// One block for each index along dim `dim`.
    ///
    /// # Errors
    ///
    /// When the tensor is empty or cannot be indexed.
    pub fn along(shape: &[usize], dim: usize) -> Result<Self, PruningError> {
        Ok(Self::from_grid(shape, Grid::along(shape, dim)?))
    }

    /// One block for each element.
    ///
    /// # Errors
    ///
    /// When the tensor is empty.
    pub fn elements(shape: &[usize]) -> Result<Self, PruningError> {
        Self::new(shape, &[])
    }

    /// The shape of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The shape of one block, with the rank of the tensor.
    pub fn block(&self) -> &[usize] {
        &self.block
    }

    /// The number of blocks along each dim.
    pub fn grid(&self) -> &[usize] {
        self.grid.blocks()
    }

    /// The number of blocks.
    pub fn count(&self) -> usize {
        self.grid.len()
    }

    /// The number of elements in one block.
    pub fn block_len(&self) -> usize {
        self.block.iter().product()
    }

    /// The number of elements of the tensor.
    pub fn elements_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The values of one block after another, each block in row-major order: what a score needs that
    /// compares blocks, by `gather(data).chunks(blocks.block_len())`.
    ///
    /// # Panics
    ///
    /// When `data` has not as many values as the tensor has elements.
    pub fn gather<T: Copy + Default>(&self, data: &[T]) -> Vec<T> {
        self.gathered(data).into_owned()
    }

    /// As [`gather`](Self::gather), without a copy where the values lie in this order.
    fn gathered<'a, T: Copy + Default>(&self, data: &'a [T]) -> Cow<'a, [T]> {
        assert_eq!(
            data.len(),
            self.elements_count(),
            "values and elements of the tensor must be equally many"
        );
        let len = self.block_len();
        let runs = self.runs();
        if len == 1 || runs.is_some_and(|runs| runs.of_a_block == 1) {
            return Cow::Borrowed(data);
        }
        let mut gathered = vec![T::default(); data.len()];
        if let Some(Runs { blocks, length, .. }) = runs {
            for (at, run) in data.chunks(length).enumerate() {
                let start = at % blocks * len + at / blocks * length;
                gathered[start..][..length].copy_from_slice(run);
            }
            return Cow::Owned(gathered);
        }
        let mut filled = vec![0; self.count()];
        for (&value, block) in data.iter().zip(self.of_each_element()) {
            gathered[block * len + filled[block]] = value;
            filled[block] += 1;
        }
        Cow::Owned(gathered)
    }

    /// One value for each block: `f` of the values in it, which are in row-major order.
    ///
    /// # Panics
    ///
    /// When `data` has not as many values as the tensor has elements.
    pub fn reduce(&self, data: &[f32], f: impl Fn(&[f32]) -> f32) -> Vec<f32> {
        let values = self.gathered(data);
        values.chunks(self.block_len()).map(f).collect()
    }

    /// One sum for each block, of `term` of the values in it, in double precision.
    ///
    /// ```
    /// # use burn_compress_pruning::Blocks;
    /// let rows = Blocks::new(&[2, 2], &[1, -1])?;
    /// assert_eq!(rows.sums(&[1.0, -2.0, 0.5, 0.0], f64::abs), [3.0, 0.5]);
    /// # Ok::<(), burn_compress_pruning::PruningError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// When `data` has not as many values as the tensor has elements.
    pub fn sums(&self, data: &[f32], term: impl Fn(f64) -> f64) -> Vec<f64> {
        let Some(runs) = self.runs() else {
            let sum = |block: &[f32]| block.iter().map(|&value| term(f64::from(value))).sum();
            let values = self.gathered(data);
            return values.chunks(self.block_len()).map(sum).collect();
        };
        assert_eq!(
            data.len(),
            self.elements_count(),
            "values and elements of the tensor must be equally many"
        );
        // Each sum takes its terms in the order of the elements, whatever is summed beside it. The sum
        // of nothing is -0, as that of an iterator.
        let mut sums = vec![-0.0; runs.blocks];
        for turn in data.chunks(runs.blocks * runs.length) {
            match runs.length {
                1 => {
                    let values = sums.iter_mut().zip(turn);
                    values.for_each(|(sum, &value)| *sum += term(f64::from(value)));
                }
                length => add_runs(&mut sums, turn, length, &term),
            }
        }
        sums
    }

    /// The mask of the whole tensor, 1 where the block is kept and 0 where it is pruned.
    ///
    /// # Panics
    ///
    /// When `keep` has not one value for each block.
    pub fn expand(&self, keep: &[bool]) -> Vec<f32> {
        assert_eq!(keep.len(), self.count(), "one value for each block");
        let kept = |block: usize| f32::from(u8::from(keep[block]));
        let Some(Runs { blocks, length, .. }) = self.runs() else {
            return self.of_each_element().map(kept).collect();
        };
        let elements = self.elements_count();
        let mut mask = Vec::with_capacity(elements);
        for run in 0..elements / length {
            mask.resize((run + 1) * length, kept(run % blocks));
        }
        mask
    }

    /// The mask in the smallest shape that broadcasts to the tensor, and that shape: dims that a
    /// block spans have size 1. The mask of an activation is needed in this form, as its batch size
    /// changes.
    ///
    /// # Panics
    ///
    /// When `keep` has not one value for each block.
    pub fn expand_broadcast(&self, keep: &[bool]) -> (Vec<f32>, Vec<usize>) {
        let spanned = |d: usize| self.grid()[d] == 1;
        let pick = |sizes: &[usize]| -> Vec<usize> {
            (0..sizes.len())
                .map(|d| if spanned(d) { 1 } else { sizes[d] })
                .collect()
        };
        let reduced = Self::from_grid(&pick(&self.shape), self.grid.clone());
        (reduced.expand(keep), reduced.shape)
    }

    /// The grid without the dims of size 1.
    pub(crate) fn squeezed_grid(&self) -> Vec<usize> {
        self.grid().iter().copied().filter(|&n| n > 1).collect()
    }

    /// The runs of elements of one block after another, where at most one dim is split.
    fn runs(&self) -> Option<Runs> {
        let mut split = (0..self.shape.len()).filter(|&dim| self.grid()[dim] > 1);
        let (dim, None) = (split.next().unwrap_or(0), split.next()) else {
            return None;
        };
        Some(Runs {
            blocks: self.count(),
            length: self
                .block
                .get(dim..)
                .map_or(1, |sizes| sizes.iter().product()),
            of_a_block: self
                .shape
                .get(..dim)
                .map_or(1, |sizes| sizes.iter().product()),
        })
    }

    /// The block of each element, elements in row-major order.
    fn of_each_element(&self) -> impl Iterator<Item = usize> {
        let blocks = self.grid.block_of_each_element(&self.shape);
        blocks.into_iter().map(|block| block as usize)
    }
}

/// Adds the terms of each run to the sum of its block.
///
/// A sum waits for the one before it, so several are added up side by side.
fn add_runs(sums: &mut [f64], data: &[f32], length: usize, term: &impl Fn(f64) -> f64) {
    const TOGETHER: usize = 8;
    let mut sums = sums.chunks_exact_mut(TOGETHER);
    let mut runs = data.chunks_exact(TOGETHER * length);
    for (sums, runs) in (&mut sums).zip(&mut runs) {
        let runs: [&[f32]; TOGETHER] = std::array::from_fn(|run| &runs[run * length..][..length]);
        let mut own: [f64; TOGETHER] = std::array::from_fn(|run| sums[run]);
        for at in 0..length {
            for (sum, run) in own.iter_mut().zip(runs) {
                *sum += term(f64::from(run[at]));
            }
        }
        sums.copy_from_slice(&own);
    }
    let rest = sums.into_remainder().iter_mut();
    for (sum, run) in rest.zip(runs.remainder().chunks(length)) {
        for &value in run {
            *sum += term(f64::from(value));
        }
    }
}

/// Elements that lie together and belong to one block; the blocks take turns.
#[derive(Clone, Copy)]
struct Runs {
    blocks: usize,
    /// The elements of a run.
    length: usize,
    /// The number of runs of each block.
    of_a_block: usize,
}

/// The distance between neighbours along each dim of a row-major tensor.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// Moves `index` to the next position of a row-major tensor; false after the last one.
pub(crate) fn advance(index: &mut [usize], shape: &[usize]) -> bool {
    for d in (0..index.len()).rev() {
        index[d] += 1;
        if index[d] < shape[d] {
            return true;
        }
        index[d] = 0;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_compress_core::BlockError;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[4, 6], &[2, -1], &[2, 1])]
    #[case(&[4, 6], &[2], &[4, 3])]
    #[case(&[4, 6], &[], &[4, 6])]
    #[case(&[8, 3, 3, 3], &[1, -1, -1, -1], &[8, 1, 1, 1])]
    #[case(&[], &[], &[])]
    fn the_grid_counts_blocks(
        #[case] shape: &[usize],
        #[case] block: &[i64],
        #[case] grid: &[usize],
    ) {
        assert_eq!(Blocks::new(shape, block).unwrap().grid(), grid);
    }

    #[rstest]
    #[case(&[4], &[3], BlockError::BlockSize { block: 3, dim: 0, shape: vec![4] })]
    #[case(&[4], &[0], BlockError::BlockSize { block: 0, dim: 0, shape: vec![4] })]
    #[case(&[2, 4], &[-2], BlockError::BlockSize { block: -2, dim: 1, shape: vec![2, 4] })]
    #[case(&[4], &[1, 1], BlockError::BlockRank { block: vec![1, 1], shape: vec![4] })]
    #[case(&[4, 0], &[1, 1], BlockError::Empty { shape: vec![4, 0] })]
    #[case(&[usize::MAX, 2], &[1, 1], BlockError::TooLarge { shape: vec![usize::MAX, 2] })]
    fn bad_blocks_are_refused(
        #[case] shape: &[usize],
        #[case] block: &[i64],
        #[case] error: BlockError,
    ) {
        let found = Blocks::new(shape, block).unwrap_err();
        assert_eq!(found.to_string(), error.to_string());
    }

    #[rstest]
    #[case(&[4, 3, 2], &[1, -1, -1])]
    #[case(&[4, 3, 2], &[2, -1, -1])]
    #[case(&[4, 6, 2], &[-1, 1, -1])]
    #[case(&[4, 6, 2], &[-1, 3, -1])]
    #[case(&[3, 4], &[-1, 1])]
    #[case(&[3, 4], &[-1, -1])]
    #[case(&[19, 5], &[1, -1])]
    #[case(&[3, 17, 2], &[-1, 1, -1])]
    fn runs_and_single_elements_agree(#[case] shape: &[usize], #[case] block: &[i64]) {
        let blocks = Blocks::new(shape, block).unwrap();
        assert!(blocks.runs().is_some());
        let data: Vec<f32> = (0..blocks.elements_count()).map(|at| at as f32).collect();
        let mut expected = vec![Vec::new(); blocks.count()];
        for (&value, block) in data.iter().zip(blocks.of_each_element()) {
            expected[block].push(value);
        }
        assert_eq!(blocks.gather(&data), expected.concat());
        let sum = |values: &Vec<f32>| values.iter().map(|&value| f64::from(value) / 3.0).sum();
        let sums: Vec<f64> = expected.iter().map(sum).collect();
        assert_eq!(blocks.sums(&data, |value| value / 3.0), sums);
        let keep: Vec<bool> = (0..blocks.count()).map(|block| block % 2 == 0).collect();
        let mask: Vec<f32> = blocks
            .of_each_element()
            .map(|b| f32::from(keep[b]))
            .collect();
        assert_eq!(blocks.expand(&keep), mask);
    }

    #[test]
    fn two_dimensional_blocks_hold_their_values_in_row_major_order() {
        let blocks = Blocks::new(&[2, 4], &[2, 2]).unwrap();
        let data = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        assert_eq!(
            blocks.gather(&data),
            [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]
        );
        assert_eq!(blocks.reduce(&data, |v| v[2]), [4.0, 6.0]);
        assert_eq!(
            blocks.expand(&[false, true]),
            [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
        );
    }

    #[test]
    fn a_broadcast_mask_has_size_one_where_blocks_span_the_dim() {
        let blocks = Blocks::new(&[8, 4, 5, 5], &[-1, 2, -1, -1]).unwrap();
        let (mask, shape) = blocks.expand_broadcast(&[false, true]);
        assert_eq!(shape, [1, 4, 1, 1]);
        assert_eq!(mask, [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn a_scalar_is_one_block() {
        let blocks = Blocks::elements(&[]).unwrap();
        assert_eq!(blocks.expand(&[false]), [0.0]);
    }

    proptest! {
        #[test]
        fn reducing_an_expanded_mask_gives_the_mask(
            grid in prop::collection::vec(1usize..4, 1..4),
            block in prop::collection::vec(1usize..4, 3),
            seed in any::<u64>(),
        ) {
            let block = &block[..grid.len()];
            let shape: Vec<usize> = grid.iter().zip(block).map(|(g, b)| g * b).collect();
            let sizes: Vec<i64> = block.iter().map(|&b| b as i64).collect();
            let blocks = Blocks::new(&shape, &sizes).unwrap();
            let keep: Vec<bool> = (0..blocks.count()).map(|i| seed >> (i % 64) & 1 == 1).collect();
            let mask = blocks.expand(&keep);
            prop_assert!(mask.iter().all(|&m| m == 0.0 || m == 1.0));
            for (reduced, &kept) in blocks.reduce(&mask, |v| v.iter().sum()).iter().zip(&keep) {
                let expected = if kept { blocks.block_len() as f32 } else { 0.0 };
                prop_assert_eq!(*reduced, expected);
            }
        }
    }
}
