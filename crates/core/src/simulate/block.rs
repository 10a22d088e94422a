//! Block grids: one value for each block of a target.

use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Blocks that do not fit a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The granularity has no meaning for the target.
    #[error("granularity `{granularity}` needs {needs}; use a list of block sizes instead")]
    Granularity {
        /// The granularity found.
        granularity: &'static str,
        /// Missing property of the target.
        needs: &'static str,
    },

    /// A block has more dims than the target.
    #[error(
        "block {block:?} has more dims than the target of shape {shape:?}; give one size a dim"
    )]
    BlockRank {
        /// The block found.
        block: Vec<i64>,
        /// The shape of the target.
        shape: Vec<usize>,
    },

    /// A block does not tile a dim of the target.
    #[error(
        "block size {block} does not divide dim {dim} of size {size} in the shape {shape:?}; use a \
         divisor or -1",
        size = shape[*dim]
    )]
    BlockSize {
        /// The block size found.
        block: i64,
        /// The dim of the target.
        dim: usize,
        /// The shape of the target.
        shape: Vec<usize>,
    },

    /// The target has no elements.
    #[error("the target of shape {shape:?} has no elements; exclude it from the configuration")]
    Empty {
        /// The shape of the target.
        shape: Vec<usize>,
    },

    /// The target has more elements than can be counted.
    #[error("the target of shape {shape:?} has more elements than can be indexed; check its shape")]
    TooLarge {
        /// The shape of the target.
        shape: Vec<usize>,
    },
}

/// The number of blocks along each dimension of a target.
///
/// `[1, 1]` is one block for a whole matrix (per tensor), `[1, C, 1, 1]` one block a channel. The
/// block size along a dimension is the dimension divided by the number of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grid(Vec<usize>);

impl Grid {
    /// Makes a grid from the number of blocks along each dimension.
    pub fn new(blocks: impl Into<Vec<usize>>) -> Self {
        Self(blocks.into())
    }

    /// One block for a whole target of rank `rank`.
    pub fn per_tensor(rank: usize) -> Self {
        Self(vec![1; rank])
    }

    /// One block for each index along `dim`, `size` of them.
    ///
    /// With a `dim` outside of `rank` the grid has a rank of its own, and fits no such target.
    pub fn per_channel(rank: usize, dim: usize, size: usize) -> Self {
        let mut blocks = vec![1; rank.max(dim.saturating_add(1))];
        blocks[dim] = size;
        Self(blocks)
    }

    /// The blocks of shape `block` that tile a target of `shape`.
    ///
    /// A size of -1 spans the whole dim. A `block` shorter than `shape` is padded at the front
    /// with 1.
    ///
    /// # Errors
    ///
    /// When
    ///
    /// - the target is empty or cannot be indexed;
    /// - the block has too many dims;
    /// - a size is 0, below -1, or does not divide its dim.
    pub fn tile(shape: &[usize], block: &[i64]) -> Result<Self, BlockError> {
        let of_target = || shape.to_vec();
        if shape.contains(&0) {
            return Err(BlockError::Empty { shape: of_target() });
        }
        if num_elements(shape).is_none() {
            return Err(BlockError::TooLarge { shape: of_target() });
        }
        let Some(padding) = shape.len().checked_sub(block.len()) else {
            let (block, shape) = (block.to_vec(), of_target());
            return Err(BlockError::BlockRank { block, shape });
        };
        let sizes = std::iter::repeat_n(1, padding).chain(block.iter().copied());
        let counted = sizes.zip(shape).enumerate();
        let blocks = counted.map(|(dim, (block, &size))| match block {
            -1 => Ok(1),
            1.. if (size as u64).is_multiple_of(block as u64) => Ok(size / block as usize),
            _ => Err(BlockError::BlockSize {
                block,
                dim,
                shape: of_target(),
            }),
        });
        blocks.collect::<Result<_, _>>().map(Self)
    }

    /// One block for each index along dim `dim` of a target of `shape`.
    ///
    /// # Errors
    ///
    /// When the target is empty or cannot be indexed.
    pub fn along(shape: &[usize], dim: usize) -> Result<Self, BlockError> {
        let sizes = (0..shape.len()).map(|other| if other == dim { 1 } else { -1 });
        Self::tile(shape, &sizes.collect::<Vec<i64>>())
    }

    /// The number of blocks along each dimension.
    pub fn blocks(&self) -> &[usize] {
        &self.0
    }

    /// The number of blocks altogether; the largest number there is, if they are more.
    pub fn len(&self) -> usize {
        num_elements(&self.0).unwrap_or(usize::MAX)
    }

    /// Whether there is no block at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape in which one value per block broadcasts against a target of shape `dims`, if
    /// every dimension has either one block or one block an index.
    pub fn broadcast_shape(&self, dims: &[usize]) -> Option<&[usize]> {
        let fits = self.0.len() == dims.len()
            && self
                .0
                .iter()
                .zip(dims)
                .all(|(&blocks, &size)| blocks == 1 || blocks == size);
        fits.then_some(&self.0[..])
    }

    /// One value a block, `[len]`, brought to one value an element of a target of shape `dims`,
    /// `[num_elements]`. Gradients flow back summed over each block.
    pub fn expand(&self, values: Tensor<1>, dims: &[usize]) -> Tensor<1> {
        let elements: usize = dims.iter().product();
        match self.split(dims) {
            Some([_, 1, _]) => values.expand([elements]),
            // Blocks along one dimension are a repetition, far cheaper than a gather.
            Some([outer, blocks, inner]) => values
                .reshape([1, blocks, 1])
                .expand([outer, blocks, inner])
                .reshape([elements]),
            None => {
                let blocks = self.block_of_each_element(dims);
                let device = values.device().without_autodiff();
                let index = Tensor::<1, Int>::from_data(TensorData::from(&blocks[..]), &device);
                values.select(0, index)
            }
        }
    }

    /// A target of shape `dims` as `[outer, blocks, inner]`, where the blocks lie along one dimension
    /// at most.
    pub(crate) fn split(&self, dims: &[usize]) -> Option<[usize; 3]> {
        let elements: usize = dims.iter().product();
        let mut split = (0..self.0.len()).filter(|&dim| self.0[dim] != 1);
        match (split.next(), split.next()) {
            (None, _) => Some([1, 1, elements]),
            (Some(dim), None) => {
                let outer: usize = dims[..dim].iter().product();
                let inner = elements / (outer * self.0[dim]).max(1);
                Some([outer, self.0[dim], inner])
            }
            _ => None,
        }
    }

    /// For each element of a target of shape `dims`, in row-major order, the index of its block.
    pub fn block_of_each_element(&self, dims: &[usize]) -> Vec<i32> {
        let counts = self.0.iter().chain(std::iter::repeat(&1));
        let mut blocks = vec![0];
        for (&size, &count) in dims.iter().zip(counts) {
            let inner = |&block: &i32| {
                (0..size).map(move |at| block * count as i32 + (at * count / size) as i32)
            };
            blocks = blocks.iter().flat_map(inner).collect();
        }
        blocks
    }
}

/// The number of elements of a shape, unless no number is so large.
pub(crate) fn num_elements(shape: &[usize]) -> Option<usize> {
    let mut sizes = shape.iter();
    sizes.try_fold(1usize, |elements, &size| elements.checked_mul(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_belong_to_contiguous_blocks() {
        // A 2x4 matrix in blocks of 1x2: row 0 holds blocks 0 0 1 1, row 1 blocks 2 2 3 3.
        let grid = Grid::new([2, 2]);
        assert_eq!(
            grid.block_of_each_element(&[2, 4]),
            [0, 0, 1, 1, 2, 2, 3, 3]
        );
        assert_eq!(grid.broadcast_shape(&[2, 4]), None);
    }

    #[test]
    fn values_expand_to_the_elements_of_their_blocks() {
        let device = burn::tensor::Device::flex();
        let dims = [2, 4, 3];
        for blocks in [
            [1, 1, 1],
            [1, 4, 1],
            [1, 2, 1],
            [2, 1, 1],
            [2, 2, 3],
            [1, 2, 3],
        ] {
            let grid = Grid::new(blocks);
            let values: Vec<f32> = (0..grid.len()).map(|block| block as f32).collect();
            let values = Tensor::from_data(TensorData::from(&values[..]), &device);
            let expected: Vec<f32> = grid
                .block_of_each_element(&dims)
                .iter()
                .map(|&block| block as f32)
                .collect();
            let found = grid.expand(values, &dims).into_data();
            assert_eq!(found.try_to_vec::<f32>().unwrap(), expected, "{blocks:?}");
        }
    }

    #[test]
    fn channels_broadcast() {
        let grid = Grid::per_channel(4, 1, 3);
        assert_eq!(grid.broadcast_shape(&[8, 3, 5, 5]), Some(&[1, 3, 1, 1][..]));
        assert_eq!(grid.len(), 3);
        // No target of rank 2 has a dimension 2.
        assert_eq!(Grid::per_channel(2, 2, 3).broadcast_shape(&[4, 3]), None);
    }
}
