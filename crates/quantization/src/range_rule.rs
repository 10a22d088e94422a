//! The contract of rules from ranges to scales and zero points.

use std::fmt;
use std::ops::RangeInclusive;

use burn::tensor::Tensor;
use burn_compress_core::{BoxError, Configuration, QuantDtype, QuantScheme, Target, reads};

use crate::qparams::{self, QParams};
use crate::ranges::{ObserverKind, RangeEstimator, Ranges};
use crate::{ApplyMethod, QuantizationError, QuantizationSettings};

/// Rule from the observed range of each block to its scale and zero point.
///
/// [`Quantizer::with`](crate::Quantizer::with) makes a quantizer of a rule. The framework claims the
/// targets, observes their values, simulates the rounding, folds batch norms, and saves and restores
/// all of it; masks of pruners, distillers and speedup work with it as with a built-in quantizer.
/// Only [`name`](Self::name) has to be written; each hook has the behaviour of quantization-aware
/// training, which is the rule [`QatConfig`](crate::QatConfig).
///
/// # Laws
///
/// - A scale is finite and positive (a normal number: at least [`f32::MIN_POSITIVE`]).
/// - A zero point is an integer within the range of the type. So zero is a value of the grid, a
///   zero stays a zero, and channels that a pruner masks can be cut out.
/// - One scale and one zero point for each block, in the order of the range.
/// - Deterministic: the result depends on the arguments and on [`configuration`](Self::configuration)
///   alone. A resumed run is then the same bit for bit.
///
/// The first three are checked whenever they are computed, in a training step together with the read
/// of the loss. A violation is a [`QuantizationError::Unlawful`] (or
/// [`UnlawfulCount`](QuantizationError::UnlawfulCount)) with the name of the rule, in an
/// [`Error::Observation`](burn_compress_core::Error::Observation) with the target.
///
/// # Example
///
/// Scales that are powers of two, for hardware that shifts in place of a multiplication:
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Method, Wrapper};
/// use burn_compress_quantization::{
///     QParams, QuantDtype, QuantScheme, Quantizer, RangeRule, Ranges, qparams,
/// };
///
/// #[derive(Debug)]
/// struct PowerOfTwo;
///
/// impl RangeRule for PowerOfTwo {
///     fn name(&self) -> &'static str {
///         "PowerOfTwo"
///     }
///
///     fn qparams(&self, ranges: Ranges, dtype: QuantDtype, _scheme: QuantScheme) -> QParams {
///         let symmetric = QuantScheme::Symmetric;
///         let found = qparams::compute(ranges.minimum, ranges.maximum, dtype, symmetric);
///         let exponent = (found.scale.log() / std::f64::consts::LN_2).ceil();
///         QParams { scale: (exponent * std::f64::consts::LN_2).exp(), ..found }
///     }
/// }
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
/// let rules = ConfigList::from_json(r#"[{"op_types": ["Linear"], "quant_dtype": "int4"}]"#)?;
/// let quantizer = Quantizer::with(PowerOfTwo).new(model, &rules, evaluator)?;
/// let compressed = quantizer.compress(Budget::steps(3))?;
/// let scale = compressed.calibration()?[0].scale.clone().unwrap()[0];
/// assert!((scale.log2() - scale.log2().round()).abs() < 1e-5);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub trait RangeRule: fmt::Debug + Send + Sync + 'static {
    /// Name of the quantizer, in messages, checkpoints and the list of a chain's algorithms.
    fn name(&self) -> &'static str;

    /// Scale and zero point of each block, by default [`qparams::compute`].
    ///
    /// The range is the one that the estimator chose, in 32 bits, on the device of the values and
    /// without gradients. It need not hold zero.
    ///
    /// # Shapes
    ///
    /// - ranges, result: `[blocks]`
    fn qparams(&self, ranges: Ranges, dtype: QuantDtype, scheme: QuantScheme) -> QParams {
        qparams::compute(ranges.minimum, ranges.maximum, dtype, scheme)
    }

    /// Settings of the rule that decide over the result. A chain whose rule has other settings does
    /// not resume from a checkpoint unasked.
    fn configuration(&self) -> Configuration {
        Configuration::default()
    }

    /// Simulation of the targets whose settings have no `apply_method`.
    fn apply_method(&self) -> ApplyMethod {
        ApplyMethod::QatClampRound
    }

    /// Observer of the targets whose settings name none.
    fn observer(&self) -> ObserverKind {
        ObserverKind::MovingAverage
    }

    /// Estimator of the rule's own for a target whose settings name no observer, in the place of
    /// [`observer`](Self::observer).
    fn estimator(&self, _target: &Target) -> Option<Box<dyn RangeEstimator>> {
        None
    }

    /// Whether every observation checks that the values are finite.
    fn checks_finite(&self) -> bool {
        true
    }

    /// Before the chain is built: rejects settings that the rule does not support.
    ///
    /// # Errors
    ///
    /// The reason, in words; the rule and the target are added.
    fn check_target(
        &self,
        _target: &Target,
        _settings: &QuantizationSettings,
    ) -> Result<(), String> {
        Ok(())
    }

    /// Before the run: rejects a number of optimizer steps, 0 for a run without training.
    ///
    /// # Errors
    ///
    /// The reason, in words.
    fn check_run(&self, _total_steps: usize) -> Result<(), BoxError> {
        Ok(())
    }

    /// While the run lasts: whether targets are rounded in the forward passes of this step. What it
    /// was for the last step remains after the run.
    fn is_active(&self, _step: usize, _total_steps: usize) -> bool {
        true
    }

    /// After the run: the number of batches on which the finished model is calibrated, `None` to keep
    /// the ranges of the training steps. By default 32 where there were none.
    fn calibration_batches(&self, total_steps: usize) -> Option<usize> {
        (total_steps == 0).then_some(32)
    }

    /// After the run: the last change of scale and zero point, under the same laws.
    fn finish(&self, qparams: QParams, _dtype: QuantDtype, _scheme: QuantScheme) -> QParams {
        qparams
    }
}

/// Checks the laws of [`RangeRule::qparams`], inside a step with the next read of the run.
pub(crate) fn check_laws(
    qparams: &QParams,
    blocks: usize,
    rule: &'static str,
    dtype: QuantDtype,
) -> Result<(), QuantizationError> {
    let QParams { scale, zero_point } = qparams;
    for (what, values) in [("scale", scale), ("zero point", zero_point)] {
        let found = values.dims()[0];
        if found != blocks {
            return Err(QuantizationError::UnlawfulCount {
                rule: rule.to_string(),
                what,
                found,
                blocks,
            });
        }
    }
    let law = "a scale is finite and positive".to_string();
    let positive = f32::MIN_POSITIVE..=f32::MAX;
    check(scale.clone(), positive, (rule, "scale", law))?;
    let (qmin, qmax) = (dtype.qmin(), dtype.qmax());
    let law = format!("a zero point of `{dtype}` lies in {qmin}..={qmax}");
    check(zero_point.clone(), qmin..=qmax, (rule, "zero point", law))?;
    let fraction = zero_point.clone() - zero_point.clone().round();
    let law = "it adds this fraction to an integer, and a zero would not stay a zero".to_string();
    check(fraction, 0.0..=0.0, (rule, "zero point", law))
}

fn check(
    values: Tensor<1>,
    range: RangeInclusive<f32>,
    (rule, what, law): (&'static str, &'static str, String),
) -> Result<(), QuantizationError> {
    let allowed = range.clone();
    let broken = reads::check(values, range, move |values| {
        let mut found = values.iter().copied().enumerate();
        let (block, value) = found
            .find(|(_, value)| !allowed.contains(value))
            .unwrap_or_default();
        QuantizationError::Unlawful {
            rule: rule.to_string(),
            what,
            block,
            value,
            law: law.clone(),
        }
    });
    match broken.map_err(|error| QuantizationError::Device(error.to_string()))? {
        None => Ok(()),
        Some(error) => Err(error),
    }
}
