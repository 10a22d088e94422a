//! Quantization-aware training: the model trains with the rounding that it will run with.
//!
//! The default choice when there is data and time to train. Every target follows the range of its
//! values, by a moving average unless its `observer` is another one, derives scale and zero point
//! from it and computes with values that are rounded to that grid, so that the weights learn to sit
//! well on it.
//!
//! ```text
//! range  <- 0.99 range + 0.01 (min x, max x)           every training step, from the first
//! scale, zero point from the range                     from step `start_step` on
//! x'     =  (clamp(round(x / s) + z, qmin, qmax) - z) s
//! dx'/dx =  1 where qmin <= z + x / s <= qmax, else 0
//! ```
//!
//! # References
//!
//! Jacob et al., *Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference*, arXiv 1712.05877. Deviations: ranges of weights are averaged
//! like those of activations, once a training step; the range always contains 0; batch norms are
//! folded where the settings say so ([`fuse`](QuantizationSettings::fuse)), with their running
//! statistics from the first step on and an output that is brought to those of the batch.

use std::sync::Arc;

use burn::config::Config;
use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{BoxError, Chain, Configuration, Constructors, Error, Method};

use crate::QuantizationSettings;
use crate::quantizer::RangeQuantizer;
use crate::range_rule::RangeRule;
use crate::targets::QuantDefaults;

/// Settings of a [`QatQuantizer`].
#[derive(Config, Debug, Copy)]
pub struct QatConfig {
    /// Completed optimizer steps before the first quantized forward pass. Ranges are followed from
    /// the first step on.
    #[config(default = 0)]
    pub start_step: usize,
    /// Whether every observation checks that the values are finite, and names the target if they are
    /// not.
    ///
    /// The check rides on the read of the loss, see [`reads`](burn_compress_core::reads). An
    /// observer with a histogram reads all values at each observation in any case.
    #[config(default = true)]
    pub check_finite: bool,
}

/// Trains a model with simulated quantization.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::module::Module;
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{QatConfig, QatQuantizer, QuantizationSettings};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// let device = Device::flex();
/// let model = Net { fc: LinearConfig::new(4, 2).init(&device).into() };
/// let batch = Tensor::<2>::ones([8, 4], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|model: &Net, batch: &Tensor<2>| model.fc.forward(batch.clone()).square().mean());
/// let config = ConfigList::<QuantizationSettings>::from_json(
///     r#"[{"op_types": ["Linear"], "quant_dtype": "int8"}]"#,
/// )?;
/// let quantizer = QatQuantizer::new(model, &config, evaluator, QatConfig::new())?;
/// let compressed = quantizer.compress(Budget::steps(3))?;
/// assert_eq!(compressed.calibration()?.len(), 3); // input, weight and output
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type QatQuantizer = Constructors<QatConfig>;

impl<M: Module + 'static, I: 'static> Method<M, I> for QatConfig {
    type Settings = QuantizationSettings;

    fn name(&self) -> &'static str {
        RangeRule::name(self)
    }

    fn add_to(
        self,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        self.add(&mut chain.erased(), rules)
    }
}

impl QatConfig {
    /// Adds the algorithm to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        chain.evaluator().require_training(RangeRule::name(&self))?;
        // The standard scales, whose laws need no check.
        let defaults = QuantDefaults::of(&self);
        RangeQuantizer::fuse(chain, rules, Arc::new(self), &defaults)
    }
}

/// The rule of quantization-aware training: the hooks of [`RangeRule`] as they are.
impl RangeRule for QatConfig {
    fn name(&self) -> &'static str {
        "QatQuantizer"
    }

    fn configuration(&self) -> Configuration {
        Configuration::of(self)
    }

    fn checks_finite(&self) -> bool {
        self.check_finite
    }

    fn check_run(&self, total_steps: usize) -> Result<(), BoxError> {
        if total_steps <= self.start_step {
            let reason = format!(
                "nothing is quantized before step {}, the run has {total_steps} steps: give it \
                 more, or start earlier with `QatConfig::with_start_step`",
                self.start_step
            );
            return Err(reason.into());
        }
        Ok(())
    }

    fn is_active(&self, step: usize, _total_steps: usize) -> bool {
        step >= self.start_step
    }

    fn calibration_batches(&self, _total_steps: usize) -> Option<usize> {
        None
    }
}
