//! One reference case: `NAME.json` with its `NAME.safetensors`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::array::Array;

/// Why a case gives no comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaseError {
    /// The case cannot be read or run: a sentence that names the case and the key. Counts as a
    /// failure.
    Failed(String),
    /// The case asks for what the library does not have. Listed with its reason, never counted as
    /// passed.
    NotCovered(String),
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) => f.write_str(message),
            Self::NotCovered(reason) => write!(f, "not covered: {reason}"),
        }
    }
}

impl std::error::Error for CaseError {}

/// Result of reading or running a case.
pub type Result<T> = std::result::Result<T, CaseError>;

/// The only version of the files that is understood.
const SCHEMA: u32 = 1;

/// The JSON half of a case.
#[derive(Debug, Clone, Deserialize)]
pub struct CaseFile {
    /// Version of the layout.
    pub schema: u32,
    /// Name of the case, equal to the name of its files.
    pub name: String,
    /// Family letter.
    pub family: String,
    /// Class of the algorithm, or several joined by `+`.
    pub algorithm: String,
    /// What the case verifies.
    pub check: String,
    /// Layers and data flow, absent where no model is needed.
    pub model: Option<ModelSpec>,
    /// Configuration, or one configuration for each compressor.
    pub config_list: Value,
    /// Arguments of the compressor and of the training.
    pub arguments: Value,
    /// Expected scalars and lists.
    pub expected: Value,
    /// When two numbers count as equal.
    pub tolerance: Tolerance,
    /// Which tensors are inputs and which are expected.
    pub tensor_roles: IndexMap<String, String>,
    /// Data type and shape of every tensor.
    pub tensors: IndexMap<String, TensorSpec>,
}

/// Shape and data type that the JSON half promises for a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TensorSpec {
    /// `float32` or `int32`.
    pub dtype: String,
    /// Sizes of the dims.
    pub shape: Vec<usize>,
}

/// `|got - expected| <= float_abs + float_rel * |expected|`; integers are exact.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Tolerance {
    /// Relative part.
    pub float_rel: f64,
    /// Absolute part.
    pub float_abs: f64,
}

/// The network of a case.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelSpec {
    /// Layers in module order.
    pub layers: Vec<LayerSpec>,
    /// Data flow as a list of operations.
    pub ops: Option<Vec<OpSpec>>,
    /// Data flow as an expression, such as `fc(relu(conv(x)))`.
    pub forward: Option<String>,
}

/// One layer, in the terms of PyTorch.
#[derive(Debug, Clone, Deserialize)]
pub struct LayerSpec {
    /// Path of the layer.
    pub name: String,
    /// Class of the layer.
    #[serde(rename = "type")]
    pub kind: String,
    /// Sizes and options; which ones depends on the class.
    #[serde(flatten)]
    pub options: IndexMap<String, Value>,
}

impl LayerSpec {
    /// A size that must be given.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_or(key, None)
    }

    /// A size, or `default` where the file leaves it out.
    pub fn size_or(&self, key: &str, default: impl Into<Option<usize>>) -> Result<usize> {
        match self.options.get(key) {
            Some(value) => value.as_u64().map(|size| size as usize).ok_or_else(|| {
                CaseError::Failed(format!(
                    "layer `{}`: `{key}` is not a size: {value}",
                    self.name
                ))
            }),
            None => default
                .into()
                .ok_or_else(|| CaseError::Failed(format!("layer `{}` has no `{key}`", self.name))),
        }
    }

    /// A number, or `default` where the file leaves it out.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.options.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| {
                CaseError::Failed(format!(
                    "layer `{}`: `{key}` is not a number: {value}",
                    self.name
                ))
            }),
        }
    }

    /// Whether the layer has a bias; layers have one unless the file says otherwise.
    pub fn bias(&self) -> bool {
        self.options
            .get("bias")
            .and_then(Value::as_bool)
            .unwrap_or(true)
    }
}

/// One operation of the data flow: named values in, one named value out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OpSpec {
    /// `layer`, `relu`, `add`, `cat`, `mean_hw` or `flatten`.
    pub op: String,
    /// The layer that is run, for `layer`.
    pub layer: Option<String>,
    /// Names of the values that are read.
    #[serde(rename = "in")]
    pub inputs: Vec<String>,
    /// Name of the value that is written.
    #[serde(rename = "out")]
    pub output: String,
}

/// A case with its tensors.
#[derive(Debug, Clone)]
pub struct Case {
    /// The JSON half.
    pub file: CaseFile,
    /// The tensors by name.
    pub tensors: BTreeMap<String, Array>,
}

impl Case {
    /// Reads `DIRECTORY/NAME.json` and `DIRECTORY/NAME.safetensors`.
    ///
    /// # Errors
    ///
    /// When a file is missing, malformed, of another schema, or when the tensors are not those that
    /// the JSON half promises.
    pub fn load(directory: &Path, name: &str) -> Result<Self> {
        let json_path = directory.join(format!("{name}.json"));
        let text = std::fs::read_to_string(&json_path).map_err(|error| {
            CaseError::Failed(format!("{name}: {}: {error}", json_path.display()))
        })?;
        let file: CaseFile = serde_json::from_str(&text).map_err(|error| {
            CaseError::Failed(format!("{name}: {}: {error}", json_path.display()))
        })?;
        if file.schema != SCHEMA {
            return Err(CaseError::Failed(format!(
                "{name}: schema {} is not understood, only {SCHEMA}",
                file.schema
            )));
        }
        let tensors_path = directory.join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&tensors_path).map_err(|error| {
            CaseError::Failed(format!("{name}: {}: {error}", tensors_path.display()))
        })?;
        let tensors = read_tensors(&bytes).map_err(|error| {
            CaseError::Failed(format!("{name}: {}: {error}", tensors_path.display()))
        })?;
        for (tensor, spec) in &file.tensors {
            let found = tensors.get(tensor).ok_or_else(|| {
                CaseError::Failed(format!(
                    "{name}: the tensor `{tensor}` is missing from the file"
                ))
            })?;
            if found.shape != spec.shape {
                return Err(CaseError::Failed(format!(
                    "{name}: `{tensor}` has the shape {:?}, the description says {:?}",
                    found.shape, spec.shape
                )));
            }
        }
        Ok(Self { file, tensors })
    }

    /// Name of the case.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The network of the case.
    ///
    /// # Errors
    ///
    /// When the case has none.
    pub fn model(&self) -> Result<&ModelSpec> {
        self.file
            .model
            .as_ref()
            .ok_or_else(|| self.error("the case has no model"))
    }

    /// A tensor by name.
    ///
    /// # Errors
    ///
    /// When the case has no such tensor.
    pub fn array(&self, name: &str) -> Result<&Array> {
        self.tensors
            .get(name)
            .ok_or_else(|| self.error(format!("no tensor `{name}`")))
    }

    /// Every tensor whose name starts with `prefix`, with the rest of its name.
    pub fn below<'a>(&'a self, prefix: &str) -> Vec<(&'a str, &'a Array)> {
        self.tensors
            .iter()
            .filter_map(|(name, array)| name.strip_prefix(prefix).map(|rest| (rest, array)))
            .collect()
    }

    /// An argument.
    ///
    /// # Errors
    ///
    /// When it is absent or of another type.
    pub fn argument<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.typed("arguments", &self.file.arguments, key)
    }

    /// An expected value.
    ///
    /// # Errors
    ///
    /// When it is absent or of another type.
    pub fn expected<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.typed("expected", &self.file.expected, key)
    }

    fn typed<T: DeserializeOwned>(&self, part: &str, object: &Value, key: &str) -> Result<T> {
        let value = object
            .get(key)
            .ok_or_else(|| self.error(format!("no `{key}` under `{part}`")))?;
        serde_json::from_value(value.clone())
            .map_err(|error| self.error(format!("`{part}.{key}`: {error}")))
    }

    /// Names of the tensors that the case expects, found through their roles.
    pub fn expected_tensors(&self) -> Vec<&str> {
        self.tensors
            .keys()
            .map(String::as_str)
            .filter(|name| self.is_expected(name))
            .collect()
    }

    fn is_expected(&self, name: &str) -> bool {
        self.file
            .tensor_roles
            .iter()
            .any(|(pattern, role)| role.starts_with("expected") && role_matches(pattern, name))
    }

    /// An error that names the case.
    pub fn error(&self, message: impl fmt::Display) -> CaseError {
        CaseError::Failed(format!("{}: {message}", self.name()))
    }

    /// The verdict that the library lacks what the case asks for.
    pub fn not_covered<T>(&self, reason: impl fmt::Display) -> Result<T> {
        Err(CaseError::NotCovered(reason.to_string()))
    }
}

/// Names of the cases of a directory: every `NAME.json` that has a `NAME.safetensors`, sorted.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn case_names(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)
        .map_err(|error| CaseError::Failed(format!("{}: {error}", directory.display())))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .filter(|path| path.file_stem().is_some_and(|stem| stem != "index"))
        .filter_map(|path: PathBuf| path.file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

fn read_tensors(bytes: &[u8]) -> std::result::Result<BTreeMap<String, Array>, String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut arrays = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let words = view.data().as_chunks::<4>().0;
        let (values, integer): (Vec<f32>, bool) = match view.dtype() {
            Dtype::F32 => (
                words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
                false,
            ),
            Dtype::I32 => {
                let integers = words.iter().map(|word| i32::from_le_bytes(*word));
                (integers.map(|value| value as f32).collect(), true)
            }
            other => return Err(format!("`{name}` has the unexpected data type {other:?}")),
        };
        arrays.insert(
            name,
            Array {
                shape: view.shape().to_vec(),
                values,
                integer,
            },
        );
    }
    Ok(arrays)
}

/// Whether a tensor name fits a pattern of `tensor_roles`: `{t}` stands for a number, a trailing `/`
/// or a word in upper case for any rest.
fn role_matches(pattern: &str, name: &str) -> bool {
    let mut rest = name;
    let mut chars = pattern.chars().peekable();
    while let Some(symbol) = chars.next() {
        match symbol {
            '{' => {
                for inner in chars.by_ref() {
                    if inner == '}' {
                        break;
                    }
                }
                let digits = rest.chars().take_while(char::is_ascii_digit).count();
                if digits == 0 {
                    return false;
                }
                rest = &rest[digits..];
            }
            upper
                if upper.is_ascii_uppercase()
                    && chars.peek().is_some_and(char::is_ascii_uppercase) =>
            {
                return !rest.is_empty();
            }
            '/' if chars.peek().is_none() => return rest.starts_with('/'),
            literal => match rest.strip_prefix(literal) {
                Some(tail) => rest = tail,
                None => return false,
            },
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_match_numbers_rests_and_literals() {
        assert!(role_matches(
            "step{t}/grad/MODULE.TARGET",
            "step12/grad/conv1.weight"
        ));
        assert!(!role_matches(
            "step{t}/grad/MODULE.TARGET",
            "step/grad/conv1.weight"
        ));
        assert!(role_matches("mask/", "mask/fc.bias"));
        assert!(!role_matches("mask/", "final_mask/fc.bias"));
        assert!(role_matches("out", "out"));
        assert!(!role_matches("out", "out_fast"));
        assert!(role_matches("distil/_output_0", "distil/_output_0"));
    }
}
