//! One file for a small model: its tensors with their shapes and what is left of the compression.
//!
//! The file is a burnpack container, with a description of its tensors in its metadata, under a
//! [`Seal`](burn_compress_core::file::Seal) whose magic number is `BURNCSML`.
//!
//! The container holds few tensors, since it aligns and describes each of them with some hundred
//! bytes, more than a bias or a scale takes:
//!
//! | tensor         | what                                                                  |
//! |----------------|-----------------------------------------------------------------------|
//! | `integers:`    | the quantized parameters one after another, 1 to 8 bits a value       |
//! | `floats:`      | all other parameters and running statistics of the type `f32`         |
//! | `param:<path>` | a tensor of another type                                              |
//! | `calibration:` | scales, zero points and ranges                                        |
//! | `masks:`       | masks, one bit an entry                                               |
//!
//! # Quantized parameters
//!
//! By default a parameter that is quantized is stored as the integers that the model computes with.
//! A model of 4 bits takes an eighth of the bytes then. What is loaded has the values that the
//! integers stand for in place of the raw ones: quantizing them once more gives the same integers,
//! so the loaded model computes bit for bit what the saved one did. The raw values are gone, and
//! training on would start from rounded ones; [`SaveConfig::with_master_weights`] keeps them.
//!
//! A parameter is stored raw, as before, when its quantization does not act yet, when its type has
//! more than 8 bits, or when a scale is so small or so large that the values do not come back
//! exactly. [`Storage`] lists what was stored how.
//!
//! # Ordinary loads
//!
//! Burn loads a record into a model of the same shapes only, and with `validate(false)` it silently
//! keeps the random values of every parameter whose shape differs. The header makes every ordinary
//! load of a small model fail, whatever its options: [`load_small`] is the way in. It takes the
//! full-size model that the small one was cut from, since the Rust type is the same.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bytes, TensorData};
use burn_compress_core::erased::AnyModel;
use burn_compress_core::{
    Calibration, CalibrationEntry, Compressed, History, Mask, Masks, TargetId, simulated,
};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::container;
use crate::content::{
    Described, FLOATS, INTEGERS, PARAM, STATE, TENSORS, TensorsJson, content, io_error,
};
use crate::integers::Integers;
use crate::packed::{self, StateJson, StreamReader, product};
use crate::report::Storage;
use crate::save_config::SaveConfig;
use crate::slice::{restore, set_sizes, snapshot};
use crate::state::SmallState;
use crate::tensors::{Saved, Tensors, check_architecture, check_finite, load};

/// Saves a small model and its state in one file, quantized parameters as integers.
///
/// A quantized parameter takes 1 to 8 bits a value, by its type. What is loaded computes bit
/// for bit the same, but its raw values are the rounded ones; to train on from the unrounded ones,
/// save with [`SaveConfig::with_master_weights`]. A parameter whose type has more bits, or whose
/// quantization does not act yet, is stored as floats.
///
/// The simulations that hang on the model are saved by way of the state, which therefore has to hold
/// them: pass that which came with the model. The file is written as
/// [`write_whole`](burn_compress_core::file::write_whole) does, so that a failure leaves whatever was
/// there before.
///
/// # Errors
///
/// A value that is not finite, a calibration that cannot be used, a mask or a quantization of the
/// model that is not in the state, and whatever goes wrong while writing.
pub fn save_small<M: Module + 'static>(
    model: &M,
    state: &SmallState,
    path: impl AsRef<Path>,
) -> Result<Storage, SpeedupError> {
    save_small_with(model, state, path, &SaveConfig::new())
}

/// Saves a small model and its state in one file with the options of `config`.
///
/// # Errors
///
/// As [`save_small`].
pub fn save_small_with<M: Module + 'static>(
    model: &M,
    state: &SmallState,
    path: impl AsRef<Path>,
    config: &SaveConfig,
) -> Result<Storage, SpeedupError> {
    save_any(&AnyModel::new(model.clone()), state, path.as_ref(), config)
}

fn save_any(
    model: &AnyModel,
    state: &SmallState,
    path: &Path,
    config: &SaveConfig,
) -> Result<Storage, SpeedupError> {
    check_state(model, state)?;
    let (content, storage) = content(model, state, path, config)?;
    let container = content.into_bytes();
    let container = container.map_err(|source| io_error(path, source.to_string()))?;
    container::write(path, &container)?;
    Ok(storage)
}

/// Rejects a state without a mask or a quantization that the model carries: the loaded model would
/// compute something else.
fn check_state<M: Module>(model: &M, state: &SmallState) -> Result<(), SpeedupError> {
    let (masks, calibration) = simulated(model)?;
    let missing = |target: &TargetId, what| SpeedupError::State {
        target: target.to_string(),
        what,
    };
    let is_missing = |(target, mask): &(&TargetId, &Mask)| state.masks.get(*target) != Some(*mask);
    if let Some((target, _)) = masks.iter().find(is_missing) {
        return Err(missing(target, "mask"));
    }
    let device = model.devices().first().cloned().unwrap_or_default();
    let device = device.without_autodiff();
    for (target, found) in &calibration {
        // What a device makes of an entry: it may hold scales in another precision.
        let attached = |entry: &CalibrationEntry| {
            let quantization = entry.to_quantization(&device).ok()?;
            quantization.to_calibration().ok()
        };
        if state.calibration.get(target).and_then(attached).as_ref() != Some(found) {
            return Err(missing(target, "quantization"));
        }
    }
    Ok(())
}

/// Loads a small model into the full-size model that it was cut from.
///
/// `model` gives the architecture; its own values are not used, nor is what is simulated on it. Its
/// clones keep their running statistics. The state, returned as well, is attached: the loaded model computes exactly what the
/// saved one did, its simulated quantization included.
///
/// # Errors
///
/// A file that is damaged, of another version or no small model, one of another architecture, values
/// that are not finite, and layers without a wrapper that hold a number which
/// follows the channels, such as depthwise convolutions.
pub fn load_small<M: Module + 'static>(
    model: M,
    path: impl AsRef<Path>,
) -> Result<(M, SmallState), SpeedupError> {
    let (model, state) = load_any(AnyModel::new(model), path.as_ref())?;
    Ok((model.into_typed(), state))
}

fn load_any(model: AnyModel, path: &Path) -> Result<(AnyModel, SmallState), SpeedupError> {
    let (model, is_autodiff) = snapshot(&model);
    let (none, nothing) = (Masks::new(), Calibration::new());
    let plain = Compressed::from_parts(model, &none, &nothing, History::default())?.unwrap_model();
    let (model, state) = load_parts(plain, path)?;
    let (masks, calibration) = (&state.masks, &state.calibration);
    let small = Compressed::from_parts(model, masks, calibration, History::default())?;
    Ok((restore(small.into_model(), is_autodiff), state))
}

/// The plain small model and its state.
pub(crate) fn load_parts<M: Module>(
    model: M,
    path: &Path,
) -> Result<(M, SmallState), SpeedupError> {
    let (saved, state) = read(path)?;
    for (name, tensor) in &saved {
        check_finite(name, &tensor.data, "loaded")?;
    }
    check_architecture(&model, &saved, path)?;
    let (model, is_autodiff) = snapshot(&model);
    let model = set_sizes(model, state.sizes.clone())?;
    Ok((restore(load(model, saved), is_autodiff), state))
}

fn read(path: &Path) -> Result<(Tensors, SmallState), SpeedupError> {
    let format = |reason: String| SpeedupError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let unreadable = |source: burn_pack::Error| format(source.to_string());
    let reader = container::read(path)?;
    let text = |name: &str, what: &str| {
        let text = reader.metadata().get(name).cloned();
        text.ok_or_else(|| format(format!("it has no {what}")))
    };
    let state: StateJson = serde_json::from_str(&text(STATE, "state")?)
        .map_err(|source| format(format!("its state: {source}")))?;
    let json: TensorsJson = serde_json::from_str(&text(TENSORS, "description of its tensors")?)
        .map_err(|source| format(format!("the description of its tensors: {source}")))?;

    let (mut streams, mut saved) = (IndexMap::new(), Tensors::new());
    for tensor in reader.into_tensors().map_err(unreadable)? {
        let (name, dtype, shape, id, bytes) = tensor.into_parts().map_err(unreadable)?;
        // A copy of its own, aligned for the values in it.
        let bytes = Bytes::from_bytes_vec(bytes.to_vec());
        let data = TensorData::from_bytes(bytes, shape, dtype);
        match name.strip_prefix(PARAM) {
            Some(path) => {
                let in_memory = false;
                saved.insert(
                    path.to_string(),
                    Saved {
                        id,
                        data,
                        in_memory,
                    },
                );
            }
            None => {
                streams.insert(name, data);
            }
        }
    }
    let mut stream = |name: &str| streams.shift_remove(name);
    let (calibration, masks) = (stream(packed::CALIBRATION), stream(packed::MASKS));
    let (bytes, floats) = (stream(INTEGERS), stream(FLOATS));
    if let Some(name) = streams.keys().next() {
        return Err(format(format!("it holds the unexpected tensor `{name}`")));
    }
    let state = packed::unpack(state, calibration, masks, format)?;

    let floats = floats.map_or(Ok(Vec::new()), TensorData::try_into_vec::<f32>);
    let floats = floats.map_err(|source| format(format!("`{FLOATS}`: {source:?}")))?;
    let bytes = bytes.map_or(Ok(Vec::new()), TensorData::try_into_vec::<u8>);
    let bytes = bytes.map_err(|source| format(format!("`{INTEGERS}`: {source:?}")))?;
    let mut add = |name: String, id, data, in_memory| {
        let known = saved.contains_key(&name);
        let tensor = Saved {
            id,
            data,
            in_memory,
        };
        saved.insert(name.clone(), tensor);
        match known {
            true => Err(format(format!("it holds `{name}` twice"))),
            false => Ok(()),
        }
    };
    let mut floats = StreamReader::new(FLOATS, floats);
    for (name, Described { shape, id }) in json.floats {
        let error = |reason: String| format(format!("`{name}`: {reason}"));
        let values = product(&shape).and_then(|count| floats.take(count));
        let data = TensorData::new(values.map_err(error)?, shape);
        add(name, id, data, false)?;
    }
    floats.finish().map_err(format)?;
    let mut bytes = StreamReader::new(INTEGERS, bytes);
    for (name, Described { shape, id }) in json.integers {
        let values = dequantize(&name, &shape, &state, &mut bytes)
            .map_err(|reason| format(format!("the integers of `{name}`: {reason}")))?;
        add(name, id, TensorData::new(values, shape), true)?;
    }
    bytes.finish().map_err(format)?;
    Ok((saved, state))
}

/// The values that the next integers of a file stand for.
fn dequantize(
    name: &str,
    shape: &[usize],
    state: &SmallState,
    bytes: &mut StreamReader<u8>,
) -> Result<Vec<f32>, String> {
    let target: TargetId = name.parse().map_err(|source| format!("{source}"))?;
    let entry = state.calibration.get(&target);
    let entry = entry.ok_or("they have no calibration")?;
    let integer = Integers::integer_type(entry)?;
    let count = integer.bytes(product(shape)?);
    let bytes = bytes.take(count.ok_or_else(|| format!("the shape {shape:?} is too large"))?)?;
    let integers = Integers::unpack(&bytes, shape, entry)?;
    Ok(integers.dequantize(entry, shape))
}

#[cfg(test)]
mod tests;
