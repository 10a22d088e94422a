//! The settings of each target that a configuration selects.

use burn_compress_core::config::{ConfigList, Selected, Settings};
use burn_compress_core::layer::{LayerInfo, LayerKind, LayerRole, channel_dims};
use burn_compress_core::target::{Mode, Target};

use super::{Align, PruningSettings};
use crate::{Axes, Granularity, PruningError};

impl PruningSettings {
    /// The settings of a target before those of the configuration: a bias follows the
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

    /// The selected targets, with their settings [resolved](Self::resolve).
    ///
    /// A pruner uses this in place of [`ConfigList::select`], which has no templates.
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
}

impl Settings for PruningSettings {
    const MODE: Mode = Mode::Pruning;

    /// `weight` and `bias` of convolutions and linear layers, `gamma` and `beta` of batch norms,
    /// `weight` of embeddings, where they exist, and `weight` and `bias` of types that are
    /// [registered](LayerKind::register) as [weighted](LayerRole::Weighted); nothing of other layers.
    fn default_targets(layer: &LayerInfo) -> Vec<Target> {
        let kind = layer.kind.as_str();
        let names: &[&str] = match LayerKind::of(kind).role() {
            LayerRole::Weighted => &["weight", "bias"],
            _ if kind.starts_with("Conv") => &["weight", "bias"],
            _ if kind.starts_with("BatchNorm") => &["gamma", "beta"],
            _ => &[],
        };
        names
            .iter()
            .filter(|name| layer.param(name).is_some())
            .map(|name| Target::param(*name))
            .collect()
    }

    /// Settings of `over` win. A goal replaces the goal of another kind: a ratio drops a threshold,
    /// a pattern and an alignment below it, a threshold drops a ratio and its global group, a
    /// pattern or an alignment drops a ratio and the groups.
    fn merge(self, over: &Self) -> Self {
        let new_ratio = over.sparse_ratio.is_some();
        let new_goal = over.is_active();
        let new_align = over.align.is_some();
        let new_pattern = over.pattern.is_some();
        let blocks = !new_align && !new_pattern;
        let goals = !new_goal && !new_align;
        let ranked = blocks && over.sparse_threshold.is_none();
        let global_group_id = self.global_group_id.filter(|_| ranked);
        let dependency_group_id = self.dependency_group_id.filter(|_| blocks);
        // Parts are those of a group. Without one, what was written without one is left to the
        // check.
        let of_rule = over.global_group_id.is_some() || over.dependency_group_id.is_some();
        let grouped = of_rule || global_group_id.is_some() || dependency_group_id.is_some();
        let parts = blocks && (ranked || grouped);
        let kept = Self {
            sparse_ratio: self.sparse_ratio.filter(|_| goals),
            sparse_threshold: self.sparse_threshold.filter(|_| !new_goal),
            max_sparse_ratio: self.max_sparse_ratio.filter(|_| blocks),
            min_sparse_ratio: self.min_sparse_ratio.filter(|_| blocks),
            global_group_id,
            dependency_group_id,
            internal_metric_block: self.internal_metric_block.filter(|_| parts),
            round_to: self.round_to.filter(|_| blocks),
            pattern: self.pattern.filter(|_| goals),
            granularity: self.granularity.filter(|_| !new_pattern),
            align: self.align.filter(|_| !new_ratio && !new_pattern),
            activation: self.activation.filter(|_| !new_align),
            normalizer: self.normalizer.filter(|_| ranked),
            ..self
        };
        kept.overlaid(over)
    }

    fn validate(&self, layer: &LayerInfo, target: &Target) -> Result<(), String> {
        // What follows another target may carry shortcuts meant for that one; once they are taken
        // out, `select` checks the rest.
        if Self::template(layer, target).align.is_some() {
            return self.check_ranges().map_err(|error| error.to_string());
        }
        self.check().map_err(|error| error.to_string())?;
        let Some(param) = target.param_name().and_then(|name| layer.param(name)) else {
            return Ok(());
        };
        let axes = Axes::of(&layer.kind, target, param.shape.len());
        let fits = || {
            if let Some(granularity) = &self.granularity {
                granularity.grid(&param.shape, axes, &Granularity::Default)?;
            }
            if let Some(pattern) = self.pattern {
                pattern.dim(&param.shape, axes)?;
            }
            Ok(())
        };
        fits().map_err(|error: PruningError| error.to_string())
    }
}

/// The alignment of a bias that is not pruned by itself.
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
