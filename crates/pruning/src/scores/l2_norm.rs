//! L2 norm: the Euclidean length of a block.
//!
//! As [`L1Norm`](super::L1Norm), but a block with few large weights outranks one with many small
//! weights.
//!
//! ```text
//! score(block) = sqrt(sum over w in block of w^2)
//! ```
//!
//! # References
//!
//! Compared with the L1 norm in section 4.4 of Li, Kadav, Durdanovic, Samet, Graf: Pruning Filters
//! for Efficient ConvNets, 2017, <https://arxiv.org/abs/1608.08710>.

use burn_compress_core::Constructors;

use crate::importance::Importance;
use crate::{Blocks, Pruner, PrunerConfig};

/// The root of the sum of squares of each block, accumulated in double precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct L2Norm;

impl Importance for L2Norm {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        let sums = blocks.sums(data, |w| w.powi(2)).into_iter();
        sums.map(|sum| sum.sqrt() as f32).collect()
    }
}

/// Prunes blocks with the smallest Euclidean norm.
///
/// Without a schedule the masks are generated once, before the first training step.
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator};
/// use burn_compress_pruning::{L2NormPruner, PrunerConfig};
///
/// // Two output channels, the columns: sqrt(9 + 16) = 5 and sqrt(0 + 36) = 6.
/// let device = Device::flex();
/// let mut model = LinearConfig::new(2, 2).with_bias(false).init(&device);
/// model.weight = Param::from_tensor(Tensor::from_floats([[3.0, 0.0], [-4.0, 6.0]], &device));
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let options = PrunerConfig::new().with_coupled(false);
/// let pruner = L2NormPruner::new(model, &config, Evaluator::<Linear, ()>::new(), options)?;
/// let compressed = pruner.compress(Budget::none())?;
/// assert_eq!(compressed.masks()[0].values(), [0.0, 1.0, 0.0, 1.0]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type L2NormPruner = Constructors<Pruner<L2Norm>, PrunerConfig>;

impl From<PrunerConfig> for Pruner<L2Norm> {
    fn from(config: PrunerConfig) -> Self {
        Pruner::with(L2Norm).built_in("L2NormPruner", &config, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let rows = Blocks::new(&[2, 2], &[1, -1]).unwrap();
        assert_eq!(L2Norm.score(&[3.0, -4.0, 0.0, 0.5], &rows), [5.0, 0.5]);
    }

    #[test]
    fn it_ranks_one_large_weight_above_many_small_ones() {
        let rows = Blocks::new(&[2, 4], &[1, -1]).unwrap();
        let data = [1.0, 0.0, 0.0, 0.0, 0.3, 0.3, 0.3, 0.3];
        let l2 = L2Norm.score(&data, &rows);
        let l1 = crate::scores::L1Norm.score(&data, &rows);
        assert!(l2[0] > l2[1] && l1[0] < l1[1]);
    }
}
