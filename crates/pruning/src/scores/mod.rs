//! Importance scores: how much a block of weights is worth, one score a file.
//!
//! A score is a function of values and the grid of blocks, of nothing else. The smaller the score
//! of a block, the earlier the block is pruned. Scores are never normalised by the size of the
//! block; within one target all blocks have the same size.
//!
//! A built-in algorithm is one file here, with its formula, paper, configuration and tests, and one
//! line of the table below, which [`pruners`] and all that lists algorithms are made of.

mod activation;
mod apoz;
mod fisher;
mod fpgm;
mod l1_norm;
mod l2_norm;
mod lamp;
mod level;
mod movement;
mod slim;
mod taylor;

use burn::module::Module;

use crate::PrunerConfig;
use crate::registry::entry::{Entry, Needs};

/// The public names of each algorithm, and its entry.
macro_rules! algorithms {
    ($(#[$meta:meta])*
     $($file:ident { $pruner:ident $(, $config:ident)? } = $options:expr, $needs:ident,
        $channels:literal, $summary:literal, $reference:literal;)+) => {
        $(pub use $file::*;)+

        /// The built-in pruners and their configurations.
        pub mod built_in {
            $(pub use super::$file::{$pruner $(, $config)?};)+
        }

        $(#[$meta])*
        pub fn pruners<M: Module + 'static, I: 'static>() -> Vec<Entry<M, I>> {
            vec![$(Entry {
                name: stringify!($pruner),
                summary: $summary,
                reference: $reference,
                needs: Needs::$needs,
                channels: $channels,
                fuse: |chain, config, steps| {
                    let options: fn(usize) -> _ = $options;
                    $pruner::from_compressor(chain, config, options(steps))
                },
            }),+]
        }
    };
}

#[rustfmt::skip]
algorithms! {
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
    level { LevelPruner } = |_| PrunerConfig::new(), Weights, false, "Prunes the smallest elements.", "Han et al. 2015, arXiv 1506.02626";
    l1_norm { L1NormPruner } = |_| PrunerConfig::new(), Weights, true, "Prunes channels with the smallest sum of magnitudes.", "Li et al. 2017, arXiv 1608.08710";
    l2_norm { L2NormPruner } = |_| PrunerConfig::new(), Weights, true, "Prunes channels with the smallest Euclidean norm.", "Li et al. 2017, arXiv 1608.08710";
    fpgm { FpgmPruner } = |_| PrunerConfig::new(), Weights, true, "Prunes channels that the others can replace.", "He et al. 2019, arXiv 1811.00250";
    lamp { LampPruner } = |_| PrunerConfig::new(), Weights, false, "Prunes the elements that matter least to their own tensor.", "Lee et al. 2021, arXiv 2010.07611";
    taylor { TaylorPruner, TaylorConfig } = TaylorConfig::new, Gradients, true, "Prunes channels whose removal is expected to change the loss least.", "Molchanov et al. 2019, arXiv 1906.10771";
    fisher { FisherPruner, FisherConfig } = FisherConfig::new, Gradients, true, "Prunes channels whose removal is expected to raise the loss least, to second order.", "LeCun et al. 1990; Theis et al. 2018, arXiv 1801.05787";
    activation { ActivationPruner, ActivationConfig } = ActivationConfig::new, Outputs, true, "Prunes channels whose activation is smallest.", "Molchanov et al. 2017, arXiv 1611.06440";
    apoz { ApozPruner, ApozConfig } = ApozConfig::new, Outputs, true, "Prunes channels whose activation is zero most often.", "Hu et al. 2016, arXiv 1607.03250";
    slim { SlimPruner, SlimConfig } = SlimConfig::new, Factors, true, "Prunes channels whose factor a penalty has made smallest.", "Liu et al. 2017, arXiv 1708.06519";
    movement { MovementPruner, MovementConfig } = |steps| MovementConfig::new(0, steps), Movement, true, "Prunes channels whose weights move towards zero.", "Sanh et al. 2020, arXiv 2005.07683";
}
