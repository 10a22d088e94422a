//! Mean activation: how strongly a channel responds to the data.
//!
//! A channel whose output stays near zero contributes little to what follows. Choose it when there
//! is data but gradients are noisy or too expensive to trust.
//!
//! ```text
//! a(c)           = mean over batch and positions of |output of channel c|
//! score(channel) = mean over steps of a(c)
//! ```
//!
//! The output is that of the layer itself, so the layer has to stand in a
//! [`Wrapper`](burn_compress_core::Wrapper); with `"activation": "relu1"` in the settings of a
//! target it is that of the wrapped layer `relu1`. Blocks are whole output channels; the score of
//! a block of several is the mean of theirs. In a step that belongs to a score the loss is computed
//! once more, without gradients, on a snapshot of the model as it is used after training: without
//! dropout, with running statistics, masked and quantized. Of a layer that is called several times,
//! the last call counts.
//!
//! A masked channel is zero and scores 0, so it stays pruned in later rounds.
//!
//! # References
//!
//! Molchanov, Tyree, Karras, Aila, Kautz: Pruning Convolutional Neural Networks for Resource
//! Efficient Inference, 2017, <https://arxiv.org/abs/1611.06440>, section 2.2, *Activation*. The
//! paper takes the mean after the ReLU; here magnitudes are averaged, which is the same there and
//! has a meaning for outputs of any sign.

use burn::config::Config;

use super::{Importance, block_means, require_channels, require_steps};
use crate::constructors::constructors;
use crate::pruner::PrunerConfig;
use crate::signal::{Signal, Statistic};
use crate::{Axes, Blocks, PruningError};

/// The mean magnitude of each channel's output.
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
        block_means(data, self.steps, blocks)
    }

    fn check(&self, blocks: &Blocks, axes: Axes) -> Result<(), PruningError> {
        require_channels(blocks, axes)
    }
}

/// What an [`ActivationPruner`] needs to know.
#[derive(Config, Debug)]
pub struct ActivationConfig {
    /// The number of training steps whose outputs make the score.
    pub training_steps: usize,
    /// What all pruners have in common.
    #[config(default = "PrunerConfig::new()")]
    pub pruner: PrunerConfig,
}

/// Prunes channels whose output is smallest.
///
/// Without a schedule the masks are generated once, after `training_steps` steps.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_pruning::{ActivationConfig, ActivationPruner, PrunerConfig};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// let device = Device::flex();
/// let model = Net { fc: LinearConfig::new(4, 6).init(&device).into() };
/// let batch = Tensor::<2>::ones([2, 4], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|model: &Net, batch: &Tensor<2>| model.fc.forward(batch.clone()).square().mean());
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let options = ActivationConfig::new(2).with_pruner(PrunerConfig::new().with_coupled(false));
/// let pruner = ActivationPruner::new(model, &config, evaluator, options)?;
/// let compressed = pruner.compress(Budget::steps(3))?;
/// assert_eq!(compressed.masks()[0].sparsity(), 0.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ActivationPruner;

constructors!(ActivationPruner, ActivationConfig, |config| {
    let steps = config.training_steps;
    let signal = Signal::activations(MeanActivation::new(steps)?, steps, Statistic::Magnitude);
    Ok((signal, config.pruner))
});

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: Axes = Axes::Parameter {
        output: Some(1),
        input: Some(0),
    };

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
    fn blocks_within_a_channel_are_refused() {
        let score = MeanActivation::new(2).unwrap();
        let check = |block: &[i64]| score.check(&Blocks::new(&[2, 4], block).unwrap(), LINEAR);
        check(&[-1, 1]).unwrap();
        check(&[-1, 2]).unwrap();
        for block in [&[1, 1][..], &[1, -1]] {
            let error = check(block).unwrap_err().to_string();
            assert!(error.contains("whole output channels"), "{error}");
        }
    }

    #[test]
    fn no_steps_are_no_score() {
        assert!(MeanActivation::new(0).is_err());
    }
}
