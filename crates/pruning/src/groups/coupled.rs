//! Groups of coupled channels, masked together so that a removed channel is exactly zero.

use std::sync::Arc;

use burn_compress_core::{TargetId, TargetSpace};

use super::decision::Decision;
use super::member::GroupMember;
use crate::importance::{Scale, Scores};
use crate::mask::{MaskTarget, TargetMask};
use crate::{Blocks, Normalizer, PruningError, PruningSettings};

/// A group of channels that parameters share.
pub(super) struct CoupledGroup {
    pub(super) key: String,
    pub(super) settings: PruningSettings,
    pub(super) channels: usize,
    /// The elements that one channel takes in the members with a score, for global ranking.
    pub(super) elements: usize,
    pub(super) scored: Vec<GroupMember>,
    pub(super) written: Vec<GroupMember>,
    /// Reason that keeps a channel.
    pub(super) protected: Vec<Option<String>>,
    /// Sets of channels of which one must stay: all channels that some parameter has of the group, as
    /// a branch of a concatenation; fewest first.
    pub(super) branches: Vec<Vec<usize>>,
    /// Channels by the scored members that carry them, where not all carry all: the layers of a
    /// concatenation.
    pub(super) producers: Vec<Vec<usize>>,
}

/// Gives the channels of each producer the mean of all channels. Scores that have no mean above zero
/// are left as they are.
fn normalize(scores: &mut [f64], producers: &[Vec<usize>]) {
    if scores
        .iter()
        .any(|score| !score.is_finite() || *score < 0.0)
    {
        return;
    }
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    for channels in producers {
        let sum: f64 = channels.iter().map(|&channel| scores[channel]).sum();
        if sum > 0.0 {
            let factor = mean * channels.len() as f64 / sum;
            channels
                .iter()
                .for_each(|&channel| scores[channel] *= factor);
        }
    }
}

/// Gives each channel the fraction of its producer's channels that score less.
///
/// ```text
/// (r + 1/2) / n        for the channel of rank r among n, from 0
/// ```
///
/// Of the channels below any number each producer has the same fraction, to within one channel. Among
/// equals, those that are pruned at present are the first.
fn rank(scores: &mut [f64], producers: &[Vec<usize>], current: Option<&[bool]>) {
    let is_kept = |channel: usize| current.is_none_or(|keep| keep[channel]);
    for channels in producers {
        let mut order = channels.clone();
        order.sort_by(|&x, &y| {
            let ascending = scores[x].total_cmp(&scores[y]);
            ascending.then_with(|| is_kept(x).cmp(&is_kept(y)))
        });
        for (rank, channel) in order.into_iter().enumerate() {
            scores[channel] = (rank as f64 + 0.5) / channels.len() as f64;
        }
    }
}

impl CoupledGroup {
    pub(super) fn target(
        &self,
        scores: &Scores,
        factor: f64,
        keep_at_least_one: bool,
    ) -> Result<MaskTarget<String>, PruningError> {
        let mut sums = vec![(0.0f64, 0u32); self.channels];
        for member in &self.scored {
            // A member without values leaves the decision to the others.
            let Some(scores) = scores.by_path.get(&member.id.to_string()) else {
                continue;
            };
            for ((sum, count), score) in sums.iter_mut().zip(member.channel_scores(scores)) {
                if let Some(score) = score {
                    *sum += f64::from(score);
                    *count += 1;
                }
            }
        }
        let scale = scores.scale;
        let combine = |(sum, count): (f64, u32)| match scale {
            Scale::Loss => sum,
            Scale::Layer | Scale::Common => sum / f64::from(count.max(1)),
        };
        let mut combined: Vec<f64> = sums.into_iter().map(combine).collect();
        let current = self.current();
        if scale == Scale::Layer {
            match self.normalizer() {
                Normalizer::Rank => rank(&mut combined, &self.producers, current.as_deref()),
                Normalizer::Mean => normalize(&mut combined, &self.producers),
                Normalizer::None => {}
            }
        }
        let mut scores: Vec<f32> = combined.into_iter().map(|score| score as f32).collect();
        let mut settings = PruningSettings {
            normalizer: None,
            ..self.settings.scaled(factor)
        };
        let mut stays: Vec<bool> = self.protected.iter().map(Option::is_some).collect();
        if keep_at_least_one && self.keep_branches(&scores, current.as_deref(), &mut stays) {
            self.limit(&mut settings, &stays);
        }
        for (score, stays) in scores.iter_mut().zip(stays) {
            if stays {
                *score = f32::INFINITY;
            }
        }
        let blocks = Blocks::along(&[self.channels, self.elements], 0)?;
        let target = MaskTarget::new(self.key.clone(), blocks, settings).with_scores(scores);
        Ok(match current {
            Some(keep) => target.with_current(&keep),
            None => target,
        })
    }

    /// How the scores of layers are made comparable. Under a threshold they are not, and beside other
    /// groups they keep their scale.
    fn normalizer(&self) -> Normalizer {
        let settings = &self.settings;
        match (settings.sparse_threshold, settings.normalizer) {
            (Some(_), _) => Normalizer::None,
            (None, Some(normalizer)) => normalizer,
            (None, None) if settings.global_group_id.is_some() => Normalizer::Mean,
            (None, None) => Normalizer::Rank,
        }
    }

    /// Keeps the best channel of every branch, among equals one that is kept at present; returns
    /// whether one had to be chosen.
    fn keep_branches(&self, scores: &[f32], current: Option<&[bool]>, stays: &mut [bool]) -> bool {
        let is_kept = |channel: usize| current.is_none_or(|keep| keep[channel]);
        let better = |one: usize, other: usize| {
            scores[one] > scores[other]
                || (scores[one] == scores[other] && is_kept(one) && !is_kept(other))
        };
        let mut chosen = false;
        for branch in &self.branches {
            if branch.iter().any(|&channel| stays[channel]) {
                continue;
            }
            let best =
                branch.iter().copied().reduce(
                    |best, channel| {
                        if better(channel, best) { channel } else { best }
                    },
                );
            if let Some(best) = best {
                stays[best] = true;
                chosen = true;
            }
        }
        chosen
    }

    /// Limits the goal to the channels that may go, as many in each block.
    fn limit(&self, settings: &mut PruningSettings, stays: &[bool]) {
        let size = self.channels / settings.internal_metric_block.unwrap_or(1);
        let free = stays
            .chunks(size)
            .map(|block| block.iter().filter(|stays| !**stays).count());
        // Half a channel more, so that the integer part is the count whatever is rounded.
        let most = (free.min().unwrap_or(0) as f64 + 0.5) / size as f64;
        settings.max_sparse_ratio =
            Some(settings.max_sparse_ratio.map_or(most, |max| max.min(most)));
        settings.min_sparse_ratio = settings.min_sparse_ratio.map(|min| min.min(most));
    }

    fn current(&self) -> Option<Vec<bool>> {
        let member = self
            .scored
            .iter()
            .find(|m| m.positions.iter().all(|p| !p.is_empty()))?;
        let removed = member.space.mask()?.removed_along(member.dim);
        Some(
            member
                .positions
                .iter()
                .map(|positions| !removed[positions[0]])
                .collect(),
        )
    }

    /// Whether the channels are those of several layers, of which the scores choose.
    pub(super) fn is_shared(&self) -> bool {
        !self.branches.is_empty() || !self.producers.is_empty()
    }

    /// Rejects a mask that removes a channel that must stay.
    pub(super) fn check(&self, mask: &TargetMask) -> Result<(), PruningError> {
        let keep = mask.keep();
        let violated = keep.iter().zip(&self.protected).find(|(keep, _)| !**keep);
        if let Some((_, Some(reason))) = violated.filter(|(_, protected)| protected.is_some()) {
            return Err(PruningError::Protected {
                reason: reason.clone(),
            }
            .at(&self.key));
        }
        Ok(())
    }

    pub(super) fn write(&self, mask: &TargetMask) -> Result<(), PruningError> {
        self.check(mask)?;
        let keep = mask.keep();
        self.written
            .iter()
            .try_for_each(|member| member.write(keep, &self.settings))
    }

    /// The decision about the group, whose `targets` have a score.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_fractions_of_a_producer() {
        let mut scores = [3.0, 1.0, 2.0, 5.0, 70.0, 50.0];
        rank(&mut scores, &[vec![0, 1, 2, 3], vec![4, 5]], None);
        assert_eq!(scores, [0.625, 0.125, 0.375, 0.875, 0.75, 0.25]);
        // The second of two equals is pruned.
        let mut scores = [1.0, 1.0];
        rank(&mut scores, &[vec![0, 1]], Some(&[true, false]));
        assert_eq!(scores, [0.75, 0.25]);
    }

    #[test]
    fn among_equals_a_branch_keeps_the_channel_that_is_kept() {
        let group = CoupledGroup {
            key: "group".to_string(),
            settings: PruningSettings::default(),
            channels: 4,
            elements: 1,
            scored: Vec::new(),
            written: Vec::new(),
            protected: vec![None; 4],
            branches: vec![vec![0, 1], vec![2, 3]],
            producers: Vec::new(),
        };
        let stays = |scores: &[f32], current: Option<&[bool]>| {
            let mut stays = vec![false; 4];
            assert!(group.keep_branches(scores, current, &mut stays));
            stays
        };
        let scores = [0.0, 0.0, 1.0, 2.0];
        assert_eq!(stays(&scores, None), [true, false, false, true]);
        // The first channel is pruned, and a better one stays whatever is pruned.
        let current = [false, true, true, false];
        assert_eq!(stays(&scores, Some(&current)), [false, true, false, true]);
    }
}
