//! The content of a file: which tensors it holds, and how many bytes they take.
//!
//! A container can be laid out without its values, so the size of a file is known without reading a
//! parameter: [`storage`] describes what [`content`] holds.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bytes, DType, Shape};
use burn_compress_core::Calibration;
use burn_pack::{Tensor, Writer};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::SpeedupError;
use crate::container;
use crate::integers::Integers;
use crate::packed;
use crate::report::Storage;
use crate::save_config::SaveConfig;
use crate::state::SmallState;
use crate::tensors::{Layout, check_finite, collect, integers, layouts};

pub(crate) const STATE: &str = "burn-compress.state";
pub(crate) const TENSORS: &str = "burn-compress.tensors";
pub(crate) const INTEGERS: &str = "integers:";
pub(crate) const FLOATS: &str = "floats:";
pub(crate) const PARAM: &str = "param:";

/// The tensors of the container that hold several of the model's, in the order of their values.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TensorsJson {
    pub integers: IndexMap<String, Described>,
    pub floats: IndexMap<String, Described>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Described {
    pub shape: Vec<usize>,
    pub id: Option<u64>,
}

/// A tensor of the model on its way to a file.
struct Part {
    layout: Layout,
    values: Values,
}

impl Part {
    /// Bytes of its values in the file, of a plain number type or integers.
    fn bytes(&self) -> usize {
        match &self.values {
            Values::Integers { bytes, .. } => *bytes,
            Values::Raw(_) => self.layout.saved.num_elements() * self.layout.dtype.size(),
        }
    }
}

/// The values of a [`Part`], none where only their size matters.
enum Values {
    Raw(Option<Bytes>),
    Integers {
        bytes: usize,
        packed: Option<Vec<u8>>,
    },
}

/// The content of a file, which is put together when it is written, and how large the file is.
pub(crate) fn content<M: Module>(
    model: &M,
    state: &SmallState,
    path: &Path,
    config: &SaveConfig,
) -> Result<(Writer, Storage), SpeedupError> {
    let mut quantized = quantized(model, &state.calibration, config)?;
    let mut parts = Vec::new();
    for (layout, data) in collect(model) {
        check_finite(&layout.name, &data, "saved")?;
        let values = match quantized.swap_remove(&layout.name) {
            Some(integers) => {
                let packed = integers.pack();
                let bytes = packed.len();
                let packed = Some(packed);
                Values::Integers { bytes, packed }
            }
            None => Values::Raw(Some(data.into_bytes())),
        };
        parts.push(Part { layout, values });
    }
    writer(parts, state, path)
}

/// Size of a file, and the bytes that each tensor has in it; none of a model with values of Burn's own
/// quantization.
#[derive(Debug)]
pub(crate) struct Stored {
    pub storage: Storage,
    pub tensors: Option<IndexMap<String, u64>>,
}

/// Storage of a model that can be saved, without its floats: as [`content`] has it.
pub(crate) fn storage<M: Module>(
    model: &M,
    state: &SmallState,
    config: &SaveConfig,
) -> Result<Stored, SpeedupError> {
    let layouts = layouts(model);
    // Values of Burn's own quantization take as many bytes as their scheme wants.
    let is_packed = |layout: &Layout| matches!(layout.dtype, DType::QFloat(_));
    if layouts.iter().any(is_packed) {
        let (_, storage) = content(model, state, Path::new(""), config)?;
        let tensors = None;
        return Ok(Stored { storage, tensors });
    }
    let quantized = quantized(model, &state.calibration, config)?;
    let part = |layout: Layout| {
        let values = match quantized.get(&layout.name) {
            Some(integers) => Values::Integers {
                bytes: integers.packed_len(),
                packed: None,
            },
            None => Values::Raw(None),
        };
        Part { layout, values }
    };
    let parts: Vec<Part> = layouts.into_iter().map(part).collect();
    let bytes = |part: &Part| (part.layout.name.clone(), part.bytes() as u64);
    let tensors = Some(parts.iter().map(bytes).collect());
    let (_, storage) = writer(parts, state, Path::new(""))?;
    Ok(Stored { storage, tensors })
}

/// The parameters that are stored as integers.
fn quantized<M: Module>(
    model: &M,
    calibration: &Calibration,
    config: &SaveConfig,
) -> Result<IndexMap<String, Integers>, SpeedupError> {
    match config.master_weights {
        true => Ok(IndexMap::new()),
        false => integers(model, calibration),
    }
}

fn writer(
    parts: Vec<Part>,
    state: &SmallState,
    path: &Path,
) -> Result<(Writer, Storage), SpeedupError> {
    let io = |reason: String| io_error(path, reason);
    let (state_json, values) = packed::pack(state)?;
    let mut storage = Storage::default();
    let mut json = TensorsJson::default();
    let (mut integers, mut floats) = (Stream::default(), Stream::default());
    let mut tensors = Vec::new();
    for Part { layout, values } in parts {
        let elements = layout.saved.num_elements();
        storage.f32_bytes += 4 * elements as u64;
        let id = Some(layout.id.val());
        match values {
            Values::Integers { bytes, packed } => {
                storage.integers += elements as u64;
                integers.push(bytes, packed.map(Bytes::from_bytes_vec));
                let shape = layout.in_memory.to_vec();
                json.integers.insert(layout.name, Described { shape, id });
            }
            Values::Raw(bytes) if layout.dtype == DType::F32 => {
                floats.push(elements * DType::F32.size(), bytes);
                let shape = layout.saved.to_vec();
                json.floats.insert(layout.name, Described { shape, id });
            }
            Values::Raw(bytes) => {
                let name = format!("{PARAM}{}", layout.name);
                tensors.push(tensor(name, layout.dtype, layout.saved, id, bytes));
            }
        }
    }
    storage.integer_bytes = integers.size as u64;
    tensors.extend(integers.into_tensor(INTEGERS, DType::U8));
    tensors.extend(floats.into_tensor(FLOATS, DType::F32));
    for (name, data) in values {
        let mut stream = Stream::default();
        let dtype = data.dtype();
        let bytes = data.into_bytes();
        stream.push(bytes.len(), Some(bytes));
        tensors.extend(stream.into_tensor(name, dtype));
    }
    let state_json = serde_json::to_string(&state_json).map_err(|source| io(source.to_string()))?;
    let json = serde_json::to_string(&json).map_err(|source| io(source.to_string()))?;
    let content = Writer::new(tensors)
        .with_metadata(STATE, &state_json)
        .with_metadata(TENSORS, &json);
    let size = content.size().map_err(|source| io(source.to_string()))?;
    storage.file_bytes = container::file_bytes(size);
    Ok((content, storage))
}

pub(crate) fn io_error(path: &Path, reason: String) -> SpeedupError {
    SpeedupError::Io {
        path: path.to_path_buf(),
        reason,
    }
}

/// Values of several tensors, one after another.
#[derive(Default)]
struct Stream {
    size: usize,
    parts: Vec<Option<Bytes>>,
}

impl Stream {
    fn push(&mut self, size: usize, bytes: Option<Bytes>) {
        self.size += size;
        self.parts.push(bytes);
    }

    /// One tensor of all values, none if there are none.
    fn into_tensor(self, name: &str, dtype: DType) -> Option<Tensor> {
        let (size, parts) = (self.size, self.parts);
        let joined = move || {
            let known: Option<Vec<&[u8]>> = (parts.iter())
                .map(|part| part.as_ref().map(|part| &part[..]))
                .collect();
            let known = known.ok_or_else(without_values)?;
            Ok(Bytes::from_bytes_vec(known.concat()))
        };
        let shape = vec![size / dtype.size()];
        (size > 0).then(|| Tensor::deferred(name.to_string(), dtype, shape, None, size, joined))
    }
}

fn tensor(
    name: String,
    dtype: DType,
    shape: Shape,
    id: Option<u64>,
    bytes: Option<Bytes>,
) -> Tensor {
    match bytes {
        Some(bytes) => Tensor::new(name, dtype, shape, id, bytes),
        None => {
            let size = shape.num_elements() * dtype.size();
            Tensor::deferred(name, dtype, shape, id, size, || Err(without_values()))
        }
    }
}

/// A container that was laid out to learn its size is never written.
fn without_values() -> burn_pack::Error {
    burn_pack::Error::IoError("the values are not at hand".to_string())
}
