//! Targets of compressors: a parameter of a layer, one of its inputs or one of its outputs.
//!
//! Targets are written as strings in configurations, reports and saved files:
//!
//! | string                      | target                                     |
//! |-----------------------------|--------------------------------------------|
//! | `weight`, `bias`, `gamma`   | [`Target::Param`], the parameter's name    |
//! | `_input_`, `_input_0`       | [`Target::Input`], the first argument      |
//! | `_output_`, `_output_0`     | [`Target::Output`], the first result       |
//!
//! ```
//! use burn_compress_graph::target::{Target, TargetId};
//!
//! let target: Target = "_output_".parse()?;
//! assert_eq!(target, Target::Output(0));
//! assert_eq!(target.to_string(), "_output_0");
//! assert_eq!(TargetId::new("stem", Target::param("weight")).to_string(), "stem.weight");
//! # Ok::<(), burn_compress_graph::target::ParseTargetError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const INPUT: &str = "_input_";
const OUTPUT: &str = "_output_";

/// A parameter, an input or an output of one layer.
///
/// Parameters are ordered before inputs, inputs before outputs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A parameter by its field name: `weight`, `bias`, `gamma`, ...
    Param(String),
    /// The input with this position.
    Input(usize),
    /// The output with this position.
    Output(usize),
}

impl Target {
    /// The parameter called `name`.
    pub fn param(name: impl Into<String>) -> Self {
        Self::Param(name.into())
    }

    /// The parameter's name, or `None` for inputs and outputs.
    pub fn param_name(&self) -> Option<&str> {
        match self {
            Self::Param(name) => Some(name),
            Self::Input(_) | Self::Output(_) => None,
        }
    }

    /// Whether the target is a parameter.
    pub fn is_param(&self) -> bool {
        matches!(self, Self::Param(_))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Param(name) => f.write_str(name),
            Self::Input(index) => write!(f, "{INPUT}{index}"),
            Self::Output(index) => write!(f, "{OUTPUT}{index}"),
        }
    }
}

impl FromStr for Target {
    type Err = ParseTargetError;

    /// # Errors
    ///
    /// An empty string, and a string that begins like an input or output without being one
    /// (`_input_x`, `_outputs`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let index = |digits: &str| match digits {
            "" => Ok(0),
            _ if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| ParseTargetError::new(text))
            }
            _ => Err(ParseTargetError::new(text)),
        };
        if let Some(digits) = text.strip_prefix(INPUT) {
            index(digits).map(Self::Input)
        } else if let Some(digits) = text.strip_prefix(OUTPUT) {
            index(digits).map(Self::Output)
        } else if text.is_empty() || text.starts_with("_input") || text.starts_with("_output") {
            Err(ParseTargetError::new(text))
        } else {
            Ok(Self::Param(text.to_string()))
        }
    }
}

impl From<&str> for Target {
    /// Reads `text` as in a configuration. What is no target counts as the name of a parameter, so
    /// that selecting it reports a parameter that no layer has.
    fn from(text: &str) -> Self {
        text.parse().unwrap_or_else(|_| Self::param(text))
    }
}

/// A target of one layer of a model: `conv1.weight`, `conv1._output_0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId {
    /// The layer's path, `blocks.0.conv1`; empty when the model itself is the layer.
    pub layer: String,
    /// The target in that layer.
    pub target: Target,
}

impl TargetId {
    /// The target `target` of the layer at `layer`.
    pub fn new(layer: impl Into<String>, target: Target) -> Self {
        Self {
            layer: layer.into(),
            target,
        }
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layer.is_empty() {
            write!(f, "{}", self.target)
        } else {
            write!(f, "{}.{}", self.layer, self.target)
        }
    }
}

impl FromStr for TargetId {
    type Err = ParseTargetError;

    /// The inverse of `Display`: everything up to the last field name is the layer.
    ///
    /// Positions in a list of parameters belong to the target: `mix.weights.0` is the parameter
    /// `weights.0` of the layer `mix`.
    ///
    /// # Errors
    ///
    /// When the last part is no [`Target`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_position = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let mut start = text.len();
        for part in text.rsplit('.') {
            start -= part.len();
            if !is_position(part) || start == 0 {
                break;
            }
            start -= 1;
        }
        let target = text[start..]
            .parse()
            .map_err(|_| ParseTargetError::new(text))?;
        let layer = text[..start].strip_suffix('.').unwrap_or_default();
        Ok(Self::new(layer, target))
    }
}

/// A string that is no [`Target`] or [`TargetId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no target: write the name of a parameter (`weight`, `bias`, ..), `_input_<n>` or \
     `_output_<n>`"
)]
pub struct ParseTargetError {
    text: String,
}

impl ParseTargetError {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_string(),
        }
    }
}

/// Serializes a type through `Display` and `FromStr`, so that it can be the key of a JSON or TOML
/// map.
macro_rules! serde_as_string {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }
    };
}

serde_as_string!(Target);
serde_as_string!(TargetId);

/// Mode of a compressor. A target can be taken once in each mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Removing values: masks.
    Pruning,
    /// Fewer bits: scales and zero points.
    Quantization,
    /// Learning from a teacher: losses between layers.
    Distillation,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pruning => "pruning",
            Self::Quantization => "quantization",
            Self::Distillation => "distillation",
        })
    }
}

/// Path of the layer of the parameter at `path`.
pub(crate) fn layer_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(layer, _)| layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("weight", Target::param("weight"))]
    #[case("_input_", Target::Input(0))]
    #[case("_input_0", Target::Input(0))]
    #[case("_output_1", Target::Output(1))]
    #[case("_hidden", Target::param("_hidden"))]
    fn reads_targets(#[case] text: &str, #[case] expected: Target) {
        assert_eq!(text.parse(), Ok(expected));
    }

    #[rstest]
    #[case("")]
    #[case("_input")]
    #[case("_outputs")]
    #[case("_output_x")]
    #[case("_output_+1")]
    #[case("_output_99999999999999999999999")]
    fn refuses_what_is_no_target(#[case] text: &str) {
        let error = text.parse::<Target>().unwrap_err().to_string();
        assert!(error.contains(&format!("`{text}` is no target")), "{error}");
    }

    #[rstest]
    #[case("conv1.weight", "conv1", "weight")]
    #[case("blocks.0.conv1._output_", "blocks.0.conv1", "_output_0")]
    #[case("mix.weights.0", "mix", "weights.0")]
    #[case("weight", "", "weight")]
    #[case("blocks.0.weight", "blocks.0", "weight")]
    fn reads_target_ids(#[case] text: &str, #[case] layer: &str, #[case] target: &str) {
        let expected = TargetId::new(layer, target.parse().unwrap());
        assert_eq!(text.parse(), Ok(expected));
    }

    #[rstest]
    #[case("")]
    #[case("conv1.")]
    #[case("conv1._output_x")]
    fn refuses_what_is_no_target_id(#[case] text: &str) {
        assert!(text.parse::<TargetId>().is_err());
    }

    #[test]
    fn targets_are_strings_in_json_also_as_keys() {
        let map = std::collections::BTreeMap::from([(Target::Output(0), Mode::Distillation)]);
        let json = serde_json::to_string(&map).unwrap();
        assert_eq!(json, r#"{"_output_0":"distillation"}"#);
        assert_eq!(
            serde_json::from_str::<std::collections::BTreeMap<Target, Mode>>(&json).unwrap(),
            map
        );
    }

    #[test]
    fn modes_are_written_as_in_json() {
        for mode in [Mode::Pruning, Mode::Quantization, Mode::Distillation] {
            assert_eq!(
                serde_json::to_value(mode).unwrap(),
                serde_json::Value::String(mode.to_string())
            );
        }
    }

    proptest! {
        #[test]
        fn target_ids_survive_their_display(
            layer in "([a-z][a-z0-9_]{0,6}(\\.[0-9])?(\\.[a-z]{1,4}){0,2})?",
            target in prop_oneof![
                "[a-z]{1,8}(\\.[0-9]{1,2})?".prop_map(Target::Param),
                (0usize..100).prop_map(Target::Input),
                (0usize..100).prop_map(Target::Output),
            ],
        ) {
            let id = TargetId::new(layer, target);
            prop_assert_eq!(id.to_string().parse::<TargetId>(), Ok(id));
        }
    }
}
