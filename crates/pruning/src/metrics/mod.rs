//! Importance scores: how much a block of weights is worth, one score a file.
//!
//! A score sees values and the grid of blocks, nothing else. The smaller the score of a block, the
//! earlier the block is pruned. Scores are never normalised by the size of the block; within one
//! target all blocks have the same size.
//!
//! | score | block score | acts on |
//! |---|---|---|
//! | [`Level`] | sum of magnitudes; by default a block is one element | weights |
//! | [`L1Norm`] | sum of magnitudes | weights |
//! | [`L2Norm`] | root of the sum of squares | weights |
//! | [`Taylor`] | mean over steps of (weight times gradient) squared, summed | collected sums |

mod l1_norm;
mod l2_norm;
mod level;
mod taylor;

pub use l1_norm::{L1Norm, L1NormPruner};
pub use l2_norm::{L2Norm, L2NormPruner};
pub use level::{Level, LevelPruner};
pub use taylor::{Taylor, TaylorConfig, TaylorPruner};

use crate::{Blocks, Granularity};

/// Scores the blocks of a target.
pub trait Importance {
    /// The score of each block, in row-major order of the grid. A block with a small score is
    /// pruned before one with a large score.
    ///
    /// `data` are the values that the score is made for, row-major, as many as `blocks` has
    /// elements.
    ///
    /// # Panics
    ///
    /// When the number of values is another.
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32>;

    /// The granularity of a parameter for which the configuration gives none.
    fn default_granularity(&self) -> Granularity {
        Granularity::OutChannel
    }
}
