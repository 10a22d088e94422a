//! The smallest, largest and mean value of each block of a tensor.
//!
//! Blocks are those of a [`Grid`]: `[1, 1]` is one block for a matrix, `[1, C, 1, 1]` one per
//! channel, `[2, 2]` on a `[8, 6]` matrix four blocks of 4 by 3. Any rank is reduced one dimension
//! at a time, after neighbouring dimensions that are treated alike were merged; per tensor that is
//! a single reduction, per channel at most two.

use burn::tensor::Tensor;
use burn_compress_core::{FlatTensor, Grid, extremes};

use crate::QuantizationError;

/// Smallest and largest value of each block of `values`.
///
/// A NaN in a block makes both NaN. Nothing is read back to the host, and gradients do not flow.
///
/// # Shapes
///
/// - values: any
/// - results: minimum `[grid.len()]`, maximum `[grid.len()]`, row-major
///
/// # Errors
///
/// [`QuantizationError::Grid`] when the grid has another rank or does not divide the shape, or
/// when the tensor is empty.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::{FlatTensor, Grid};
/// use burn_compress_quantization::blocks;
///
/// let x = Tensor::<2>::from_floats([[1.0, -2.0], [3.0, 0.5]], &Device::flex());
/// let (minimum, maximum) = blocks::range(&FlatTensor::new(x), &Grid::new([1, 2]))?;
/// assert_eq!(minimum.into_data().try_to_vec::<f32>().unwrap(), [1.0, -2.0]);
/// assert_eq!(maximum.into_data().try_to_vec::<f32>().unwrap(), [3.0, 0.5]);
/// # Ok::<(), burn_compress_quantization::QuantizationError>(())
/// ```
pub fn range(
    values: &FlatTensor,
    grid: &Grid,
) -> Result<(Tensor<1>, Tensor<1>), QuantizationError> {
    let dims = merge(&values.shape, grid)?;
    if let Some([minimum, maximum]) = extremes(values, grid) {
        return Ok((minimum, maximum));
    }
    let flat = values.values.clone().detach().without_autodiff();
    let minimum = reduce(flat.clone(), &dims, Tensor::min_dim, Tensor::min_dim);
    let maximum = reduce(flat, &dims, Tensor::max_dim, Tensor::max_dim);
    Ok((minimum, maximum))
}

/// The mean of each block of `values`.
///
/// # Shapes
///
/// - values: any
/// - result: `[grid.len()]`, row-major
///
/// # Errors
///
/// Those of [`range`].
pub fn mean(values: &FlatTensor, grid: &Grid) -> Result<Tensor<1>, QuantizationError> {
    let dims = merge(&values.shape, grid)?;
    let flat = values.values.clone().detach().without_autodiff();
    // Blocks have one size, so the mean of the means is the mean.
    Ok(reduce(flat, &dims, Tensor::mean_dim, Tensor::mean_dim))
}

/// One value per block, repeated for each element of a tensor of shape `shape`, flattened.
///
/// # Shapes
///
/// - values: `[grid.len()]`, row-major
/// - result: `[elements]`
///
/// # Errors
///
/// [`QuantizationError::Grid`] when the grid does not divide `shape` or when there is not one value
/// per block.
pub(crate) fn spread(
    values: Tensor<1>,
    grid: &Grid,
    shape: &[usize],
) -> Result<Tensor<1>, QuantizationError> {
    merge(shape, grid)?;
    if values.dims()[0] != grid.len() {
        return Err(mismatch(shape, grid));
    }
    Ok(grid.expand(values, shape))
}

/// Checks that scales of the blocks `known` fit values with the blocks `found`.
///
/// # Errors
///
/// [`QuantizationError::OtherBlocks`], unless both are one block, whatever the rank: a layer may be
/// called with tensors of several ranks.
pub(crate) fn check_same(known: &Grid, found: &Grid) -> Result<(), QuantizationError> {
    match known == found || (known.len() == 1 && found.len() == 1) {
        true => Ok(()),
        false => Err(QuantizationError::OtherBlocks {
            expected: known.blocks().to_vec(),
            found: found.blocks().to_vec(),
        }),
    }
}

/// A dimension, or several neighbouring ones that are reduced alike.
struct Dim {
    /// Number of blocks along it.
    blocks: usize,
    /// Elements in each block along it.
    size: usize,
}

/// Splits the dimensions into blocks and merges neighbours that are both one block or both one
/// block per index.
fn merge(shape: &[usize], grid: &Grid) -> Result<Vec<Dim>, QuantizationError> {
    let fits = shape.len() == grid.blocks().len()
        && (shape.iter().zip(grid.blocks()))
            .all(|(&size, &blocks)| size > 0 && blocks > 0 && size % blocks == 0);
    if !fits {
        return Err(mismatch(shape, grid));
    }
    let mut dims: Vec<Dim> = Vec::new();
    for (&size, &blocks) in shape.iter().zip(grid.blocks()) {
        let next = Dim {
            blocks,
            size: size / blocks,
        };
        match dims.last_mut() {
            Some(last) if last.blocks == 1 && next.blocks == 1 => last.size *= next.size,
            Some(last) if last.size == 1 && next.size == 1 => last.blocks *= next.blocks,
            _ => dims.push(next),
        }
    }
    Ok(dims)
}

/// Reduces the elements of each block, the innermost dimension first.
///
/// Contiguous blocks go through `rows`, which is many times faster on a CPU than `strided`.
fn reduce(
    values: Tensor<1>,
    dims: &[Dim],
    rows: impl Fn(Tensor<2>, usize) -> Tensor<2>,
    strided: impl Fn(Tensor<3>, usize) -> Tensor<3>,
) -> Tensor<1> {
    let mut outer = values.dims()[0];
    let mut inner = 1;
    let mut values = values;
    for dim in dims.iter().rev() {
        outer /= dim.size * dim.blocks;
        let parts = outer * dim.blocks;
        values = match (dim.size, inner) {
            (1, _) => values,
            (size, 1) => rows(values.reshape([parts, size]), 1).reshape([parts]),
            (size, _) => strided(values.reshape([parts, size, inner]), 1).reshape([parts * inner]),
        };
        inner *= dim.blocks;
    }
    values
}

fn mismatch(shape: &[usize], grid: &Grid) -> QuantizationError {
    if shape.contains(&0) {
        return QuantizationError::NoValues {
            shape: shape.to_vec(),
        };
    }
    QuantizationError::Grid {
        blocks: grid.blocks().to_vec(),
        shape: shape.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    use super::*;

    fn vector(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(TensorData::from(values), &Device::flex())
    }

    fn host(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    fn ranges(values: &[f32], shape: &[usize], blocks: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let values = FlatTensor {
            values: vector(values),
            shape: shape.to_vec(),
        };
        let (minimum, maximum) = range(&values, &Grid::new(blocks)).unwrap();
        (host(minimum), host(maximum))
    }

    #[test]
    fn blocks_of_a_matrix() {
        //  1  2 |  3  4
        //  5  6 |  7  8
        // --------------
        // -1 -2 | -3 -4
        // -5 -6 | -7  0
        let x = [
            1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, 0.0,
        ];
        let shape = [4, 4];
        let expected = (vec![1.0, 3.0, -6.0, -7.0], vec![6.0, 8.0, -1.0, 0.0]);
        assert_eq!(ranges(&x, &shape, &[2, 2]), expected);
        assert_eq!(ranges(&x, &shape, &[1, 1]), (vec![-7.0], vec![8.0]));
        let rows = (vec![1.0, 5.0, -4.0, -7.0], vec![4.0, 8.0, -1.0, 0.0]);
        assert_eq!(ranges(&x, &shape, &[4, 1]), rows);
        let columns = (vec![-5.0, -6.0, -7.0, -4.0], vec![5.0, 6.0, 7.0, 8.0]);
        assert_eq!(ranges(&x, &shape, &[1, 4]), columns);
        assert_eq!(ranges(&x, &shape, &[4, 4]), (x.to_vec(), x.to_vec()));
    }

    #[test]
    fn nan_stays_in_its_block() {
        let (minimum, maximum) = ranges(&[1.0, f32::NAN, 3.0, 4.0], &[2, 2], &[2, 1]);
        assert!(minimum[0].is_nan() && maximum[0].is_nan());
        assert_eq!((minimum[1], maximum[1]), (3.0, 4.0));
    }

    #[test]
    fn nan_is_found_wherever_it_is() {
        // Long blocks take other code paths than short ones.
        for at in [0, 1, 7, 100, 511, 1022, 1023] {
            let mut x: Vec<f32> = (0..1024).map(|i| i as f32 - 500.0).collect();
            x[at] = f32::NAN;
            for blocks in [[1, 1], [4, 1], [1, 256], [2, 2]] {
                let (minimum, maximum) = ranges(&x, &[4, 256], &blocks);
                let found = |values: &[f32]| values.iter().filter(|v| v.is_nan()).count();
                let counts = (found(&minimum), found(&maximum));
                assert_eq!(counts, (1, 1), "element {at}, blocks {blocks:?}");
            }
        }
    }

    #[test]
    fn grids_that_do_not_fit_are_errors() {
        let x = FlatTensor::new(Tensor::<2>::zeros([4, 6], &Device::flex()));
        for blocks in [vec![1], vec![3, 1], vec![1, 1, 1], vec![0, 1], vec![8, 1]] {
            let error = range(&x, &Grid::new(blocks.clone())).unwrap_err();
            let shape = vec![4, 6];
            assert_eq!(error, QuantizationError::Grid { blocks, shape });
        }
        assert!(spread(vector(&[1.0]), &Grid::new([2, 1]), &[4, 6]).is_err());
        let empty = FlatTensor::new(Tensor::<2>::zeros([0, 6], &Device::flex()));
        let error = range(&empty, &Grid::new([1, 1])).unwrap_err();
        assert_eq!(error, QuantizationError::NoValues { shape: vec![0, 6] });
    }

    /// Number of blocks and block size of each dimension.
    fn shapes() -> impl Strategy<Value = Vec<(usize, usize)>> {
        proptest::collection::vec((1usize..4, 1usize..4), 4)
    }

    proptest! {
        #[test]
        fn every_grid_agrees_with_a_loop_over_the_elements(dims in shapes(), seed in 0u32..1000) {
            let shape: [usize; 4] = std::array::from_fn(|d| dims[d].0 * dims[d].1);
            let grid = Grid::new(dims.iter().map(|d| d.0).collect::<Vec<_>>());
            let count = shape.iter().product::<usize>() as u32;
            let x: Vec<f32> = (0..count)
                .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed)) % 1013) as f32 - 500.0)
                .collect();
            let mut low = vec![f32::INFINITY; grid.len()];
            let mut high = vec![f32::NEG_INFINITY; grid.len()];
            let owner = grid.block_of_each_element(&shape);
            for (&value, &block) in x.iter().zip(&owner) {
                let block = block as usize;
                low[block] = low[block].min(value);
                high[block] = high[block].max(value);
            }
            let (minimum, maximum) = ranges(&x, &shape, grid.blocks());
            prop_assert_eq!(&minimum, &low);
            prop_assert_eq!(&maximum, &high);

            let spread = host(spread(vector(&low), &grid, &shape).unwrap());
            let expected: Vec<f32> = owner.iter().map(|&block| low[block as usize]).collect();
            prop_assert_eq!(spread, expected);
        }
    }
}
