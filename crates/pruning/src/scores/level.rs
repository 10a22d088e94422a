//! Level: the magnitude of each weight.
//!
//! Fine-grained pruning. It reaches the highest sparsity at a given accuracy, but leaves a sparse
//! tensor of the same shape: nothing gets smaller or faster without a sparse kernel. Choose
//! [`L1Norm`](super::L1Norm) or [`Taylor`](super::Taylor) to remove channels.
//!
//! ```text
//! score(w) = |w|                                    (one element a block, the default)
//! score(block) = sum over w in block of |w|         (when a granularity is given)
//! ```
//!
//! # References
//!
//! Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks,
//! 2015, <https://arxiv.org/abs/1506.02626>. The paper chooses a threshold per layer from the
//! standard deviation of its weights; here the threshold or the ratio is given.

use burn_compress_core::Constructors;

use super::l1_norm::L1Norm;
use crate::importance::Importance;
use crate::{Blocks, Granularity, Pruner, PrunerConfig};

/// The magnitude of each element, or the L1 norm of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level;

impl Importance for Level {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        L1Norm.score(data, blocks)
    }

    fn default_granularity(&self) -> Granularity {
        Granularity::Default
    }
}

/// Prunes the smallest elements.
///
/// Without a schedule the masks are generated once, before the first training step.
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator};
/// use burn_compress_pruning::{LevelPruner, PrunerConfig};
///
/// // The two smallest of four magnitudes go.
/// let device = Device::flex();
/// let mut model = LinearConfig::new(1, 4).with_bias(false).init(&device);
/// model.weight = Param::from_tensor(Tensor::from_floats([[0.1, -2.0, 3.0, -0.5]], &device));
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let options = PrunerConfig::new().with_coupled(false);
/// let pruner = LevelPruner::new(model, &config, Evaluator::<Linear, ()>::new(), options)?;
/// let compressed = pruner.compress(Budget::none())?;
/// assert_eq!(compressed.masks()[0].values(), [0.0, 1.0, 1.0, 0.0]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type LevelPruner = Constructors<Pruner<Level>, PrunerConfig>;

impl From<PrunerConfig> for Pruner<Level> {
    fn from(config: PrunerConfig) -> Self {
        Pruner::with(Level).built_in("LevelPruner", &config, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_score_an_element() {
        let elements = Blocks::elements(&[2, 2]).unwrap();
        assert_eq!(
            Level.score(&[1.0, -2.0, 0.0, -0.1], &elements),
            [1.0, 2.0, 0.0, 0.1]
        );
    }

    #[test]
    fn one_score_a_block() {
        let blocks = Blocks::new(&[4], &[2]).unwrap();
        assert_eq!(Level.score(&[1.0, -2.0, 0.0, -0.5], &blocks), [3.0, 0.5]);
    }
}
