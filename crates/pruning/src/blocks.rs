//! The block grid of a target: blocks of equal shape that tile a tensor.
//!
//! Pruning decides per block. A block of shape `[1, -1, -1, -1]` on a convolution weight is one
//! output channel, a block of shape `[1, 1, 1, 1]` is one element. [`Blocks`] goes from elements to
//! blocks ([`reduce`](Blocks::reduce)) and back ([`expand`](Blocks::expand)).

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
    grid: Vec<usize>,
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
        if shape.contains(&0) {
            return Err(PruningError::Empty {
                shape: shape.to_vec(),
            });
        }
        let elements = shape
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size));
        if elements.is_none() {
            let shape = shape.to_vec();
            return Err(PruningError::TooLarge { shape });
        }
        let Some(padding) = shape.len().checked_sub(block.len()) else {
            return Err(PruningError::BlockRank {
                block: block.to_vec(),
                shape: shape.to_vec(),
            });
        };
        let sizes = std::iter::repeat_n(1, padding).chain(block.iter().copied());
        let block = sizes
            .zip(shape)
            .enumerate()
            .map(|(dim, (block, &size))| match block {
                -1 => Ok(size),
                1.. if (size as u64).is_multiple_of(block as u64) => Ok(block as usize),
                _ => Err(PruningError::BlockSize { block, dim, size }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let grid = shape.iter().zip(&block).map(|(s, b)| s / b).collect();
        Ok(Self {
            shape: shape.to_vec(),
            block,
            grid,
        })
    }

    /// One block for each index along dim `dim`.
    ///
    /// # Errors
    ///
    /// When the tensor is empty or cannot be indexed.
    pub fn along(shape: &[usize], dim: usize) -> Result<Self, PruningError> {
        let sizes = (0..shape.len()).map(|other| if other == dim { 1 } else { -1 });
        Self::new(shape, &sizes.collect::<Vec<i64>>())
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
        &self.grid
    }

    /// The number of blocks.
    pub fn count(&self) -> usize {
        self.grid.iter().product()
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
        assert_eq!(
            data.len(),
            self.elements_count(),
            "values and elements of the tensor must be equally many"
        );
        let len = self.block_len();
        if len == 1 {
            return data.to_vec();
        }
        let mut gathered = vec![T::default(); data.len()];
        let mut filled = vec![0; self.count()];
        self.for_each(|element, block| {
            gathered[block * len + filled[block]] = data[element];
            filled[block] += 1;
        });
        gathered
    }

    /// One value for each block: `f` of the values in it, which are in row-major order.
    ///
    /// # Panics
    ///
    /// When `data` has not as many values as the tensor has elements.
    pub fn reduce(&self, data: &[f32], f: impl Fn(&[f32]) -> f32) -> Vec<f32> {
        self.gather(data).chunks(self.block_len()).map(f).collect()
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
        let sum = |block: &[f32]| block.iter().map(|&value| term(f64::from(value))).sum();
        let values = self.gather(data);
        values.chunks(self.block_len()).map(sum).collect()
    }

    /// The mask of the whole tensor, 1 where the block is kept and 0 where it is pruned.
    ///
    /// # Panics
    ///
    /// When `keep` has not one value for each block.
    pub fn expand(&self, keep: &[bool]) -> Vec<f32> {
        assert_eq!(keep.len(), self.count(), "one value for each block");
        let mut mask = vec![0.0; self.elements_count()];
        self.for_each(|element, block| mask[element] = f32::from(u8::from(keep[block])));
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
        let spanned = |d: usize| self.grid[d] == 1;
        let pick = |sizes: &[usize]| -> Vec<usize> {
            (0..sizes.len())
                .map(|d| if spanned(d) { 1 } else { sizes[d] })
                .collect()
        };
        let reduced = Self {
            shape: pick(&self.shape),
            block: pick(&self.block),
            grid: self.grid.clone(),
        };
        (reduced.expand(keep), reduced.shape)
    }

    /// The grid without the dims of size 1.
    pub(crate) fn squeezed_grid(&self) -> Vec<usize> {
        self.grid.iter().copied().filter(|&n| n > 1).collect()
    }

    /// Calls `f` with each element and its block, elements in row-major order.
    fn for_each(&self, mut f: impl FnMut(usize, usize)) {
        let Some(last) = self.shape.len().checked_sub(1) else {
            return f(0, 0);
        };
        let strides = strides(&self.grid);
        let mut index = vec![0; last];
        let mut element = 0;
        loop {
            let row: usize = (0..last)
                .map(|d| index[d] / self.block[d] * strides[d])
                .sum();
            for i in 0..self.shape[last] {
                f(element, row + i / self.block[last]);
                element += 1;
            }
            if !advance(&mut index, &self.shape[..last]) {
                return;
            }
        }
    }
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
    #[case(&[4], &[3], PruningError::BlockSize { block: 3, dim: 0, size: 4 })]
    #[case(&[4], &[0], PruningError::BlockSize { block: 0, dim: 0, size: 4 })]
    #[case(&[2, 4], &[-2], PruningError::BlockSize { block: -2, dim: 1, size: 4 })]
    #[case(&[4], &[1, 1], PruningError::BlockRank { block: vec![1, 1], shape: vec![4] })]
    #[case(&[4, 0], &[1, 1], PruningError::Empty { shape: vec![4, 0] })]
    #[case(&[usize::MAX, 2], &[1, 1], PruningError::TooLarge { shape: vec![usize::MAX, 2] })]
    fn bad_blocks_are_refused(
        #[case] shape: &[usize],
        #[case] block: &[i64],
        #[case] error: PruningError,
    ) {
        let found = Blocks::new(shape, block).unwrap_err();
        assert_eq!(found.to_string(), error.to_string());
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
