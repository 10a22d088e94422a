//! A weight as integers with one scale for each output channel, and batch norms folded into it.
//!
//! The integers are centered: `w = k s` with `k = q - z`. A norm behind the layer, with
//! `f = gamma / sqrt(var + eps)` for each output channel, is folded into them exactly:
//!
//! ```text
//! f (k s x + b - mean) + beta  =  k' s' x + b'
//! s' = s |f|,   k' = k sign(f),   b' = beta + (b - mean) f
//! ```
//!
//! Nothing is rounded again. Where `f` is 0 all integers of the channel become 0, and so any scale will
//! do.

use burn_compress_core::{CalibrationEntry, Grid};

use super::activation::{Storage, is_scale};
use super::refusal::Refusal;
use super::target::OnnxTarget;
use crate::graph::{Constant, Values};

/// The zero point of weights that are stored unsigned.
const MIDDLE: i32 = 128;

/// Centered integers and their scales.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Weight {
    pub dims: Vec<usize>,
    /// The dimension of the output channels.
    pub axis: usize,
    /// `q - z`, row-major.
    pub integers: Vec<i32>,
    /// One for each output channel; 0 where all integers of a channel are.
    pub scales: Vec<f64>,
}

impl Weight {
    /// The integers of the parameter `path`, `None` where its quantization does not act.
    ///
    /// `values` may be those that are simulated or those before.
    ///
    /// # Errors
    ///
    /// Everything about it that no target can execute.
    pub fn new(
        path: &str,
        dims: &[usize],
        values: &[f32],
        axis: usize,
        entry: &CalibrationEntry,
    ) -> Result<Option<Self>, Vec<Refusal>> {
        let (Some(scale), Some(zero)) = (&entry.scale, &entry.zero_point) else {
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
                "its type is int1, which has no zero and no operator of ONNX".to_string(),
                "quantize it to 2 to 8 bits, or export it for the target `Float`",
            );
        }
        let width = entry.qmax - entry.qmin;
        if !(0.0..=255.0).contains(&width) {
            refuse(
                format!("its type {} has more than 8 bits", entry.dtype),
                "quantize it to at most 8 bits",
            );
        }
        let channels = dims.get(axis).copied().unwrap_or(1);
        if !is_along(&entry.grid, dims, axis) {
            let (found, blocks) = (entry.grid.len(), entry.grid.blocks());
            refuse(
                format!("it has {found} scales in blocks {blocks:?}"),
                "use the granularity `out_channel` or `default`: the products of one output are added \
                 before they are scaled",
            );
        } else if scale.len() != entry.grid.len() || zero.len() != entry.grid.len() {
            refuse(
                format!("{} scales for {} blocks", scale.len(), entry.grid.len()),
                "calibrate it again",
            );
        }
        if let Some(bad) = scale.iter().find(|scale| !is_scale(**scale)) {
            refuse(
                format!("its scale {bad:e} is not a positive normal f32"),
                "prune the channel, or do not quantize the weight",
            );
        }
        if let Some(bad) = zero
            .iter()
            .find(|zero| zero.fract() != 0.0 || !zero.is_finite())
        {
            refuse(
                format!("its zero point {bad} is not an integer"),
                "round it, or use the scheme `symmetric`",
            );
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let inner: usize = dims.iter().skip(axis + 1).product();
        let block = |at: usize| match scale.len() {
            1 => 0,
            _ => at / inner.max(1) % channels.max(1),
        };
        let centered = |(at, &x): (usize, &f32)| {
            let (scale, zero) = (scale[block(at)], zero[block(at)]);
            let q = ((x / scale).round_ties_even() + zero).clamp(entry.qmin, entry.qmax);
            (q - zero) as i32
        };
        let scales: Vec<f64> = match scale[..] {
            [scale] => vec![f64::from(scale); channels],
            _ => scale.iter().map(|&scale| f64::from(scale)).collect(),
        };
        Ok(Some(Self {
            dims: dims.to_vec(),
            axis,
            integers: values.iter().enumerate().map(centered).collect(),
            scales,
        }))
    }

    /// The output channel of each element.
    pub fn channels(&self) -> impl Iterator<Item = usize> + use<> {
        channels(&self.dims, self.axis)
    }

    /// Multiplies each output channel by a factor, exactly.
    pub fn fold(&mut self, factors: &[f64]) {
        for (channel, k) in self.channels().zip(&mut self.integers) {
            *k *= sign(factors[channel]);
        }
        for (scale, factor) in self.scales.iter_mut().zip(factors) {
            *scale *= factor.abs();
        }
    }

    /// The values that the integers stand for, in the precision in which they are dequantized.
    pub fn floats(&self) -> Vec<f32> {
        let values = self.channels().zip(&self.integers);
        values
            .map(|(channel, &k)| k as f32 * self.scales[channel] as f32)
            .collect()
    }

    /// Whether all integers are among those of four bits, -8 to 7.
    pub fn fits_four_bits(&self) -> bool {
        self.integers.iter().all(|k| (-8..=7).contains(k))
    }

    /// Largest magnitude of an integer.
    pub fn largest(&self) -> i32 {
        self.integers.iter().map(|k| k.abs()).max().unwrap_or(0)
    }

    /// For each output channel the sum of the magnitudes of its integers.
    pub fn magnitudes(&self) -> Vec<i64> {
        let mut sums = vec![0; self.scales.len()];
        for (channel, &k) in self.channels().zip(&self.integers) {
            sums[channel] += i64::from(k.abs());
        }
        sums
    }

    /// The integers as they are stored for a target, and the zero point.
    ///
    /// # Errors
    ///
    /// Integers that no storage of the target has, in words.
    pub fn store(&self, target: OnnxTarget) -> Result<(Constant, i32), Refusal> {
        let (low, high) = self
            .integers
            .iter()
            .fold((0, 0), |(low, high), &k| (k.min(low), k.max(high)));
        let dims = self.dims.clone();
        let unsigned = |zero: i32| {
            let values = self.integers.iter().map(|k| (k + zero) as u8).collect();
            let dims = dims.clone();
            let values = Values::Uint8(values);
            (Constant { dims, values }, zero)
        };
        if low >= Storage::Int8.lowest() && high <= Storage::Int8.highest() {
            if target.shifts_weights(self.largest()) {
                return Ok(unsigned(MIDDLE));
            }
            let values = Values::Int8(self.integers.iter().map(|&k| k as i8).collect());
            return Ok((Constant { dims, values }, 0));
        }
        if target.takes_zero_points() && high - low <= 255 {
            return Ok(unsigned(-low));
        }
        Err(Refusal::new(
            "",
            format!(
                "its integers less the zero point are {low}..{high}, which {target} cannot hold"
            ),
            "use the scheme `symmetric` for the weight",
        ))
    }
}

/// The index along `axis` of each element of a constant.
pub(crate) fn channels(dims: &[usize], axis: usize) -> impl Iterator<Item = usize> + use<> {
    let inner: usize = dims.iter().skip(axis + 1).product();
    let channels = dims.get(axis).copied().unwrap_or(1);
    let elements: usize = dims.iter().product();
    (0..elements).map(move |at| at / inner.max(1) % channels.max(1))
}

/// -1, 0 or 1, unlike [`f64::signum`] also for zero.
fn sign(factor: f64) -> i32 {
    i32::from(factor > 0.0) - i32::from(factor < 0.0)
}

/// Whether a grid is one block, or one for each index along `axis`.
fn is_along(grid: &Grid, dims: &[usize], axis: usize) -> bool {
    let blocks = grid.blocks();
    grid.len() == 1
        || (blocks.len() == dims.len()
            && blocks
                .iter()
                .enumerate()
                .all(|(dim, &count)| count == if dim == axis { dims[dim] } else { 1 }))
}

#[cfg(test)]
mod tests {
    use burn_compress_core::{QuantScheme, Quantization};
    use rstest::rstest;

    use super::*;

    fn entry(dtype: &str, range: (f32, f32), grid: &[usize], scale: &[f32]) -> CalibrationEntry {
        let state = Quantization::new(dtype, QuantScheme::Symmetric, range.0, range.1);
        let state = state.with_grid(Grid::new(grid));
        CalibrationEntry {
            scale: Some(scale.to_vec()),
            zero_point: Some(vec![0.0; scale.len()]),
            enabled: true,
            ..state.to_calibration().unwrap()
        }
    }

    fn int8(values: &[f32], scale: &[f32]) -> Weight {
        let entry = entry("int8", (-127.0, 127.0), &[scale.len(), 1], scale);
        let dims = [2, values.len() / 2];
        Weight::new("conv.weight", &dims, values, 0, &entry)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn norms_are_folded_exactly() {
        // Channel 0: 0.5 [3, -4]; channel 1: 0.25 [1, 127].
        let mut weight = int8(&[1.5, -2.0, 0.25, 31.75], &[0.5, 0.25]);
        assert_eq!(weight.integers, [3, -4, 1, 127]);
        weight.fold(&[-2.0, 0.0]);
        assert_eq!(weight.integers, [-3, 4, 0, 0]);
        assert_eq!(weight.scales, [1.0, 0.0]);
        assert_eq!(weight.floats(), [-3.0, 4.0, 0.0, 0.0]);
        assert_eq!(weight.magnitudes(), [7, 0]);
    }

    #[rstest]
    #[case(OnnxTarget::OnnxRuntime, Values::Int8(vec![127, -127, 0, 1]), 0)]
    #[case(OnnxTarget::TensorRt, Values::Int8(vec![127, -127, 0, 1]), 0)]
    #[case(OnnxTarget::OnnxRuntimeX86, Values::Uint8(vec![255, 1, 128, 129]), 128)]
    fn storage_of_eight_bits(
        #[case] target: OnnxTarget,
        #[case] values: Values,
        #[case] zero: i32,
    ) {
        let weight = int8(&[127.0, -127.0, 0.0, 1.0], &[1.0]);
        let (constant, found) = weight.store(target).unwrap();
        assert_eq!((constant.values, found), (values, zero));
    }

    #[test]
    fn seven_bits_stay_signed_everywhere() {
        let weight = int8(&[63.0, -63.0, 0.0, 1.0], &[1.0]);
        let (constant, zero) = weight.store(OnnxTarget::OnnxRuntimeX86).unwrap();
        assert_eq!(
            (constant.values, zero),
            (Values::Int8(vec![63, -63, 0, 1]), 0)
        );
    }

    /// `uint8` about 200: the integers less the zero point are -200..55.
    #[test]
    fn affine_weights_keep_a_zero_point() {
        let mut affine = entry("uint8", (0.0, 255.0), &[1], &[1.0]);
        affine.zero_point = Some(vec![200.0]);
        let weight = Weight::new("fc.weight", &[2, 1], &[-200.0, 55.0], 1, &affine);
        let mut weight = weight.unwrap().unwrap();
        assert_eq!(weight.integers, [-200, 55]);
        let (constant, zero) = weight.store(OnnxTarget::OnnxRuntime).unwrap();
        assert_eq!((constant.values, zero), (Values::Uint8(vec![0, 255]), 200));
        let refusal = weight.store(OnnxTarget::TensorRt).unwrap_err();
        assert!(
            refusal
                .found
                .contains("-200..55, which TensorRT cannot hold")
        );

        // A norm with both signs needs -200 and 200 at once.
        weight.integers = vec![-200, 200];
        let refusal = weight.store(OnnxTarget::OnnxRuntime).unwrap_err();
        assert!(refusal.found.contains("-200..200"), "{refusal}");
        assert!(refusal.remedy.contains("`symmetric`"));
    }

    #[rstest]
    #[case("int1", (-1.0, 1.0), &[1, 1], &[0.5], 0.0, "its type is int1")]
    #[case("int16", (-32767.0, 32767.0), &[1, 1], &[0.5], 0.0, "its type int16 has more than 8 bits")]
    #[case("int8", (-127.0, 127.0), &[1, 2], &[0.5, 1.0], 0.0, "it has 2 scales in blocks [1, 2]")]
    #[case("int8", (-127.0, 127.0), &[1], &[2e-39], 0.0, "its scale 2e-39 is not a positive normal")]
    #[case("int8", (-127.0, 127.0), &[1], &[1.0], 0.5, "its zero point 0.5 is not an integer")]
    #[case("int8", (-127.0, 127.0), &[2, 1], &[1.0], 0.0, "1 scales for 2 blocks")]
    fn refusals(
        #[case] dtype: &str,
        #[case] range: (f32, f32),
        #[case] grid: &[usize],
        #[case] scale: &[f32],
        #[case] zero: f32,
        #[case] expected: &str,
    ) {
        let mut entry = entry(dtype, range, grid, scale);
        entry.zero_point = Some(vec![zero; scale.len()]);
        let found = Weight::new("conv.weight", &[2, 2], &[0.0; 4], 0, &entry).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0]
                .to_string()
                .starts_with(&format!("`conv.weight`: {expected}")),
            "{}",
            found[0]
        );
    }

    #[test]
    fn what_does_not_act_has_no_integers() {
        let mut off = entry("int1", (-1.0, 1.0), &[1], &[0.5]);
        off.enabled = false;
        assert_eq!(Weight::new("fc.weight", &[1, 1], &[0.5], 1, &off), Ok(None));
    }
}
