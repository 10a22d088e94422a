//! Quantized parameters as tensors of Burn's own quantization: integers in memory as well.
//!
//! A compressed model simulates its quantization: parameters are floats that are rounded whenever
//! they are used. Burn can hold a parameter as integers and scales instead. Its layers turn them
//! back into floats, or multiply with them, when they run:
//!
//! ```text
//! simulated   x' = (q - z) * s            z, s: zero point and scale of the block
//! Burn        x' = q' * s                 with q' = q - z
//! ```
//!
//! Both are the same product of the same numbers, and the result is compared bit for bit (zeros
//! without their sign) before it is used. What Burn 0.22 can express:
//!
//! | here                                 | in Burn                                                |
//! |--------------------------------------|--------------------------------------------------------|
//! | `q - z` within -1 ..= 1, -7 ..= 7 or -127 ..= 127 | `Q2S`, `Q4S`, `Q8S`; `int1` is `Q2S`      |
//! | one more negative integer            | `Q2F`, `Q4F`, `Q8F`                                    |
//! | zero points that are integers        | shifted away; `uint8` around 128 is `Q8F`              |
//! | one scale                            | a scheme per tensor                                    |
//! | one scale a channel or block         | a scheme per block; blocks above 255 are divided       |
//!
//! Everything else is a [`SpeedupError::NotInBurn`]: a zero point with a fraction, integers beyond
//! 8 bits once the zero point is subtracted, blocks that 5 dimensions of at most 255 cannot tile,
//! additive masks, and devices that do not implement quantized tensors (libtorch).
//!
//! Where the values go depends on the device. CubeCL's devices pack them into words of 32 bits,
//! flex holds one byte a value whatever the type.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::quantization::{
    BlockSize, QuantScheme, QuantStore, QuantValue, QuantizationParameters, ScaleDtype,
};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_compress_core::erased::AnyModel;
use burn_compress_core::{
    Calibration, CalibrationEntry, Compressed, Error, Grid, History, Mask, MaskMethod, Masks,
    TargetId, reads,
};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::integers::{Blocks, Integers, check_grid, on_device, values_of};
use crate::state::SmallState;

/// The largest extent of a block in Burn.
const LARGEST_BLOCK: usize = u8::MAX as usize;

/// A finer block than the quantization has must still hold so many values, or its scales would take
/// what its integers save.
const SMALLEST_BLOCK: usize = 16;

/// The change with which Burn can hold a target.
mod remedy {
    pub(super) const ZERO_POINT: &str = "quantize it with the symmetric scheme";
    pub(super) const WIDTH: &str = "use a signed type of at most 8 bits";
    pub(super) const BLOCKS: &str = "use one scale, or blocks of at most 255 along each dimension";
    pub(super) const MASK: &str = "multiply by the mask instead of adding it";
    pub(super) const DEVICE: &str = "use another device";
    pub(super) const CALIBRATE: &str = "calibrate it first";
}

/// Burn's scheme for a parameter of shape `shape` that is quantized by `entry`.
///
/// The store is the one that `device` prefers.
///
/// # Errors
///
/// [`SpeedupError::NotInBurn`] naming what Burn cannot express and what to do.
pub fn burn_scheme(
    target: &TargetId,
    entry: &CalibrationEntry,
    shape: &[usize],
    device: &Device,
) -> Result<QuantScheme, SpeedupError> {
    Ok(Plan::new(target, entry, shape, device)?.scheme)
}

/// A parameter as a quantized tensor of Burn, with the integers and scales that `entry` gives it.
///
/// # Shapes
///
/// - tensor: `[d0, d1, ..]`, the raw parameter, or what the simulation makes of it
/// - result: the shape of `tensor`, in Burn's quantized type; [`Tensor::dequantize`] gives exactly
///   the simulated values
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::{Grid, QuantScheme, Quantization};
/// use burn_compress_speedup::quantize_tensor;
///
/// let device = Device::flex();
/// let mut quantization = Quantization::of("int4".parse()?, QuantScheme::Symmetric)
///     .with_grid(Grid::per_channel(2, 0, 2));
/// quantization.enabled = true;
/// quantization.scale = Some(Tensor::from_floats([0.5, 0.25], &device));
/// quantization.zero_point = Some(Tensor::from_floats([0.0, 0.0], &device));
///
/// let weight = Tensor::<2>::from_floats([[0.6, -9.0], [0.6, -9.0]], &device);
/// let target = "fc.weight".parse()?;
/// let quantized = quantize_tensor(&target, weight, &quantization.to_calibration()?)?;
/// let values: Vec<f32> = quantized.dequantize().into_data().try_to_vec().unwrap();
/// assert_eq!(values, [0.5, -3.5, 0.5, -1.75]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
///
/// # Errors
///
/// [`SpeedupError::NotInBurn`] naming what Burn cannot express and what to do, and a calibration
/// that cannot be used.
pub fn quantize_tensor<const D: usize>(
    target: &TargetId,
    tensor: Tensor<D>,
    entry: &CalibrationEntry,
) -> Result<Tensor<D>, SpeedupError> {
    quantize_masked(target, tensor, entry, None)
}

/// A small model whose quantized parameters are integers in memory.
///
/// The values are those that the simulation computes, so the result differs from the simulated
/// model at most by how the device multiplies quantized tensors. Masks of these parameters become
/// zeros. Everything else of `state`, such as the quantization of inputs and outputs, stays
/// simulated.
///
/// The model is for inference: Burn has no gradients of quantized parameters. To save it, keep
/// `model` and `state`: [`save_small`](crate::save_small) stores fewer bits.
///
/// # Errors
///
/// The first parameter that Burn cannot hold, see [`SpeedupError::NotInBurn`], and a calibration
/// that does not fit the model.
pub fn quantize_parameters<M: Module + 'static>(
    model: &M,
    state: &SmallState,
) -> Result<M, SpeedupError> {
    let model = AnyModel::new(model.clone());
    Ok(quantize_any(&model, state)?.into_typed())
}

fn quantize_any(model: &AnyModel, state: &SmallState) -> Result<AnyModel, SpeedupError> {
    let (none, nothing) = (Masks::new(), Calibration::new());
    let simulated = Compressed::from_parts(model.valid(), &none, &nothing, History::default())?;
    let (mut masks, mut calibration) = (state.masks.clone(), state.calibration.clone());
    let acts = |target: &TargetId, entry: &CalibrationEntry| {
        target.target.is_param() && entry.enabled && entry.scale.is_some()
    };
    let mut parameters = IndexMap::new();
    for (target, entry) in state
        .calibration
        .iter()
        .filter(|(id, entry)| acts(id, entry))
    {
        calibration.shift_remove(target);
        let mask = masks.shift_remove(target);
        parameters.insert(target.to_string(), (target.clone(), entry.clone(), mask));
    }
    let mut quantizer = Quantizer {
        path: Vec::new(),
        parameters,
        error: None,
    };
    let plain = simulated.unwrap_model().map(&mut quantizer);
    if let Some(error) = quantizer.error {
        return Err(error);
    }
    if let Some(path) = quantizer.parameters.into_keys().next() {
        return Err(SpeedupError::UnknownParameter { path });
    }
    if masks.is_empty() && calibration.is_empty() {
        return Ok(plain);
    }
    let left = Compressed::from_parts(plain, &masks, &calibration, History::default())?;
    Ok(left.into_model())
}

struct Quantizer {
    path: Vec<String>,
    parameters: IndexMap<String, (TargetId, CalibrationEntry, Option<Mask>)>,
    error: Option<SpeedupError>,
}

impl ModuleMapper for Quantizer {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let found = self.parameters.shift_remove(&self.path.join("."));
        let Some((target, entry, mask)) = found else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let quantized = quantize_masked(&target, tensor.clone(), &entry, mask.as_ref());
        let value = quantized.unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            tensor
        });
        Param::from_mapped_value(id, value, mapper)
    }
}

fn quantize_masked<const D: usize>(
    target: &TargetId,
    tensor: Tensor<D>,
    entry: &CalibrationEntry,
    mask: Option<&Mask>,
) -> Result<Tensor<D>, SpeedupError> {
    let not_in_burn = |reason: String, remedy| not_in_burn(target, reason, remedy);
    let invalid = |reason: String| {
        let target = target.clone();
        SpeedupError::Core(Error::InvalidCalibration { target, reason })
    };
    let tensor = tensor.detach().without_autodiff();
    let (dims, device) = (tensor.dims(), tensor.device());
    let plan = Plan::new(target, entry, &dims, &device)?;
    let elements = dims.iter().product::<usize>();
    let integers = match tensor.dtype() {
        DType::F32 => Integers::of(tensor.reshape([elements]), &dims, entry).map_err(invalid)?,
        _ => None,
    };
    let integers = integers.ok_or_else(|| {
        let reason = "its values are no `f32` multiples of the scale".to_string();
        not_in_burn(reason, remedy::WIDTH)
    })?;
    let mut values = integers.dequantize(entry, &dims);
    if let Some(mask) = mask {
        if mask.method() == MaskMethod::Add {
            return Err(not_in_burn("its mask is added".to_string(), remedy::MASK));
        }
        if mask.shape() != dims {
            return Err(SpeedupError::Shape {
                path: target.to_string(),
                what: "the mask",
                expected: dims.to_vec(),
                found: mask.shape().to_vec(),
            });
        }
        let masked = values.iter().zip(mask.values());
        values = masked.map(|(value, mask)| value * mask).collect();
    }
    let quantize = || {
        let data = TensorData::new(values.clone(), dims.to_vec());
        let parameters = QuantizationParameters {
            scales: on_device(plan.scales, &device),
            global: None,
        };
        let quantized = Tensor::<D>::from_data(data, &device).quantize(&plan.scheme, parameters);
        let found = reads::data(quantized.clone().dequantize());
        (quantized, found)
    };
    let (quantized, found) = catch_unwind(AssertUnwindSafe(quantize)).map_err(|_| {
        let reason = format!("{device:?} does not implement {:?}", plan.scheme);
        not_in_burn(reason, remedy::DEVICE)
    })?;
    let found = found.ok().and_then(|data| data.try_into_vec::<f32>().ok());
    match found.is_some_and(|found| found == values) {
        true => Ok(quantized),
        false => {
            let reason = format!("{device:?} computes other values from the integers");
            Err(not_in_burn(reason, remedy::DEVICE))
        }
    }
}

fn not_in_burn(target: &TargetId, reason: String, remedy: &'static str) -> SpeedupError {
    SpeedupError::NotInBurn {
        target: target.to_string(),
        reason,
        remedy,
    }
}

/// Burn's scheme and its scales.
#[derive(Debug)]
struct Plan {
    scheme: QuantScheme,
    scales: Vec<f32>,
}

impl Plan {
    fn new(
        target: &TargetId,
        entry: &CalibrationEntry,
        shape: &[usize],
        device: &Device,
    ) -> Result<Self, SpeedupError> {
        let error = |reason: String, remedy| not_in_burn(target, reason, remedy);
        check_grid(entry, shape).map_err(|reason| {
            let target = target.clone();
            SpeedupError::Core(Error::InvalidCalibration { target, reason })
        })?;
        let (scale, zero) = values_of(entry).ok_or_else(|| {
            let reason = "its quantization does not act or lacks scales".to_string();
            error(reason, remedy::CALIBRATE)
        })?;
        let value = value_type(entry, zero).map_err(|(reason, remedy)| error(reason, remedy))?;
        let scheme = QuantScheme::default().with_value(value);
        let (scheme, scales) = match scale {
            [scale] => (scheme.per_tensor(ScaleDtype::F32), vec![*scale]),
            _ => {
                let blocks = blocks(&entry.grid, shape);
                let blocks = blocks.map_err(|reason| error(reason, remedy::BLOCKS))?;
                let scales = refined_scales(entry, shape, &blocks);
                (scheme.per_block(blocks, ScaleDtype::F32), scales)
            }
        };
        let scheme = stored(scheme, shape, device)
            .map_err(|reason| error(reason, "make its last dimension a multiple of 32 bits"))?;
        Ok(Self { scheme, scales })
    }
}

/// The smallest of Burn's types that holds `q - z` for every integer and block.
fn value_type(
    entry: &CalibrationEntry,
    zero: &[f32],
) -> Result<QuantValue, (String, &'static str)> {
    // A binary value is a sign, whatever the zero point.
    let zero: &[f32] = if entry.dtype.is_binary() {
        &[0.0]
    } else {
        zero
    };
    if let Some(fraction) = zero.iter().find(|zero| zero.fract() != 0.0) {
        let reason = format!("its zero point {fraction} is no integer, and Burn has none");
        return Err((reason, remedy::ZERO_POINT));
    }
    let least = zero
        .iter()
        .fold(f32::INFINITY, |least, &zero| least.min(zero));
    let most = zero
        .iter()
        .fold(f32::NEG_INFINITY, |most, &zero| most.max(zero));
    let (smallest, largest) = (entry.qmin - most, entry.qmax - least);
    let fits = |value: &QuantValue| {
        let (from, to) = value.range();
        from <= smallest && largest <= to
    };
    use QuantValue::{Q2F, Q2S, Q4F, Q4S, Q8F, Q8S};
    let found = [Q2S, Q2F, Q4S, Q4F, Q8S, Q8F].into_iter().find(fits);
    found.ok_or_else(|| match least == 0.0 && most == 0.0 {
        true => (
            format!(
                "{} has the integers {smallest} to {largest}, Burn -128 to 127",
                entry.dtype
            ),
            remedy::WIDTH,
        ),
        false => (
            format!(
                "Burn has no zero points, and without them the integers go from {smallest} to \
                 {largest}, in Burn from -128 to 127"
            ),
            remedy::ZERO_POINT,
        ),
    })
}

/// The extents of Burn's blocks: those of the grid, divided where they are too large for Burn.
fn blocks(grid: &Grid, shape: &[usize]) -> Result<Vec<u8>, String> {
    let sizes: Vec<usize> = shape
        .iter()
        .zip(grid.blocks())
        .map(|(size, blocks)| size / blocks)
        .collect();
    let extents: Vec<usize> = sizes
        .iter()
        .map(|&size| {
            let mut candidates = (1..=LARGEST_BLOCK.min(size)).rev();
            candidates
                .find(|&extent| size.is_multiple_of(extent))
                .unwrap_or(1)
        })
        .collect();
    // Burn drops leading ones, and knows 5 dimensions after that.
    let counted = extents.len() - extents.iter().take_while(|&&extent| extent == 1).count();
    if counted > BlockSize::MAX_DIMS {
        let most = BlockSize::MAX_DIMS;
        return Err(format!(
            "its blocks {sizes:?} have {counted} dimensions, Burn's at most {most}"
        ));
    }
    let divided = extents != sizes;
    if divided && extents.iter().product::<usize>() < SMALLEST_BLOCK {
        return Err(format!(
            "its blocks {sizes:?} are larger than Burn's and do not divide into blocks of a \
             reasonable size"
        ));
    }
    Ok(extents.into_iter().map(|extent| extent as u8).collect())
}

/// One scale for each of Burn's blocks.
fn refined_scales(entry: &CalibrationEntry, shape: &[usize], extents: &[u8]) -> Vec<f32> {
    let counts: Vec<usize> = shape
        .iter()
        .zip(extents)
        .map(|(size, &extent)| size / usize::from(extent))
        .collect();
    let blocks = Blocks::new(entry, &counts);
    let scale = entry.scale.as_deref().unwrap_or_default();
    let count = counts.iter().product();
    (0..count).map(|at| scale[blocks.of(at)]).collect()
}

/// The scheme with the store that `device` prefers.
fn stored(scheme: QuantScheme, shape: &[usize], device: &Device) -> Result<QuantScheme, String> {
    let store = device.settings().quantization.scheme.store;
    if store == QuantStore::Native {
        return Ok(scheme.with_store(QuantStore::Native));
    }
    let packed = scheme.with_store(QuantStore::PackedU32(0));
    let (per_word, last) = (packed.num_quants(), shape.last().copied().unwrap_or(0));
    if last.is_multiple_of(per_word) {
        return Ok(packed);
    }
    let native = scheme.with_store(QuantStore::Native);
    let bits = scheme.size_bits_value();
    if bits == 8 && device.supports_dtype(DType::QFloat(native)) {
        return Ok(native);
    }
    Err(format!(
        "its last dimension {last} is no multiple of the {per_word} values that {device:?} packs \
         into a word"
    ))
}

#[cfg(test)]
mod tests;
