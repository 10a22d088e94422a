//! The file of a cache.
//!
//! ```text
//! "BURNCTCH" | length of the content u64 | checksum of the content u64 | content
//! content: length of the header u64 | header as JSON | samples
//! sample:  key u64 | for each state: rank u32, sizes u32 each, values f32 each
//! ```
//!
//! All numbers are little-endian, so values come back to the last bit.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use burn::tensor::DType;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::failed;
use crate::DistillationError;

const MAGIC: &[u8; 8] = b"BURNCTCH";
const PREFIX: usize = 24;
const VERSION: u32 = 1;

/// What a cache knows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Content {
    /// Tells the teacher from others.
    pub(super) teacher: u64,
    /// The names of the states, in their order.
    pub(super) states: Vec<String>,
    pub(super) samples: IndexMap<u64, Sample>,
}

/// What the teacher says of one sample.
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

/// Whether values of this type come back from `f32` as they were.
pub(super) fn holds_exactly(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::Flex32)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    teacher: u64,
    states: Vec<String>,
    /// The element types of the states; none while there is no sample.
    dtypes: Vec<DType>,
    samples: usize,
}

/// FNV-1a over everything that is added.
pub(super) struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    }

    pub(super) fn value(&self) -> u64 {
        self.0
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut checksum = Checksum::default();
    checksum.add(bytes);
    checksum.value()
}

/// Writes a cache to `path`; the file is replaced only when the new one is complete.
pub(super) fn write(path: &Path, content: &Content) -> Result<(), DistillationError> {
    let bytes = encode(content).map_err(|reason| failed(path, reason))?;
    let mut scratch = path.as_os_str().to_owned();
    scratch.push(format!(".{}.part", std::process::id()));
    let scratch = Path::new(&scratch);
    let written = File::create(scratch)
        .and_then(|mut file| {
            file.write_all(MAGIC)?;
            file.write_all(&(bytes.len() as u64).to_le_bytes())?;
            file.write_all(&checksum(&bytes).to_le_bytes())?;
            file.write_all(&bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(scratch, path));
    written.map_err(|error| {
        // The first error is the one to tell.
        let _ = fs::remove_file(scratch);
        failed(path, error.to_string())
    })
}

fn encode(content: &Content) -> Result<Vec<u8>, String> {
    let dtypes = content.samples.values().next().map(|sample| {
        let states = sample.states.iter();
        states.map(|state| state.dtype).collect()
    });
    let header = Header {
        version: VERSION,
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
    let file = fs::read(path).map_err(|error| failed(path, error.to_string()))?;
    decode_file(&file).map_err(|reason| failed(path, reason))
}

fn decode_file(file: &[u8]) -> Result<Content, String> {
    if !file.starts_with(MAGIC) {
        return Err("this is not a cache of a teacher".to_string());
    }
    let mut prefix = Bytes(file);
    prefix.take(MAGIC.len())?;
    let (length, expected) = (prefix.u64()?, prefix.u64()?);
    let content = &file[PREFIX..];
    if content.len() as u64 != length {
        return Err(format!(
            "it is cut off: {} of {length} bytes are there",
            content.len()
        ));
    }
    if checksum(content) != expected {
        return Err("it is damaged: the checksum does not match".to_string());
    }
    decode(content)
}

fn decode(content: &[u8]) -> Result<Content, String> {
    let mut bytes = Bytes(content);
    let length = bytes.u64()? as usize;
    let header: Header =
        serde_json::from_slice(bytes.take(length)?).map_err(|error| error.to_string())?;
    if header.version != VERSION {
        return Err(format!(
            "its format has version {}, this library reads {VERSION}",
            header.version
        ));
    }
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

/// What is left to read.
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
