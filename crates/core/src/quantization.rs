//! The quantization state of a target and what follows its values during training.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::block::Grid;
use crate::fake_quantize::RoundGradient;
use crate::flat::{FlatTensor, read};
use crate::target::TargetId;

/// Follows the values of a quantized target during training and derives its scale and zero point.
///
/// Called with the raw value, before quantization and masking, once for each forward pass of an
/// input or output and once for each step of a parameter.
pub trait Observer: Send + Sync {
    /// Updates `quantization` from the values that the target takes.
    ///
    /// # Errors
    ///
    /// Why the values cannot be quantized, in words; the caller adds the target.
    fn observe(&self, values: &FlatTensor, quantization: &mut Quantization) -> Result<(), String>;
}

/// How one target is quantized: the integer range, the blocks and the values of each block.
///
/// `q = round(clamp(zero_point + x / scale, qmin, qmax))`, `x' = (q - zero_point) * scale`; of the
/// type `int1`, which has no zero, `x' = sign(x) * scale` with `sign(0) = 1`.
#[derive(Clone, Debug)]
pub struct Quantization {
    /// Smallest integer of the type.
    pub qmin: f32,
    /// Largest integer of the type.
    pub qmax: f32,
    /// Name of the type, for example `int8`.
    pub dtype: String,
    /// Name of the scheme, for example `symmetric`.
    pub scheme: String,
    /// The blocks that have a scale each.
    pub grid: Grid,
    /// What the rounding lets through in the backward pass.
    pub gradient: RoundGradient,
    /// Whether the simulation acts; a quantizer may track ranges before it does.
    pub enabled: bool,
    /// One scale for each block, `[grid.len()]`.
    pub scale: Option<Tensor<1>>,
    /// One zero point for each block, `[grid.len()]`.
    pub zero_point: Option<Tensor<1>>,
    /// Tracked smallest value of each block, `[grid.len()]`.
    pub minimum: Option<Tensor<1>>,
    /// Tracked largest value of each block, `[grid.len()]`.
    pub maximum: Option<Tensor<1>>,
}

impl Quantization {
    /// A quantization that does nothing until an observer or a calibration gives it a scale.
    pub fn new(dtype: impl Into<String>, scheme: impl Into<String>, qmin: f32, qmax: f32) -> Self {
        Self {
            qmin,
            qmax,
            dtype: dtype.into(),
            scheme: scheme.into(),
            grid: Grid::new([]),
            gradient: RoundGradient::StraightThrough,
            enabled: false,
            scale: None,
            zero_point: None,
            minimum: None,
            maximum: None,
        }
    }

    /// Whether the type is `int1`, whose only integers are -1 and 1: values are replaced by their
    /// sign times the scale, see [`binarize`](crate::fake_quantize::binarize).
    pub fn is_binary(&self) -> bool {
        self.dtype == "int1"
    }

    /// Sets the blocks.
    pub fn with_grid(mut self, grid: Grid) -> Self {
        self.grid = grid;
        self
    }

    /// Sets the gradient of the rounding.
    pub fn with_gradient(mut self, gradient: RoundGradient) -> Self {
        self.gradient = gradient;
        self
    }

    /// Scale and zero point, when the simulation acts.
    pub(crate) fn active_parameters(&self) -> Option<(Tensor<1>, Tensor<1>)> {
        match (&self.scale, &self.zero_point) {
            (Some(scale), Some(zero_point)) if self.enabled => {
                Some((scale.clone(), zero_point.clone()))
            }
            _ => None,
        }
    }

    /// The state as plain numbers.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub fn to_calibration(&self) -> Result<CalibrationEntry, Error> {
        let host = |tensor: &Option<Tensor<1>>| tensor.clone().map(read).transpose();
        Ok(CalibrationEntry {
            dtype: self.dtype.clone(),
            scheme: self.scheme.clone(),
            qmin: self.qmin,
            qmax: self.qmax,
            grid: self.grid.clone(),
            gradient: self.gradient,
            enabled: self.enabled,
            scale: host(&self.scale)?,
            zero_point: host(&self.zero_point)?,
            minimum: host(&self.minimum)?,
            maximum: host(&self.maximum)?,
        })
    }
}

/// The quantization of one target as plain numbers, as saved and exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationEntry {
    /// Name of the integer type, for example `int8`.
    pub dtype: String,
    /// `symmetric` or `affine`.
    pub scheme: String,
    /// Smallest integer of the type.
    pub qmin: f32,
    /// Largest integer of the type.
    pub qmax: f32,
    /// The blocks that have a scale each.
    pub grid: Grid,
    /// What the rounding lets through in the backward pass.
    #[serde(default)]
    pub gradient: RoundGradient,
    /// Whether the simulation acts.
    pub enabled: bool,
    /// One scale for each block; absent while nothing was calibrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Vec<f32>>,
    /// One zero point for each block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_point: Option<Vec<f32>>,
    /// Tracked smallest value of each block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Vec<f32>>,
    /// Tracked largest value of each block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Vec<f32>>,
}

impl CalibrationEntry {
    /// The state that the entry describes, for a target of this shape if it is known.
    pub(crate) fn quantization_of(
        &self,
        target: &TargetId,
        shape: Option<Vec<usize>>,
        device: &Device,
    ) -> Result<Quantization, Error> {
        let state = self.to_quantization(device);
        let fits = |state| match shape {
            Some(shape) => self.check_shape(&shape).map(|()| state),
            None => Ok(state),
        };
        state
            .and_then(fits)
            .map_err(|reason| Error::InvalidCalibration {
                target: target.clone(),
                reason,
            })
    }

    /// Whether the blocks tile a target of this shape, in words where they do not.
    fn check_shape(&self, shape: &[usize]) -> Result<(), String> {
        let blocks = self.grid.blocks();
        let tiles = blocks.len() == shape.len()
            && shape
                .iter()
                .zip(blocks)
                .all(|(size, &blocks)| blocks > 0 && size % blocks == 0);
        // No dimension at all is one block for everything.
        match tiles || blocks.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "the grid {blocks:?} does not divide the shape {shape:?}"
            )),
        }
    }

    /// The quantization state on a device.
    ///
    /// # Errors
    ///
    /// A list of values that does not have one entry a block, or a scale that is not positive and
    /// finite, in words.
    pub fn to_quantization(&self, device: &Device) -> Result<Quantization, String> {
        let blocks = self.grid.len();
        let load = |name: &str, values: &Option<Vec<f32>>| -> Result<Option<Tensor<1>>, String> {
            let Some(values) = values else {
                return Ok(None);
            };
            if values.len() != blocks {
                return Err(format!(
                    "{} {name} values for {blocks} blocks",
                    values.len()
                ));
            }
            if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
                return Err(format!("a {name} is {bad}"));
            }
            Ok(Some(Tensor::from_data(
                TensorData::from(values.as_slice()),
                device,
            )))
        };
        if self.grid.is_empty() {
            return Err(format!("the grid {:?} has no block", self.grid.blocks()));
        }
        if let Some(bad) = self.scale.iter().flatten().find(|&&scale| scale <= 0.0) {
            return Err(format!("a scale is {bad}, but scales are positive"));
        }
        if self.qmin >= self.qmax {
            return Err(format!("the range {}..{} is empty", self.qmin, self.qmax));
        }
        Ok(Quantization {
            qmin: self.qmin,
            qmax: self.qmax,
            dtype: self.dtype.clone(),
            scheme: self.scheme.clone(),
            grid: self.grid.clone(),
            gradient: self.gradient,
            enabled: self.enabled,
            scale: load("scale", &self.scale)?,
            zero_point: load("zero point", &self.zero_point)?,
            minimum: load("minimum", &self.minimum)?,
            maximum: load("maximum", &self.maximum)?,
        })
    }
}
