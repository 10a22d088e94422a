//! Applying a configuration list to the layers of a model.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use regex::Regex;

use super::error::{ConfigError, did_you_mean, listed};
use super::{ConfigList, Rule, Settings};
use crate::layer::LayerInfo;
use crate::target::{Target, TargetId};

/// A target that a rule selects, with the settings for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected<S> {
    /// The layer.
    pub layer: LayerInfo,
    /// The target in the layer.
    pub target: Target,
    /// The settings, merged and valid.
    pub settings: S,
    /// The rule that selects it, counted from 0.
    pub rule: usize,
}

impl<S> Selected<S> {
    /// The layer's path and the target.
    pub fn id(&self) -> TargetId {
        TargetId::new(&self.layer.path, self.target.clone())
    }
}

impl<S: Settings> ConfigList<S> {
    /// The targets that the rules select among `layers`, in the order of the layers.
    ///
    /// # Errors
    ///
    /// Rules that would have another effect than written: see [the module](super#nothing-is-ignored).
    pub fn select(&self, layers: &[LayerInfo]) -> Result<Vec<Selected<S>>, ConfigError> {
        if self.rules.is_empty() {
            return Err(ConfigError::NoRules);
        }
        let mut taken: IndexMap<TargetId, usize> = IndexMap::new();
        let mut selected = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let selection = Selection {
                index,
                rule,
                layers,
            };
            for (position, target) in selection.targets(&selection.layers()?)? {
                let layer = &layers[position];
                let id = TargetId::new(&layer.path, target.clone());
                if let Some(first) = taken.insert(id.clone(), index) {
                    return Err(ConfigError::Duplicate {
                        target: id,
                        first,
                        second: index,
                    });
                }
                let settings = selection.settings(layer, &target)?;
                let layer = layer.clone();
                selected.push((
                    position,
                    Selected {
                        layer,
                        target,
                        settings,
                        rule: index,
                    },
                ));
            }
        }
        selected.sort_by_key(|(position, _)| *position);
        Ok(selected.into_iter().map(|(_, one)| one).collect())
    }
}

/// One rule applied to a model. Layers are positions in `layers`.
struct Selection<'a, S> {
    index: usize,
    rule: &'a Rule<S>,
    layers: &'a [LayerInfo],
}

impl<S: Settings> Selection<'_, S> {
    /// The selected layers; at least one.
    fn layers(&self) -> Result<BTreeSet<usize>, ConfigError> {
        let rule = self.rule;
        let has_names = !rule.op_names.is_empty() || !rule.op_names_re.is_empty();
        let has_types = !rule.op_types.is_empty();
        let mut named = self.by_name("op_names", &rule.op_names)?;
        named.extend(self.by_pattern("op_names_re", &rule.op_names_re)?);
        let typed = self.by_type("op_types", &rule.op_types)?;
        let positive: BTreeSet<usize> = match (has_names, has_types) {
            (false, false) => return Err(ConfigError::NoSelector { rule: self.index }),
            (true, false) => named,
            (false, true) => typed,
            (true, true) => {
                let both: BTreeSet<usize> = named.intersection(&typed).copied().collect();
                if both.is_empty() {
                    return Err(self.empty(format!(
                        "the layers that it names ({}) are none of the types {} in `op_types`",
                        self.shown(&named),
                        listed(&rule.op_types, " or "),
                    )));
                }
                both
            }
        };
        let mut excluded = self.by_name("exclude_op_names", &rule.exclude_op_names)?;
        excluded.extend(self.by_pattern("exclude_op_names_re", &rule.exclude_op_names_re)?);
        excluded.extend(self.by_type("exclude_op_types", &rule.exclude_op_types)?);
        let chosen: BTreeSet<usize> = positive.difference(&excluded).copied().collect();
        if chosen.is_empty() {
            let reason = format!(
                "all that it selects ({}) is excluded",
                self.shown(&positive)
            );
            return Err(self.empty(reason));
        }
        Ok(chosen)
    }

    fn by_name(&self, key: &'static str, names: &[String]) -> Result<BTreeSet<usize>, ConfigError> {
        if names.is_empty() {
            return Ok(BTreeSet::new());
        }
        let paths = self.layers.iter().map(|layer| layer.path.as_str());
        let positions: BTreeMap<&str, usize> = paths.zip(0..).collect();
        let find = |name: &String| {
            let position = positions.get(name.as_str()).copied();
            position.ok_or_else(|| ConfigError::UnknownName {
                rule: self.index,
                key,
                name: name.clone(),
                hint: self.name_hint(name),
            })
        };
        names.iter().map(find).collect()
    }

    fn by_type(&self, key: &'static str, kinds: &[String]) -> Result<BTreeSet<usize>, ConfigError> {
        let mut found = BTreeSet::new();
        for kind in kinds {
            let matches = self.positions(|layer| !kind.is_empty() && layer.kind == *kind);
            if matches.is_empty() {
                return Err(ConfigError::UnknownType {
                    rule: self.index,
                    key,
                    kind: kind.clone(),
                    hint: self.type_hint(kind),
                });
            }
            found.extend(matches);
        }
        Ok(found)
    }

    fn by_pattern(
        &self,
        key: &'static str,
        patterns: &[String],
    ) -> Result<BTreeSet<usize>, ConfigError> {
        let rule = self.index;
        let mut found = BTreeSet::new();
        for pattern in patterns {
            let regex = Regex::new(pattern).map_err(|error| ConfigError::Pattern {
                rule,
                key,
                pattern: pattern.clone(),
                reason: error.to_string(),
            })?;
            // The leftmost match begins at 0 exactly if there is one that begins at 0.
            let from_start = |path: &str| regex.find(path).is_some_and(|m| m.start() == 0);
            let matches = self.positions(|layer| from_start(&layer.path));
            if matches.is_empty() {
                let inside = self.positions(|layer| regex.is_match(&layer.path));
                let hint = if inside.is_empty() {
                    let all = self.positions(|layer| !layer.path.is_empty());
                    format!(". The layers are {}", self.shown(&all))
                } else {
                    let inside = self.shown(&inside);
                    format!(", and this one matches later in {inside}: begin it with `.*`")
                };
                return Err(ConfigError::NoMatch {
                    rule,
                    key,
                    pattern: pattern.clone(),
                    hint,
                });
            }
            found.extend(matches);
        }
        Ok(found)
    }

    /// The targets in these layers; at least one in each layer of `op_names`.
    fn targets(&self, chosen: &BTreeSet<usize>) -> Result<Vec<(usize, Target)>, ConfigError> {
        let mut wanted = Vec::new();
        for &position in chosen {
            let layer = &self.layers[position];
            let targets = match &self.rule.target_names {
                Some(targets) => targets.clone(),
                None => S::default_targets(layer),
            };
            wanted.extend(targets.into_iter().map(|target| (position, target)));
        }
        let targets: Vec<(usize, Target)> = wanted
            .iter()
            .filter(|(position, target)| !target.is_param() || self.layers[*position].has(target))
            .cloned()
            .collect();
        for target in self.rule.target_names.iter().flatten() {
            if !targets.iter().any(|(_, found)| found == target) {
                return Err(ConfigError::UnknownTarget {
                    rule: self.index,
                    target: target.clone(),
                    hint: self.params_hint(target, chosen),
                });
            }
        }
        let with_targets: BTreeSet<usize> = targets.iter().map(|(found, _)| *found).collect();
        for &position in chosen {
            let layer = &self.layers[position];
            let lacks = !with_targets.contains(&position);
            // A pattern or a type may well pass over layers that have nothing to act on, unless
            // nothing else is left.
            if lacks && (targets.is_empty() || self.rule.op_names.contains(&layer.path)) {
                return Err(ConfigError::NoTarget {
                    rule: self.index,
                    layer: described(layer),
                    hint: has_hint(layer),
                });
            }
        }
        if let Some(target) = self
            .rule
            .target_settings
            .keys()
            .find(|target| !targets.iter().any(|(_, found)| found == *target))
        {
            let names: BTreeSet<&Target> = targets.iter().map(|(_, target)| target).collect();
            let names: Vec<String> = names.into_iter().map(Target::to_string).collect();
            return Err(ConfigError::UnusedSettings {
                rule: self.index,
                target: target.clone(),
                targets: listed(&names, " and "),
            });
        }
        for (position, target) in &targets {
            let layer = &self.layers[*position];
            if !layer.has(target) {
                return Err(ConfigError::NotWrapped {
                    rule: self.index,
                    target: TargetId::new(&layer.path, target.clone()),
                    change: wrapping(layer),
                });
            }
        }
        Ok(targets)
    }

    fn settings(&self, layer: &LayerInfo, target: &Target) -> Result<S, ConfigError> {
        let mut settings = S::default().merge(&self.rule.settings);
        if let Some(over) = self.rule.target_settings.get(target) {
            settings = settings.merge(over);
        }
        match settings.validate(layer, target) {
            Ok(()) => Ok(settings),
            Err(reason) => Err(ConfigError::Invalid {
                rule: self.index,
                layer: described(layer),
                target: target.clone(),
                reason,
            }),
        }
    }

    fn positions(&self, mut keep: impl FnMut(&LayerInfo) -> bool) -> BTreeSet<usize> {
        let kept = self
            .layers
            .iter()
            .enumerate()
            .filter(|(_, layer)| keep(layer));
        kept.map(|(position, _)| position).collect()
    }

    fn shown(&self, positions: &BTreeSet<usize>) -> String {
        let paths: Vec<&str> = positions
            .iter()
            .map(|&position| self.layers[position].path.as_str())
            .collect();
        listed(&paths, " and ")
    }

    fn empty(&self, reason: String) -> ConfigError {
        ConfigError::Empty {
            rule: self.index,
            reason,
        }
    }

    fn name_hint(&self, name: &str) -> String {
        let inside = self.positions(|layer| layer.path.starts_with(&format!("{name}.")));
        if !inside.is_empty() {
            return format!(
                ", but a module that contains {}: name these, select them with the pattern \
                 `{}\\.` in `op_names_re`, or put the module in a `Wrapper` to make it one layer",
                self.shown(&inside),
                regex::escape(name),
            );
        }
        let guess = did_you_mean(name, self.layers.iter().map(|layer| layer.path.as_str()));
        if guess.is_empty() {
            let all = self.positions(|layer| !layer.path.is_empty());
            return format!(". The layers are {}", self.shown(&all));
        }
        guess
    }

    fn type_hint(&self, kind: &str) -> String {
        let mut kinds: Vec<&str> = Vec::new();
        for layer in self.layers {
            if !layer.kind.is_empty() && !kinds.contains(&layer.kind.as_str()) {
                kinds.push(&layer.kind);
            }
        }
        let guess = did_you_mean(kind, kinds.iter().copied());
        let end = if guess.is_empty() { "." } else { "" };
        let mut hint = format!("{guess}{end} Its types are {}", listed(&kinds, " and "));
        let unknown = self.positions(|layer| layer.kind.is_empty());
        if guess.is_empty() && !unknown.is_empty() {
            hint += &format!(
                "; the types of {} are unknown, because a layer without parameters shows its type \
                 only in a wrapper: declare such a field as `Wrapper<{kind}>` to select it by type",
                self.shown(&unknown),
            );
        }
        hint
    }

    fn params_hint(&self, target: &Target, chosen: &BTreeSet<usize>) -> String {
        let mut names: Vec<&str> = Vec::new();
        for layer in chosen.iter().map(|&position| &self.layers[position]) {
            for param in &layer.params {
                if !names.contains(&param.name.as_str()) {
                    names.push(&param.name);
                }
            }
        }
        let guess = did_you_mean(&target.to_string(), names.iter().copied());
        format!("{guess} (they have {})", listed(&names, " and "))
    }
}

/// `layer `conv1` (Conv2d)`.
fn described(layer: &LayerInfo) -> String {
    let name = match layer.path.as_str() {
        "" => "the model itself".to_string(),
        path => format!("layer `{path}`"),
    };
    match layer.kind.as_str() {
        "" => name,
        kind => format!("{name} ({kind})"),
    }
}

fn has_hint(layer: &LayerInfo) -> String {
    let names: Vec<&str> = layer.params.iter().map(|p| p.name.as_str()).collect();
    match names.as_slice() {
        [] => ", it has no parameters".to_string(),
        names => format!(", its parameters are {}", listed(names, " and ")),
    }
}

/// The change that puts the layer in a wrapper.
fn wrapping(layer: &LayerInfo) -> String {
    let kind = match layer.kind.as_str() {
        "" => "L",
        kind => kind,
    };
    let is_position = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    let Some(field) = layer.path.rsplit('.').find(|part| !is_position(part)) else {
        return format!("Make the model a struct with one field `Wrapper<{kind}>`");
    };
    let (before, after) = match field == layer.name() {
        true => (kind.to_string(), format!("Wrapper<{kind}>")),
        false => (format!("Vec<{kind}>"), format!("Vec<Wrapper<{kind}>>")),
    };
    let unknown = match layer.kind.as_str() {
        "" => ", where `L` is the type of the layer",
        _ => "",
    };
    format!(
        "Change the field `{field}: {before}` to `{field}: {after}`{unknown}; `.into()` makes the \
         wrapper from the layer, and the paths and records of the model stay as they are"
    )
}
