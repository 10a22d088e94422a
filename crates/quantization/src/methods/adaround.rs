//! AdaRound: post-training quantization that learns whether each weight is rounded up or down.
//!
//! For weights of 4 bits and fewer, where rounding each weight to the nearest value is far from the
//! best for the layer as a whole: errors of weights with similar inputs should cancel. The
//! quantizer calibrates first, then goes through the layers one after another and
//! chooses the roundings that bring the layer's output back to what it was in full precision:
//!
//! ```text
//! W'      = s (clamp(floor(W / s) + z + h(V), qmin, qmax) - z)
//! h(V)    = clamp(1.2 sigmoid(V) - 0.1, 0, 1)                   begins at W / s - floor(W / s)
//! loss    = |W x + b - (W' x' + b)|^2 + regularization * sum(1 - |2 h(V) - 1|^beta)
//! ```
//!
//! The squared distance is summed over the channels of a position and averaged over positions and
//! batch; `x` is the input in full precision, `x'` the one of the quantized model with the layers
//! before it rounded. The regularization drives each `h` to 0 or 1: it is off in the first fifth of
//! the steps, then `beta` falls from 20 to 2 along a cosine. At the end `h` is rounded, and the raw
//! weights become the values of the grid that were chosen.
//!
//! The grid of a weight is the one with the least squared error, the observer
//! [`mse`](crate::ranges::Mse), where the configuration names no other: of a few bits that of the
//! extremes is far too coarse for most weights, and no rounding makes up for it. Inputs and outputs
//! have the range of their extremes. With `"observer": "min_max"` for a rule, or for `weight` in
//! its `target_settings`, weights begin from their extremes, too.
//!
//! Nothing but `V` is trained, each layer for itself, with Adam; weights are rewritten after the
//! last step of the run. The chain need not train. Of a layer that a batch norm is folded into
//! ([`fuse`](QuantizationSettings::fuse)), `W` and `b` are the folded ones.
//!
//! # References
//!
//! Nagel et al., *Up or Down? Adaptive Rounding for Post-Training Quantization*, arXiv 2004.10568.
//! Deviations: the least squared error is that of a histogram; activation functions are not part of
//! the distance, as a layer does not know what follows it; steps take the calibration batches in
//! turn, whole, where the paper draws 32 samples (each call of a layer that runs several times in a
//! pass is a batch of its own); where the learned rounding is no closer on the calibration batches
//! than the nearest, the nearest is kept.

pub(crate) mod reconstruction;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Tensor, activation};
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Chain, Configuration, Constructors, Error, Evaluator,
    FlatTensor, Method, Mode, Run, TargetId, TargetSpace, with_parameters,
};
use indexmap::IndexMap;

use super::ptq::{Calibrated, PtqConfig};
use crate::parameters::raw;
use crate::{
    ApplyMethod, ObserverKind, QuantizationError, QuantizationSettings, blocks, precision,
};

use reconstruction::Samples;

const NAME: &str = "AdaRoundQuantizer";

/// Settings of an [`AdaRoundQuantizer`].
#[derive(Config, Debug, Copy)]
pub struct AdaRoundConfig {
    /// Steps for each layer; the paper takes 10000.
    #[config(default = 1000)]
    pub steps: usize,
    /// Learning rate of Adam.
    #[config(default = 1e-2)]
    pub learning_rate: f64,
    /// Weight of the regularization.
    #[config(default = 1e-2)]
    pub regularization: f64,
    /// Batches to calibrate on and to learn from, the first of epoch 0 of the evaluator's data. The
    /// inputs and outputs of one layer at a time are kept in memory.
    #[config(default = 32)]
    pub batches: usize,
    /// See [`PtqConfig::follow_training`].
    #[config(default = true)]
    pub follow_training: bool,
    /// See [`PtqConfig::check_finite`].
    #[config(default = true)]
    pub check_finite: bool,
}

/// Quantizes a model by calibration, with learned rounding of its weights.
///
/// Weights must be those of a `Conv2d` or `Linear` that stands in a `Wrapper`; other targets are
/// calibrated only.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{AdaRoundConfig, AdaRoundQuantizer, QuantizationSettings};
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
///     .with_loss(|model: &Net, batch: &Tensor<2>| model.fc.forward(batch.clone()).mean());
/// let config = ConfigList::<QuantizationSettings>::from_json(
///     r#"[{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int4"}]"#,
/// )?;
/// let options = AdaRoundConfig::new().with_steps(100);
/// let quantizer = AdaRoundQuantizer::new(model, &config, evaluator, options)?;
/// let compressed = quantizer.compress(Budget::none())?;
/// // The raw weights are values of the grid.
/// let raw = compressed.unwrap_model().fc.weight.val();
/// let simulated = compressed.model().fc.weight.val();
/// assert!(raw.all_close(simulated, None, None));
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type AdaRoundQuantizer = Constructors<AdaRoundConfig>;

impl<M: Module + 'static, I: 'static> Method<M, I> for AdaRoundConfig {
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

impl AdaRoundConfig {
    /// Adds the algorithm to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        check(&self)?;
        chain.evaluator().require_forward(NAME)?;
        let layers = weights(&rules.select(chain.layers())?)?;
        let options = PtqConfig::new()
            .with_batches(self.batches)
            .with_follow_training(self.follow_training)
            .with_check_finite(self.check_finite);
        let calibration = Calibrated::claim(NAME, ObserverKind::Mse, chain, rules, options)?;
        let evaluator = chain.evaluator().clone();
        chain.push(AdaRound {
            calibration,
            layers,
            evaluator,
            config: self,
        });
        Ok(())
    }
}

#[derive(Debug)]
struct AdaRound<M, I> {
    calibration: Calibrated<M, I>,
    layers: Vec<TargetId>,
    evaluator: Evaluator<M, I>,
    config: AdaRoundConfig,
}

impl<M: Module + 'static, I: 'static> AdaRound<M, I> {
    /// The chosen values of the grid for the weights of a layer.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    fn round(
        &self,
        space: &TargetSpace,
        samples: &Samples,
        raw: &FlatTensor,
    ) -> Result<FlatTensor, BoxError> {
        let weight = Weight::new(space, raw)?;
        let nearest = weight.simulate(weight.fraction().greater_equal_elem(0.5).float());
        let mut v = initial(weight.fraction());
        let (mut momentum, mut variance) = (v.zeros_like(), v.zeros_like());
        for step in 0..self.config.steps {
            let leaf = v.clone().autodiff().require_grad();
            let loss = objective(&weight, samples, leaf.clone(), step, &self.config);
            let Some(gradient) = leaf.grad(&loss.backward()) else {
                continue;
            };
            momentum = momentum * 0.9 + gradient.clone() * 0.1;
            variance = variance * 0.999 + gradient.square() * 0.001;
            let count = i32::try_from(step + 1).unwrap_or(i32::MAX);
            let rate = self.config.learning_rate / (1.0 - 0.9f64.powi(count));
            let spread = (variance.clone() / (1.0 - 0.999f64.powi(count))).sqrt() + 1e-8;
            v = v - momentum.clone() / spread * rate;
        }
        let learned = weight.simulate(rectified_sigmoid(v).greater_equal_elem(0.5).float());
        let better = samples.total(&learned)? < samples.total(&nearest)?;
        let values = if better { learned } else { nearest };
        Ok(raw
            .clone()
            .map(|raw| precision::in_dtype(values, raw.dtype())))
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for AdaRound<M, I> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn finish(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.calibration.finish(run)
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        let targets = self.calibration.targets();
        let mut values = targets.rewrite(run.model)?;
        targets.disable();
        // A snapshot has states of its own, in full precision from now on.
        let full_precision = with_parameters(run.model.valid(), values.clone())?;
        targets.enable();
        let mut model = with_parameters(run.model.valid(), values.clone())?;
        for id in &self.layers {
            let mut found = raw(&model, std::slice::from_ref(id));
            let (Some(raw), Some(space)) = (found.swap_remove(id), targets.space(id)) else {
                continue;
            };
            let samples = Samples::record(
                id,
                space.mask().as_ref(),
                &raw.shape,
                (&full_precision, &model),
                &self.evaluator,
                self.config.batches,
            )?;
            let weight = self.round(space, &samples, &raw)?;
            model = with_parameters(model, IndexMap::from([(id.clone(), weight.clone())]))?;
            values.insert(id.clone(), weight);
        }
        Ok(values)
    }

    fn warnings(&self) -> Result<Vec<String>, BoxError> {
        Ok(self.calibration.targets().warnings())
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        self.calibration.state()
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.calibration.load_state(state)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self
            .calibration
            .targets()
            .configuration(Configuration::of(&self.config)))
    }
}

/// A weight between its two neighbours on the grid, in 32 bits.
pub(crate) struct Weight {
    /// Positions on the grid, rounded down, and their fractions.
    floor: Tensor<1>,
    fraction: Tensor<1>,
    scale: Tensor<1>,
    zero_point: Tensor<1>,
    range: (f32, f32),
}

impl Weight {
    fn new(space: &TargetSpace, raw: &FlatTensor) -> Result<Self, QuantizationError> {
        let state = space
            .quantization()
            .ok_or(QuantizationError::NothingObserved)?;
        let (Some(scale), Some(zero_point)) = (state.scale, state.zero_point) else {
            return Err(QuantizationError::NothingObserved);
        };
        let scale = blocks::spread(precision::single(scale), &state.grid, &raw.shape)?;
        let zero_point = precision::single(zero_point);
        let zero_point = blocks::spread(zero_point, &state.grid, &raw.shape)?;
        let raw = precision::single(raw.values.clone());
        let range = (state.qmin, state.qmax);
        Ok(Self::on_grid(raw, scale, zero_point, range))
    }

    /// The values `raw`, with a scale and a zero point for each of them.
    pub(crate) fn on_grid(
        raw: Tensor<1>,
        scale: Tensor<1>,
        zero_point: Tensor<1>,
        range: (f32, f32),
    ) -> Self {
        let position = raw / scale.clone();
        let floor = position.clone().floor();
        Self {
            fraction: position - floor.clone(),
            floor,
            scale,
            zero_point,
            range,
        }
    }

    pub(crate) fn fraction(&self) -> Tensor<1> {
        self.fraction.clone()
    }

    /// The weight with `up` between 0, rounded down, and 1, rounded up.
    fn simulate(&self, up: Tensor<1>) -> Tensor<1> {
        let position = up + (self.floor.clone() + self.zero_point.clone());
        let position = position.clamp(self.range.0, self.range.1);
        (position - self.zero_point.clone()) * self.scale.clone()
    }
}

/// The loss of one step: the squared distance, and the penalty of undecided roundings.
pub(crate) fn objective(
    weight: &Weight,
    samples: &Samples,
    v: Tensor<1>,
    step: usize,
    config: &AdaRoundConfig,
) -> Tensor<1> {
    let h = rectified_sigmoid(v);
    let distance = samples.distance(step, weight.simulate(h.clone()));
    match beta(step, config.steps) {
        Some(beta) => {
            let decided = (h * 2.0 - 1.0).abs().powf_scalar(beta);
            let undecided = precision::single((decided.neg() + 1.0).sum());
            distance + undecided * config.regularization
        }
        None => distance,
    }
}

/// The stretch of the sigmoid: it reaches 0 and 1 and has a slope there.
const STRETCH: (f64, f64) = (-0.1, 1.1);

fn rectified_sigmoid(v: Tensor<1>) -> Tensor<1> {
    let (low, high) = STRETCH;
    (activation::sigmoid(v) * (high - low) + low).clamp(0.0, 1.0)
}

/// Argument at which the rectified sigmoid is `fraction`, of 0 to 1.
pub(crate) fn initial(fraction: Tensor<1>) -> Tensor<1> {
    let (low, high) = STRETCH;
    ((fraction - low).recip() * (high - low) - 1.0).log().neg()
}

/// The exponent of the regularization, which begins after a fifth of the steps.
pub(crate) fn beta(step: usize, steps: usize) -> Option<f64> {
    let warm = steps / 5;
    let done = step.checked_sub(warm)? as f64 / (steps - warm) as f64;
    Some(2.0 + 0.5 * (20.0 - 2.0) * (1.0 + (done * std::f64::consts::PI).cos()))
}

fn check(config: &AdaRoundConfig) -> Result<(), QuantizationError> {
    let error = |key, value: String, expected| {
        Err(QuantizationError::Setting {
            key,
            value,
            expected,
        })
    };
    let (rate, regularization) = (config.learning_rate, config.regularization);
    match config {
        AdaRoundConfig { steps: 0, .. } => {
            error("steps", "0".to_string(), "learning takes at least one step")
        }
        _ if !(rate > 0.0 && rate.is_finite()) => {
            error("learning_rate", rate.to_string(), "it must be positive")
        }
        _ if !(regularization >= 0.0 && regularization.is_finite()) => {
            let value = regularization.to_string();
            error("regularization", value, "it must not be negative")
        }
        _ => Ok(()),
    }
}

/// The weights whose rounding is learned.
fn weights(
    selected: &[Selected<QuantizationSettings>],
) -> Result<Vec<TargetId>, QuantizationError> {
    let acts = |item: &&Selected<QuantizationSettings>| {
        item.target.param_name() == Some("weight")
            && item.settings.apply_method != Some(ApplyMethod::Bypass)
    };
    let mut weights = Vec::new();
    for item in selected.iter().filter(acts) {
        let kind = item.layer.kind.as_str();
        let reason = match kind {
            "Conv2d" | "Linear" if item.layer.wrapped => {
                weights.push(item.id());
                continue;
            }
            "Conv2d" | "Linear" => {
                format!("its inputs cannot be seen; make its field a `Wrapper<{kind}>`")
            }
            _ => format!(
                "only those of `Conv2d` and `Linear` are learned, and this is a `{kind}`; quantize \
                 it by plain calibration"
            ),
        };
        return Err(QuantizationError::Rounding {
            layer: item.layer.path.clone(),
            reason,
        });
    }
    match weights.is_empty() {
        false => Ok(weights),
        true => Err(QuantizationError::Rounding {
            layer: "any layer".to_string(),
            reason: "the configuration selects no weight".to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
