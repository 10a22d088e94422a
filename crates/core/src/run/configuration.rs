//! Configuration of an algorithm, as data that a checkpoint holds and compares.

use std::fmt;

use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::target::TargetId;

/// Settings by name.
type Settings = IndexMap<String, String>;

/// The configuration of an algorithm: its own settings, and the settings of each of its targets.
///
/// Nested settings have names with dots, `schedule.interval`; settings that are not set are left
/// out. Values are text, since a number that is parsed from JSON need not be the one that was
/// written.
///
/// ```
/// use burn_compress_core::Configuration;
/// use serde_json::json;
///
/// let saved = Configuration::of(&json!({"steps": 8, "pruner": {"coupled": true}}));
/// let now = saved.clone().with("steps", &4);
/// let differences = now.differences(&saved, "TaylorPruner");
/// assert_eq!(differences[0].to_string(), "TaylorPruner: `steps` was 8, is 4");
/// assert_eq!(differences.len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    settings: Settings,
    targets: IndexMap<TargetId, Settings>,
}

impl Configuration {
    /// The fields of `config` as settings.
    pub fn of(config: &impl Serialize) -> Self {
        Self {
            settings: flattened("", config),
            targets: IndexMap::new(),
        }
    }

    /// Sets one setting, or several with the prefix `name` if the value has fields.
    #[must_use]
    pub fn with(mut self, name: &str, value: &impl Serialize) -> Self {
        self.settings.extend(flattened(name, value));
        self
    }

    /// Leaves out a setting that has no influence on the result.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.settings.shift_remove(name);
        self
    }

    /// Adds a target with the fields of `settings`.
    #[must_use]
    pub fn with_target(mut self, target: &TargetId, settings: &impl Serialize) -> Self {
        let known = self.targets.entry(target.clone()).or_default();
        known.extend(flattened("", settings));
        self
    }

    /// Whether there is no setting at all.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.targets.is_empty()
    }

    /// The targets that have settings.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &TargetId> {
        self.targets.keys()
    }

    /// Every setting that `saved` has otherwise, as differences of `algorithm`.
    pub fn differences(&self, saved: &Self, algorithm: &str) -> Vec<Difference> {
        let mut found = differing(algorithm, None, &saved.settings, &self.settings);
        let targets: IndexSet<_> = saved.targets.keys().chain(self.targets.keys()).collect();
        for id in targets {
            let target = Some(id.to_string());
            match (saved.targets.get(id), self.targets.get(id)) {
                (Some(saved), Some(now)) => found.extend(differing(algorithm, target, saved, now)),
                (saved, now) => found.push(Difference {
                    algorithm: algorithm.to_string(),
                    target,
                    setting: "selected".to_string(),
                    saved: Some(saved.is_some().to_string()),
                    now: Some(now.is_some().to_string()),
                }),
            }
        }
        found
    }
}

fn differing(
    algorithm: &str,
    target: Option<String>,
    saved: &Settings,
    now: &Settings,
) -> Vec<Difference> {
    let names: IndexSet<&String> = saved.keys().chain(now.keys()).collect();
    let differ = names
        .into_iter()
        .filter(|name| saved.get(*name) != now.get(*name));
    let difference = |name: &String| Difference {
        algorithm: algorithm.to_string(),
        target: target.clone(),
        setting: name.clone(),
        saved: saved.get(name).cloned(),
        now: now.get(name).cloned(),
    };
    differ.map(difference).collect()
}

/// A value as settings: its fields, or itself as the setting `name`.
fn flattened(name: &str, value: &impl Serialize) -> Settings {
    let mut settings = Settings::new();
    match serde_json::to_value(value) {
        Ok(value) => flatten(name, value, &mut settings),
        // What JSON cannot express cannot be compared, but must not look like nothing either.
        Err(error) => {
            settings.insert(name.to_string(), error.to_string());
        }
    }
    settings
}

fn flatten(name: &str, value: Value, settings: &mut Settings) {
    let text = match value {
        Value::Null => return,
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = match name {
                    "" => field,
                    name => format!("{name}.{field}"),
                };
                flatten(&name, value, settings);
            }
            return;
        }
        Value::String(text) => text,
        other => other.to_string(),
    };
    settings.insert(name.to_string(), text);
}

/// A setting that a checkpoint was made with otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The algorithm, or `evaluator`.
    pub algorithm: String,
    /// The target or parameter that the setting is of; none of a setting for all of them.
    pub target: Option<String>,
    /// Name of the setting.
    pub setting: String,
    /// Its value in the checkpoint, if it was set.
    pub saved: Option<String>,
    /// Its value in the chain that shall go on, if it is set.
    pub now: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.algorithm)?;
        if let Some(target) = &self.target {
            write!(f, ", `{target}`")?;
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_string());
        let (saved, now) = (text(&self.saved), text(&self.now));
        write!(f, ": `{}` was {saved}, is {now}", self.setting)
    }
}

/// All differences, one a line.
pub(crate) fn lines(differences: &[Difference]) -> String {
    let lines = differences
        .iter()
        .map(|difference| format!("\n  {difference}"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(text: &str) -> TargetId {
        text.parse().unwrap()
    }

    #[test]
    fn every_difference_is_found_with_its_place() {
        let saved = Configuration::of(&json!({"start": 0, "rate": 0.1, "seed": null}))
            .with("schedule", &json!({"interval": 8, "times": 1}))
            .with_target(&id("a.weight"), &json!({"dtype": "int8", "sizes": [4, -1]}))
            .with_target(&id("b.weight"), &json!({"dtype": "int8"}));
        let now = Configuration::of(&json!({"start": 7, "rate": 0.1, "seed": 3}))
            .with("schedule", &json!({"interval": 4, "times": 1}))
            .with_target(&id("a.weight"), &json!({"dtype": "int4", "sizes": [4, -1]}))
            .with_target(&id("c.weight"), &json!({"dtype": "int8"}));
        let found: Vec<String> = now
            .differences(&saved, "Toy")
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = [
            "Toy: `start` was 0, is 7",
            "Toy: `schedule.interval` was 8, is 4",
            "Toy: `seed` was not set, is 3",
            "Toy, `a.weight`: `dtype` was int8, is int4",
            "Toy, `b.weight`: `selected` was true, is false",
            "Toy, `c.weight`: `selected` was false, is true",
        ];
        assert_eq!(found, expected);
        assert_eq!(saved.differences(&saved, "Toy"), []);
    }

    #[test]
    fn it_survives_json_to_the_last_bit() {
        let third = Configuration::of(&json!({"x": 0.1 + 0.2, "y": 1.0 / 3.0}));
        let text = serde_json::to_string(&third).unwrap();
        assert_eq!(serde_json::from_str::<Configuration>(&text).unwrap(), third);
        let without = third.clone().without("x");
        assert_eq!(third.differences(&without, "Toy").len(), 1);
        assert!(without.without("y").is_empty());
    }
}
