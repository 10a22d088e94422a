//! Planned masks of a pruner, before any score is known.
//!
//! How many blocks go follows from a ratio, its bounds and its rounding. Where the scores decide the
//! number as well, the plan assumes that they are spread evenly, so that each layer of a global group
//! loses the same fraction, and so does each branch of a concatenation.

use burn_compress_core::{Certainty, PlannedMask, TargetId};
use indexmap::IndexMap;

use super::dry_run::without_shape;
use super::independent::IndependentTarget;
use super::pruning_groups::PruningGroups;
use crate::importance::{Scale, Scores};
use crate::{Blocks, PruningError, PruningSettings};

/// Scores that rise evenly from the first block to the last.
fn even(blocks: &Blocks) -> Vec<f32> {
    let count = blocks.count();
    let score = |block| (block as f32 + 0.5) / count as f32;
    (0..count).map(score).collect()
}

impl PruningGroups {
    /// The sparsity that each target with a ratio or a pattern is to have.
    pub(crate) fn goals(&self) -> IndexMap<TargetId, f64> {
        let mut goals = IndexMap::new();
        for group in &self.coupled {
            for member in &group.scored {
                goals.extend(goal(&group.settings).map(|goal| (member.id.clone(), goal)));
            }
        }
        for target in &self.independent {
            goals.extend(goal(&target.settings).map(|goal| (target.id.clone(), goal)));
        }
        goals
    }

    /// The masks at the end of a run in which no score is better than another.
    ///
    /// Targets whose shape is unknown before a pass are left out.
    pub(crate) fn planned_masks(&self) -> Result<Vec<PlannedMask>, PruningError> {
        let unknown = without_shape(self);
        let known = self.independent.iter();
        let known: Vec<&IndependentTarget> = known
            .filter(|target| !unknown.contains(&target.id))
            .collect();
        let scored = self.scored()?.into_iter();
        let scores = scored.map(|target| (target.id().to_string(), even(target.blocks())));
        let scores = Scores {
            scale: Scale::Layer,
            by_path: scores.collect(),
        };
        let masks = self.masks_with(&known, &scores, 1.0, without_threshold)?;
        let mut planned = Vec::new();
        for group in &self.coupled {
            let keep = masks[&group.key].keep();
            let mut certainty = certainty(&group.settings);
            if certainty == Certainty::Counted && group.is_shared() {
                let reason = "layers that a concatenation joins share a ratio".to_string();
                certainty = Certainty::Estimated(reason);
            }
            for member in &group.written {
                planned.push(PlannedMask {
                    target: member.id.clone(),
                    mask: member.mask(keep, &group.settings)?,
                    certainty: certainty.clone(),
                });
            }
        }
        for target in known {
            planned.push(PlannedMask {
                target: target.id.clone(),
                mask: target.mask(&masks[&target.id.to_string()])?,
                certainty: Certainty::Counted.and(self.followed(target)),
            });
        }
        Ok(planned)
    }

    /// Certainty of a target's masks: its own, and those that it follows.
    fn followed(&self, target: &IndependentTarget) -> Certainty {
        let mut found = certainty(&target.settings);
        let mut next = target.source();
        for _ in 0..self.independent.len() {
            let Some(source) = next else { break };
            if let Some(&group) = self.groups.get(source) {
                return found.and(certainty(&self.coupled[group].settings));
            }
            let mut targets = self.independent.iter();
            let Some(source) = targets.find(|target| target.id == *source) else {
                break;
            };
            found = found.and(certainty(&source.settings));
            next = source.source();
        }
        found
    }
}

fn goal(settings: &PruningSettings) -> Option<f64> {
    match (
        settings.sparse_threshold,
        settings.sparse_ratio,
        settings.pattern,
    ) {
        (Some(_), _, _) => None,
        (None, Some(ratio), _) => Some(settings.clamped(ratio)),
        (None, None, Some(pattern)) => Some(1.0 - pattern.kept() as f64 / pattern.of() as f64),
        (None, None, None) => None,
    }
}

/// Certainty of a mask by these settings.
fn certainty(settings: &PruningSettings) -> Certainty {
    if settings.sparse_threshold.is_some() {
        let reason = "`sparse_threshold` removes whatever scores below it".to_string();
        return Certainty::Estimated(reason);
    }
    match &settings.global_group_id {
        Some(group) if settings.dependency_group_id.is_none() => Certainty::Estimated(format!(
            "the targets of the global group `{group}` share its ratio"
        )),
        _ => Certainty::Counted,
    }
}

/// Replaces a threshold by the smallest ratio that it removes.
fn without_threshold(settings: &mut PruningSettings) {
    if settings.sparse_threshold.take().is_some() {
        settings.sparse_ratio = Some(settings.min_sparse_ratio.unwrap_or(0.0));
    }
}
