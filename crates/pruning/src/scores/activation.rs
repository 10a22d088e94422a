//! Mean activation: how strongly a channel responds to the data.
//!
//! A channel whose output stays near zero contributes little to what follows. Choose it when there
//! is data but gradients are noisy or too expensive to trust.
//!
//! ```text
//! a(c)           = mean over batch and positions of |activation of channel c|
//! score(channel) = mean over steps of a(c)
//! ```
//!
//! # Which output
//!
//! That of the activation behind the layer: what the next layer reads. A channel that a ReLU
//! silences scores 0 however large it is before. The activation is found in the forward pass of the
//! evaluator's dummy input. Normalizations, pooling, additions of other values and concatenations
//! on the way keep the channels apart. Where another layer mixes them before there is an
//! activation, it is the output of the normalizations that directly follow the layer, or of the
//! layer itself. An activation that is called as a function, `relu(x)`, is observed where a wrapped
//! layer reads it, or computed from what wrapped layers return. Several activations behind one
//! layer, and values that no [`Wrapper`](burn_compress_core::Wrapper) reads or returns, are
//! refused, all at once.
//!
//! With `"activation": "relu1"` in the settings of a target it is the output of the wrapped layer
//! `relu1`, which may be the layer itself; of one that is called several times, the calls behind
//! the layer count. [`ActivationConfig::before_activation`] takes the own output of each layer.
//!
//! Blocks are whole output channels; the score of a block of several is the mean of theirs. In a
//! step that counts for a score the loss is computed once more, without gradients, on a snapshot of
//! the model as it is used after training: without dropout, with running statistics, masked and
//! quantized. Of a layer that is called several times, the mean over its calls counts.
//!
//! A masked channel is zero and scores 0, so it stays pruned in later rounds.
//!
//! # References
//!
//! Molchanov, Tyree, Karras, Aila, Kautz: Pruning Convolutional Neural Networks for Resource
//! Efficient Inference, 2017, <https://arxiv.org/abs/1611.06440>, section 2.2, *Activation*: the
//! mean of what the ReLU returns. Deviation: magnitudes are averaged, which is the same there and
//! has a meaning for activations of any sign. NNI 2 averages the output of the layer itself under a
//! function that its user chooses, without the norm that may stand between; the two agree where a
//! ReLU directly follows.

use burn::config::Config;
use burn_compress_core::Constructors;

use crate::importance::Importance;
use crate::sources::Outputs;
use crate::timing::require_steps;
use crate::{Blocks, Pruner, PrunerConfig, PruningError};

/// The mean magnitude of each channel's activation.
///
/// [`score`](Importance::score) takes the sum over steps of the magnitudes, for each element that
/// of its output channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeanActivation {
    steps: usize,
}

impl MeanActivation {
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

impl Importance for MeanActivation {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        let count = (self.steps * blocks.block_len()) as f64;
        let sums = blocks.sums(data, |value| value).into_iter();
        sums.map(|sum| (sum / count) as f32).collect()
    }
}

/// Settings of an [`ActivationPruner`].
#[derive(Config, Debug)]
pub struct ActivationConfig {
    /// The number of training steps whose outputs make the score.
    pub training_steps: usize,
    /// Score each layer by its own output, before any norm and activation.
    #[config(default = false)]
    pub before_activation: bool,
    /// Settings that all pruners share.
    #[config(default = "PrunerConfig::new()")]
    pub pruner: PrunerConfig,
}

/// Prunes channels whose activation is smallest.
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
/// use burn_compress_pruning::{ActivationConfig, ActivationPruner, PrunerConfig};
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
/// // Behind the ReLU the means are 1, 0 and 0.5: the largest weight belongs to the dead channel.
/// let device = Device::flex();
/// let mut fc = LinearConfig::new(1, 3).with_bias(false).init(&device);
/// fc.weight = Param::from_tensor(Tensor::from_floats([[1.0, -9.0, 0.5]], &device));
/// let batch = Tensor::<2>::ones([2, 1], &device);
/// let evaluator = Evaluator::new()
///     .with_dummy_input(DummyInput::new(batch.clone(), |net: &Net, x| net.forward(x)))
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(1e-3)
///     .with_loss(|net: &Net, batch: &Tensor<2>| net.forward(batch.clone()).mean());
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.4}]"#)?;
/// let options = ActivationConfig::new(1).with_pruner(PrunerConfig::new().with_coupled(false));
/// let model = Net { fc, relu: Relu::new().into() };
/// let pruner = ActivationPruner::new(model, &config, evaluator, options)?;
/// let compressed = pruner.compress(Budget::steps(1))?;
/// assert_eq!(compressed.masks()[0].values(), [1.0, 0.0, 1.0]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type ActivationPruner = Constructors<Pruner<MeanActivation, Outputs>, ActivationConfig>;

impl TryFrom<ActivationConfig> for Pruner<MeanActivation, Outputs> {
    type Error = PruningError;

    fn try_from(config: ActivationConfig) -> Result<Self, PruningError> {
        let steps = config.training_steps;
        let outputs = Outputs::magnitudes(steps).with_before_activation(config.before_activation);
        let pruner = Pruner::over(outputs, MeanActivation::new(steps)?);
        Ok(pruner.built_in("ActivationPruner", &config, config.pruner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_over_steps_is_that_of_the_channels() {
        // Two steps, output channels (columns) with the sums 3, 1 and 4 in a weight of two rows.
        let data = [3.0, 1.0, 4.0, 3.0, 1.0, 4.0];
        let score = MeanActivation::new(2).unwrap();
        let columns = Blocks::new(&[2, 3], &[-1, 1]).unwrap();
        assert_eq!(score.score(&data, &columns), [1.5, 0.5, 2.0]);
        let whole = Blocks::new(&[2, 3], &[-1, -1]).unwrap();
        assert_eq!(score.score(&data, &whole), [8.0 / 6.0]);
    }

    #[test]
    fn no_steps_are_no_score() {
        assert!(MeanActivation::new(0).is_err());
    }
}
