//! The configuration list: which layers, which targets, which settings.
//!
//! A [`ConfigList`] is data, one [`Rule`] after another, written in JSON, TOML or Rust. It is
//! generic over the [`Settings`] of a mode, which the crates of the algorithms define.
//!
//! # Which layers
//!
//! ```text
//! selected = (op_names + matches of op_names_re)          without op_types
//!          = all layers of op_types                       without names and patterns
//!          = (op_names + matches of op_names_re) of types op_types    with both
//!            - exclude_op_names - matches of exclude_op_names_re - layers of exclude_op_types
//! ```
//!
//! At least one of `op_types`, `op_names` and `op_names_re` is required. Types are short names
//! (`Conv2d`), names are full paths (`blocks.0.conv1`), and a pattern has to match from the start
//! of the path but not to its end, as in Python's `re.match`: `fc1` also matches `fc10`, `fc1$`
//! does not. Patterns are those of the [`regex`] crate, without look-around.
//!
//! # Which targets
//!
//! Those of `target_names`, or what the mode acts on by default. A parameter that only some of the
//! selected layers have (a bias) is left out for the others. Inputs and outputs need a `Wrapper`
//! around the layer.
//!
//! # Which settings
//!
//! All other keys of a rule are settings for all of its targets; `target_settings` overrides them
//! for one target:
//!
//! ```text
//! settings of a target = default <- settings of the rule <- target_settings of the target
//! ```
//!
//! # Nothing is ignored
//!
//! A misspelt key, name, type or target, a pattern without a match, an exclusion of something that
//! does not exist, a rule that selects nothing, a target that is selected twice and settings that
//! are used by no target are all errors, with what was found and what to write instead. This
//! is where the list differs from NNI's, which ignores or overrides most of these.
//!
//! What stays without an error is what a selection of many passes over: a layer that matches a
//! type or a pattern but has none of the rule's parameters.
//!
//! # Example
//!
//! ```
//! use burn::nn::conv::{Conv2d, Conv2dConfig};
//! use burn::nn::{Linear, LinearConfig};
//! use burn::prelude::*;
//! use burn_compress_core::config::{ConfigList, Settings};
//! use burn_compress_core::layer::{LayerInfo, layers};
//! use burn_compress_core::target::{Mode, Target};
//! use serde::{Deserialize, Serialize};
//!
//! /// The settings of a mode: every field is optional, and no other key is allowed.
//! #[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
//! #[serde(default, deny_unknown_fields)]
//! struct Sparsity {
//!     sparse_ratio: Option<f64>,
//! }
//!
//! impl Settings for Sparsity {
//!     const MODE: Mode = Mode::Pruning;
//!
//!     fn default_targets(_: &LayerInfo) -> Vec<Target> {
//!         vec![Target::param("weight")]
//!     }
//!
//!     fn merge(self, over: &Self) -> Self {
//!         Self { sparse_ratio: over.sparse_ratio.or(self.sparse_ratio) }
//!     }
//!
//!     fn validate(&self, _: &LayerInfo, _: &Target) -> Result<(), String> {
//!         match self.sparse_ratio {
//!             Some(ratio) if (0.0..1.0).contains(&ratio) => Ok(()),
//!             other => Err(format!("`sparse_ratio` is {other:?}, not in 0..1")),
//!         }
//!     }
//! }
//!
//! #[derive(Module, Debug)]
//! struct Net {
//!     stem: Conv2d,
//!     conv: Conv2d,
//!     fc: Linear,
//! }
//!
//! let device = Device::flex();
//! let net = Net {
//!     stem: Conv2dConfig::new([1, 4], [3, 3]).init(&device),
//!     conv: Conv2dConfig::new([4, 4], [3, 3]).init(&device),
//!     fc: LinearConfig::new(4, 2).init(&device),
//! };
//! let config: ConfigList<Sparsity> = ConfigList::from_toml(
//!     r#"
//!     [[rules]]
//!     op_types = ["Conv2d"]
//!     exclude_op_names = ["stem"]
//!     sparse_ratio = 0.5
//!
//!     [[rules]]
//!     op_names = ["fc"]
//!     sparse_ratio = 0.25
//!     "#,
//! )?;
//! let selected: Vec<_> = config
//!     .select(&layers(&net))?
//!     .into_iter()
//!     .map(|s| (s.id().to_string(), s.settings.sparse_ratio))
//!     .collect();
//! assert_eq!(
//!     selected,
//!     [("conv.weight".to_string(), Some(0.5)), ("fc.weight".to_string(), Some(0.25))]
//! );
//!
//! let misspelt = r#"[{"op_types": ["Conv2d"], "sparse_ration": 0.5}]"#;
//! let error = ConfigList::<Sparsity>::from_json(misspelt).unwrap_err().to_string();
//! assert!(error.starts_with("rule 0: unknown key `sparse_ration`, did you mean `sparse_ratio`?"));
//! # Ok::<(), burn_compress_core::config::ConfigError>(())
//! ```

mod error;
mod rule;
mod selected;
mod unique;

use std::fmt::Debug;

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};

pub use error::{ConfigError, did_you_mean};
pub use rule::{Rule, named, on};
pub use selected::Selected;

use crate::layer::LayerInfo;
use crate::target::{Mode, Target};
use rule::RawRule;

/// The settings of a mode.
///
/// Implement it for a plain struct with `#[serde(default, deny_unknown_fields)]` in which every
/// field is an `Option` and [`Default`] sets none of them: an absent key, a null and a `None` are
/// the same. The names of the selection keys (`op_types`, ..) are taken.
pub trait Settings: Serialize + DeserializeOwned + Clone + Debug + PartialEq + Default {
    /// The mode that these settings are for.
    const MODE: Mode;

    /// The targets of a layer for which the rule has no `target_names`.
    ///
    /// Parameters that the layer does not have are left out, so that it may name `bias` for a layer
    /// type whose bias is optional.
    fn default_targets(layer: &LayerInfo) -> Vec<Target>;

    /// `self` with everything that is set in `over`.
    #[must_use]
    fn merge(self, over: &Self) -> Self;

    /// Whether the settings make sense for this target.
    ///
    /// # Errors
    ///
    /// What is wrong and what is allowed, for a person to read; the rule, the layer and the target
    /// are added.
    fn validate(&self, layer: &LayerInfo, target: &Target) -> Result<(), String>;
}

/// A configuration: a list of rules, each for other targets.
///
/// It is (de)serialized as a plain list, so that it can be a part of a larger file. Compressors take
/// whatever becomes one: a list, a reference to a list, a rule, or an array of rules.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent, bound = "S: Settings")]
pub struct ConfigList<S> {
    /// The rules. No target may be selected by two of them.
    pub rules: Vec<Rule<S>>,
}

/// A TOML file cannot be a list: the list is the value of its only key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<T> {
    rules: T,
}

impl<S: Settings> ConfigList<S> {
    /// The list of these rules.
    pub fn new(rules: Vec<Rule<S>>) -> Self {
        Self { rules }
    }

    /// Reads a JSON list of rules, `[{"op_types": ["Conv2d"], ..}]`.
    ///
    /// # Errors
    ///
    /// Text that is no such list, unknown keys and values of the wrong type.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let rules = serde_json::from_str(text).map_err(|error| ConfigError::Syntax {
            format: "JSON",
            expected: "a list of rules `[{..}, ..]`",
            reason: error.to_string(),
        })?;
        Self::from_raw(rules)
    }

    /// Reads TOML with one `[[rules]]` table for each rule.
    ///
    /// # Errors
    ///
    /// Text that has no such tables or something else besides, unknown keys and values of the wrong
    /// type.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let document: Document<Vec<RawRule>> =
            toml::from_str(text).map_err(|error| ConfigError::Syntax {
                format: "TOML",
                expected: "a `[[rules]]` table for each rule",
                reason: error.to_string(),
            })?;
        let not_finite = |(rule, raw): (usize, &RawRule)| Some((rule, raw.null()?));
        if let Some((rule, key)) = document.rules.iter().enumerate().find_map(not_finite) {
            let reason = "a finite number is expected, not `nan` or `inf`".to_string();
            return Err(ConfigError::Value { rule, key, reason });
        }
        Self::from_raw(document.rules)
    }

    /// The configuration as JSON, as [`from_json`](Self::from_json) reads it.
    ///
    /// # Errors
    ///
    /// Settings that serde cannot write.
    pub fn to_json(&self) -> Result<String, ConfigError> {
        serde_json::to_string_pretty(self).map_err(|error| ConfigError::Write {
            format: "JSON",
            reason: error.to_string(),
        })
    }

    /// The configuration as TOML, as [`from_toml`](Self::from_toml) reads it.
    ///
    /// # Errors
    ///
    /// Settings that serde or TOML cannot write, such as a list with a `None` in it.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(&Document { rules: self }).map_err(|error| ConfigError::Write {
            format: "TOML",
            reason: error.to_string(),
        })
    }

    fn from_raw(rules: Vec<RawRule>) -> Result<Self, ConfigError> {
        let read = |(index, raw)| Rule::from_raw(index, raw);
        let rules = rules.into_iter().enumerate().map(read);
        Ok(Self::new(rules.collect::<Result<_, _>>()?))
    }
}

impl<S> From<Rule<S>> for ConfigList<S> {
    fn from(rule: Rule<S>) -> Self {
        Self { rules: vec![rule] }
    }
}

impl<S, const N: usize> From<[Rule<S>; N]> for ConfigList<S> {
    fn from(rules: [Rule<S>; N]) -> Self {
        Self {
            rules: rules.into(),
        }
    }
}

impl<S> FromIterator<Rule<S>> for ConfigList<S> {
    fn from_iter<T: IntoIterator<Item = Rule<S>>>(rules: T) -> Self {
        Self {
            rules: rules.into_iter().collect(),
        }
    }
}

/// A copy, so that a list can be passed by reference.
impl<S: Clone> From<&Self> for ConfigList<S> {
    fn from(list: &Self) -> Self {
        list.clone()
    }
}

impl<'de, S: Settings> Deserialize<'de> for ConfigList<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_raw(Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
