//! APoZ: how often the activation behind a channel is zero.
//!
//! The average percentage of zeros. A channel that a ReLU silences for most inputs has little to
//! say. Choose it for networks of ReLUs, with data and without trust in gradients.
//!
//! ```text
//! APoZ(c)        = mean over steps, batch and positions of [activation of channel c is zero]
//! score(channel) = 1 - APoZ(c)
//! ```
//!
//! # Which activation
//!
//! That behind the layer in the forward pass of the evaluator's dummy input, as
//! [`ActivationPruner`](crate::ActivationPruner) finds and observes it. Values that are not positive
//! count as zeros, so that the score before a ReLU is the one behind it. An activation whose values
//! all have one sign, as a sigmoid's, has no zeros and is refused. `"activation": "relu1"` in the
//! settings of a target names another wrapped layer.
//!
//! A masked channel is zero everywhere and scores 0, so it stays pruned in later rounds.
//!
//! # References
//!
//! Hu, Peng, Tai, Tang: Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient
//! Deep Architectures, 2016, <https://arxiv.org/abs/1607.03250>, equation 1. The paper observes a
//! validation set; here it is the batches of the training, in a snapshot that is used as a
//! validated model is.

use burn::config::Config;
use burn_compress_core::Constructors;

use crate::importance::{Importance, Scale};
use crate::sources::Outputs;
use crate::timing::require_steps;
use crate::{Blocks, Pruner, PrunerConfig, PruningError};

/// One minus the fraction of zeros of each channel's activation.
///
/// [`score`](Importance::score) takes the sum over steps of the fractions, for each element that of
/// its output channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apoz {
    steps: usize,
}

impl Apoz {
    /// A score over `steps` training steps.
    ///
    /// # Errors
    ///
    /// When `steps` is 0.
    pub fn new(steps: usize) -> Result<Self, PruningError> {
        require_steps(steps)?;
        Ok(Self { steps })
    }

    /// The number of steps that are observed.
    pub const fn steps(&self) -> usize {
        self.steps
    }
}

impl Importance for Apoz {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        let count = (self.steps * blocks.block_len()) as f64;
        let sums = blocks.sums(data, |value| value).into_iter();
        sums.map(|sum| 1.0 - (sum / count) as f32).collect()
    }

    fn scale(&self) -> Scale {
        Scale::Common
    }
}

/// Settings of an [`ApozPruner`].
#[derive(Config, Debug)]
pub struct ApozConfig {
    /// The number of training steps whose activations make the score.
    pub training_steps: usize,
    /// Settings that all pruners share.
    #[config(default = "PrunerConfig::new()")]
    pub pruner: PrunerConfig,
}

/// Prunes channels whose activation is zero most often.
///
/// Without a schedule the masks are generated once, after `training_steps` steps.
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::nn::{Linear, LinearConfig, Relu};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, DummyInput, Evaluator, Wrapper};
/// use burn_compress_pruning::{ApozConfig, ApozPruner, PrunerConfig};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Linear,
///     relu: Wrapper<Relu>,
/// }
///
/// impl Net {
///     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
///         self.relu.forward(self.fc.forward(x))
///     }
/// }
///
/// // The second channel is positive for one of four inputs, the others for two and for three.
/// let device = Device::flex();
/// let mut fc = LinearConfig::new(1, 3).init(&device);
/// fc.weight = Param::from_tensor(Tensor::from_floats([[1.0, 1.0, 1.0]], &device));
/// fc.bias = Some(Param::from_tensor(Tensor::from_floats([0.0, -1.5, 1.5], &device)));
/// let batch = Tensor::<2>::from_floats([[-2.0], [-1.0], [1.0], [2.0]], &device);
/// let evaluator = Evaluator::new()
///     .with_dummy_input(DummyInput::new(batch.clone(), |net: &Net, x| net.forward(x)))
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(1e-3)
///     .with_loss(|net: &Net, batch: &Tensor<2>| net.forward(batch.clone()).mean());
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.4}]"#)?;
/// let options = ApozConfig::new(1).with_pruner(PrunerConfig::new().with_coupled(false));
/// let model = Net { fc, relu: Relu::new().into() };
/// let compressed = ApozPruner::new(model, &config, evaluator, options)?.compress(Budget::steps(1))?;
/// assert_eq!(compressed.masks()[0].values(), [1.0, 0.0, 1.0]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type ApozPruner = Constructors<Pruner<Apoz, Outputs>, ApozConfig>;

impl TryFrom<ApozConfig> for Pruner<Apoz, Outputs> {
    type Error = PruningError;

    fn try_from(config: ApozConfig) -> Result<Self, PruningError> {
        let steps = config.training_steps;
        let pruner = Pruner::over(Outputs::zeros(steps), Apoz::new(steps)?);
        Ok(pruner.built_in("ApozPruner", &config, config.pruner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_always_zero_scores_zero() {
        // Four steps, fractions of zeros that add up to 1, 4 and 0 in rows of two elements.
        let rows = Blocks::new(&[3, 2], &[1, -1]).unwrap();
        let data = [1.0, 1.0, 4.0, 4.0, 0.0, 0.0];
        let scores = Apoz::new(4).unwrap().score(&data, &rows);
        assert_eq!(scores, [0.75, 0.0, 1.0]);
    }

    #[test]
    fn no_steps_are_no_score() {
        assert!(Apoz::new(0).is_err());
    }
}
