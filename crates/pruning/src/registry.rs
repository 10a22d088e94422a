//! All pruners by name, for programs that choose one at run time and for tests of all of them.

use burn::module::Module;
use burn_compress_core::Compressor;
use burn_compress_core::config::ConfigList;

use crate::metrics::{
    ActivationConfig, ActivationPruner, ApozConfig, ApozPruner, FisherConfig, FisherPruner,
    FpgmPruner, L1NormPruner, L2NormPruner, LampPruner, LevelPruner, TaylorConfig, TaylorPruner,
};
use crate::{
    MovementConfig, MovementPruner, PrunerConfig, PruningError, PruningSettings, SlimConfig,
    SlimPruner,
};

/// A pruner that can be chosen by name.
#[derive(Debug)]
pub struct Entry<M, I> {
    /// The name of the type, which [`Compressor::algorithms`] gives too.
    pub name: &'static str,
    /// What it prunes, in a sentence.
    pub summary: &'static str,
    /// Where it was published.
    pub reference: &'static str,
    /// What its score is made of.
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
pub type Fuse<M, I> = fn(
    Compressor<M, I>,
    &ConfigList<PruningSettings>,
    usize,
) -> Result<Compressor<M, I>, PruningError>;

/// What a score is made of.
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

/// Every pruner of this crate.
///
/// ```
/// use burn::nn::Linear;
/// use burn_compress_pruning::{pruners, registry::Needs};
///
/// let pruners = pruners::<Linear, ()>();
/// let taylor = pruners.iter().find(|pruner| pruner.name == "TaylorPruner").unwrap();
/// assert_eq!(taylor.needs, Needs::Gradients);
/// assert!(taylor.channels);
/// ```
pub fn pruners<M: Module + 'static, I: 'static>() -> Vec<Entry<M, I>> {
    /// One line an algorithm.
    macro_rules! table {
        ($($pruner:ident($config:expr), $needs:ident, $channels:literal, $summary:literal,
            $reference:literal;)+) => {
            vec![$(Entry {
                name: stringify!($pruner),
                summary: $summary,
                reference: $reference,
                needs: Needs::$needs,
                channels: $channels,
                fuse: |chain, config, steps| {
                    let options: fn(usize) -> _ = $config;
                    $pruner::from_compressor(chain, config, options(steps))
                },
            }),+]
        };
    }
    #[rustfmt::skip]
    let pruners = table! {
        LevelPruner(|_| PrunerConfig::new()), Weights, false, "Prunes the smallest elements.", "Han et al. 2015, arXiv 1506.02626";
        L1NormPruner(|_| PrunerConfig::new()), Weights, true, "Prunes channels with the smallest sum of magnitudes.", "Li et al. 2017, arXiv 1608.08710";
        L2NormPruner(|_| PrunerConfig::new()), Weights, true, "Prunes channels with the smallest Euclidean norm.", "Li et al. 2017, arXiv 1608.08710";
        FpgmPruner(|_| PrunerConfig::new()), Weights, true, "Prunes channels that the others can replace.", "He et al. 2019, arXiv 1811.00250";
        LampPruner(|_| PrunerConfig::new()), Weights, false, "Prunes the elements that matter least to their own tensor.", "Lee et al. 2021, arXiv 2010.07611";
        TaylorPruner(TaylorConfig::new), Gradients, true, "Prunes channels whose removal is expected to change the loss least.", "Molchanov et al. 2019, arXiv 1906.10771";
        FisherPruner(FisherConfig::new), Gradients, true, "Prunes channels whose removal is expected to raise the loss least, to second order.", "LeCun et al. 1990; Theis et al. 2018, arXiv 1801.05787";
        ActivationPruner(ActivationConfig::new), Outputs, true, "Prunes channels whose activation is smallest.", "Molchanov et al. 2017, arXiv 1611.06440";
        ApozPruner(ApozConfig::new), Outputs, true, "Prunes channels whose activation is zero most often.", "Hu et al. 2016, arXiv 1607.03250";
        SlimPruner(SlimConfig::new), Factors, true, "Prunes channels whose factor a penalty has made smallest.", "Liu et al. 2017, arXiv 1708.06519";
        MovementPruner(|steps| MovementConfig::new(0, steps)), Movement, true, "Prunes channels whose weights move towards zero.", "Sanh et al. 2020, arXiv 2005.07683";
    };
    pruners
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::Linear;

    #[test]
    fn names_are_unique_and_every_entry_says_what_it_is() {
        let pruners = pruners::<Linear, ()>();
        for (at, pruner) in pruners.iter().enumerate() {
            assert!(pruners[..at].iter().all(|other| other.name != pruner.name));
            assert!(pruner.summary.ends_with('.') && !pruner.reference.is_empty());
        }
    }
}
