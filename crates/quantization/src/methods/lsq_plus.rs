//! LSQ+: scale and zero point are trained with the model.
//!
//! The choice for few bits and values that are not symmetric, such as those behind Swish, GELU or a
//! leaky ReLU, whose negative side is short: an unsigned type would cut it off, a signed one would
//! waste half of its integers on it. Each block of a target has a scale `s` and, with the affine
//! scheme, a zero point `z` that is no integer.
//!
//! ```text
//! p       =  x / s + z,  q = round(p - floor(z)) + floor(z)
//! x'      =  (clamp(q, qmin, qmax) - z) s
//! dx'/dx  =  1 where qmin <= p <= qmax, else 0
//! dx'/ds  =  g (q - p) inside the range, g (qmin - z) below it, g (qmax - z) above it
//! dx'/dz  =  0 inside, -s outside
//! g       =  1 / sqrt(qmax n)     with the n values of the tensor
//!
//! start, affine     s = (mx - mn) / (qmax - qmin),  z = qmin - mn / s
//!                   with mn = min(min x, 0) and mx = max(max x, 0)
//! start, symmetric  s = (|mean x| + 3 std x) / qmax,      z = 0 for good
//! ```
//!
//! Where `quant_scheme` is absent, inputs and outputs are affine and parameters symmetric, as in the
//! paper: a zero point of weights would cost a correction of each output at inference.
//!
//! The evaluator's optimizer trains scales and zero points along with the model, weight decay
//! included; give them a learning rate of their own with [`LsqPlusConfig::with_learning_rate`]. A
//! scale is the magnitude of the number that is trained, and at least [`f32::EPSILON`], so that no
//! step makes it negative. At the end of the run they become the ordinary quantization of their
//! targets; zero points are then rounded and brought into `qmin..=qmax`, as integer kernels need it and
//! as zero must stay zero where channels are removed. [`LsqPlusConfig::with_round_zero_points`] leaves
//! them as they were trained.
//! Of a layer that a batch norm is folded into ([`fuse`](QuantizationSettings::fuse)), the values are
//! the folded ones.
//!
//! # References
//!
//! Bhalgat et al., *LSQ+: Improving low-bit quantization through learnable offsets and better
//! initialization*, arXiv 2004.09576. Deviations, as in NNI: what is trained is `z` and not the
//! offset `-z s`, without the factor `g`; `n` counts all values of an input or output, batch included.
//! Weights begin with the divisor `qmax`, since the smallest signed integer is not used (the paper:
//! `2^(bits - 1)`), activations at their extremes, widened to hold zero (the paper does not widen them,
//! and also offers the least squared error).
//! NNI begins with 0.01 and `z = (qmax - qmin) / 2`: [`LsqInit::Constant`]. Of a signed type that is
//! `qmax`, so that all positive values are cut off until `z` has moved.

use burn::config::Config;
use burn::tensor::Tensor;
use burn_compress_core::{Configuration, FlatTensor, Grid, QuantDtype, QuantScheme, Target};

use super::learned::{LearnedQuantizer, LearnedRule, LearnedStart, checked_quantize};
use super::lsq::{LsqInit, START_OF_ZEROS};
use crate::qparams::host;
use crate::{QuantizationError, QuantizationSettings, blocks};

/// Settings of a [`LsqPlusQuantizer`].
#[derive(Config, Debug, Copy)]
pub struct LsqPlusConfig {
    /// Start of scales and zero points.
    #[config(default = "LsqInit::Data")]
    pub init: LsqInit,
    /// Learning rate of Adam for scales and zero points, in place of the evaluator's optimizer.
    #[config(default = "None")]
    pub learning_rate: Option<f64>,
    /// Whether zero points become integers of the type at the end of the run.
    #[config(default = true)]
    pub round_zero_points: bool,
}

/// Trains a model with simulated quantization whose scales and zero points are trained, too.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{LsqPlusConfig, LsqPlusQuantizer, QuantizationSettings};
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
///     .with_learning_rate(0.01)
///     .with_loss(|model: &Net, batch: &Tensor<2>| model.fc.forward(batch.clone()).square().mean());
/// let config = ConfigList::<QuantizationSettings>::from_json(
///     r#"[{"op_types": ["Linear"], "quant_dtype": "uint4", "target_names": ["_input_0"]}]"#,
/// )?;
/// let quantizer = LsqPlusQuantizer::new(model, &config, evaluator, LsqPlusConfig::new())?;
/// let compressed = quantizer.compress(Budget::steps(3))?;
/// let input = &compressed.calibration()?[0];
/// assert!(input.scale.is_some() && input.zero_point.is_some());
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type LsqPlusQuantizer = LearnedQuantizer<LsqPlusConfig>;

/// Rounds `value` to the grid of its learned scales and zero points.
///
/// Gradients flow to `value`, `scale` and `zero_point` by the formulas of this module.
///
/// # Shapes
///
/// - value: any shape that the grid divides
/// - scale, zero_point: `[grid.len()]`, row-major
/// - result: the shape of `value`
///
/// # Errors
///
/// [`QuantizationError::Grid`] when the grid does not divide the shape, or when there is not one
/// scale and one zero point for each block.
pub fn quantize(
    value: FlatTensor,
    grid: &Grid,
    scale: Tensor<1>,
    zero_point: Tensor<1>,
    dtype: QuantDtype,
) -> Result<FlatTensor, QuantizationError> {
    checked_quantize(value, grid, scale, zero_point, dtype)
}

impl LearnedRule for LsqPlusConfig {
    fn name(&self) -> &'static str {
        "LsqPlusQuantizer"
    }

    fn configuration(&self) -> Configuration {
        Configuration::of(self)
    }

    fn check(&self) -> Result<(), QuantizationError> {
        self.init.check()
    }

    fn learning_rate(&self) -> Option<f64> {
        self.learning_rate
    }

    fn round_zero_points(&self) -> bool {
        self.round_zero_points
    }

    fn scheme(
        &self,
        target: &Target,
        settings: &QuantizationSettings,
    ) -> Result<QuantScheme, QuantizationError> {
        let default = match target.is_param() {
            true => QuantScheme::Symmetric,
            false => QuantScheme::Affine,
        };
        Ok(settings.quant_scheme.unwrap_or(default))
    }

    fn start(
        &self,
        values: &FlatTensor,
        grid: &Grid,
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> Result<LearnedStart, QuantizationError> {
        if let Some(constant) = self.init.constant(grid, dtype) {
            return Ok(constant);
        }
        match scheme {
            QuantScheme::Affine => {
                let (minimum, maximum) = blocks::range(values, grid)?;
                let ranges = host(Tensor::cat(vec![minimum, maximum], 0))?;
                let (minimum, maximum) = ranges.split_at(grid.len());
                let starts = minimum.iter().zip(maximum);
                let (scale, zero_point) =
                    starts.map(|(&min, &max)| of_range(min, max, dtype)).unzip();
                Ok(LearnedStart { scale, zero_point })
            }
            QuantScheme::Symmetric => {
                let mean = blocks::mean(values, grid)?;
                let spread = grid.expand(mean.clone(), &values.shape);
                let squares = values.clone().map(|values| (values - spread).square());
                let deviation = blocks::mean(&squares, grid)?.sqrt();
                let reach = host(mean.abs() + deviation * 3.0)?;
                let start = |reach: &f32| match reach / dtype.qmax() {
                    scale if scale > 0.0 => scale,
                    _ => START_OF_ZEROS,
                };
                Ok(LearnedStart {
                    scale: reach.iter().map(start).collect(),
                    zero_point: vec![0.0; reach.len()],
                })
            }
        }
    }
}

/// Scale and zero point that lay a range and zero over all integers.
fn of_range(minimum: f32, maximum: f32, dtype: QuantDtype) -> (f32, f32) {
    let (minimum, maximum) = (minimum.min(0.0), maximum.max(0.0));
    match (maximum - minimum) / (dtype.qmax() - dtype.qmin()) {
        scale if scale > 0.0 => (scale, dtype.qmin() - minimum / scale),
        _ => (START_OF_ZEROS, 0.0),
    }
}

#[cfg(test)]
mod tests;
