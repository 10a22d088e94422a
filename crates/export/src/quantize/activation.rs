//! The quantizer of an activation as `QuantizeLinear` and `DequantizeLinear` execute it.
//!
//! ```text
//! q  = saturate(round(x / s) + z)          round half to even, saturate to -128..127 or 0..255
//! x' = (q - z) s
//! ```
//!
//! The operators know two ranges. A narrower one is reached by clipping `x` before:
//!
//! ```text
//! saturate(round(clip(x, (qmin - z) s, (qmax - z) s) / s) + z) = clamp(round(x / s) + z, qmin, qmax)
//! ```
//!
//! One range is not worth a clip: `-127..127`, whose values below `-127.5 s` become -128 in the file
//! and -127 in the simulation.

use burn_compress_core::{CalibrationEntry, TargetId};

use super::refusal::Refusal;
use super::target::OnnxTarget;

/// Storage of eight bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    Int8,
    Uint8,
}

impl Storage {
    /// Smallest integer.
    pub fn lowest(self) -> i32 {
        match self {
            Self::Int8 => -128,
            Self::Uint8 => 0,
        }
    }

    /// Largest integer.
    pub fn highest(self) -> i32 {
        self.lowest() + 255
    }

    /// The name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
        }
    }
}

/// A quantizer with one scale for a whole tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Activation {
    pub storage: Storage,
    pub scale: f32,
    pub zero: i32,
    pub qmin: i32,
    pub qmax: i32,
}

impl Activation {
    /// The quantizer of an input or output, `None` where it does not act.
    ///
    /// # Errors
    ///
    /// Everything about it that the target cannot execute.
    pub fn new(
        path: &TargetId,
        entry: &CalibrationEntry,
        target: OnnxTarget,
    ) -> Result<Option<Self>, Vec<Refusal>> {
        let (Some(scales), Some(zeros)) = (&entry.scale, &entry.zero_point) else {
            return Ok(None);
        };
        if !entry.enabled {
            return Ok(None);
        }
        let mut refusals = Vec::new();
        let mut refuse = |found: String, remedy: &str| {
            refusals.push(Refusal::new(path, found, remedy));
        };
        if entry.dtype.is_binary() {
            refuse(
                "its type is int1, and no operator of ONNX rounds to signs".to_string(),
                "quantize it to 8 bits or leave it in floating point",
            );
        }
        let storage = match (entry.qmin, entry.qmax) {
            (qmin, qmax) if qmin >= 0.0 && qmax <= 255.0 => Some(Storage::Uint8),
            (qmin, qmax) if qmin >= -128.0 && qmax <= 127.0 => Some(Storage::Int8),
            _ => None,
        };
        if storage.is_none() {
            refuse(
                format!("its type {} has more than 8 bits", entry.dtype),
                "quantize it to `int8` or `uint8`",
            );
        }
        if entry.grid.len() != 1 {
            let blocks = entry.grid.blocks();
            let split = blocks.iter().filter(|&&count| count > 1).count();
            let what = if split == 1 { "channel" } else { "block" };
            refuse(
                format!("it has {} scales, one a {what}", entry.grid.len()),
                "use the granularity `default`, one scale for the whole tensor",
            );
        }
        if let Some(bad) = scales.iter().find(|scale| !is_scale(**scale)) {
            refuse(
                format!("its scale {bad:e} is not a positive normal f32"),
                "calibrate it on data that it is not zero for, or do not quantize it",
            );
        }
        if let Some(bad) = zeros
            .iter()
            .find(|zero| zero.fract() != 0.0 || !zero.is_finite())
        {
            refuse(
                format!("its zero point {bad} is not an integer"),
                "round it, or use a quantizer with integer zero points (`QatQuantizer`, `LsqQuantizer`)",
            );
        } else if let Some(storage) = storage {
            let range = storage.lowest() as f32..=storage.highest() as f32;
            if let Some(bad) = zeros.iter().find(|zero| !range.contains(zero)) {
                refuse(
                    format!("its zero point {bad} is no {}", storage.name()),
                    "calibrate it again with a range that holds zero",
                );
            }
        }
        if !target.takes_zero_points() {
            if storage == Some(Storage::Uint8) {
                refuse(
                    format!("its type is {}, and {target} takes int8 only", entry.dtype),
                    "quantize it to `int8` with the scheme `symmetric`",
                );
            } else if let Some(bad) = zeros.iter().find(|zero| **zero != 0.0) {
                refuse(
                    format!("its zero point is {bad}, and {target} takes 0 only"),
                    "quantize it with the scheme `symmetric`",
                );
            }
        }
        match (storage, refusals.is_empty(), scales.first(), zeros.first()) {
            (Some(storage), true, Some(&scale), Some(&zero)) => Ok(Some(Self {
                storage,
                scale,
                zero: zero as i32,
                qmin: entry.qmin as i32,
                qmax: entry.qmax as i32,
            })),
            _ => Err(refusals),
        }
    }

    /// Whether the range ends at -127 where the type ends at -128.
    pub fn leaves_lowest_out(&self) -> bool {
        self.storage == Storage::Int8 && (self.qmin, self.qmax) == (-127, 127)
    }

    /// The values between which a narrower range is, `None` where the type's own range does.
    pub fn clip(&self) -> Option<(f32, f32)> {
        let whole = (self.storage.lowest(), self.storage.highest());
        let bound = |q: i32| ((f64::from(q) - f64::from(self.zero)) * f64::from(self.scale)) as f32;
        match (self.qmin, self.qmax) == whole || self.leaves_lowest_out() {
            true => None,
            false => Some((bound(self.qmin), bound(self.qmax))),
        }
    }

    /// The integer of a value.
    pub fn quantize(&self, x: f32) -> i32 {
        let q = (x / self.scale).round_ties_even() + self.zero as f32;
        q.clamp(self.storage.lowest() as f32, self.storage.highest() as f32) as i32
    }
}

/// Whether an `f32` is a scale that no runtime flushes to zero.
pub(crate) fn is_scale(scale: f32) -> bool {
    scale.is_normal() && scale > 0.0
}

#[cfg(test)]
mod tests {
    use burn_compress_core::{Grid, QuantScheme, Quantization};
    use rstest::rstest;

    use super::*;

    fn entry(dtype: &str, range: (f32, f32), scale: &[f32], zero: &[f32]) -> CalibrationEntry {
        let state = Quantization::new(dtype, QuantScheme::Affine, range.0, range.1);
        let state = state.with_grid(Grid::new([1, scale.len()]));
        CalibrationEntry {
            scale: Some(scale.to_vec()),
            zero_point: Some(zero.to_vec()),
            enabled: true,
            ..state.to_calibration().unwrap()
        }
    }

    fn refusals(entry: &CalibrationEntry, target: OnnxTarget) -> Vec<String> {
        let path = "conv._input_0".parse().unwrap();
        let refusals = Activation::new(&path, entry, target).unwrap_err();
        refusals.iter().map(ToString::to_string).collect()
    }

    const U8: (f32, f32) = (0.0, 255.0);
    const S8: (f32, f32) = (-128.0, 127.0);

    #[rstest]
    #[case("uint8", U8, 0.5, 0.0, Storage::Uint8, None)]
    #[case("int8", S8, 0.5, -128.0, Storage::Int8, None)]
    #[case("int8", (-127.0, 127.0), 0.5, 0.0, Storage::Int8, None)]
    // 0..15 about 8: (0 - 8) 0.5 and (15 - 8) 0.5.
    #[case("uint4", (0.0, 15.0), 0.5, 8.0, Storage::Uint8, Some((-4.0, 3.5)))]
    #[case("int4", (-7.0, 7.0), 2.0, 0.0, Storage::Int8, Some((-14.0, 14.0)))]
    fn ranges(
        #[case] dtype: &str,
        #[case] range: (f32, f32),
        #[case] scale: f32,
        #[case] zero: f32,
        #[case] storage: Storage,
        #[case] clip: Option<(f32, f32)>,
    ) {
        let path = "conv._input_0".parse().unwrap();
        let entry = entry(dtype, range, &[scale], &[zero]);
        let found = Activation::new(&path, &entry, OnnxTarget::OnnxRuntime);
        let found = found.unwrap().unwrap();
        assert_eq!((found.storage, found.clip()), (storage, clip));
    }

    #[rstest]
    // 0.5, 1.5 and 2.5 are rounded to 0, 2 and 2 before the odd zero point is added.
    #[case(0.5, 1)]
    #[case(1.5, 3)]
    #[case(2.5, 3)]
    #[case(-0.5, 1)]
    #[case(-1.5, -1)]
    #[case(1000.0, 127)]
    #[case(-1000.0, -128)]
    fn halves_are_rounded_before_the_zero_point(#[case] x: f32, #[case] expected: i32) {
        let activation = Activation {
            storage: Storage::Int8,
            scale: 1.0,
            zero: 1,
            qmin: -128,
            qmax: 127,
        };
        assert_eq!(activation.quantize(x), expected);
    }

    #[test]
    fn what_does_not_act_is_none() {
        let path = "conv._input_0".parse().unwrap();
        let mut off = entry("int8", S8, &[1.0], &[0.5]);
        off.enabled = false;
        assert_eq!(Activation::new(&path, &off, OnnxTarget::TensorRt), Ok(None));
        let mut raw = entry("int8", S8, &[1.0], &[0.0]);
        raw.scale = None;
        assert_eq!(Activation::new(&path, &raw, OnnxTarget::TensorRt), Ok(None));
    }

    #[rstest]
    #[case("uint8", U8, &[0.5, 0.25], &[0.0, 0.0], "it has 2 scales, one a channel; use the granularity")]
    #[case("int1", (-1.0, 1.0), &[0.5], &[0.0], "its type is int1")]
    #[case("int16", (-32767.0, 32767.0), &[0.5], &[0.0], "its type int16 has more than 8 bits")]
    #[case("uint8", U8, &[1e-39], &[0.0], "its scale 1e-39 is not a positive normal f32")]
    #[case("uint8", U8, &[f32::INFINITY], &[0.0], "its scale inf is not")]
    #[case("uint8", U8, &[0.5], &[3.25], "its zero point 3.25 is not an integer; round it")]
    #[case("uint8", U8, &[0.5], &[-1.0], "its zero point -1 is no uint8")]
    fn refusals_of_every_target(
        #[case] dtype: &str,
        #[case] range: (f32, f32),
        #[case] scale: &[f32],
        #[case] zero: &[f32],
        #[case] expected: &str,
    ) {
        let found = refusals(&entry(dtype, range, scale, zero), OnnxTarget::OnnxRuntime);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(&format!("`conv._input_0`: {expected}")),
            "{found:?}"
        );
    }

    #[test]
    fn blocks_are_refused_as_blocks() {
        let mut blocked = entry("int8", S8, &[0.5; 6], &[0.0; 6]);
        blocked.grid = Grid::new([1, 3, 2]);
        let found = refusals(&blocked, OnnxTarget::OnnxRuntime);
        assert!(
            found[0].contains("it has 6 scales, one a block"),
            "{found:?}"
        );
    }

    #[test]
    fn refusals_of_tensorrt() {
        let found = refusals(&entry("uint8", U8, &[0.5], &[0.0]), OnnxTarget::TensorRt);
        assert!(
            found[0].contains("its type is uint8, and TensorRT takes int8 only"),
            "{found:?}"
        );
        let found = refusals(&entry("int8", S8, &[0.5], &[-3.0]), OnnxTarget::TensorRt);
        assert!(
            found[0].contains("its zero point is -3, and TensorRT takes 0 only"),
            "{found:?}"
        );
    }

    #[test]
    fn all_refusals_come_at_once() {
        let bad = entry("uint8", U8, &[1e-39, 0.5], &[0.5, 0.0]);
        assert_eq!(refusals(&bad, OnnxTarget::TensorRt).len(), 4);
    }
}
