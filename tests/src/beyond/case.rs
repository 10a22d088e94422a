//! One file of cases: an algorithm, where its numbers come from, and what is expected of it.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::reference::case::{CaseError, Result};

/// `|got - expected| <= abs + rel * |expected|`; booleans are exact.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Tolerance {
    /// Absolute part.
    pub abs: f64,
    /// Relative part.
    pub rel: f64,
}

/// A file of cases.
#[derive(Debug, Clone, Deserialize)]
pub struct CaseFile {
    /// Name of the algorithm, equal to that of the file.
    pub algorithm: String,
    /// When two numbers count as equal.
    pub tolerance: Tolerance,
    /// The cases.
    pub cases: Vec<Case>,
}

impl CaseFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is no file of cases.
    pub fn load(path: &Path) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| {
            CaseError::Failed(format!("{}: {error}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        serde_json::from_str(&text).map_err(|error| failed(&error))
    }
}

/// The files of cases in a folder or in its folder `cases`, sorted.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let below = folder.join("cases");
    let folder = if below.is_dir() { &below } else { folder };
    let entries = std::fs::read_dir(folder)
        .map_err(|error| CaseError::Failed(format!("{}: {error}", folder.display())))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_json = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    };
    let mut files: Vec<PathBuf> = paths.filter(is_json).collect();
    files.sort();
    Ok(files)
}

/// A case: what goes in and what must come out.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What goes in.
    pub inputs: Value,
    /// What must come out.
    pub expected: Value,
}

impl Case {
    /// An input.
    ///
    /// # Errors
    ///
    /// When it is absent or of another type.
    pub fn input<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.optional(key)?
            .ok_or_else(|| self.error(format!("no `{key}` under `inputs`")))
    }

    /// An input that a case may leave out or give as `null`.
    ///
    /// # Errors
    ///
    /// When it is of another type.
    pub fn optional<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.inputs.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| self.error(format!("`inputs.{key}`: {error}"))),
        }
    }

    /// Something that is expected, by its JSON pointer.
    ///
    /// # Errors
    ///
    /// When it is absent or of another type.
    pub fn expected<T: DeserializeOwned>(&self, pointer: &str) -> Result<T> {
        let value = self
            .expected
            .pointer(pointer)
            .ok_or_else(|| self.error(format!("no `{pointer}` under `expected`")))?;
        serde_json::from_value(value.clone())
            .map_err(|error| self.error(format!("`expected{pointer}`: {error}")))
    }

    /// The elements of a list that is expected, as JSON pointers; none where it is absent.
    pub fn elements(&self, pointer: &str) -> Vec<String> {
        match self.expected.pointer(pointer) {
            Some(Value::Array(list)) => (0..list.len())
                .map(|at| format!("{pointer}/{at}"))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The keys of an object that is expected; none where it is absent.
    pub fn keys(&self, pointer: &str) -> Vec<String> {
        match self.expected.pointer(pointer) {
            Some(Value::Object(map)) => map.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// An error that names the case.
    pub fn error(&self, message: impl std::fmt::Display) -> CaseError {
        CaseError::Failed(format!("{}: {message}", self.name))
    }
}

/// A tensor of a case, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// Sizes of the dims.
    pub shape: Vec<usize>,
    /// The values; a boolean is 0 or 1.
    pub values: Vec<f64>,
    /// Whether the file holds booleans, which must agree exactly.
    pub exact: bool,
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            shape: Vec<usize>,
            data: Vec<Value>,
        }
        let Raw { shape, data } = Raw::deserialize(from)?;
        if shape.iter().product::<usize>() != data.len() {
            let found = data.len();
            return Err(D::Error::custom(format!(
                "{found} values for the shape {shape:?}"
            )));
        }
        let exact = !data.is_empty() && data.iter().all(Value::is_boolean);
        let number = |value: &Value| match value {
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            other => other.as_f64(),
        };
        let values: Option<Vec<f64>> = data.iter().map(number).collect();
        Ok(Self {
            shape,
            values: values.ok_or_else(|| D::Error::custom("a value is no number"))?,
            exact,
        })
    }
}

impl Numbers {
    /// The values in single precision, as the files give inputs.
    pub fn single(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }

    /// The tensor of rank `D`.
    ///
    /// # Errors
    ///
    /// When the rank is another.
    pub fn tensor<const D: usize>(&self, device: &Device) -> Result<Tensor<D>> {
        if self.shape.len() != D {
            return Err(CaseError::Failed(format!(
                "expected a tensor of rank {D}, found the shape {:?}",
                self.shape
            )));
        }
        self.reshaped(
            self.shape[..]
                .try_into()
                .expect("the rank was compared just before"),
            device,
        )
    }

    /// The tensor of rank `D` in double precision.
    ///
    /// # Errors
    ///
    /// When the rank is another.
    pub fn double<const D: usize>(&self, device: &Device) -> Result<Tensor<D>> {
        let shape = self.tensor::<D>(device)?.dims();
        let values: Vec<f64> = self.single().into_iter().map(f64::from).collect();
        let data = TensorData::new(values, shape);
        Ok(Tensor::from_data(data, (device, DType::F64)))
    }

    /// The values in another shape.
    ///
    /// # Errors
    ///
    /// When it has another number of elements.
    pub fn reshaped<const D: usize>(
        &self,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>> {
        if shape.iter().product::<usize>() != self.values.len() {
            return Err(CaseError::Failed(format!(
                "{} values cannot have the shape {shape:?}",
                self.values.len()
            )));
        }
        let data = TensorData::new(self.single(), shape);
        Ok(Tensor::from_data(data, device))
    }

    /// The parts along the first dim.
    pub fn split(&self) -> Vec<Self> {
        let Some((&count, shape)) = self.shape.split_first() else {
            return Vec::new();
        };
        let size: usize = shape.iter().product();
        let part = |at: usize| Self {
            shape: shape.to_vec(),
            values: self.values[at * size..(at + 1) * size].to_vec(),
            exact: self.exact,
        };
        (0..count).map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tensors_hold_numbers_or_booleans() {
        let numbers: Numbers =
            serde_json::from_value(json!({"shape": [2, 1], "data": [1, -0.5]})).unwrap();
        assert_eq!(
            (&numbers.values[..], numbers.exact),
            (&[1.0, -0.5][..], false)
        );
        let parts = numbers.split();
        assert_eq!(parts[1].values, [-0.5]);
        let keep: Numbers =
            serde_json::from_value(json!({"shape": [2], "data": [true, false]})).unwrap();
        assert_eq!((&keep.values[..], keep.exact), (&[1.0, 0.0][..], true));
        for wrong in [
            json!({"shape": [2], "data": [1]}),
            json!({"shape": [1], "data": ["a"]}),
            json!({"shape": [1], "data": [1], "more": 0}),
        ] {
            assert!(serde_json::from_value::<Numbers>(wrong).is_err());
        }
    }

    #[test]
    fn inputs_may_be_left_out() {
        let case: Case = serde_json::from_value(json!({
            "name": "a", "inputs": {"x": 1.5, "bias": null}, "expected": {"list": [0, {"y": 2}]}
        }))
        .unwrap();
        assert_eq!(case.input::<f64>("x").unwrap(), 1.5);
        assert_eq!(case.optional::<f64>("bias").unwrap(), None);
        assert_eq!(case.optional::<f64>("z").unwrap(), None);
        assert!(case.input::<f64>("z").is_err());
        assert!(case.optional::<bool>("x").is_err());
        assert_eq!(case.elements("/list"), ["/list/0", "/list/1"]);
        assert_eq!(case.expected::<usize>("/list/1/y").unwrap(), 2);
        assert_eq!(case.keys("/list/1"), ["y"]);
    }
}
