//! One file for a small model: its tensors with their shapes and what is left of the compression.
//!
//! The file is a burnpack container behind a header of its own:
//!
//! | bytes       | what                                                                     |
//! |-------------|--------------------------------------------------------------------------|
//! | 8           | magic `BURNCSML`                                                         |
//! | 4           | format version, little-endian                                            |
//! | 8           | length of the container, little-endian                                   |
//! | 8           | checksum of the container (FNV-1a, 64 bits), little-endian                |
//! | the rest    | burnpack container: tensors, and the state as JSON in its metadata       |
//!
//! The container holds a tensor for each parameter and running statistic, and one for all scales,
//! zero points and ranges and one for all masks.
//!
//! Burn loads a record into a model of the same shapes only, and with `validate(false)` it silently
//! keeps the random values of every parameter whose shape differs. The header makes every ordinary
//! load of a small model fail, whatever its options: [`load_small`] is the way in. It takes the
//! full-size model that the small one was cut from, since the Rust type is the same.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Bytes, DType, Float, Int, Shape, Tensor, TensorData};
use burn_compress_core::{Compressed, History};
use burn_pack::{AtomicFile, Reader, Writer};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::packed::{self, StateJson};
use crate::slice::{restore, set_groups, snapshot};
use crate::state::SmallState;

const MAGIC: &[u8; 8] = b"BURNCSML";
const VERSION: u32 = 2;
const HEADER: usize = 28;
const STATE: &str = "burn-compress.state";

/// Saves a small model and its state in one file.
///
/// Parameters are saved raw, without the simulations that hang on them: these are the state. The
/// file is built beside `path` and takes its name when it is complete, so that a failure leaves
/// whatever was there before.
///
/// # Errors
///
/// A value that is not finite, and whatever goes wrong while writing.
pub fn save_small<M: Module>(
    model: &M,
    state: &SmallState,
    path: impl AsRef<Path>,
) -> Result<(), SpeedupError> {
    let path = path.as_ref();
    let io = |reason: String| SpeedupError::Io {
        path: path.to_path_buf(),
        reason,
    };
    let mut collector = Collector {
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    let mut tensors = Vec::new();
    for (name, id, data) in collector.tensors {
        check_finite(&name, &data, "saved")?;
        let (bytes, shape, dtype) = data.into_parts();
        tensors.push(burn_pack::Tensor::new(
            parameter(&name),
            dtype,
            shape,
            Some(id.val()),
            bytes,
        ));
    }
    let (json, values) = packed::pack(state)?;
    for (name, data) in values {
        let (bytes, shape, dtype) = data.into_parts();
        let name = name.to_string();
        tensors.push(burn_pack::Tensor::new(name, dtype, shape, None, bytes));
    }
    let json = serde_json::to_string(&json).map_err(|source| io(source.to_string()))?;
    let container = Writer::new(tensors)
        .with_metadata(STATE, &json)
        .into_bytes()
        .map_err(|source| io(source.to_string()))?;
    write(path, &container)
}

fn write(path: &Path, container: &[u8]) -> Result<(), SpeedupError> {
    let io = |reason: String| SpeedupError::Io {
        path: path.to_path_buf(),
        reason,
    };
    let (scratch, mut file) = AtomicFile::create(path).map_err(|source| io(source.to_string()))?;
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((container.len() as u64).to_le_bytes());
    header.extend(checksum(container).to_le_bytes());
    file.write_all(&header)
        .and_then(|()| file.write_all(container))
        .and_then(|()| file.sync_all())
        .map_err(|source| io(source.to_string()))?;
    drop(file);
    scratch.commit().map_err(|source| io(source.to_string()))
}

/// Loads a small model into the full-size model that it was cut from.
///
/// `model` gives the architecture; its own values are not used. Its clones keep their running
/// statistics. The state, returned as well, is attached: the loaded model computes exactly what the
/// saved one did, its simulated quantization included.
///
/// # Errors
///
/// A file that is damaged or no small model, one of another architecture, values that are not
/// finite, and depthwise convolutions without a wrapper.
pub fn load_small<M: Module + 'static>(
    model: M,
    path: impl AsRef<Path>,
) -> Result<(M, SmallState), SpeedupError> {
    let (model, is_autodiff) = snapshot(&model);
    let (model, state) = load_parts(model, path.as_ref())?;
    let (masks, calibration) = (&state.masks, &state.calibration);
    let small = Compressed::from_parts(model, masks, calibration, History::default())?;
    Ok((restore(small.into_model(), is_autodiff), state))
}

/// The plain small model and its state.
pub(crate) fn load_parts<M: Module>(
    model: M,
    path: &Path,
) -> Result<(M, SmallState), SpeedupError> {
    let format = |reason: String| SpeedupError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let (mut tensors, json) = read(path)?;
    let mut values = |name| tensors.shift_remove(name).map(|saved: Saved| saved.data);
    let (calibration, masks) = (values(packed::CALIBRATION), values(packed::MASKS));
    let state = packed::unpack(json, calibration, masks, format)?;

    let mut saved = IndexMap::new();
    for (name, tensor) in tensors {
        let Some(parameter) = name.strip_prefix("param:") else {
            return Err(format(format!("it holds the unexpected tensor `{name}`")));
        };
        check_finite(parameter, &tensor.data, "loaded")?;
        saved.insert(parameter.to_string(), tensor);
    }
    check_architecture(&model, &saved, path)?;
    let (model, is_autodiff) = snapshot(&model);
    let model = set_groups(model, state.groups.clone())?;
    let mut loader = Loader {
        path: Vec::new(),
        saved,
    };
    let model = model.map(&mut loader);
    Ok((restore(model, is_autodiff), state))
}

struct Saved {
    id: Option<u64>,
    data: TensorData,
}

type Tensors = IndexMap<String, Saved>;

fn read(path: &Path) -> Result<(Tensors, StateJson), SpeedupError> {
    let format = |reason: String| SpeedupError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let mut bytes = fs::read(path).map_err(|source| SpeedupError::Io {
        path: path.to_path_buf(),
        reason: source.to_string(),
    })?;
    if !bytes.starts_with(MAGIC) {
        return Err(format(match bytes.len() < MAGIC.len() {
            true => format!("it is cut off after {} bytes", bytes.len()),
            false => "it does not begin with `BURNCSML`".to_string(),
        }));
    }
    if bytes.len() < HEADER {
        return Err(format(format!("it is cut off after {} bytes", bytes.len())));
    }
    let container = bytes.split_off(HEADER);
    let number = |at: usize| {
        let mut value = [0; 8];
        value.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(value)
    };
    let version = number(8) as u32;
    if version != VERSION {
        return Err(format(format!(
            "its format version is {version}, this one reads {VERSION}"
        )));
    }
    let length = number(12);
    if length != container.len() as u64 {
        return Err(format(format!(
            "it should hold {length} bytes, but has {}",
            container.len()
        )));
    }
    if checksum(&container) != number(20) {
        return Err(format("its checksum is wrong".to_string()));
    }
    let unreadable = |source: burn_pack::Error| format(source.to_string());
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(container)).map_err(unreadable)?;
    let json = reader
        .metadata()
        .get(STATE)
        .ok_or_else(|| format("it has no state".to_string()))?;
    let json: StateJson =
        serde_json::from_str(json).map_err(|source| format(format!("its state: {source}")))?;
    let mut tensors = IndexMap::new();
    for tensor in reader.into_tensors().map_err(unreadable)? {
        let (name, dtype, shape, id, bytes) = tensor.into_parts().map_err(unreadable)?;
        // A copy of its own, aligned for the values in it.
        let bytes = Bytes::from_bytes_vec(bytes.to_vec());
        tensors.insert(
            name,
            Saved {
                id,
                data: TensorData::from_bytes(bytes, shape, dtype),
            },
        );
    }
    Ok((tensors, json))
}

fn parameter(path: &str) -> String {
    format!("param:{path}")
}

/// FNV-1a, 64 bits: against damage, not against forgery.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn check_finite(name: &str, data: &TensorData, action: &'static str) -> Result<(), SpeedupError> {
    let is_finite = match data.dtype() {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => data
            .clone()
            .convert::<f64>()
            .iter::<f64>()
            .all(f64::is_finite),
        _ => true,
    };
    match is_finite {
        true => Ok(()),
        false => Err(SpeedupError::NotFinite {
            tensor: name.to_string(),
            action,
        }),
    }
}

/// Visits the three kinds of tensors in the form in which they are saved.
macro_rules! for_each_kind {
    ($macro:ident) => {
        $macro!(visit_float, map_float, Float);
        $macro!(visit_int, map_int, Int);
        $macro!(visit_bool, map_bool, Bool);
    };
}

struct Collector {
    path: Vec<String>,
    tensors: Vec<(String, ParamId, TensorData)>,
}

macro_rules! collect {
    ($visit:ident, $map:ident, $kind:ty) => {
        fn $visit<const D: usize>(&mut self, param: &Param<Tensor<D, $kind>>) {
            let data = param.transform_for_save().val().into_data();
            self.tensors.push((self.path.join("."), param.id, data));
        }
    };
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    for_each_kind!(collect);
}

/// Checks that the paths agree and that no saved tensor is larger than the model's.
fn check_architecture<M: Module>(
    model: &M,
    saved: &Tensors,
    path: &Path,
) -> Result<(), SpeedupError> {
    let error = |reason: String| SpeedupError::Architecture {
        path: path.to_path_buf(),
        reason,
    };
    let mut collector = Collector {
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    for (name, _, data) in &collector.tensors {
        let saved = saved
            .get(name)
            .ok_or_else(|| error(format!("it has no `{name}`")))?;
        let (full, small): (&Shape, &Shape) = (data.shape(), saved.data.shape());
        let fits = full.len() == small.len()
            && full
                .iter()
                .zip(small.iter())
                .all(|(full, small)| (1..=*full).contains(small));
        if !fits {
            let (full, small) = (full.to_vec(), small.to_vec());
            return Err(error(format!(
                "`{name}` is {small:?}, the model's {full:?}"
            )));
        }
        let kind = |dtype: DType| (dtype.is_float(), dtype.is_bool());
        if kind(data.dtype()) != kind(saved.data.dtype()) {
            let (full, small) = (data.dtype(), saved.data.dtype());
            return Err(error(format!(
                "`{name}` holds {small:?}, the model's {full:?}"
            )));
        }
    }
    let known: BTreeSet<&String> = collector.tensors.iter().map(|(name, ..)| name).collect();
    match saved.keys().find(|name| !known.contains(name)) {
        Some(name) => Err(error(format!("the model has no `{name}`"))),
        None => Ok(()),
    }
}

struct Loader {
    path: Vec<String>,
    saved: Tensors,
}

macro_rules! load {
    ($visit:ident, $map:ident, $kind:ty) => {
        fn $map<const D: usize>(
            &mut self,
            param: Param<Tensor<D, $kind>>,
        ) -> Param<Tensor<D, $kind>> {
            let Some(saved) = self.saved.shift_remove(&self.path.join(".")) else {
                return param;
            };
            let dtype = saved.data.dtype();
            let tensor = Tensor::from_data(saved.data, (&param.lazy_device(), dtype));
            let id = saved.id.map_or(param.id, ParamId::from);
            param.transform_for_load(tensor, id)
        }
    };
}

impl ModuleMapper for Loader {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    for_each_kind!(load);
}

#[cfg(test)]
mod tests;
