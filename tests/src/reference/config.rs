//! Configuration lists: from NNI's JSON to the library's.
//!
//! The two are close relatives, so most keys pass unchanged. What differs is what [`layout`] lists,
//! and:
//!
//! - channels: PyTorch's `out_channel` is dim 0 and `in_channel` dim 1 of any parameter, while the
//!   library knows where each layer keeps its channels. They disagree for embeddings only;
//! - block lists of a linear weight are written for `[out, in]` and become lists for `[in, out]`.
//!
//! A rule that selects layers of several classes becomes one rule for each class.

use burn_compress::config::{ConfigList, Settings};
use burn_compress::layer::{LayerInfo, layers};
use burn_compress::target::{Mode, Target};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::case::{CaseError, Result};
use super::layout;
use super::model::RefModel;

/// Keys that say which layers a rule selects.
const SELECTION: [&str; 6] = [
    "op_types",
    "op_names",
    "op_names_re",
    "exclude_op_types",
    "exclude_op_names",
    "exclude_op_names_re",
];

/// What one block is where a configuration does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultBlock {
    /// One block an output channel.
    OutChannel,
    /// One block an element, or one for the whole tensor.
    Other,
}

/// Translates NNI's rules for a network.
///
/// # Errors
///
/// When a rule is not a map, selects nothing, or is refused by the library.
pub fn translate<S: Settings>(
    rules: &Value,
    model: &RefModel,
    default: DefaultBlock,
) -> Result<ConfigList<S>> {
    let rules = rules
        .as_array()
        .ok_or_else(|| CaseError::Failed("the configuration is not a list".to_owned()))?;
    let mut translated = Vec::new();
    for rule in rules {
        let rule = rule
            .as_object()
            .ok_or_else(|| CaseError::Failed(format!("a rule is not a map: {rule}")))?;
        let selection = selection(rule);
        for kind in kinds(&selection, model)? {
            let mut map = selection.clone();
            map.insert("op_types".to_owned(), json!([kind]));
            translate_rule(rule, &kind, model, default, &mut map);
            translated.push(Value::Object(map));
        }
    }
    let text = Value::Array(translated).to_string();
    ConfigList::from_json(&text)
        .map_err(|error| CaseError::Failed(format!("the configuration {text}: {error}")))
}

/// The keys that select layers, with Burn's class names.
fn selection(rule: &Map<String, Value>) -> Map<String, Value> {
    let mut selection = Map::new();
    for key in SELECTION {
        let Some(value) = rule.get(key) else { continue };
        let value = match (key, value) {
            ("op_types" | "exclude_op_types", Value::Array(classes)) => {
                let mut kinds: Vec<&str> = classes
                    .iter()
                    .filter_map(Value::as_str)
                    .map(layout::burn_kind)
                    .collect();
                kinds.dedup();
                json!(kinds)
            }
            _ => value.clone(),
        };
        selection.insert(key.to_owned(), value);
    }
    selection
}

/// The classes of the layers that a selection finds, in module order.
fn kinds(selection: &Map<String, Value>, model: &RefModel) -> Result<Vec<String>> {
    let text = Value::Array(vec![Value::Object(selection.clone())]).to_string();
    let found = ConfigList::<Probe>::from_json(&text)
        .and_then(|probe| probe.select(&layers(model)))
        .map_err(|error| CaseError::Failed(format!("the selection {text}: {error}")))?;
    let mut kinds: Vec<String> = Vec::new();
    for selected in found {
        if !kinds.contains(&selected.layer.kind) {
            kinds.push(selected.layer.kind);
        }
    }
    Ok(kinds)
}

fn translate_rule(
    rule: &Map<String, Value>,
    kind: &str,
    model: &RefModel,
    default: DefaultBlock,
    map: &mut Map<String, Value>,
) {
    for (key, value) in rule {
        match (key.as_str(), value) {
            (key, _) if SELECTION.contains(&key) => {}
            ("target_names", Value::Array(names)) => {
                let names: Vec<&str> = names
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|name| layout::burn_target(kind, name))
                    .collect();
                map.insert(key.clone(), json!(names));
            }
            ("target_settings", Value::Object(targets)) => {
                let mut translated = Map::new();
                for (target, settings) in targets {
                    let settings = match settings.as_object() {
                        Some(settings) => {
                            Value::Object(translate_settings(settings, kind, target, model))
                        }
                        None => settings.clone(),
                    };
                    translated.insert(layout::burn_target(kind, target).to_owned(), settings);
                }
                map.insert(key.clone(), Value::Object(translated));
            }
            _ => {
                let one = Map::from_iter([(key.clone(), value.clone())]);
                map.extend(translate_settings(&one, kind, "weight", model));
            }
        }
    }
    let active = ["sparse_ratio", "sparse_threshold"]
        .iter()
        .any(|key| rule.contains_key(*key));
    let named = map
        .get("granularity")
        .is_some_and(|granularity| granularity != "default");
    if kind == "Embedding" && default == DefaultBlock::OutChannel && active && !named {
        map.insert("granularity".to_owned(), json!([1, -1]));
    }
}

fn translate_settings(
    settings: &Map<String, Value>,
    kind: &str,
    target: &str,
    model: &RefModel,
) -> Map<String, Value> {
    let mut translated = Map::new();
    for (key, value) in settings {
        let value = match key.as_str() {
            _ if value.is_null() => continue,
            "granularity" => granularity(value, kind, target),
            "align" => align(value, kind, model),
            _ => value.clone(),
        };
        translated.insert(key.clone(), value);
    }
    translated
}

fn granularity(value: &Value, kind: &str, target: &str) -> Value {
    let is_parameter = !target.starts_with('_');
    match value {
        Value::String(name) if kind == "Embedding" && is_parameter => match name.as_str() {
            "out_channel" => json!([1, -1]),
            "in_channel" => json!([-1, 1]),
            _ => value.clone(),
        },
        Value::Array(list) if is_parameter => {
            let (block, back, padding) = match list.as_slice() {
                [Value::Array(block), side, padding] => {
                    (block.clone(), side == "back", padding.clone())
                }
                block => (block.to_vec(), false, json!(1)),
            };
            let missing = vec![padding; rank(kind, target).saturating_sub(block.len())];
            let mut padded = match back {
                true => [block, missing].concat(),
                false => [missing, block].concat(),
            };
            if layout::is_transposed(kind, target) {
                padded.reverse();
            }
            Value::Array(padded)
        }
        _ => value.clone(),
    }
}

/// Number of dims of a parameter.
fn rank(kind: &str, target: &str) -> usize {
    match (kind, target) {
        ("Conv2d", "weight") => 4,
        ("Linear" | "Embedding", "weight") => 2,
        _ => 1,
    }
}

fn align(value: &Value, kind: &str, model: &RefModel) -> Value {
    let Some(align) = value.as_object() else {
        return value.clone();
    };
    let source = align.get("module_name").and_then(Value::as_str);
    let source_kind = source.map_or(kind, |name| model.kind(name));
    let target = align
        .get("target_name")
        .and_then(Value::as_str)
        .unwrap_or("weight");
    let mut translated = align.clone();
    translated.retain(|_, value| !value.is_null());
    translated.insert(
        "target_name".to_owned(),
        json!(layout::burn_target(source_kind, target)),
    );
    if layout::is_transposed(source_kind, target)
        && let Some(dims) = align.get("dims").and_then(Value::as_array)
    {
        let dims: Vec<u64> = dims
            .iter()
            .filter_map(Value::as_u64)
            .map(|dim| 1 - dim)
            .collect();
        translated.insert("dims".to_owned(), json!(dims));
    }
    Value::Object(translated)
}

/// Settings without any key, to ask which layers a selection finds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe {}

impl Settings for Probe {
    const MODE: Mode = Mode::Pruning;

    fn default_targets(layer: &LayerInfo) -> Vec<Target> {
        match layer.wrapped {
            true => vec![Target::Output(0)],
            false => layer
                .params
                .iter()
                .map(|param| Target::param(&param.name))
                .collect(),
        }
    }

    fn merge(self, _over: &Self) -> Self {
        self
    }

    fn validate(&self, _layer: &LayerInfo, _target: &Target) -> std::result::Result<(), String> {
        Ok(())
    }
}
