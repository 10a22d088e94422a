//! Groups of coupled channels: what has to lose the same channels for them to be exactly zero.

use std::sync::Arc;

use burn_compress_core::config::Selected;
use burn_compress_core::graph::{ChannelGraph, ChannelGroup};
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{TargetId, TargetSpace};
use indexmap::IndexMap;

use crate::mask::{MaskTarget, TargetMask, check_dims, lcm};
use crate::metrics::{Importance, Scale};
use crate::{Blocks, Normalizer, PruningError, PruningSettings};

use super::decision::Decision;
use super::member::{Found, Member, Parameters, find_members};
use super::prunable::skips;

/// A group of channels that parameters share.
pub(super) struct Coupled {
    pub(super) key: String,
    pub(super) settings: PruningSettings,
    pub(super) channels: usize,
    /// The elements that one channel takes in the members with a score, for global ranking.
    pub(super) elements: usize,
    pub(super) scored: Vec<Member>,
    pub(super) written: Vec<Member>,
    /// Why a channel must stay.
    pub(super) protected: Vec<Option<String>>,
    /// Channels that are all that some parameter has of the group, as a branch of a concatenation;
    /// fewest first. Not all of them can go.
    pub(super) branches: Vec<Vec<usize>>,
    /// The channels by the scored members that carry them, where not all carry all: the layers that
    /// a concatenation joins.
    producers: Vec<Vec<usize>>,
}

/// A unit whose members are not claimed yet.
pub(super) struct Planned {
    group: Coupled,
    members: Vec<Found>,
    /// Whether each member has a score.
    scored: Vec<bool>,
    /// Whether all rules ask to leave it out where it cannot be pruned.
    skips: bool,
}

/// Makes a unit of a group of the graph.
pub(super) fn couple(
    parameters: &Parameters<'_>,
    graph: &ChannelGraph,
    index: usize,
    items: &[Selected<PruningSettings>],
    importance: &dyn Importance,
) -> Result<Planned, PruningError> {
    let group = &graph.groups()[index];
    let first = &items[0];
    let key = format!("the channels of `{}`", first.id());
    let settings = in_parts(agreed(items)?, group, &key).map_err(|error| error.at(first.id()))?;
    let protected: Vec<Option<String>> = group
        .channels
        .iter()
        .map(|&channel| graph.protected(channel).map(str::to_string))
        .collect();
    if let Some(reason) = protected.iter().flatten().next()
        && protected.iter().all(Option::is_some)
    {
        return Err(PruningError::Protected {
            reason: reason.clone(),
        }
        .at(first.id()));
    }
    let by_id: IndexMap<TargetId, &Selected<PruningSettings>> =
        items.iter().map(|item| (item.id(), item)).collect();
    let members = find_members(parameters, group, &by_id)?;
    let (mut scored, mut elements) = (Vec::new(), 0);
    for member in &members {
        let item = by_id.get(&member.id);
        if let Some(item) = item {
            let dims = channel_dims(
                &item.layer.kind,
                &item.target.to_string(),
                member.shape.len(),
            );
            let checked = importance.check(&member.blocks()?, dims.into());
            checked.map_err(|error| error.at(&member.id))?;
            elements += member.shape.iter().product::<usize>() / group.channels.len();
        }
        scored.push(item.is_some());
    }
    let group = Coupled {
        key,
        settings,
        channels: group.channels.len(),
        elements: elements.max(1),
        producers: Vec::new(),
        scored: Vec::new(),
        written: Vec::new(),
        protected,
        branches: branches(group),
    };
    Ok(Planned {
        group,
        members,
        scored,
        skips: items.iter().all(skips),
    })
}

impl Planned {
    /// Refuses what is set for a target whose mask is that of the group, if it is another.
    pub(super) fn check_follower(
        &self,
        item: &Selected<PruningSettings>,
    ) -> Result<(), PruningError> {
        let method = |settings: &PruningSettings| settings.apply_method.unwrap_or_default();
        let refuse = |reason: String| {
            let channels = self.group.key.clone();
            Err(PruningError::CoupledFollower { channels, reason }.at(item.id()))
        };
        if method(&item.settings) != method(&self.group.settings) {
            return refuse("`apply_method` is not that of these channels".to_string());
        }
        let Some((source, dims)) = super::alignment(item) else {
            return Ok(());
        };
        let Some(member) = self.members.iter().find(|member| member.id == source) else {
            return refuse(format!(
                "`align` follows `{source}`, which has other channels"
            ));
        };
        check_dims(&source, &dims, &member.shape).map_err(|error| error.at(item.id()))?;
        match dims[..] == [member.dim] {
            true => Ok(()),
            false => refuse(format!(
                "`align` follows dims {dims:?} of `{source}`, whose channels lie along dim {}",
                member.dim
            )),
        }
    }

    /// Whether all rules ask to leave it out where it cannot be pruned.
    pub(super) fn skips(&self) -> bool {
        self.skips
    }

    /// What the group is to lose, before any mask is.
    pub(super) fn decision(&self, keep_at_least_one: bool) -> Decision {
        let members = self.members.iter().zip(&self.scored);
        let scored = members.filter(|(_, scored)| **scored);
        let targets = scored.map(|(member, _)| member.id.clone());
        (self.group).decision(targets.collect(), Vec::new(), keep_at_least_one)
    }

    /// The targets to claim.
    pub(super) fn ids(&self) -> impl Iterator<Item = &TargetId> {
        self.members.iter().map(|member| &member.id)
    }

    /// The unit, whose targets have the next of `spaces`.
    pub(super) fn claimed(self, spaces: &mut impl Iterator<Item = Arc<TargetSpace>>) -> Coupled {
        let mut group = self.group;
        for ((member, scored), space) in self.members.into_iter().zip(self.scored).zip(spaces) {
            let member = member.claimed(space);
            if scored {
                group.scored.push(member.clone());
            }
            group.written.push(member);
        }
        group.producers = producers(&group.scored, group.channels);
        group
    }
}

/// The settings of a group with the parts that the graph and the configuration ask for together.
fn in_parts(
    settings: PruningSettings,
    group: &ChannelGroup,
    key: &str,
) -> Result<PruningSettings, PruningError> {
    let parts = lcm(group.blocks, settings.internal_metric_block.unwrap_or(1));
    let scores = group.channels.len();
    if !scores.is_multiple_of(parts) {
        return Err(PruningError::InternalBlocks {
            group: settings.global_group_id.unwrap_or(key.to_string()),
            scores,
            blocks: parts,
        });
    }
    let blocks = (parts > 1).then_some(parts);
    // Parts need a group; a global one ranks them too.
    let alone = blocks.filter(|_| settings.global_group_id.is_none());
    Ok(PruningSettings {
        dependency_group_id: alone.map(|_| key.to_string()),
        internal_metric_block: blocks,
        ..settings
    })
}

/// The channels of every parameter dimension that has some of the group only, fewest first.
fn branches(group: &ChannelGroup) -> Vec<Vec<usize>> {
    let mut branches: Vec<Vec<usize>> = group
        .members
        .iter()
        .chain(&group.consumers)
        .map(|member| {
            let all = member.positions.iter().enumerate();
            all.filter(|(_, at)| !at.is_empty())
                .map(|(channel, _)| channel)
                .collect()
        })
        .filter(|branch: &Vec<usize>| !branch.is_empty() && branch.len() < group.channels.len())
        .collect();
    branches.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    branches.dedup();
    branches
}

/// The channels by the members that carry them; none where all members carry all channels.
fn producers(scored: &[Member], channels: usize) -> Vec<Vec<usize>> {
    let mut producers: IndexMap<Vec<bool>, Vec<usize>> = IndexMap::new();
    for channel in 0..channels {
        let carry = scored.iter().map(|m| !m.positions[channel].is_empty());
        producers.entry(carry.collect()).or_default().push(channel);
    }
    match producers.len() {
        0 | 1 => Vec::new(),
        _ => producers.into_values().collect(),
    }
}

/// The settings of a group, which all its selected members must share.
fn agreed(items: &[Selected<PruningSettings>]) -> Result<PruningSettings, PruningError> {
    let goals = |item: &Selected<PruningSettings>| PruningSettings {
        granularity: None,
        activation: None,
        on_unprunable: None,
        ..item.settings.clone()
    };
    let first = goals(&items[0]);
    match items.iter().find(|item| goals(item) != first) {
        None => Ok(first),
        Some(other) => Err(PruningError::CoupledSettings {
            member: items[0].id().to_string(),
            found: written(&goals(other)),
            expected: written(&first),
        }
        .at(other.id())),
    }
}

/// Settings as a configuration has them.
fn written(settings: &PruningSettings) -> String {
    serde_json::to_string(settings).unwrap_or_else(|_| format!("{settings:?}"))
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

impl Coupled {
    pub(super) fn target(
        &self,
        data: &IndexMap<String, Vec<f32>>,
        importance: &dyn Importance,
        factor: f64,
        keep_at_least_one: bool,
    ) -> Result<MaskTarget<String>, PruningError> {
        let mut sums = vec![(0.0f64, 0u32); self.channels];
        for member in &self.scored {
            // A member without values leaves the decision to the others.
            let Some(values) = data.get(&member.id.to_string()) else {
                continue;
            };
            let scores = member.channel_scores(values, importance)?;
            for ((sum, count), score) in sums.iter_mut().zip(scores) {
                if let Some(score) = score {
                    *sum += f64::from(score);
                    *count += 1;
                }
            }
        }
        let scale = importance.scale();
        let combine = |(sum, count): (f64, u32)| match scale {
            Scale::Loss => sum,
            Scale::Layer | Scale::Common => sum / f64::from(count.max(1)),
        };
        let mut combined: Vec<f64> = sums.into_iter().map(combine).collect();
        if scale == Scale::Layer && self.is_normalized() {
            normalize(&mut combined, &self.producers);
        }
        let mut scores: Vec<f32> = combined.into_iter().map(|score| score as f32).collect();
        let mut settings = PruningSettings {
            normalizer: None,
            ..self.settings.scaled(factor)
        };
        let mut stays: Vec<bool> = self.protected.iter().map(Option::is_some).collect();
        let current = self.current();
        if keep_at_least_one && self.keep_branches(&scores, current.as_deref(), &mut stays) {
            self.limit(&mut settings, &stays);
        }
        for (score, stays) in scores.iter_mut().zip(stays) {
            if stays {
                *score = f32::INFINITY;
            }
        }
        let blocks = Blocks::new(&[self.channels, self.elements], &[1, -1])?;
        let target = MaskTarget::new(self.key.clone(), blocks, settings).with_scores(scores);
        Ok(match current {
            Some(keep) => target.with_current(&keep),
            None => target,
        })
    }

    /// Whether scores are brought to one mean, which means nothing to a threshold.
    fn is_normalized(&self) -> bool {
        let settings = &self.settings;
        settings.sparse_threshold.is_none() && settings.normalizer != Some(Normalizer::None)
    }

    /// Lets the best channel of every branch stay, among equals one that is kept at present; whether
    /// there is one that had to be chosen.
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

    /// Refuses a mask that removes a channel that must stay.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn among_equals_a_branch_keeps_the_channel_that_is_kept() {
        let group = Coupled {
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
