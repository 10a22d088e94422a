//! Learned step size quantization (LSQ): the scale is trained with the model.
//!
//! The choice for few bits, where the range of the values is a poor scale: training weighs what
//! clipping costs against what a coarse grid costs, for the loss of the task. Each block of a target
//! has a scale `s`; the zero point is 0, also of unsigned types, which fit values that are not
//! negative.
//!
//! ```text
//! x'      =  round(clamp(x / s, qmin, qmax)) s
//! dx'/dx  =  1 where qmin <= x / s <= qmax, else 0
//! dx'/ds  =  g (round(x / s) - x / s) inside the range, g qmin below it, g qmax above it
//! g       =  1 / sqrt(qmax n)     with the n values of the tensor
//! start   =  2 mean|x| / sqrt(qmax)    of the block, over the first values that are seen
//! ```
//!
//! The evaluator's optimizer trains the scales along with the model, weight decay included; give them
//! a learning rate of their own with [`LsqConfig::with_learning_rate`]. A scale is the magnitude of
//! the number that is trained, and at least [`f32::EPSILON`], so that no step makes it negative. At
//! the end of the run the scales become the ordinary quantization of their targets. Of a layer that a
//! batch norm is folded into ([`fuse`](QuantizationSettings::fuse)), the values are the folded ones.
//!
//! # References
//!
//! Esser et al., *Learned Step Size Quantization*, arXiv 1902.08153. Deviations: `n` counts all
//! values of an input or output, batch included, as in NNI (the paper: those of one sample), so the
//! gradient of a mean over the batch is divided by the root of the batch size once more. A block of
//! zeros begins with 0.01. NNI begins with 0.01 everywhere: [`LsqInit::Constant`]. One unsigned bit
//! needs the affine scheme and with it [`LsqPlusQuantizer`](crate::LsqPlusQuantizer).

use burn::config::Config;
use burn::tensor::Tensor;
use burn_compress_core::{Configuration, FlatTensor, Grid, QuantDtype, QuantScheme, Target};
use serde::{Deserialize, Serialize};

use super::learned::{
    LearnedQuantizer, LearnedRule, LearnedStart, check_positive, checked_quantize,
};
use crate::qparams::host;
use crate::{QuantizationError, QuantizationSettings, blocks};

/// Start of a block that holds nothing but zeros.
pub(super) const START_OF_ZEROS: f32 = 0.01;

/// Start of learned scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LsqInit {
    /// At the values: of a parameter those before the first step, of an input or output those of
    /// the first forward pass.
    #[default]
    Data,
    /// At this positive number, whatever the values. NNI begins with 0.01.
    Constant(f64),
}

impl LsqInit {
    /// Checks that the constant is positive.
    pub(super) fn check(self) -> Result<(), QuantizationError> {
        check_positive(
            "init",
            match self {
                Self::Data => None,
                Self::Constant(scale) => Some(scale),
            },
        )
    }

    /// The start at a constant, with the zero point of NNI.
    pub(super) fn constant(self, grid: &Grid, dtype: QuantDtype) -> Option<LearnedStart> {
        match self {
            Self::Data => None,
            Self::Constant(scale) => Some(LearnedStart {
                scale: vec![scale as f32; grid.len()],
                zero_point: vec![(dtype.qmax() - dtype.qmin()) / 2.0; grid.len()],
            }),
        }
    }
}

/// Settings of a [`LsqQuantizer`].
#[derive(Config, Debug, Copy)]
pub struct LsqConfig {
    /// Start of the scales.
    #[config(default = "LsqInit::Data")]
    pub init: LsqInit,
    /// Learning rate of Adam for the scales, in place of the evaluator's optimizer.
    #[config(default = "None")]
    pub learning_rate: Option<f64>,
}

/// Trains a model with simulated quantization whose scales are trained, too.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{LsqConfig, LsqQuantizer, QuantizationSettings};
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
///     r#"[{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int4",
///          "granularity": "out_channel"}]"#,
/// )?;
/// let quantizer = LsqQuantizer::new(model, &config, evaluator, LsqConfig::new())?;
/// let compressed = quantizer.compress(Budget::steps(3))?;
/// let scales = &compressed.calibration()?[0].scale;
/// assert_eq!(scales.as_ref().map(Vec::len), Some(2)); // one for each output channel
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type LsqQuantizer = LearnedQuantizer<LsqConfig>;

/// Rounds `value` to the grid of its learned scales.
///
/// Gradients flow to `value` and to `scale` by the formulas of this module.
///
/// # Shapes
///
/// - value: any shape that the grid divides
/// - scale: `[grid.len()]`, row-major
/// - result: the shape of `value`
///
/// # Errors
///
/// [`QuantizationError::Grid`] when the grid does not divide the shape, or when there is not one
/// scale for each block.
pub fn quantize(
    value: FlatTensor,
    grid: &Grid,
    scale: Tensor<1>,
    dtype: QuantDtype,
) -> Result<FlatTensor, QuantizationError> {
    let zero_point = scale.clone().detach().without_autodiff().zeros_like();
    checked_quantize(value, grid, scale, zero_point, dtype)
}

impl LearnedRule for LsqConfig {
    fn name(&self) -> &'static str {
        "LsqQuantizer"
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

    fn scheme(
        &self,
        _target: &Target,
        settings: &QuantizationSettings,
    ) -> Result<QuantScheme, QuantizationError> {
        match settings.scheme() {
            QuantScheme::Symmetric => Ok(QuantScheme::Symmetric),
            QuantScheme::Affine => Err(QuantizationError::setting(
                "quant_scheme",
                QuantScheme::Affine,
                "LSQ learns no zero point, use `symmetric` or the quantizer of LSQ+",
            )),
        }
    }

    /// `2 mean|x| / sqrt(qmax)`.
    fn start(
        &self,
        values: &FlatTensor,
        grid: &Grid,
        dtype: QuantDtype,
        _scheme: QuantScheme,
    ) -> Result<LearnedStart, QuantizationError> {
        if let Some(constant) = self.init.constant(grid, dtype) {
            return Ok(constant);
        }
        let magnitudes = values.clone().map(Tensor::abs);
        let mean = host(blocks::mean(&magnitudes, grid)?)?;
        let start = |mean: &f32| match 2.0 * mean / dtype.qmax().sqrt() {
            scale if scale > 0.0 => scale,
            _ => START_OF_ZEROS,
        };
        Ok(LearnedStart {
            scale: mean.iter().map(start).collect(),
            zero_point: vec![0.0; mean.len()],
        })
    }
}

#[cfg(test)]
mod tests;
