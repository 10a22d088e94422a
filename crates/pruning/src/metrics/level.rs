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

use super::Importance;
use super::l1_norm::l1_norm;
use crate::constructors::constructors;
use crate::pruner::PrunerConfig;
use crate::signal::Signal;
use crate::{Blocks, Granularity};

/// The magnitude of each element, or the L1 norm of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level;

impl Importance for Level {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        l1_norm(data, blocks)
    }

    fn default_granularity(&self) -> Granularity {
        Granularity::Default
    }
}

/// Prunes the smallest elements.
///
/// Without a schedule the masks are generated once, before the first training step.
#[derive(Debug, Clone, Copy)]
pub struct LevelPruner;

constructors!(LevelPruner, PrunerConfig, |config| {
    Ok((Signal::weights(Level), *config))
});

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
