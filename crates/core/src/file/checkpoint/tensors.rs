//! The named tensors of a checkpoint, written and read.

use burn_pack::{Bytes, DType, Reader, Tensor as PackTensor};
use indexmap::IndexMap;

use super::At;
use crate::Error;
use crate::simulate::block::num_elements;
use crate::simulate::flat::HostTensor;
use crate::simulate::quantization::CalibrationEntry;
use crate::target::TargetId;

/// Burn's record of the model.
pub(super) const MODEL: &str = "model";
/// Burn's record of the evaluator's optimizer.
pub(super) const OPTIMIZER: &str = "optimizer";
/// Burn's record of the optimizer of learnables with a learning rate of their own.
pub(super) const ADAM: &str = "adam";

pub(super) fn mask_name(id: &TargetId) -> String {
    format!("mask/{id}")
}

/// A tensor of the algorithm at `index`; with an empty name, what the names of all begin with.
pub(super) fn state_name(index: usize, name: &str) -> String {
    format!("algorithm/{index}/{name}")
}

pub(super) fn learnable_name(index: usize, name: &str) -> String {
    format!("learnable/{index}/{name}")
}

/// The numbers of a calibration, by the names of their tensors.
pub(super) fn calibration_fields<'a>(
    id: &TargetId,
    entry: &'a mut CalibrationEntry,
) -> [(String, &'a mut Option<Vec<f32>>); 4] {
    [
        (format!("scale/{id}"), &mut entry.scale),
        (format!("zero_point/{id}"), &mut entry.zero_point),
        (format!("minimum/{id}"), &mut entry.minimum),
        (format!("maximum/{id}"), &mut entry.maximum),
    ]
}

pub(super) fn bytes(name: &str, content: Bytes) -> PackTensor {
    let shape = vec![content.len()];
    PackTensor::new(name.into(), DType::U8, shape, None, content)
}

pub(super) fn floats(name: String, values: &[f32], shape: &[usize]) -> PackTensor {
    let raw = values.iter().flat_map(|value| value.to_le_bytes());
    let raw = Bytes::from_bytes_vec(raw.collect());
    PackTensor::new(name, DType::F32, shape.to_vec(), None, raw)
}

/// Zeros and ones, a byte each.
pub(super) fn bits(name: String, values: &[f32], shape: &[usize]) -> PackTensor {
    let raw = values.iter().map(|&value| u8::from(value != 0.0));
    let raw = Bytes::from_bytes_vec(raw.collect());
    PackTensor::new(name, DType::U8, shape.to_vec(), None, raw)
}

pub(super) fn doubles(name: &str, values: &[f64], shape: [usize; 2]) -> PackTensor {
    let raw = values.iter().flat_map(|value| value.to_le_bytes());
    let raw = Bytes::from_bytes_vec(raw.collect());
    PackTensor::new(name.into(), DType::F64, shape.to_vec(), None, raw)
}

/// The tensors of a file, each taken once.
pub(super) struct Tensors<'a> {
    at: At<'a>,
    found: IndexMap<String, Content>,
}

struct Content {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl<'a> Tensors<'a> {
    pub fn read(reader: Reader, at: At<'a>) -> Result<Self, Error> {
        let mut found = IndexMap::new();
        for tensor in reader.into_tensors().map_err(|error| at.failed(error))? {
            let (name, dtype, shape, _, bytes) =
                tensor.into_parts().map_err(|error| at.failed(error))?;
            let shape = shape.to_vec();
            let size = num_elements(&shape).and_then(|count| count.checked_mul(dtype.size()));
            if size != Some(bytes.len()) {
                return Err(at.failed(format!("the tensor `{name}` is damaged")));
            }
            let content = Content {
                dtype,
                shape,
                bytes,
            };
            found.insert(name, content);
        }
        Ok(Self { at, found })
    }

    fn take(&mut self, name: &str, dtype: DType) -> Result<Option<Content>, Error> {
        let Some(content) = self.found.swap_remove(name) else {
            return Ok(None);
        };
        match content.dtype == dtype {
            true => Ok(Some(content)),
            false => {
                let found = content.dtype;
                let reason = format!("the tensor `{name}` holds {found:?}, not {dtype:?}");
                Err(self.at.failed(reason))
            }
        }
    }

    fn require(&mut self, name: &str, dtype: DType) -> Result<Content, Error> {
        let content = self.take(name, dtype)?;
        content.ok_or_else(|| self.at.failed(format!("the tensor `{name}` is missing")))
    }

    pub fn bytes(&mut self, name: &str) -> Result<Bytes, Error> {
        Ok(self.require(name, DType::U8)?.bytes)
    }

    pub fn doubles(&mut self, name: &str) -> Result<Vec<f64>, Error> {
        let content = self.require(name, DType::F64)?;
        let (numbers, _) = content.bytes.as_chunks::<8>();
        Ok(numbers.iter().map(|&raw| f64::from_le_bytes(raw)).collect())
    }

    /// Zeros and ones.
    pub fn bits(&mut self, name: &str) -> Result<HostTensor, Error> {
        let content = self.require(name, DType::U8)?;
        Ok(HostTensor {
            values: content.bytes.iter().map(|&bit| f32::from(bit)).collect(),
            shape: content.shape,
        })
    }

    pub fn floats(&mut self, name: &str) -> Result<HostTensor, Error> {
        Ok(host(self.require(name, DType::F32)?))
    }

    /// The floats of this name, if they are there.
    pub fn find_floats(&mut self, name: &str) -> Result<Option<HostTensor>, Error> {
        Ok(self.take(name, DType::F32)?.map(host))
    }

    /// All tensors whose names begin with `prefix`, by what follows it.
    pub fn under(&mut self, prefix: &str) -> Result<IndexMap<String, HostTensor>, Error> {
        let names = self.found.keys().filter(|name| name.starts_with(prefix));
        let names: Vec<String> = names.cloned().collect();
        let mut tensors = IndexMap::new();
        for name in names {
            let tensor = self.floats(&name)?;
            tensors.insert(name[prefix.len()..].to_string(), tensor);
        }
        Ok(tensors)
    }
}

fn host(content: Content) -> HostTensor {
    HostTensor {
        values: numbers(&content.bytes),
        shape: content.shape,
    }
}

/// Little-endian `f32`.
fn numbers(content: &[u8]) -> Vec<f32> {
    let (numbers, _) = content.as_chunks::<4>();
    numbers.iter().map(|&raw| f32::from_le_bytes(raw)).collect()
}
