//! First-order Taylor: how much the loss is expected to change when a weight is removed.
//!
//! Setting a weight to zero changes the loss by about `w * dL/dw`. The square of that product is
//! averaged over some training steps and summed over the block. It takes into account what
//! follows the layer, and is the score to choose for removing channels while training.
//!
//! ```text
//! collected(w) = sum over steps of (w * dL/dw)^2
//! score(block) = sum over w in block of collected(w) / steps
//! ```
//!
//! Where the graph couples channels, a channel leaves with all its layers at once, so that their
//! changes of the loss add up: the channel scores the sum of its members, the channel of a residual
//! stage of `k` layers that of `k`. It is the same sum that a global ranking and a threshold see.
//! Members of a group made by hand (`dependency_group_id`) are averaged, as in NNI 3.0.
//!
//! A frozen layer has no gradient and is refused, and so is one that no gradient reaches in the first
//! step of a score. The gradient is that of the unmasked parameter. A pruned weight has gradient 0, so a pruned
//! block scores 0 in later rounds and stays pruned.
//!
//! # References
//!
//! Molchanov, Mallya, Tyree, Frosio, Kautz: Importance Estimation for Neural Network Pruning, 2019,
//! <https://arxiv.org/abs/1906.10771>, equation 8. The paper adds up over the weights of a filter
//! too, but squares the sum in its group variant; here each weight is squared on its own: that
//! the changes of two weights of a block, or of two layers of a channel, may cancel is not seen.

use burn::config::Config;
use burn_compress_core::Constructors;

use crate::importance::{Importance, Scale};
use crate::sources::Gradients;
use crate::timing::require_steps;
use crate::{Blocks, Pruner, PrunerConfig, PruningError};

/// The mean over steps, summed over each block in double precision.
///
/// [`score`](Importance::score) takes the sums over steps of `(w * dL/dw)^2`, one an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taylor {
    steps: usize,
}

impl Taylor {
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

impl Importance for Taylor {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        let sums = blocks.sums(data, |value| value).into_iter();
        sums.map(|sum| (sum / self.steps as f64) as f32).collect()
    }

    fn scale(&self) -> Scale {
        Scale::Loss
    }
}

/// Settings of a [`TaylorPruner`].
#[derive(Config, Debug)]
pub struct TaylorConfig {
    /// The number of training steps whose gradients make the score.
    pub training_steps: usize,
    /// Settings that all pruners share.
    #[config(default = "PrunerConfig::new()")]
    pub pruner: PrunerConfig,
}

/// Prunes blocks whose removal is expected to change the loss least.
///
/// Without a schedule the masks are generated once, after `training_steps` steps.
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator};
/// use burn_compress_pruning::{PrunerConfig, TaylorConfig, TaylorPruner};
///
/// // Two output channels with the weights 1 and 3 and the gradients 4 and 1: (1 * 4)^2 = 16 and
/// // (3 * 1)^2 = 9, so the larger weight goes.
/// let device = Device::flex();
/// let mut model = LinearConfig::new(1, 2).with_bias(false).init(&device);
/// model.weight = Param::from_tensor(Tensor::from_floats([[1.0, 3.0]], &device));
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![Tensor::<2>::ones([1, 1], &device)])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(1e-3)
///     .with_loss(|model: &Linear, batch: &Tensor<2>| {
///         let batch = batch.clone().to_device(&model.weight.device());
///         let output = model.forward(batch);
///         let slopes = Tensor::from_floats([[4.0, 1.0]], &output.device());
///         (output * slopes).sum()
///     });
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let options = TaylorConfig::new(1).with_pruner(PrunerConfig::new().with_coupled(false));
/// let pruner = TaylorPruner::new(model, &config, evaluator, options)?;
/// let compressed = pruner.compress(Budget::steps(2))?;
/// assert_eq!(compressed.masks()[0].values(), [1.0, 0.0]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type TaylorPruner = Constructors<Pruner<Taylor, Gradients>, TaylorConfig>;

impl TryFrom<TaylorConfig> for Pruner<Taylor, Gradients> {
    type Error = PruningError;

    fn try_from(config: TaylorConfig) -> Result<Self, PruningError> {
        let steps = config.training_steps;
        let pruner = Pruner::over(Gradients::taylor(steps), Taylor::new(steps)?);
        Ok(pruner.built_in("TaylorPruner", &config, config.pruner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_over_steps_is_summed_over_the_block() {
        // Two steps, weights [2, -1 | 3, 0], gradients [1, 1 | 0, 5] and [0.5, -2 | 1, 1]:
        // squares [4, 1 | 0, 0] and [1, 4 | 9, 0].
        let collected = [5.0, 5.0, 9.0, 0.0];
        let rows = Blocks::new(&[2, 2], &[1, -1]).unwrap();
        assert_eq!(Taylor::new(2).unwrap().score(&collected, &rows), [5.0, 4.5]);
    }

    #[test]
    fn a_masked_block_scores_zero() {
        let rows = Blocks::new(&[2, 2], &[1, -1]).unwrap();
        assert_eq!(
            Taylor::new(3).unwrap().score(&[0.0, 0.0, 3.0, 6.0], &rows),
            [0.0, 3.0]
        );
    }

    #[test]
    fn no_steps_are_no_score() {
        assert!(matches!(Taylor::new(0), Err(PruningError::Setting { .. })));
    }
}
