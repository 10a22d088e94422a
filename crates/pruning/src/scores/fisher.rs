//! Fisher: the second-order estimate of how much the loss rises when a weight is removed.
//!
//! Near a minimum the gradient vanishes and the rise of the loss is the curvature's. Its diagonal
//! is estimated by the mean square of the gradients. Choose it for a model that has converged.
//!
//! ```text
//! h(w)         = mean over steps of (dL/dw)^2
//! score(block) = sum over w in block of 1/2 w^2 h(w)
//! ```
//!
//! # Beside Taylor
//!
//! [`Taylor`](super::Taylor) multiplies each gradient with the weight of its own step, this score
//! all of them with the weight at the time of the decision: the one that is removed. On weights
//! that do not move between the steps it is half of Taylor's, with the same ranking; the more they
//! move, the more the two differ. For a block both add up single weights. They therefore ignore
//! that the weights of a block leave together: the terms `w_i w_j h_ij` between two weights, which
//! may cancel, are dropped here and in Taylor alike.
//!
//! Coupled channels, groups made by hand and frozen layers are treated as by
//! [`TaylorPruner`](crate::TaylorPruner): a rise of the loss adds up over all layers that lose a
//! channel together. The gradient is that of the unmasked parameter. A pruned weight has gradient 0,
//! so a pruned block scores 0 in later rounds and stays pruned.
//!
//! # Batches
//!
//! The paper squares the gradient of each example; here it is the gradient of the mean loss of a
//! batch. The square of a mean is not the mean of squares: with the gradients `g_i` of `B` examples,
//!
//! ```text
//! (1/B sum g_i)^2 = 1/B^2 (sum g_i^2 + sum over i != j of g_i g_j)
//! ```
//!
//! The products of different examples can invert the ranking. Two weights of 1, two examples: where
//! the gradients of the first are 3 and -3, the examples give it 1/2 * 9 = 4.5 and the batch 0;
//! where those of the second are 1 and 1, both give 0.5. By examples the second weight goes, by the
//! batch the first. Only where the products vanish on average, as at a minimum with independent
//! examples, are all scores those of the examples divided by `B`. Batches of one example give the
//! paper's scores exactly.
//!
//! # References
//!
//! LeCun, Denker, Solla: Optimal Brain Damage, 1990, equation 5 for the saliency. Theis,
//! Korshunova, Tejani, Huszár: Faster gaze prediction with dense networks and Fisher pruning, 2018,
//! <https://arxiv.org/abs/1801.05787>, for the gradients in place of second derivatives. Deviations:
//! the gradient is that of the mean loss of a batch, see above; the paper squares the sum of `w dL/dw`
//! over a feature map, here each weight counts on its own, as in Optimal Brain Damage.

use burn::config::Config;
use burn_compress_core::Constructors;

use crate::importance::{Importance, Scale};
use crate::sources::Gradients;
use crate::timing::require_steps;
use crate::{Blocks, Pruner, PrunerConfig, PruningError};

/// Half the mean over steps, summed over each block in double precision.
///
/// [`score`](Importance::score) takes `w^2` times the sum over steps of `(dL/dw)^2`, one an
/// element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fisher {
    steps: usize,
}

impl Fisher {
    /// A score over `steps` training steps.
    ///
    /// # Errors
    ///
    /// When `steps` is 0.
    pub fn new(steps: usize) -> Result<Self, PruningError> {
        require_steps(steps)?;
        Ok(Self { steps })
    }

    /// The number of steps that are collected.
    pub const fn steps(&self) -> usize {
        self.steps
    }
}

impl Importance for Fisher {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        let sums = blocks.sums(data, |value| value).into_iter();
        sums.map(|sum| (0.5 * sum / self.steps as f64) as f32)
            .collect()
    }

    fn scale(&self) -> Scale {
        Scale::Loss
    }
}

/// Settings of a [`FisherPruner`].
#[derive(Config, Debug)]
pub struct FisherConfig {
    /// The number of training steps whose gradients make the score.
    pub training_steps: usize,
    /// Settings that all pruners share.
    #[config(default = "PrunerConfig::new()")]
    pub pruner: PrunerConfig,
}

/// Prunes blocks whose removal is expected to raise the loss least, to second order.
///
/// Without a schedule the masks are generated once, after `training_steps` steps.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator};
/// use burn_compress_pruning::{FisherConfig, FisherPruner, PrunerConfig};
///
/// let device = Device::flex();
/// let model = LinearConfig::new(4, 6).init(&device);
/// let batch = Tensor::<2>::ones([2, 4], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).square().mean());
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let options = FisherConfig::new(2).with_pruner(PrunerConfig::new().with_coupled(false));
/// let pruner = FisherPruner::new(model, &config, evaluator, options)?;
/// let compressed = pruner.compress(Budget::steps(3))?;
/// assert_eq!(compressed.masks()[0].sparsity(), 0.5);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type FisherPruner = Constructors<Pruner<Fisher, Gradients>, FisherConfig>;

impl TryFrom<FisherConfig> for Pruner<Fisher, Gradients> {
    type Error = PruningError;

    fn try_from(config: FisherConfig) -> Result<Self, PruningError> {
        let steps = config.training_steps;
        let pruner = Pruner::over(Gradients::fisher(steps), Fisher::new(steps)?);
        Ok(pruner.built_in("FisherPruner", &config, config.pruner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_mean_over_steps_is_summed_over_the_block() {
        // Weights [2, -1 | 3, 0] at the decision, gradients [1, 1 | 0, 5] and [1, -2 | 1, 1]:
        // sums of squares [2, 5 | 1, 26], times the squared weights [8, 5 | 9, 0].
        let rows = Blocks::new(&[2, 2], &[1, -1]).unwrap();
        let data = [8.0, 5.0, 9.0, 0.0];
        assert_eq!(Fisher::new(2).unwrap().score(&data, &rows), [3.25, 2.25]);
    }

    #[test]
    fn no_steps_are_no_score() {
        assert!(matches!(Fisher::new(0), Err(PruningError::Setting { .. })));
    }
}
