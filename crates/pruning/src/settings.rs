//! What a configuration says about pruning a target.
//!
//! ```text
//! key                    value                 meaning
//! sparse_ratio           0 to 1                fraction of the blocks to remove
//! sparse_threshold       number                blocks that score less are removed
//! max_sparse_ratio       above 0, up to 1      never remove more of this target
//! min_sparse_ratio       0 to below 1          never remove less of this target
//! global_group_id        string or integer     rank blocks across all targets of the group
//! dependency_group_id    string or integer     all targets of the group lose the same blocks
//! internal_metric_block  1 or more             in a dependency group: split the scores into so
//!                                              many parts and remove equally many in each
//! granularity            see Granularity       the shape of a block
//! align                  see Align             take the mask from another target
//! apply_method           "mul" or "add"        how the mask enters the value
//! ```
//!
//! A target needs one goal: `sparse_ratio`, `sparse_threshold` or `align`.

use burn_compress_core::MaskMethod;
use burn_compress_core::config::{ConfigList, Selected, Settings};
use burn_compress_core::layer::{LayerInfo, channel_dims};
use burn_compress_core::target::{Mode, Target};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Axes, Granularity, PruningError};

/// The settings of pruning for one target. What is `None` is not set.
///
/// # Example
///
/// ```
/// use burn_compress_pruning::PruningSettings;
///
/// let settings: PruningSettings =
///     serde_json::from_str(r#"{"sparse_ratio": 0.5, "granularity": [2, -1]}"#)?;
/// assert_eq!(settings.sparse_ratio, Some(0.5));
/// settings.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PruningSettings {
    /// The fraction of the blocks to remove, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse_ratio: Option<f64>,
    /// Blocks with a score below this are removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse_threshold: Option<f64>,
    /// The largest fraction of this target that may be removed, above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sparse_ratio: Option<f64>,
    /// The smallest fraction of this target that must be removed, below 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_sparse_ratio: Option<f64>,
    /// Targets with the same id are ranked together. An integer is read as its digits.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "string_or_integer"
    )]
    pub global_group_id: Option<String>,
    /// Targets with the same id lose the same blocks. An integer is read as its digits.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "string_or_integer"
    )]
    pub dependency_group_id: Option<String>,
    /// Into how many equal contiguous parts the scores of a dependency group are split, each of
    /// which loses equally many blocks. The group uses the least common multiple of its members'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_metric_block: Option<usize>,
    /// The shape of a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    /// Where the mask is taken from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub align: Option<Align>,
    /// How the mask enters the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply_method: Option<MaskMethod>,
}

/// A mask that follows another target's.
///
/// An element is removed when everything at the same index of `dims` of the source is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Align {
    /// The path of the source's layer; the layer itself when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_name: Option<String>,
    /// The source in that layer.
    pub target_name: Target,
    /// The dims of the source that correspond to this target's dims, in order.
    pub dims: Vec<usize>,
}

impl PruningSettings {
    /// Whether the target has a goal of its own, so that it needs scores.
    pub const fn is_active(&self) -> bool {
        self.sparse_ratio.is_some() || self.sparse_threshold.is_some()
    }

    /// These settings with every goal (ratio, threshold, maximum and minimum) multiplied by
    /// `factor`. A factor of 1 changes no bit.
    ///
    /// This is what a [`Schedule`](crate::Schedule) does to a target at each update.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |goal: Option<f64>| goal.map(|goal| goal * factor);
        Self {
            sparse_ratio: scale(self.sparse_ratio),
            sparse_threshold: scale(self.sparse_threshold),
            max_sparse_ratio: scale(self.max_sparse_ratio),
            min_sparse_ratio: scale(self.min_sparse_ratio),
            ..self.clone()
        }
    }

    /// The settings that a target has before the configuration says anything: a bias follows the
    /// output channels of its weight, the `beta` of a norm follows its `gamma`.
    pub fn template(layer: &LayerInfo, target: &Target) -> Self {
        Self {
            align: follows(layer, target),
            ..Self::default()
        }
    }

    /// The settings of a target in a rule with `shortcuts` and, in its `target_settings`,
    /// `explicit`.
    ///
    /// Shortcuts set goals and granularity for the targets that are pruned by themselves; a target
    /// that follows another by its [template](Self::template) takes only the apply method from
    /// them. What is explicit counts for both.
    pub fn resolve(
        layer: &LayerInfo,
        target: &Target,
        shortcuts: &Self,
        explicit: Option<&Self>,
    ) -> Self {
        let template = Self::template(layer, target);
        let settings = if template.align.is_some() {
            Self {
                apply_method: shortcuts.apply_method,
                ..template
            }
        } else {
            template.merge(shortcuts)
        };
        match explicit {
            Some(explicit) => settings.merge(explicit),
            None => settings,
        }
    }

    /// What a configuration selects, with the settings [resolved](Self::resolve).
    ///
    /// A pruner uses this in place of [`ConfigList::select`], which knows no templates.
    ///
    /// # Errors
    ///
    /// When the configuration selects wrongly or the settings of a target fail the
    /// [check](Self::check).
    pub fn select(
        config: &ConfigList<Self>,
        layers: &[LayerInfo],
    ) -> Result<Vec<Selected<Self>>, PruningError> {
        let mut selected = config.select(layers)?;
        for item in &mut selected {
            let rule = &config.rules[item.rule];
            let explicit = rule.target_settings.get(&item.target);
            item.settings = Self::resolve(&item.layer, &item.target, &rule.settings, explicit);
            item.settings.check().map_err(|error| error.at(item.id()))?;
        }
        Ok(selected)
    }

    /// Checks the values and their combination.
    ///
    /// # Errors
    ///
    /// When a value is out of range or NaN, two settings exclude each other, one has no effect
    /// without another, or there is no goal at all.
    pub fn check(&self) -> Result<(), PruningError> {
        self.check_ranges()?;
        let conflicts = [
            (
                ("sparse_ratio", self.sparse_ratio.is_some()),
                ("sparse_threshold", self.sparse_threshold.is_some()),
            ),
            (
                ("sparse_ratio", self.sparse_ratio.is_some()),
                ("align", self.align.is_some()),
            ),
            (
                ("global_group_id", self.global_group_id.is_some()),
                ("sparse_threshold", self.sparse_threshold.is_some()),
            ),
            (
                ("dependency_group_id", self.dependency_group_id.is_some()),
                ("align", self.align.is_some()),
            ),
        ];
        for ((first, has_first), (second, has_second)) in conflicts {
            if has_first && has_second {
                return Err(PruningError::Conflict { first, second });
            }
        }
        if !self.is_active() && self.align.is_none() {
            return Err(PruningError::NoGoal);
        }
        let ratio = "sparse_ratio";
        let goal = "sparse_ratio` or `sparse_threshold";
        let group = "dependency_group_id";
        let active = self.is_active();
        let requirements = [
            (
                "global_group_id",
                self.global_group_id.is_some(),
                ratio,
                self.sparse_ratio.is_some(),
            ),
            (group, self.dependency_group_id.is_some(), goal, active),
            (
                "max_sparse_ratio",
                self.max_sparse_ratio.is_some(),
                goal,
                active,
            ),
            (
                "min_sparse_ratio",
                self.min_sparse_ratio.is_some(),
                goal,
                active,
            ),
            (
                "internal_metric_block",
                self.internal_metric_block.is_some(),
                group,
                self.dependency_group_id.is_some(),
            ),
        ];
        for (key, set, requires, met) in requirements {
            if set && !met {
                return Err(PruningError::Requires { key, requires });
            }
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<(), PruningError> {
        let within = |key, value: Option<f64>, allowed: fn(f64) -> bool, expected| match value {
            Some(value) if !allowed(value) => Err(PruningError::Setting {
                key,
                value: value.to_string(),
                expected,
            }),
            _ => Ok(()),
        };
        within(
            "sparse_ratio",
            self.sparse_ratio,
            |r| (0.0..=1.0).contains(&r),
            "a number from 0 to 1",
        )?;
        within(
            "sparse_threshold",
            self.sparse_threshold,
            f64::is_finite,
            "a finite number",
        )?;
        within(
            "max_sparse_ratio",
            self.max_sparse_ratio,
            |r| r > 0.0 && r <= 1.0,
            "a number above 0, up to 1",
        )?;
        within(
            "min_sparse_ratio",
            self.min_sparse_ratio,
            |r| (0.0..1.0).contains(&r),
            "a number from 0 to below 1",
        )?;
        if let (Some(min), Some(max)) = (self.min_sparse_ratio, self.max_sparse_ratio)
            && min > max
        {
            return Err(PruningError::Setting {
                key: "min_sparse_ratio",
                value: min.to_string(),
                expected: "at most `max_sparse_ratio`",
            });
        }
        if self.internal_metric_block == Some(0) {
            return Err(PruningError::Setting {
                key: "internal_metric_block",
                value: "0".to_string(),
                expected: "at least 1",
            });
        }
        Ok(())
    }
}

impl Settings for PruningSettings {
    const MODE: Mode = Mode::Pruning;

    /// `weight` and `bias` of convolutions and linear layers, `gamma` and `beta` of batch norms,
    /// `weight` of embeddings, where they exist; nothing of other layers.
    fn default_targets(layer: &LayerInfo) -> Vec<Target> {
        let names: &[&str] = match layer.kind.as_str() {
            "Linear" => &["weight", "bias"],
            kind if kind.starts_with("Conv") => &["weight", "bias"],
            kind if kind.starts_with("BatchNorm") => &["gamma", "beta"],
            "Embedding" => &["weight"],
            _ => &[],
        };
        names
            .iter()
            .filter(|name| layer.param(name).is_some())
            .map(|name| Target::param(*name))
            .collect()
    }

    /// What `over` sets counts. A goal replaces the goal of another kind: a ratio drops a threshold
    /// and an alignment below it, an alignment drops a ratio and the groups.
    fn merge(self, over: &Self) -> Self {
        let new_ratio = over.sparse_ratio.is_some();
        let new_goal = over.is_active();
        let new_align = over.align.is_some();
        let keep = |kept: bool, old: Option<f64>| old.filter(|_| kept);
        Self {
            sparse_ratio: over
                .sparse_ratio
                .or(keep(!new_goal && !new_align, self.sparse_ratio)),
            sparse_threshold: over
                .sparse_threshold
                .or(keep(!new_goal, self.sparse_threshold)),
            max_sparse_ratio: over
                .max_sparse_ratio
                .or(keep(!new_align, self.max_sparse_ratio)),
            min_sparse_ratio: over
                .min_sparse_ratio
                .or(keep(!new_align, self.min_sparse_ratio)),
            global_group_id: (over.global_group_id.clone())
                .or(self.global_group_id.filter(|_| !new_align)),
            dependency_group_id: (over.dependency_group_id.clone())
                .or(self.dependency_group_id.filter(|_| !new_align)),
            internal_metric_block: (over.internal_metric_block)
                .or(self.internal_metric_block.filter(|_| !new_align)),
            granularity: over.granularity.clone().or(self.granularity),
            align: over.align.clone().or(self.align.filter(|_| !new_ratio)),
            apply_method: over.apply_method.or(self.apply_method),
        }
    }

    fn validate(&self, layer: &LayerInfo, target: &Target) -> Result<(), String> {
        // What follows another target needs no goal, and may carry shortcuts meant for that one.
        let template = Self::template(layer, target);
        if template.align.is_some() {
            let settings = template.merge(self);
            return settings.check().map_err(|error| error.to_string());
        }
        self.check().map_err(|error| error.to_string())?;
        let (Target::Param(name), Some(granularity)) = (target, &self.granularity) else {
            return Ok(());
        };
        let Some(param) = layer.param(name) else {
            return Ok(());
        };
        let axes = Axes::from(channel_dims(&layer.kind, name, param.shape.len()));
        granularity
            .resolve(&param.shape, axes, &Granularity::Default)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }
}

/// Where the mask of a bias comes from unless it is pruned by itself.
fn follows(layer: &LayerInfo, target: &Target) -> Option<Align> {
    let source = match target.param_name()? {
        "bias" => "weight",
        "beta" => "gamma",
        _ => return None,
    };
    let rank = layer.param(source)?.shape.len();
    let output = channel_dims(&layer.kind, source, rank).output?;
    Some(Align {
        module_name: None,
        target_name: Target::param(source),
        dims: vec![output],
    })
}

fn string_or_integer<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or an integer")]
    enum Id {
        Text(String),
        Number(i64),
    }
    Ok(Option::<Id>::deserialize(from)?.map(|id| match id {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    }))
}

#[cfg(test)]
mod tests;
