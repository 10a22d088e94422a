//! Groups of one pruner: coupled groups and independent targets.

use indexmap::{IndexMap, IndexSet};

use burn_compress_core::TargetId;

use super::coupled::CoupledGroup;
use super::decision::Decision;
use super::goals;
use super::independent::IndependentTarget;
use crate::importance::Scores;
use crate::mask::{MaskConfig, TargetMask, generate, lcm};
use crate::sources::ScoredTarget;
use crate::{PrunerConfig, PruningError, PruningSettings};

/// Groups of one pruner.
pub(crate) struct PruningGroups {
    pub(super) coupled: Vec<CoupledGroup>,
    pub(super) independent: Vec<IndependentTarget>,
    /// Position of each coupled parameter's group.
    pub(super) groups: IndexMap<TargetId, usize>,
    pub(super) options: PrunerConfig,
}

impl PruningGroups {
    /// Every parameter that has a score, with the blocks that are scored and its settings.
    pub(crate) fn scored(&self) -> Result<Vec<ScoredTarget>, PruningError> {
        let mut scored = Vec::new();
        for (index, group) in self.coupled.iter().enumerate() {
            for member in &group.scored {
                scored.push(ScoredTarget {
                    space: member.space.clone(),
                    blocks: member.blocks()?,
                    settings: group.settings.clone(),
                    group: Some(index),
                });
            }
        }
        for target in self.independent.iter().filter(|t| t.settings.is_active()) {
            scored.push(ScoredTarget {
                space: target.space.clone(),
                blocks: target.blocks()?,
                settings: target.settings.clone(),
                group: None,
            });
        }
        Ok(scored)
    }

    /// Generates the masks for goals scaled by `factor` and writes them to their targets.
    pub(crate) fn update_masks(&self, scores: &Scores, factor: f64) -> Result<(), PruningError> {
        let targets: Vec<&IndependentTarget> = self.independent.iter().collect();
        let masks = self.masks(&targets, scores, factor)?;
        for group in &self.coupled {
            group.write(&masks[&group.key])?;
        }
        let mut targets = targets.into_iter();
        targets.try_for_each(|target| target.write(&masks[&target.id.to_string()]))
    }

    /// One warning for each positive goal that has removed nothing.
    pub(crate) fn unchanged(&self) -> Result<Vec<String>, PruningError> {
        Ok(goals::unchanged(&self.decisions()?))
    }

    /// The masks of coupled groups, by key, and of these among the independent targets, with goals
    /// scaled by `factor`.
    ///
    /// With `keep_at_least_one`, no parameter loses all channels that it has of a group.
    pub(super) fn masks(
        &self,
        targets: &[&IndependentTarget],
        scores: &Scores,
        factor: f64,
    ) -> Result<IndexMap<String, TargetMask>, PruningError> {
        self.masks_with(targets, scores, factor, |_| {})
    }

    /// As [`masks`](Self::masks), with settings that `adjust` changes before.
    pub(super) fn masks_with(
        &self,
        targets: &[&IndependentTarget],
        scores: &Scores,
        factor: f64,
        adjust: fn(&mut PruningSettings),
    ) -> Result<IndexMap<String, TargetMask>, PruningError> {
        let keep_at_least_one = self.options.keep_at_least_one;
        let config = MaskConfig::new().with_keep_at_least_one(keep_at_least_one);
        let (followers, others): (Vec<&IndependentTarget>, Vec<_>) =
            targets.iter().partition(|target| target.follows);
        let mut targets = Vec::new();
        for group in &self.coupled {
            targets.push(group.target(scores, factor, keep_at_least_one)?);
        }
        for target in others {
            targets.push(target.target(scores, factor)?);
        }
        targets
            .iter_mut()
            .for_each(|target| adjust(&mut target.settings));
        let mut masks = generate(&targets, config)?;

        let sources = followers.iter().filter_map(|target| target.source());
        let followed: IndexSet<&TargetId> = sources.collect();
        let mut targets = Vec::new();
        for group in &self.coupled {
            for member in group.written.iter().filter(|m| followed.contains(&m.id)) {
                targets.push(member.decided(masks[&group.key].keep())?);
            }
        }
        for target in followers {
            targets.push(target.target(scores, factor)?);
        }
        targets
            .iter_mut()
            .for_each(|target| adjust(&mut target.settings));
        masks.extend(generate(&targets, config)?);
        Ok(masks)
    }

    /// Decisions with a ratio or a threshold.
    pub(super) fn decisions(&self) -> Result<Vec<Decision>, PruningError> {
        let keep = self.options.keep_at_least_one;
        let mut decisions = Vec::new();
        for group in &self.coupled {
            let targets = group.scored.iter().map(|member| member.id.clone());
            let spaces = vec![group.written[0].space.clone()];
            decisions.push(group.decision(targets.collect(), spaces, keep));
        }
        let mut dependent: IndexMap<&str, Vec<&IndependentTarget>> = IndexMap::new();
        for target in &self.independent {
            let settings = &target.settings;
            if let Some(group) = &settings.dependency_group_id {
                dependent.entry(group).or_default().push(target);
            } else if settings.is_active() && settings.pattern.is_none() {
                decisions.push(target.decision(keep)?);
            }
        }
        for members in dependent.into_values() {
            let mut together = members[0].decision(keep)?;
            let (mut parts, mut multiple) = (1, 1);
            together.targets = members.iter().map(|member| member.id.clone()).collect();
            for member in members {
                let settings = &member.settings;
                parts = lcm(parts, settings.internal_metric_block.unwrap_or(1));
                multiple = lcm(multiple, settings.round_to.unwrap_or(1));
                let of = &mut together.settings;
                of.max_sparse_ratio = least(of.max_sparse_ratio, settings.max_sparse_ratio);
                of.min_sparse_ratio = greatest(of.min_sparse_ratio, settings.min_sparse_ratio);
                together.spaces.push(member.space.clone());
            }
            // Its members are ranked together and not among others.
            together.settings.global_group_id = None;
            together.settings.round_to = Some(multiple);
            let blocks = together.blocks();
            (together.parts, together.size) = (parts, blocks / parts);
            together.free = together.size - usize::from(keep);
            decisions.push(together);
        }
        Ok(decisions)
    }
}

fn least(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    [a, b].into_iter().flatten().reduce(f64::min)
}

fn greatest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    [a, b].into_iter().flatten().reduce(f64::max)
}
