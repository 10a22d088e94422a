//! Block grids: one value for each block of a target.

use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

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
        let split: Vec<usize> = (0..self.0.len()).filter(|&dim| self.0[dim] != 1).collect();
        match split[..] {
            [] => values.expand([elements]),
            // Blocks along one dimension are a repetition, far cheaper than a gather.
            [dim] => {
                let outer: usize = dims[..dim].iter().product();
                let inner = elements / (outer * self.0[dim]).max(1);
                values
                    .reshape([1, self.0[dim], 1])
                    .expand([outer, self.0[dim], inner])
                    .reshape([elements])
            }
            _ => {
                let blocks = self.block_of_each_element(dims);
                let device = values.device().without_autodiff();
                let index = Tensor::<1, Int>::from_data(TensorData::from(&blocks[..]), &device);
                values.select(0, index)
            }
        }
    }

    /// For each element of a target of shape `dims`, in row-major order, the index of its block.
    pub fn block_of_each_element(&self, dims: &[usize]) -> Vec<i32> {
        let elements: usize = dims.iter().product();
        let mut position = vec![0usize; dims.len()];
        let mut blocks = Vec::with_capacity(elements);
        for _ in 0..elements {
            let block = position
                .iter()
                .zip(dims)
                .zip(&self.0)
                .fold(0, |block, ((&at, &size), &count)| {
                    block * count + at * count / size
                });
            blocks.push(block as i32);
            for dim in (0..dims.len()).rev() {
                position[dim] += 1;
                if position[dim] < dims[dim] {
                    break;
                }
                position[dim] = 0;
            }
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
    fn values_expand_to_elements_as_the_blocks_say() {
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
