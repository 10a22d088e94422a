//! The quantization state of a target and what follows its values during training.

use burn::tensor::{Device, Tensor, TensorData};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::run::reads::floats;
use crate::simulate::block::Grid;
use crate::simulate::flat::FlatTensor;
use crate::simulate::quant_dtype::{IntegerType, QuantDtype, QuantScheme, int32};
use crate::simulate::round_gradient::RoundGradient;
use crate::target::TargetId;

/// Follows the values of a quantized target during training and derives its scale and zero point.
///
/// Called with the raw value, before quantization and masking, once for each forward pass of an
/// input or output and once for each step of a parameter. An observer that only has to know that
/// values are in order leaves them on the device with [`reads::check`](crate::run::reads::check).
pub trait Observer: Send + Sync {
    /// Updates `quantization` from the values that the target takes.
    ///
    /// # Errors
    ///
    /// Why the values cannot be quantized, in words; the caller adds the target.
    fn observe(&self, values: &FlatTensor, quantization: &mut Quantization) -> Result<(), String>;
}

/// Quantization of one target: the integer range, the blocks and the values of each block.
///
/// `q = clamp(round(x / scale) + zero_point, qmin, qmax)`, `x' = (q - zero_point) * scale`; of the
/// type `int1`, which has no zero, `x' = sign(x) * scale` with `sign(0) = 1`.
#[derive(Clone, Debug)]
pub struct Quantization {
    /// Smallest integer of the type.
    pub qmin: f32,
    /// Largest integer of the type.
    pub qmax: f32,
    /// Integer type.
    pub dtype: IntegerType,
    /// Scheme.
    pub scheme: QuantScheme,
    /// The blocks that have a scale each.
    pub grid: Grid,
    /// Gradient of the rounding in the backward pass.
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
    pub fn new(dtype: impl Into<IntegerType>, scheme: QuantScheme, qmin: f32, qmax: f32) -> Self {
        Self {
            qmin,
            qmax,
            dtype: dtype.into(),
            scheme,
            grid: Grid::new([]),
            gradient: RoundGradient::StraightThrough,
            enabled: false,
            scale: None,
            zero_point: None,
            minimum: None,
            maximum: None,
        }
    }

    /// [`new`](Self::new) with the range of the type.
    pub fn of(dtype: QuantDtype, scheme: QuantScheme) -> Self {
        let (qmin, qmax) = (dtype.qmin(), dtype.qmax());
        Self::new(dtype.without_range(), scheme, qmin, qmax)
    }

    /// The quantization of a bias of 32 bits, with one scale for each of `channels`, which are not
    /// known yet.
    ///
    /// Of the `beta` of a wrapped batch norm, the scale is that of the accumulator in front of the
    /// norm, and what is rounded is the bias that the norm leaves when it is folded.
    pub fn int32(channels: usize) -> Self {
        let state = Self::new(
            IntegerType::Int32,
            QuantScheme::Symmetric,
            int32::MIN,
            int32::MAX,
        );
        state.with_grid(Grid::per_channel(1, 0, channels))
    }

    /// Whether the type is `int1`, whose only integers are -1 and 1: values are replaced by their
    /// sign times the scale, see [`binarize`](crate::simulate::fake_quantize::binarize).
    pub fn is_binary(&self) -> bool {
        self.dtype.is_binary()
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
        let host = |tensor: &Option<Tensor<1>>| tensor.clone().map(floats).transpose();
        Ok(CalibrationEntry {
            dtype: self.dtype.clone(),
            scheme: self.scheme,
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
    /// Integer type.
    pub dtype: IntegerType,
    /// Scheme.
    pub scheme: QuantScheme,
    /// Smallest integer of the type.
    pub qmin: f32,
    /// Largest integer of the type.
    pub qmax: f32,
    /// The blocks that have a scale each.
    pub grid: Grid,
    /// Gradient of the rounding in the backward pass.
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

/// Scales, zero points and ranges by target.
pub type Calibration = IndexMap<TargetId, CalibrationEntry>;

impl CalibrationEntry {
    /// The state that the entry describes, for a target of this shape if it is known.
    pub(crate) fn quantization_of(
        &self,
        target: &TargetId,
        shape: Option<Vec<usize>>,
        device: &Device,
    ) -> Result<Quantization, Error> {
        let state =
            self.to_quantization(device)
                .and_then(|state| match (&self.scale, &self.zero_point) {
                    (Some(_), None) => Err("it has scales without zero points".to_string()),
                    (None, Some(_)) => Err("it has zero points without scales".to_string()),
                    _ => Ok(state),
                });
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

    /// Whether the range holds integers, and those of the type, in words where it does not.
    fn check_integers(&self) -> Result<(), String> {
        let Self {
            dtype, qmin, qmax, ..
        } = self;
        for (name, bound) in [("qmin", *qmin), ("qmax", *qmax)] {
            // Also a NaN and an infinity have no fraction of zero.
            if bound.fract() != 0.0 {
                return Err(format!("`{name}` is {bound}, but it must be an integer"));
            }
        }
        if qmin >= qmax {
            return Err(format!("the range {qmin}..{qmax} is empty"));
        }
        match integers(&dtype.to_string()) {
            Some((lowest, highest)) if !lowest.contains(qmin) || *qmax != highest => {
                let lowest = lowest.map(|bound| bound.to_string()).join(" or ");
                Err(format!(
                    "the range {qmin}..{qmax} is not that of `{dtype}`, which begins with {lowest} \
                     and ends with {highest}: correct the type or the range"
                ))
            }
            _ => Ok(()),
        }
    }

    /// The quantization state on a device.
    ///
    /// # Errors
    ///
    /// In words: a list of values that does not have one entry a block, a value that is not finite,
    /// a scale that is not positive, and a range that is empty, is not one of integers or is
    /// another than that of the type. A signed type may begin with its smallest integer or the one
    /// above it, `int8` with -128 or -127; types with other names than `intN` and `uintN` may have
    /// any range.
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
        self.check_integers()?;
        let ranges = self.minimum.iter().flatten();
        let mut ranges = ranges.zip(self.maximum.iter().flatten());
        if let Some((minimum, maximum)) = ranges.find(|(minimum, maximum)| minimum > maximum) {
            return Err(format!(
                "a minimum is {minimum}, more than its maximum {maximum}"
            ));
        }
        Ok(Quantization {
            qmin: self.qmin,
            qmax: self.qmax,
            dtype: self.dtype.clone(),
            scheme: self.scheme,
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

/// The integers that a type of this name can begin with, and the one that it ends with; `None` for
/// a name other than `intN` or `uintN`, or more bits than an `f32` counts.
fn integers(dtype: &str) -> Option<([f32; 2], f32)> {
    const EXACT: u32 = 24;
    let (signed, bits) = match dtype.strip_prefix('u') {
        Some(rest) => (false, rest.strip_prefix("int")?),
        None => (true, dtype.strip_prefix("int")?),
    };
    let bits: u32 = bits
        .parse()
        .ok()
        .filter(|bits| (1..=EXACT).contains(bits))?;
    let end = |bits: u32| ((1u32 << bits) - 1) as f32;
    Some(match (signed, bits) {
        // A bit of its own is the sign of a one.
        (true, 1) => ([-1.0, -1.0], 1.0),
        (true, bits) => ([-end(bits - 1) - 1.0, -end(bits - 1)], end(bits - 1)),
        (false, bits) => ([0.0, 0.0], end(bits)),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn entry(dtype: &str, qmin: f32, qmax: f32) -> CalibrationEntry {
        let state = Quantization::new(dtype, QuantScheme::Symmetric, qmin, qmax);
        CalibrationEntry {
            scale: Some(vec![0.5]),
            zero_point: Some(vec![0.0]),
            enabled: true,
            ..state.to_calibration().unwrap()
        }
    }

    #[rstest]
    #[case("int8", -127.0, 127.0)]
    #[case("int8", -128.0, 127.0)]
    #[case("uint8", 0.0, 255.0)]
    #[case("int4", -7.0, 7.0)]
    #[case("int1", -1.0, 1.0)]
    #[case("uint1", 0.0, 1.0)]
    #[case("int16", -32767.0, 32767.0)]
    #[case("ternary", -1.0, 1.0)]
    fn ranges_of_types(#[case] dtype: &str, #[case] qmin: f32, #[case] qmax: f32) {
        let entry = entry(dtype, qmin, qmax);
        entry.to_quantization(&Device::flex()).unwrap();
    }

    #[rstest]
    #[case("int4", -127.0, 127.0, "-127..127 is not that of `int4`, which begins with -8 or -7")]
    #[case("int8", -7.0, 7.0, "and ends with 127")]
    #[case("int8", 0.0, 255.0, "0..255 is not that of `int8`")]
    #[case("uint8", -127.0, 127.0, "is not that of `uint8`")]
    #[case("int1", 0.0, 1.0, "is not that of `int1`")]
    #[case("int8", -127.0, f32::NAN, "`qmax` is NaN")]
    #[case("int8", f32::NEG_INFINITY, 127.0, "`qmin` is -inf")]
    #[case("int8", -127.5, 127.0, "`qmin` is -127.5")]
    #[case("int8", 127.0, -127.0, "127..-127 is empty")]
    #[case("mine", 0.0, f32::NAN, "`qmax` is NaN")]
    #[case("mine", 3.0, 3.0, "3..3 is empty")]
    fn ranges_that_are_none(
        #[case] dtype: &str,
        #[case] qmin: f32,
        #[case] qmax: f32,
        #[case] expected: &str,
    ) {
        let error = entry(dtype, qmin, qmax).to_quantization(&Device::flex());
        let error = error.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn values_that_contradict_each_other() {
        let mut inverted = entry("int8", -127.0, 127.0);
        inverted.minimum = Some(vec![2.0]);
        inverted.maximum = Some(vec![-1.0]);
        let error = inverted.to_quantization(&Device::flex()).unwrap_err();
        assert_eq!(error, "a minimum is 2, more than its maximum -1");

        let target: TargetId = "fc.weight".parse().unwrap();
        let mut half = entry("int8", -127.0, 127.0);
        half.zero_point = None;
        let error = half.quantization_of(&target, None, &Device::flex());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("`fc.weight`: it has scales without"),
            "{error}"
        );
    }
}
