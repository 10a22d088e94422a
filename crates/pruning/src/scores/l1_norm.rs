//! L1 norm: the sum of magnitudes of a block.
//!
//! The standard score for removing whole filters: a filter of small weights gives a feature map of
//! small values. It needs no data and no gradient. It is blind to what follows the layer; with a
//! batch norm behind a convolution, prefer [`Taylor`](super::Taylor).
//!
//! ```text
//! score(block) = sum over w in block of |w|
//! ```
//!
//! # References
//!
//! Li, Kadav, Durdanovic, Samet, Graf: Pruning Filters for Efficient ConvNets, 2017,
//! <https://arxiv.org/abs/1608.08710>. The paper prunes filters (output channels, the default
//! here); any block is possible.

use burn_compress_core::Constructors;

use crate::importance::Importance;
use crate::{Blocks, Pruner, PrunerConfig};

/// The sum of magnitudes of each block, accumulated in double precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct L1Norm;

impl Importance for L1Norm {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        let sums = blocks.sums(data, f64::abs).into_iter();
        sums.map(|sum| sum as f32).collect()
    }
}

/// Prunes blocks with the smallest sum of magnitudes.
///
/// Without a schedule the masks are generated once, before the first training step.
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator};
/// use burn_compress_pruning::{L1NormPruner, PrunerConfig};
///
/// // Two output channels, the columns: 3 + 4 = 7 and 0 + 6 = 6.
/// let device = Device::flex();
/// let mut model = LinearConfig::new(2, 2).with_bias(false).init(&device);
/// model.weight = Param::from_tensor(Tensor::from_floats([[3.0, 0.0], [-4.0, 6.0]], &device));
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let options = PrunerConfig::new().with_coupled(false);
/// let pruner = L1NormPruner::new(model, &config, Evaluator::<Linear, ()>::new(), options)?;
/// let compressed = pruner.compress(Budget::none())?;
/// assert_eq!(compressed.masks()[0].values(), [1.0, 0.0, 1.0, 0.0]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type L1NormPruner = Constructors<Pruner<L1Norm>, PrunerConfig>;

impl From<PrunerConfig> for Pruner<L1Norm> {
    fn from(config: PrunerConfig) -> Self {
        Pruner::with(L1Norm).built_in("L1NormPruner", &config, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns() {
        let data = [1.0, -2.0, 3.0, -0.5, 0.25, 0.0];
        let rows = Blocks::new(&[2, 3], &[1, -1]).unwrap();
        assert_eq!(L1Norm.score(&data, &rows), [6.0, 0.75]);
        let columns = Blocks::new(&[2, 3], &[-1, 1]).unwrap();
        assert_eq!(L1Norm.score(&data, &columns), [1.5, 2.25, 3.0]);
    }

    #[test]
    fn small_values_survive_next_to_large_ones() {
        // 2^24 is the largest f32 below which every integer is exact: one at a time is lost in f32.
        let mut data = vec![1.0; 1025];
        data[0] = 16_777_216.0;
        let whole = Blocks::new(&[1025], &[-1]).unwrap();
        assert_eq!(L1Norm.score(&data, &whole), [16_778_240.0]);
    }
}
