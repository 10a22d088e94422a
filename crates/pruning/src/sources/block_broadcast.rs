//! The way from one value a block to one value an element.

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_compress_core::Grid;

use crate::Blocks;

/// Brings one value a block to one value an element.
#[derive(Debug)]
pub(crate) struct BlockBroadcast {
    grid: Grid,
    shape: Vec<usize>,
    /// The block of each element, for grids that a repetition cannot bring to the elements.
    index: Option<Tensor<1, Int>>,
}

impl BlockBroadcast {
    pub(crate) fn new(blocks: &Blocks, device: &Device) -> Self {
        let grid = Grid::new(blocks.grid());
        let shape = blocks.shape().to_vec();
        let split = blocks.grid().iter().filter(|&&count| count > 1).count();
        let gathered = split > 1 && blocks.block_len() > 1;
        let index = gathered.then(|| {
            let blocks = grid.block_of_each_element(&shape);
            Tensor::from_data(TensorData::from(&blocks[..]), device)
        });
        Self { grid, shape, index }
    }

    /// One value a block, `[blocks]`, as one value an element, `[elements]`. Gradients flow back
    /// summed over each block.
    pub(crate) fn expand(&self, values: Tensor<1>) -> Tensor<1> {
        let elements: usize = self.shape.iter().product();
        match &self.index {
            Some(index) => {
                let device = values.device().without_autodiff();
                values.select(0, index.clone().to_device(&device))
            }
            None if self.grid.len() == elements => values,
            None => self.grid.expand(values, &self.shape),
        }
    }

    pub(crate) fn host(&self, values: &[f32]) -> Vec<f32> {
        let blocks = self.grid.block_of_each_element(&self.shape);
        let blocks = blocks.into_iter();
        blocks.map(|block| values[block as usize]).collect()
    }
}
