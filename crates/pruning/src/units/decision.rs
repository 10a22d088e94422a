//! What a pruner decides about at once, counted in blocks.

use std::sync::Arc;

use burn_compress_core::{TargetId, TargetSpace};
use indexmap::IndexMap;

use super::{Coupled, Single, Units};
use crate::mask::{gcd, lcm, part, rounded};
use crate::{PruningError, PruningSettings};

/// What one decision is about: a target, coupled channels, or a dependency group.
pub(super) struct Decision {
    /// The targets that have a score, of which an error names the first.
    pub(super) targets: Vec<TargetId>,
    pub(super) settings: PruningSettings,
    /// The number of equal parts, each of which loses equally many blocks.
    pub(super) parts: usize,
    /// The blocks of one part.
    pub(super) size: usize,
    /// The most blocks of one part that may go.
    pub(super) free: usize,
    /// Why some must stay, if it is not only that one of them has to.
    pub(super) reason: Option<String>,
    /// The elements of one block.
    pub(super) weight: usize,
    pub(super) coupled: bool,
    /// Where the masks are.
    pub(super) spaces: Vec<Arc<TargetSpace>>,
}

impl Units {
    /// Everything with a ratio or a threshold.
    pub(super) fn decisions(&self) -> Result<Vec<Decision>, PruningError> {
        let keep = self.options.keep_at_least_one;
        let mut decisions = Vec::new();
        for group in &self.coupled {
            let targets = group.scored.iter().map(|member| member.id.clone());
            let spaces = vec![group.written[0].space.clone()];
            decisions.push(group.decision(targets.collect(), spaces, keep));
        }
        let mut dependent: IndexMap<&str, Vec<&Single>> = IndexMap::new();
        for single in &self.single {
            let settings = &single.settings;
            if let Some(group) = &settings.dependency_group_id {
                dependent.entry(group).or_default().push(single);
            } else if settings.is_active() && settings.pattern.is_none() {
                decisions.push(single.decision(keep)?);
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

impl Single {
    fn decision(&self, keep_at_least_one: bool) -> Result<Decision, PruningError> {
        let blocks = self.blocks()?;
        // In a global group the parts are ranked as one.
        let parts = self.settings.internal_metric_block.unwrap_or(1);
        let size = blocks.count() / parts;
        Ok(Decision {
            targets: vec![self.id.clone()],
            settings: self.settings.clone(),
            parts,
            size,
            free: size - usize::from(keep_at_least_one),
            reason: None,
            weight: blocks.block_len(),
            coupled: false,
            spaces: vec![self.space.clone()],
        })
    }
}

impl Coupled {
    /// What is decided about the group, whose `targets` have a score.
    pub(super) fn decision(
        &self,
        targets: Vec<TargetId>,
        spaces: Vec<Arc<TargetSpace>>,
        keep_at_least_one: bool,
    ) -> Decision {
        let parts = self.settings.internal_metric_block.unwrap_or(1);
        let size = self.channels / parts;
        Decision {
            targets,
            settings: self.settings.clone(),
            parts,
            size,
            free: self.free(size, keep_at_least_one),
            reason: self.protected.iter().flatten().next().cloned(),
            weight: self.elements,
            coupled: true,
            spaces,
        }
    }

    /// The most channels that may go of each part of `size` channels.
    fn free(&self, size: usize, keep_at_least_one: bool) -> usize {
        let mut stays: Vec<bool> = self.protected.iter().map(Option::is_some).collect();
        let mut free = vec![size; self.channels / size];
        for (channel, _) in stays.iter().enumerate().filter(|(_, stays)| **stays) {
            free[channel / size] -= 1;
        }
        if keep_at_least_one {
            let whole: Vec<Vec<usize>> = (0..free.len())
                .map(|part| (part * size..(part + 1) * size).collect())
                .collect();
            // Branches that share no channel keep one each, whichever the scores choose.
            for branch in self.branches.iter().chain(&whole) {
                let part = branch[0] / size;
                let within = branch.iter().all(|channel| channel / size == part);
                if within && branch.iter().all(|&channel| !stays[channel]) {
                    branch.iter().for_each(|&channel| stays[channel] = true);
                    free[part] -= 1;
                }
            }
        }
        free.into_iter().min().unwrap_or(0)
    }
}

impl Decision {
    /// The target that an error names.
    pub(super) fn target(&self) -> String {
        self.targets
            .first()
            .map(TargetId::to_string)
            .unwrap_or_default()
    }

    pub(super) fn blocks(&self) -> usize {
        self.parts * self.size
    }

    pub(super) fn what(&self) -> &'static str {
        match (self.coupled, self.blocks()) {
            (true, 1) => "channel",
            (true, _) => "channels",
            (false, 1) => "block",
            (false, _) => "blocks",
        }
    }

    /// The multiple of which each part keeps so many blocks that all keep one of `round_to`.
    pub(super) fn multiple(&self, round_to: usize) -> usize {
        round_to / gcd(round_to, self.parts)
    }

    /// How many blocks of each part go where `removed` may, once they are rounded.
    pub(super) fn rounded(&self, removed: usize) -> usize {
        let multiple = self.multiple(self.settings.round_to.unwrap_or(1));
        rounded(removed.min(self.free), self.size, multiple)
    }

    /// `ratio` within the minimum and the maximum.
    fn clamp(&self, ratio: f64) -> f64 {
        let settings = &self.settings;
        let ratio = settings
            .max_sparse_ratio
            .map_or(ratio, |max| ratio.min(max));
        settings
            .min_sparse_ratio
            .map_or(ratio, |min| ratio.max(min))
    }

    /// The most blocks of each part that the maximum lets go.
    pub(super) fn most(&self) -> usize {
        part(self.size, self.clamp(1.0))
    }

    /// The setting that decides how much goes, and its value.
    pub(super) fn key(&self) -> (&'static str, f64) {
        let settings = &self.settings;
        match (settings.sparse_threshold, settings.sparse_ratio) {
            (Some(threshold), _) => ("sparse_threshold", threshold),
            (None, ratio) => {
                let ratio = ratio.unwrap_or(0.0);
                let clamped = self.clamp(ratio);
                if clamped < ratio {
                    ("max_sparse_ratio", clamped)
                } else if clamped > ratio {
                    ("min_sparse_ratio", clamped)
                } else {
                    ("sparse_ratio", ratio)
                }
            }
        }
    }
}
