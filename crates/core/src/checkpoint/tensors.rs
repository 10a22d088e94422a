//! The named tensors of a checkpoint, written and read.

use burn_pack::{Bytes, DType, Reader, Tensor as PackTensor};
use indexmap::IndexMap;

use super::At;
use crate::Error;
use crate::algorithm::HostTensor;
use crate::quantization::CalibrationEntry;
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

pub(super) fn doubles(name: &str, values: &[f64], shape: [usize; 2]) -> PackTensor {
    let raw = values.iter().flat_map(|value| value.to_le_bytes());
    let raw = Bytes::from_bytes_vec(raw.collect());
    PackTensor::new(name.into(), DType::F64, shape.to_vec(), None, raw)
}

/// The tensors of a file, each taken once.
pub(super) struct Tensors<'a> {
    at: At<'a>,
    found: IndexMap<String, (Vec<usize>, Bytes)>,
}

impl<'a> Tensors<'a> {
    pub fn read(reader: Reader, at: At<'a>) -> Result<Self, Error> {
        let mut found = IndexMap::new();
        for tensor in reader.into_tensors().map_err(|error| at.failed(error))? {
            let (name, _, shape, _, content) =
                tensor.into_parts().map_err(|error| at.failed(error))?;
            found.insert(name, (shape.to_vec(), content));
        }
        Ok(Self { at, found })
    }

    /// Shape and content of the tensor, if it is there.
    pub fn find(&mut self, name: &str) -> Option<(Vec<usize>, Bytes)> {
        self.found.swap_remove(name)
    }

    pub fn bytes(&mut self, name: &str) -> Result<Bytes, Error> {
        match self.find(name) {
            Some((_, content)) => Ok(content),
            None => Err(self.at.failed(format!("the tensor `{name}` is missing"))),
        }
    }

    pub fn floats(&mut self, name: &str) -> Result<HostTensor, Error> {
        match self.find(name) {
            Some((shape, content)) => Ok(HostTensor {
                values: numbers(&content),
                shape,
            }),
            None => Err(self.at.failed(format!("the tensor `{name}` is missing"))),
        }
    }

    /// All tensors whose names begin with `prefix`, by what follows it.
    pub fn under(&mut self, prefix: &str) -> IndexMap<String, HostTensor> {
        let names = self.found.keys().filter(|name| name.starts_with(prefix));
        let names: Vec<String> = names.cloned().collect();
        let mut tensors = IndexMap::new();
        for name in names {
            if let Some((shape, content)) = self.find(&name) {
                let values = numbers(&content);
                let tensor = HostTensor { values, shape };
                tensors.insert(name[prefix.len()..].to_string(), tensor);
            }
        }
        tensors
    }
}

/// Little-endian `f32`.
pub(super) fn numbers(content: &[u8]) -> Vec<f32> {
    let (numbers, _) = content.as_chunks::<4>();
    numbers.iter().map(|&raw| f32::from_le_bytes(raw)).collect()
}
