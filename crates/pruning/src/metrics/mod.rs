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
//! | [`Fpgm`] | sum of distances to all other blocks | weights |
//! | [`Lamp`] | square, divided by those of the tensor that are not smaller | weights |
//! | [`Taylor`] | mean over steps of (weight times gradient) squared, summed | collected sums |
//! | [`Fisher`] | half the squared weight times the mean squared gradient, summed | collected sums |
//! | [`MeanActivation`] | mean magnitude of the channel's activation | observed outputs |
//! | [`Apoz`] | one minus the fraction of zeros behind the channel | observed outputs |

mod activation;
mod apoz;
mod fisher;
mod fpgm;
mod l1_norm;
mod l2_norm;
mod lamp;
mod level;
mod taylor;

pub use activation::{ActivationConfig, ActivationPruner, MeanActivation};
pub use apoz::{Apoz, ApozConfig, ApozPruner};
pub use fisher::{Fisher, FisherConfig, FisherPruner};
pub use fpgm::{Fpgm, FpgmPruner};
pub use l1_norm::{L1Norm, L1NormPruner};
pub use l2_norm::{L2Norm, L2NormPruner};
pub use lamp::{Lamp, LampPruner};
pub use level::{Level, LevelPruner};
pub use taylor::{Taylor, TaylorConfig, TaylorPruner};

use crate::{Axes, Blocks, Granularity, PruningError};

/// What the scores of different layers have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Every layer has a scale of its own, as norms do, which grow with the weights of a channel.
    Layer,
    /// One scale for all layers, as fractions have.
    Common,
    /// Changes of the loss, which add up over everything that is removed together.
    Loss,
}

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

    /// How the scores of different parameters are combined where the graph couples their channels.
    ///
    /// A channel of several parameters scores the sum of its members on the scale of the
    /// [loss](Scale::Loss) and their mean on any other. Where a concatenation joins layers whose
    /// channels are ranked together, scores on the scale of a [layer](Scale::Layer) are first brought
    /// to one mean; see [`Normalizer`](crate::Normalizer).
    fn scale(&self) -> Scale {
        Scale::Layer
    }

    /// Whether the score has a meaning for such blocks of a target with channels at `axes`.
    ///
    /// # Errors
    ///
    /// When it has none.
    fn check(&self, _blocks: &Blocks, _axes: Axes) -> Result<(), PruningError> {
        Ok(())
    }
}

/// Refuses a score over no steps.
pub(crate) fn require_steps(steps: usize) -> Result<(), PruningError> {
    match steps {
        0 => Err(PruningError::Setting {
            key: "training_steps",
            value: "0".to_string(),
            expected: "at least 1",
        }),
        _ => Ok(()),
    }
}

/// Refuses blocks that hold only a part of an output channel.
fn require_channels(blocks: &Blocks, axes: Axes) -> Result<(), PruningError> {
    let Axes::Parameter { output, .. } = axes else {
        return Err(PruningError::NotScored);
    };
    let spanned = |dim: usize| blocks.grid()[dim] == 1 || Some(dim) == output;
    match output.is_some() && (0..blocks.grid().len()).all(spanned) {
        true => Ok(()),
        false => Err(PruningError::Unscorable {
            reason: "outputs score whole output channels only",
            advice: "use the granularity `out_channel`, or a pruner that scores weights",
        }),
    }
}

/// The mean over each block of `collected / steps`, accumulated in double precision.
fn block_means(collected: &[f32], steps: usize, blocks: &Blocks) -> Vec<f32> {
    let values = (steps * blocks.block_len()) as f64;
    blocks.reduce(collected, |block| {
        let sum: f64 = block.iter().map(|&value| f64::from(value)).sum();
        (sum / values) as f32
    })
}
