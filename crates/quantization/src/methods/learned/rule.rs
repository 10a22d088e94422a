//! The contract of quantizers that train their scales.

use std::fmt;

use burn_compress_core::{Configuration, FlatTensor, Grid, QuantDtype, QuantScheme, Target};

use crate::{QuantizationError, QuantizationSettings};

/// First scale and zero point of each block.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedStart {
    /// Scales.
    pub scale: Vec<f32>,
    /// Zero points; without effect in a symmetric scheme, whose zero point is 0 for good.
    pub zero_point: Vec<f32>,
}

/// Rule of a quantizer that trains its scales with the model: LSQ, LSQ+ or one of a user's own.
///
/// [`LearnedQuantizer`](crate::LearnedQuantizer) makes a quantizer of it. A scale is the magnitude of
/// the number that is trained, and at least [`f32::EPSILON`]; its gradient is that of
/// [`lsq_plus`](crate::lsq_plus). The framework claims the targets, starts each of them with its first
/// values, trains, saves and restores scales and zero points, and leaves an ordinary quantization at
/// the end of the run.
///
/// # Laws
///
/// - A start has one scale and one zero point for each block, in row-major order; scales are finite
///   and positive, zero points finite. A violation is a [`QuantizationError::Unlawful`] (or
///   [`UnlawfulCount`](QuantizationError::UnlawfulCount)) with the name of the rule, in an
///   [`Error::Observation`](burn_compress_core::Error::Observation) with the target.
/// - Deterministic: the result depends on the arguments and on [`configuration`](Self::configuration)
///   alone.
///
/// ```
/// use burn_compress_core::{FlatTensor, Grid};
/// use burn_compress_quantization::{
///     LearnedQuantizer, LearnedRule, LearnedStart, QuantDtype, QuantScheme, QuantizationError,
/// };
///
/// /// Every scale begins at a sixteenth.
/// #[derive(Debug)]
/// struct Sixteenth;
///
/// impl LearnedRule for Sixteenth {
///     fn name(&self) -> &'static str {
///         "Sixteenth"
///     }
///
///     fn start(
///         &self,
///         _values: &FlatTensor,
///         grid: &Grid,
///         _dtype: QuantDtype,
///         _scheme: QuantScheme,
///     ) -> Result<LearnedStart, QuantizationError> {
///         Ok(LearnedStart {
///             scale: vec![0.0625; grid.len()],
///             zero_point: vec![0.0; grid.len()],
///         })
///     }
/// }
///
/// # use burn::nn::Linear;
/// # use burn::tensor::Tensor;
/// # use burn_compress_core::{Compressor, config::ConfigList};
/// # use burn_compress_quantization::QuantizationSettings;
/// # fn chain(
/// #     chain: Compressor<Linear, Tensor<2>>,
/// #     rules: &ConfigList<QuantizationSettings>,
/// # ) -> Result<Compressor<Linear, Tensor<2>>, burn_compress_core::Error> {
/// LearnedQuantizer::from_compressor(chain, rules, Sixteenth)
/// # }
/// ```
pub trait LearnedRule: fmt::Debug + Send + Sync + 'static {
    /// Name of the quantizer, in messages, checkpoints and the list of a chain's algorithms.
    fn name(&self) -> &'static str;

    /// Scale and zero point with which a target begins, from its first values: of a parameter those
    /// before the first step, of an input or output those of the first forward pass. The values are
    /// finite, in 32 bits and without gradients.
    ///
    /// # Errors
    ///
    /// Values that cannot be quantized, and a device that failed to hand them over.
    fn start(
        &self,
        values: &FlatTensor,
        grid: &Grid,
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> Result<LearnedStart, QuantizationError>;

    /// Settings of the rule that decide over the result. A chain whose rule has other settings does
    /// not resume from a checkpoint unasked.
    fn configuration(&self) -> Configuration {
        Configuration::default()
    }

    /// Scheme of a target: symmetric trains the scale alone, affine the zero point as well.
    ///
    /// # Errors
    ///
    /// A scheme that the rule does not support.
    fn scheme(
        &self,
        _target: &Target,
        settings: &QuantizationSettings,
    ) -> Result<QuantScheme, QuantizationError> {
        Ok(settings.scheme())
    }

    /// Learning rate of Adam for scales and zero points, `None` for the evaluator's optimizer.
    fn learning_rate(&self) -> Option<f64> {
        None
    }

    /// Whether zero points become integers of the type at the end of the run. Without it a zero does
    /// not stay a zero.
    fn round_zero_points(&self) -> bool {
        true
    }

    /// Rejects settings of the rule itself.
    ///
    /// # Errors
    ///
    /// A setting with a value that it cannot have.
    fn check(&self) -> Result<(), QuantizationError> {
        Ok(())
    }
}

/// Checks the laws of [`LearnedRule::start`].
pub(super) fn check_start(
    start: &LearnedStart,
    blocks: usize,
    rule: &'static str,
) -> Result<(), QuantizationError> {
    let LearnedStart { scale, zero_point } = start;
    let law = |what, law: &str, allowed: fn(f32) -> bool, values: &[f32]| {
        let mut found = values.iter().copied().enumerate();
        match found.find(|&(_, value)| !allowed(value)) {
            None => Ok(()),
            Some((block, value)) => Err(QuantizationError::Unlawful {
                rule: rule.to_string(),
                what,
                block,
                value,
                law: law.to_string(),
            }),
        }
    };
    for (what, values) in [("scale", scale), ("zero point", zero_point)] {
        if values.len() != blocks {
            return Err(QuantizationError::UnlawfulCount {
                rule: rule.to_string(),
                what,
                found: values.len(),
                blocks,
            });
        }
    }
    let positive = |value: f32| value.is_finite() && value > 0.0;
    law("scale", "a scale is finite and positive", positive, scale)?;
    let finite = "a zero point is finite";
    law("zero point", finite, f32::is_finite, zero_point)
}

/// Checks a setting that must be a positive number where it is given.
pub(crate) fn check_positive(
    key: &'static str,
    value: Option<f64>,
) -> Result<(), QuantizationError> {
    match value {
        Some(value) if !(value.is_finite() && value as f32 > 0.0) => {
            Err(QuantizationError::setting(key, value, "a positive number"))
        }
        _ => Ok(()),
    }
}
