//! The file of a cache: under a [`Seal`],
//!
//! ```text
//! content: length of the header u64 | header as JSON | samples
//! sample:  key u64 | for each state: rank u32, sizes u32 each, values f32 each
//! ```
//!
//! All numbers are little-endian, so values come back to the last bit.

use std::path::Path;

use burn::tensor::DType;
use burn_compress_core::file::Seal;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::DistillationError;

const SEAL: Seal = Seal::new(b"BURNCTCH", 2, "a cache of a teacher");

/// The error of a cache in `path`.
pub(super) fn failed(path: &Path, reason: String) -> DistillationError {
    DistillationError::Cache {
        path: path.to_path_buf(),
        reason,
    }
}

/// The content of a cache.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Content {
    /// The checksum of the teacher.
    pub(super) teacher: u64,
    /// The names of the states, in their order.
    pub(super) states: Vec<String>,
    pub(super) samples: IndexMap<u64, Sample>,
}

/// The output of the teacher for one sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) states: Vec<StateOf>,
}

/// One state of one sample; the first dimension counts the rows of the sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StateOf {
    pub(super) shape: Vec<usize>,
    pub(super) dtype: DType,
    pub(super) values: Vec<f32>,
}

impl StateOf {
    /// Whether both count as the same output: at most 1 % apart by their Euclidean norms.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        const APART: f64 = 0.01;
        let squares = |of: fn(f64, f64) -> f64| -> f64 {
            let values = self.values.iter().zip(&other.values);
            let values = values.map(|(&a, &b)| of(f64::from(a), f64::from(b)));
            values.map(|value| value * value).sum()
        };
        // Infinities that are equal are not apart.
        let apart = squares(|a, b| if a == b { 0.0 } else { a - b });
        let size = squares(|a, _| a).max(squares(|_, b| b));
        self.shape == other.shape && (apart == 0.0 || apart < APART * APART * size)
    }
}

/// Whether values of this type come back from `f32` as they were.
pub(super) fn holds_exactly(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::Flex32)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    teacher: u64,
    states: Vec<String>,
    /// The element types of the states; none while there is no sample.
    dtypes: Vec<DType>,
    samples: usize,
}

/// Writes a cache to `path`; the file is replaced only when the new one is complete.
pub(super) fn write(path: &Path, content: &Content) -> Result<(), DistillationError> {
    let bytes = encode(content).map_err(|reason| failed(path, reason))?;
    SEAL.write(path, &bytes)
        .map_err(|error| failed(path, error.to_string()))
}

fn encode(content: &Content) -> Result<Vec<u8>, String> {
    let dtypes = content.samples.values().next().map(|sample| {
        let states = sample.states.iter();
        states.map(|state| state.dtype).collect()
    });
    let header = Header {
        teacher: content.teacher,
        states: content.states.clone(),
        dtypes: dtypes.unwrap_or_default(),
        samples: content.samples.len(),
    };
    let header = serde_json::to_vec(&header).map_err(|error| error.to_string())?;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    for (key, sample) in &content.samples {
        bytes.extend(key.to_le_bytes());
        for state in &sample.states {
            bytes.extend((state.shape.len() as u32).to_le_bytes());
            for &size in &state.shape {
                let size = u32::try_from(size).map_err(|error| error.to_string())?;
                bytes.extend(size.to_le_bytes());
            }
            bytes.extend(state.values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
    Ok(bytes)
}

/// Reads a cache, whole and undamaged.
pub(super) fn read(path: &Path) -> Result<Content, DistillationError> {
    let content = SEAL
        .read(path)
        .map_err(|error| failed(path, error.to_string()))?;
    decode(&content).map_err(|reason| failed(path, reason))
}

fn decode(content: &[u8]) -> Result<Content, String> {
    let mut bytes = Bytes(content);
    let length = bytes.u64()? as usize;
    let header: Header =
        serde_json::from_slice(bytes.take(length)?).map_err(|error| error.to_string())?;
    if header.samples > 0 && header.dtypes.len() != header.states.len() {
        return Err("its header names other element types than states".to_string());
    }
    if let Some(dtype) = header.dtypes.iter().find(|&&dtype| !holds_exactly(dtype)) {
        return Err(format!("it holds {dtype:?}, which no teacher writes"));
    }
    let mut samples = IndexMap::new();
    for _ in 0..header.samples {
        let key = bytes.u64()?;
        let states = header.dtypes.iter().map(|&dtype| bytes.state(dtype));
        let states = states.collect::<Result<_, _>>()?;
        samples.insert(key, Sample { states });
    }
    match bytes.0.is_empty() {
        true => Ok(Content {
            teacher: header.teacher,
            states: header.states,
            samples,
        }),
        false => Err("it holds more than its header says".to_string()),
    }
}

/// The bytes that are not read yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, left) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| "it is cut off".to_string())?;
        self.0 = left;
        Ok(taken)
    }

    fn u64(&mut self) -> Result<u64, String> {
        let bytes = self.take(8)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    fn state(&mut self, dtype: DType) -> Result<StateOf, String> {
        let rank = self.u32()?;
        let mut shape = Vec::new();
        for _ in 0..rank {
            shape.push(self.u32()? as usize);
        }
        let bytes = shape
            .iter()
            .try_fold(4_usize, |bytes, &size| bytes.checked_mul(size))
            .filter(|_| !shape.is_empty())
            .ok_or_else(|| format!("it holds a state of shape {shape:?}"))?;
        let values = self.take(bytes)?.chunks_exact(4);
        let values =
            values.map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
        Ok(StateOf {
            shape,
            dtype,
            values: values.collect(),
        })
    }
}
