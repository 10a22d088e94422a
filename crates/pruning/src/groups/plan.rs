//! Groups of the graph before their targets are claimed.

use std::sync::Arc;

use burn_compress_core::graph::{ChannelGraph, ChannelGroup};
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{TargetId, TargetSpace};
use indexmap::IndexMap;

use super::coupled::CoupledGroup;
use super::decision::Decision;
use super::member::{FoundMember, GroupMember, Parameters, find_members};
use super::selected::{Item, alignment, skips};
use crate::importance::Scorer;
use crate::mask::{check_dims, lcm};
use crate::{PruningError, PruningSettings};

/// A group whose members are not claimed yet.
pub(super) struct PlannedGroup {
    group: CoupledGroup,
    members: Vec<FoundMember>,
    /// Whether each member has a score.
    scored: Vec<bool>,
    /// Whether all rules are set to skip it where it cannot be pruned.
    skips: bool,
}

/// Plans a group of the graph, whose selected members are `items`.
pub(super) fn couple(
    parameters: &Parameters<'_>,
    graph: &ChannelGraph,
    index: usize,
    items: &[Item],
    scorer: &Scorer,
) -> Result<PlannedGroup, PruningError> {
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
    let by_id: IndexMap<TargetId, &Item> = items.iter().map(|item| (item.id(), item)).collect();
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
            scorer.check(&member.blocks()?, dims.into(), &member.id)?;
            elements += member.shape.iter().product::<usize>() / group.channels.len();
        }
        scored.push(item.is_some());
    }
    let group = CoupledGroup {
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
    Ok(PlannedGroup {
        group,
        members,
        scored,
        skips: items.iter().all(skips),
    })
}

impl PlannedGroup {
    /// Rejects settings of a target that differ from those of the group, whose mask it shares.
    pub(super) fn check_follower(&self, item: &Item) -> Result<(), PruningError> {
        let method = |settings: &PruningSettings| settings.apply_method.unwrap_or_default();
        let reject = |reason: String| {
            let channels = self.group.key.clone();
            Err(PruningError::CoupledFollower { channels, reason }.at(item.id()))
        };
        if method(&item.settings) != method(&self.group.settings) {
            return reject("`apply_method` is not that of these channels".to_string());
        }
        let Some((source, dims)) = alignment(item) else {
            return Ok(());
        };
        let Some(member) = self.members.iter().find(|member| member.id == source) else {
            return reject(format!(
                "`align` follows `{source}`, which has other channels"
            ));
        };
        check_dims(&source, &dims, &member.shape).map_err(|error| error.at(item.id()))?;
        match dims[..] == [member.dim] {
            true => Ok(()),
            false => reject(format!(
                "`align` follows dims {dims:?} of `{source}`, whose channels lie along dim {}",
                member.dim
            )),
        }
    }

    /// Whether all rules are set to skip it where it cannot be pruned.
    pub(super) fn skips(&self) -> bool {
        self.skips
    }

    /// Goal of the group, before any mask.
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

    /// The group, whose targets have the next of `spaces`.
    pub(super) fn claimed(
        self,
        spaces: &mut impl Iterator<Item = Arc<TargetSpace>>,
    ) -> CoupledGroup {
        let mut group = self.group;
        for ((member, scored), space) in self.members.into_iter().zip(self.scored).zip(spaces) {
            let member = GroupMember {
                space,
                found: member,
            };
            if scored {
                group.scored.push(member.clone());
            }
            group.written.push(member);
        }
        group.producers = producers(&group.scored, group.channels);
        group
    }
}

/// Settings of a group, with the number of parts that graph and configuration require together.
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

/// The channels of every parameter dimension and every part of a slice that has some of the group only,
/// fewest first.
fn branches(group: &ChannelGroup) -> Vec<Vec<usize>> {
    let members = group.members.iter().chain(&group.consumers).map(|member| {
        let all = member.positions.iter().enumerate();
        let held = all.filter(|(_, at)| !at.is_empty());
        held.map(|(channel, _)| channel).collect()
    });
    let slices = group.slices.iter().filter(|part| part.whole);
    let all = members.chain(slices.map(|part| part.channels.clone()));
    let mut branches: Vec<Vec<usize>> = all
        .filter(|branch| !branch.is_empty() && branch.len() < group.channels.len())
        .collect();
    branches.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    branches.dedup();
    branches
}

/// The channels by the members that carry them; none where all members carry all channels.
fn producers(scored: &[GroupMember], channels: usize) -> Vec<Vec<usize>> {
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
fn agreed(items: &[Item]) -> Result<PruningSettings, PruningError> {
    let goals = |item: &Item| PruningSettings {
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
