//! Post-training quantization: scales and zero points from a few batches, without training.
//!
//! The choice when there is no time to train, and with 8 bits usually good enough. The quantizer
//! runs the model on batches of the evaluator's data, in validation mode and with all targets in
//! full precision, observes the values of each target, and enables the quantization from then on:
//!
//! ```text
//! range              observed over the calibration batches, by default the extremes of all of them
//! scale, zero point  from the range, once
//! x'                 = (clamp(round(x / s) + z, qmin, qmax) - z) s
//! ```
//!
//! Parameters, running statistics and optimizer are not touched; with `Budget::none()` nothing
//! trains at all. Optimizer and learning rate are not needed then, and a configuration that selects
//! nothing but parameters needs no data either.
//!
//! Fused into a chain that trains, the quantizer follows inputs and outputs during the run as well,
//! leaves all values as they are, and calibrates at its end.
//!
//! # References
//!
//! - Krishnamoorthi, *Quantizing deep convolutional networks for efficient inference: A
//!   whitepaper*, arXiv 1806.08342, section 3.
//! - For the correction of biases: Nagel et al., *Data-Free Quantization Through Weight
//!   Equalization and Bias Correction*, arXiv 1906.04721, section 4.2.
//!
//! Deviations from NNI: nothing has to be trained; the range of a parameter is that of its final
//! values, where NNI keeps the extremes of all values that it took during the run.

mod bias;

use burn::config::Config;
use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Chain, Configuration, Constructors, Error, Evaluator,
    FlatTensor, Method, Mode, Run, TargetId,
};
use indexmap::IndexMap;

use crate::bn_fusion::is_wanted;
use crate::targets::{QuantDefaults, QuantTargets};
use crate::{ObserverKind, QuantizationError, QuantizationSettings};

use bias::BiasCorrection;

/// Settings of a [`PtqQuantizer`].
#[derive(Config, Debug, Copy)]
pub struct PtqConfig {
    /// Batches to calibrate on, the first of epoch 0 of the evaluator's data; all of them where the
    /// epoch has fewer.
    #[config(default = 32)]
    pub batches: usize,
    /// Whether the observers of inputs and outputs follow the training steps of a fused run, too.
    ///
    /// Without it, ranges are those of the finished model alone, which are narrower where training
    /// moves it far.
    #[config(default = true)]
    pub follow_training: bool,
    /// Whether each bias is corrected by the shift that the rounding of the weights causes in the
    /// mean of the layer's outputs.
    ///
    /// The layers whose weight is quantized are corrected one after another, in module order: each
    /// gains, per channel, the mean over batch and positions of its output in full precision minus
    /// that of its output with all targets quantized and the layers before it corrected. Both
    /// models run over the calibration batches once for each layer. Layers must stand in a
    /// `Wrapper`; those without a bias are left as they are.
    #[config(default = false)]
    pub bias_correction: bool,
    /// Whether every observation checks that the values are finite, and names the target if they
    /// are not.
    #[config(default = true)]
    pub check_finite: bool,
}

/// Quantizes a model by calibration.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{PtqConfig, PtqQuantizer, QuantizationSettings};
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
///     // Runs the model; its value is of no interest here.
///     .with_loss(|model: &Net, batch: &Tensor<2>| model.fc.forward(batch.clone()).mean());
/// let config = ConfigList::<QuantizationSettings>::from_json(
///     r#"[{"op_types": ["Linear"], "quant_dtype": "int8", "observer": "mse"}]"#,
/// )?;
/// let quantizer = PtqQuantizer::new(model, &config, evaluator, PtqConfig::new())?;
/// let compressed = quantizer.compress(Budget::none())?;
/// assert_eq!(compressed.calibration()?.len(), 3); // input, weight and output
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type PtqQuantizer = Constructors<PtqConfig>;

const NAME: &str = "PtqQuantizer";

impl<M: Module + 'static, I: 'static> Method<M, I> for PtqConfig {
    type Settings = QuantizationSettings;

    fn name(&self) -> &'static str {
        NAME
    }

    fn add_to(
        self,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        self.add(&mut chain.erased(), rules)
    }
}

impl PtqConfig {
    /// Adds the algorithm to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        let calibrated = Calibrated::claim(NAME, ObserverKind::MinMax, chain, rules, self)?;
        chain.push(calibrated);
        Ok(())
    }
}

/// A quantizer by calibration in a chain.
#[derive(Debug)]
pub(crate) struct Calibrated<M, I> {
    name: &'static str,
    targets: QuantTargets,
    evaluator: Evaluator<M, I>,
    bias: Option<BiasCorrection>,
    config: PtqConfig,
}

impl<M: Module + 'static, I: 'static> Calibrated<M, I> {
    /// Claims the targets for the quantizer called `name`, whose weights have the observer `weights`
    /// where the configuration names none.
    pub(crate) fn claim(
        name: &'static str,
        weights: ObserverKind,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<QuantizationSettings>,
        config: PtqConfig,
    ) -> Result<Self, Error> {
        if config.batches == 0 {
            let expected = "a calibration needs at least one batch";
            return Err(QuantizationError::setting("batches", "0", expected).into());
        }
        let selected = rules.select(chain.layers())?;
        let fused = selected.iter().find(|item| is_wanted(&item.settings));
        if let (Some(item), true) = (fused, config.bias_correction) {
            return Err(QuantizationError::Fusion {
                names: vec![item.layer.path.clone()],
                reason: "the biases of fused layers are made of the statistics of the norm and \
                         cannot be corrected: leave out `bias_correction`, or `fuse` and \
                         `fuse_names`"
                    .to_string(),
            }
            .into());
        }
        let runs = fused.is_some() || selected.iter().any(|item| !item.target.is_param());
        if config.bias_correction || runs {
            chain.evaluator().require_forward(name)?;
        }
        let bias = match config.bias_correction {
            true => Some(BiasCorrection::new(&selected)?),
            false => None,
        };
        let defaults = QuantDefaults::new(name)
            .with_weight_observer(weights)
            .with_check_finite(config.check_finite);
        let targets = QuantTargets::claim(chain, rules, &defaults)?;
        if config.follow_training {
            targets.follow_activations();
        }
        Ok(Self {
            name,
            targets,
            evaluator: chain.evaluator().clone(),
            bias,
            config,
        })
    }

    pub(crate) fn targets(&self) -> &QuantTargets {
        &self.targets
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for Calibrated<M, I> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn finish(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        let batches = self.config.batches;
        Ok(self
            .targets
            .calibrate(run.model, &self.evaluator, batches)?)
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(match &self.bias {
            Some(bias) => {
                let (targets, evaluator) = (&self.targets, &self.evaluator);
                bias.biases(run.model, targets, evaluator, self.config.batches)?
            }
            None => self.targets.rewrite(run.model)?,
        })
    }

    fn warnings(&self) -> Result<Vec<String>, BoxError> {
        Ok(self.targets.warnings())
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        Ok(self.targets.state())
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.targets.load_state(state)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.targets.configuration(Configuration::of(&self.config)))
    }
}

#[cfg(test)]
mod tests;
