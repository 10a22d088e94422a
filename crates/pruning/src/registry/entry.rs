//! The entry of a pruner that can be chosen by name.

use burn_compress_core::config::ConfigList;
use burn_compress_core::{Compressor, Error};

use crate::PruningSettings;

/// A pruner that can be chosen by name.
#[derive(Debug)]
pub struct Entry<M, I> {
    /// The name of the type, which [`Compressor::algorithms`] gives too.
    pub name: &'static str,
    /// A sentence about what it prunes.
    pub summary: &'static str,
    /// The publication.
    pub reference: &'static str,
    /// The source of its score.
    pub needs: Needs,
    /// Whether it removes whole output channels when the configuration gives no granularity, and
    /// not single elements.
    pub channels: bool,
    /// Adds the pruner to a chain with its default settings.
    ///
    /// The last argument is the number of training steps over which it collects or trains its
    /// score. A pruner of the weights has no use for it.
    pub fuse: Fuse<M, I>,
}

/// Adds a pruner to a chain.
pub type Fuse<M, I> =
    fn(Compressor<M, I>, &ConfigList<PruningSettings>, usize) -> Result<Compressor<M, I>, Error>;

/// The source of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Needs {
    /// The weights: neither data nor training.
    Weights,
    /// Gradients of training steps.
    Gradients,
    /// Outputs of wrapped layers in training steps.
    Outputs,
    /// Factors that are trained beside the weights.
    Factors,
    /// Scores that are trained beside the weights, by a schedule that is part of the pruner.
    Movement,
}

impl Needs {
    /// Whether the evaluator has to be able to train.
    pub const fn data(self) -> bool {
        !matches!(self, Self::Weights)
    }

    /// Whether [`AgpPruner`](crate::AgpPruner) and [`LinearPruner`](crate::LinearPruner) can drive
    /// the pruner.
    pub const fn schedulable(self) -> bool {
        !matches!(self, Self::Movement)
    }
}
