//! DoReFa: weights squeezed into -1..=1, bounded activations, few bits from the first step on.
//!
//! The choice for networks of very few bits that are trained for it. The range of the weights is
//! fixed: a hyperbolic tangent squeezes them, so that no outlier spoils the grid, and outputs of
//! activation layers are cut to 0..=1.
//!
//! ```text
//! weight      t  = tanh(w),  u = t / (2 max|t|) + 1/2,  w' = 2 round_k(u) - 1
//! 1 bit       w' = sign(w) mean|w|, with sign(0) = 1; the gradient passes
//! output      x' = round_k(clamp(x, 0, 1))      of activation layers
//! input       x' on the grid that the smallest and largest value of the batch span
//! round_k     rounding to the integers of the type, laid over 0..=1
//! ```
//!
//! Rounding lets all gradients pass, the tangent, the maximum and the cut are differentiated. Outputs
//! of other layers have no bounds and are treated as inputs are. The ranges of inputs are averaged
//! over the steps as well, and at the end of the run the grid is laid over the average: one batch of
//! the run is not what inference sees. Parameters then become what they were simulated to be, with an
//! ordinary quantization whose grid they lie on.
//!
//! With [`DoReFaConfig::with_gradients`], gradients are rounded as well, for training in hardware of
//! few bits. Those of the outputs of layers with a quantized parameter are, where the output itself
//! is not quantized, before they go on into the layer. The largest magnitude is that of a sample; the
//! noise, without which what lies between two steps would always be rounded to the same, depends on
//! who is followed:
//!
//! ```text
//! GradientDtype::Dtype      as in the paper: one noise an element, the grid over 0..=1
//!                           (quantize_gradient_by_element)
//! GradientDtype::OfWeight   as in NNI: one noise a sample, the grid over -h..=1 + h,
//!                           h = 1 / (2 (2^k - 1)) (quantize_gradient)
//! ```
//!
//! A batch norm may be folded into the layer before it
//! ([`fuse`](QuantizationSettings::fuse)), but what the tangent squeezes is then the folded weight, and
//! the scale that the norm gave its channels is lost: leave norms unfolded where they normalise.
//!
//! By default gradients keep their full precision: they cost nothing at inference, and the network is
//! better for it.
//!
//! # References
//!
//! Zhou et al., *DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
//! Gradients*, arXiv 1606.06160. Deviations: inputs take the range of the batch, as in NNI, whose
//! gradients have the type of the weight and its rounding ([`GradientDtype::OfWeight`]); in addition
//! to NNI, 1 bit and outputs of layers that are no activations. The scale of a weight is that of -1..=1, twice that of 0..=1 which NNI reports.

mod activation;
mod gradient;
mod weight;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::config::Config;
use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::layer::{LayerKind, LayerRole};
use burn_compress_core::{
    Algorithm, BoxError, Chain, Configuration, Constructors, Error, FlatTensor, Method, Mode,
    Quantization, Run, Stage, Target, TargetId, TargetSpace,
};
use indexmap::{IndexMap, IndexSet};

use crate::qparams::{self, QParams, host};
use crate::reject::{
    reject_binary, reject_blocks, reject_int32_bias, reject_method, reject_observer,
};
use crate::targets::{QuantTarget, QuantTargets};
use crate::{ApplyMethod, QuantizationError, QuantizationSettings};

use activation::{BatchRange, output_grid};
use gradient::RoundedGradient;
use weight::{Squeezed, magnitude, one_bit_grid, weight_grid};

pub use gradient::{GradientDtype, quantize_gradient, quantize_gradient_by_element};
pub use weight::quantize_weight;

const NAME: &str = "DoReFaQuantizer";

/// Settings of a [`DoReFaQuantizer`].
#[derive(Config, Debug, Copy)]
pub struct DoReFaConfig {
    /// Whether every forward pass checks that the values of inputs are finite, and names the target if they
    /// are not. The check rides on the read of the loss, see
    /// [`reads`](burn_compress_core::reads).
    #[config(default = true)]
    pub check_finite: bool,
    /// The type that gradients are rounded to while the model trains, and how: see
    /// [`GradientDtype`].
    ///
    /// Layers with a quantized parameter must stand in a `Wrapper` then, and the features of this
    /// crate must name the backend (see [`QuantizationError::Backend`]).
    #[config(default = "GradientDtype::Float")]
    pub gradients: GradientDtype,
    /// Seed of the noise of rounded gradients.
    #[config(default = 0)]
    pub seed: u64,
}

/// Trains a model with the weights and activations of DoReFa-Net.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{DoReFaConfig, DoReFaQuantizer, QuantizationSettings};
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
///     r#"[{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int2"}]"#,
/// )?;
/// let quantizer = DoReFaQuantizer::new(model, &config, evaluator, DoReFaConfig::new())?;
/// let model = quantizer.compress(Budget::steps(3))?.unwrap_model();
/// let weight = model.fc.weight.val().into_data().try_to_vec::<f32>().unwrap();
/// assert!(weight.iter().all(|w| [-1.0, 0.0, 1.0].contains(w)));
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type DoReFaQuantizer = Constructors<DoReFaConfig>;

impl<M: Module + 'static, I: 'static> Method<M, I> for DoReFaConfig {
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

impl DoReFaConfig {
    /// Adds the algorithm to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        chain.evaluator().require_training(NAME)?;
        let method = ApplyMethod::ClampRound;
        let targets = QuantTargets::claim_with(chain, rules, NAME, method, |selected| {
            let settings = &selected.settings;
            if !selected.target.is_param() {
                reject_binary(settings.dtype())?;
            }
            reject_blocks(settings)?;
            reject_observer(settings)?;
            reject_method(settings)?;
            reject_int32_bias(settings)?;
            Ok((settings.dtype(), settings.scheme()))
        })?;
        let quantizer = DoReFa {
            targets,
            step: Arc::default(),
            rounded: Vec::new(),
            config: self,
        };
        quantizer
            .targets
            .iter()
            .for_each(|target| quantizer.begin(target));
        let quantizer = quantizer.round_gradients(chain)?;
        chain.push(quantizer);
        Ok(())
    }
}

#[derive(Debug)]
struct DoReFa {
    targets: QuantTargets,
    /// Completed steps of the run.
    step: Arc<AtomicUsize>,
    /// The outputs whose gradients are rounded.
    rounded: Vec<Arc<TargetSpace>>,
    config: DoReFaConfig,
}

impl DoReFa {
    fn begin(&self, target: &QuantTarget) {
        let (space, dtype, device) = (target.space(), target.dtype(), self.targets.device());
        match target.target() {
            Target::Param(_) => {
                space.set_transform(Stage::Quantize, Some(Arc::new(Squeezed { dtype })));
                if dtype.bits() > 1 {
                    weight_grid(dtype).set(target, device);
                }
            }
            Target::Output(_) if self.is_activation(target) => {
                output_grid(dtype).set(target, device);
            }
            Target::Input(_) | Target::Output(_) => {
                space.set_observer(Some(Arc::new(BatchRange {
                    dtype,
                    scheme: target.scheme(),
                    check: self.config.check_finite,
                })));
                target.enable();
            }
        }
    }

    /// Whether the values of an output come from an activation function.
    fn is_activation(&self, output: &QuantTarget) -> bool {
        let layer = output.layer();
        LayerKind::of(&layer.kind).role() == LayerRole::Activation
            || self.targets.fusions().is_activation(&layer.path)
    }

    /// Rounds the gradients of outputs that are not quantized, of layers with a parameter that is.
    fn round_gradients(mut self, chain: &mut Chain<'_, AnyModel, AnyBatch>) -> Result<Self, Error> {
        let mut seeds = fastrand::Rng::with_seed(self.config.seed);
        let output =
            |layer: &str| TargetId::new(self.targets.fusions().last(layer), Target::Output(0));
        let mut roundings = IndexMap::new();
        for target in self.targets.iter().filter(|one| one.target().is_param()) {
            let rounding = self.config.gradients.for_weight(target.dtype());
            if let Some(rounding) = rounding? {
                // The weight comes before the bias.
                let output = output(&target.layer().path);
                roundings.entry(output).or_insert(rounding);
            }
        }
        let quantized: IndexSet<&TargetId> = self.targets.iter().map(QuantTarget::id).collect();
        roundings.retain(|id, _| !quantized.contains(id));
        if !roundings.is_empty()
            && !burn_compress_core::gradient::is_supported(self.targets.device())
        {
            let device = format!("{:?}", self.targets.device());
            return Err(QuantizationError::Backend { device }.into());
        }
        let ids: Vec<TargetId> = roundings.keys().cloned().collect();
        let spaces = chain.watch(&ids)?.into_iter();
        for (space, rounding) in spaces.zip(roundings.values()) {
            let rounded = RoundedGradient::new(*rounding, seeds.u64(..), self.step.clone());
            space.set_transform(Stage::Last, Some(Arc::new(rounded)));
            self.rounded.push(space);
        }
        Ok(self)
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for DoReFa {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn observe(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.step.store(run.step, Ordering::Release);
        Ok(())
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        for space in &self.rounded {
            space.set_transform(Stage::Last, None);
        }
        for target in self.targets.iter() {
            let Some(state) = target.space().quantization() else {
                continue;
            };
            if let (Some(minimum), Some(maximum)) = (state.minimum.clone(), state.maximum.clone()) {
                let (dtype, scheme) = (target.dtype(), target.scheme());
                let QParams { scale, zero_point } =
                    qparams::compute(minimum, maximum, dtype, scheme);
                target.space().set_quantization(Some(Quantization {
                    scale: Some(scale),
                    zero_point: Some(zero_point),
                    ..state
                }));
            }
        }
        Ok(())
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        let ids = self.targets.parameter_ids();
        let mut values = self.targets.fusions().finish_with(run.model, &ids)?;
        for target in self.targets.iter().filter(|one| one.target().is_param()) {
            let Some(weight) = values.get_mut(target.id()) else {
                continue;
            };
            let dtype = target.dtype();
            if dtype.bits() == 1 {
                let magnitude = host(magnitude(weight.values.clone()))?;
                one_bit_grid(dtype, magnitude[0]).set(target, self.targets.device());
            }
            *weight = quantize_weight(weight.clone(), dtype);
            // The standard simulation leaves the new values as they are.
            target.space().set_transform(Stage::Quantize, None);
        }
        Ok(values)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.targets.configuration(Configuration::of(&self.config)))
    }
}

#[cfg(test)]
mod tests;
