//! Groups of channels, and the number of equal blocks that each group is split into.

use std::collections::{BTreeMap, BTreeSet};

use super::analysis::{Analysis, Role};
use super::labels::{ChannelId, Value};

/// The channels along a parameter's dimension, `None` if they are hidden.
pub(super) fn visible(analysis: &Analysis, value: &Value, dim: usize) -> Option<Vec<ChannelId>> {
    let axis = value.axes[dim].as_ref()?;
    let labels = &analysis.labels;
    if axis
        .labels
        .iter()
        .flatten()
        .any(|&atom| labels.is_hidden(atom))
    {
        return None;
    }
    axis.labels
        .iter()
        .map(|label| label.map(|atom| labels.channel(atom)))
        .collect()
}

/// A group under construction: parameters by position.
pub(super) struct Found {
    pub channels: Vec<ChannelId>,
    pub members: Vec<(usize, usize)>,
    pub consumers: Vec<(usize, usize)>,
}

impl Found {
    /// For each channel of the group, its indices along a parameter's dimension.
    pub fn positions(&self, analysis: &Analysis, param: usize, dim: usize) -> Vec<Vec<usize>> {
        let along = visible(analysis, &analysis.params[param], dim).unwrap_or_default();
        let mut at: BTreeMap<ChannelId, Vec<usize>> = BTreeMap::new();
        for (index, channel) in along.into_iter().enumerate() {
            at.entry(channel).or_default().push(index);
        }
        let positions = self.channels.iter().map(|channel| at.remove(channel));
        positions.map(Option::unwrap_or_default).collect()
    }
}

/// Connects the channels that share a producing parameter dimension.
pub(super) fn find(analysis: &Analysis) -> (Vec<Found>, BTreeMap<(usize, usize), usize>) {
    let with_role = |wanted: fn(&Role) -> bool| {
        let mut found = Vec::new();
        for (param, value) in analysis.params.iter().enumerate() {
            for dim in 0..value.shape.len() {
                let role = &analysis.roles[param][dim];
                if !analysis.statistics.contains(&param) && wanted(role) {
                    let channels = visible(analysis, value, dim);
                    found.extend(channels.map(|channels| ((param, dim), channels)));
                }
            }
        }
        found
    };
    let made = with_role(|role| role.producer);
    let read = with_role(|role| role.consumer);

    // Groups are joined through a second, smaller union-find over the dimensions.
    let mut parent: Vec<usize> = (0..made.len()).collect();
    fn root(parent: &mut [usize], mut i: usize) -> usize {
        while parent[i] != i {
            parent[i] = parent[parent[i]];
            i = parent[i];
        }
        i
    }
    let mut first: BTreeMap<ChannelId, usize> = BTreeMap::new();
    for (index, (_, channels)) in made.iter().enumerate() {
        for &channel in channels {
            let other = *first.entry(channel).or_insert(index);
            let (x, y) = (root(&mut parent, index), root(&mut parent, other));
            parent[x.max(y)] = x.min(y);
        }
    }
    let mut groups: Vec<Found> = Vec::new();
    let mut index_of: BTreeMap<usize, usize> = BTreeMap::new();
    let mut group_of: BTreeMap<ChannelId, usize> = BTreeMap::new();
    let mut producers = BTreeMap::new();
    for (index, (at, channels)) in made.iter().enumerate() {
        let group = *index_of.entry(root(&mut parent, index)).or_insert_with(|| {
            groups.push(Found {
                channels: Vec::new(),
                members: Vec::new(),
                consumers: Vec::new(),
            });
            groups.len() - 1
        });
        producers.insert(*at, group);
        groups[group].members.push(*at);
        for &channel in channels {
            if group_of.insert(channel, group).is_none() {
                groups[group].channels.push(channel);
            }
        }
    }
    for (at, channels) in read {
        let readers: BTreeSet<usize> = channels
            .iter()
            .filter_map(|channel| group_of.get(channel).copied())
            .collect();
        for group in readers {
            groups[group].consumers.push(at);
        }
    }
    (groups, producers)
}

/// The number of equal blocks of every group.
///
/// - A split over the group's channels in their order fits.
/// - A split whose blocks all hold the same channels adds no constraint.
/// - Any other split protects its channels.
pub(super) fn fit_blocks(analysis: &mut Analysis, groups: &[Found]) -> Vec<usize> {
    let mut blocks = vec![1; groups.len()];
    let starts: BTreeMap<ChannelId, usize> = groups
        .iter()
        .enumerate()
        .filter_map(|(index, group)| Some((*group.channels.first()?, index)))
        .collect();
    for rule in std::mem::take(&mut analysis.blocks) {
        let channels: Option<Vec<ChannelId>> = rule
            .labels
            .iter()
            .map(|label| label.map(|atom| analysis.labels.channel(atom)))
            .collect();
        let fit = channels
            .as_deref()
            .map_or(Fit::None, |c| fit(c, rule.blocks, groups, &starts));
        match fit {
            Fit::Always => {}
            Fit::Group(group) => blocks[group] = lcm(blocks[group], rule.blocks),
            Fit::None => {
                let why = format!("is split into {} blocks by `{}`", rule.blocks, rule.layer);
                for &label in &rule.labels {
                    analysis.protect_label(label, &why);
                }
            }
        }
        analysis.blocks.push(rule);
    }
    blocks
}

enum Fit {
    Always,
    Group(usize),
    None,
}

/// Fit of a split of `channels`; `starts` maps each first channel to its group.
fn fit(
    channels: &[ChannelId],
    blocks: usize,
    groups: &[Found],
    starts: &BTreeMap<ChannelId, usize>,
) -> Fit {
    let counts: Vec<BTreeMap<ChannelId, usize>> = channels
        .chunks(channels.len() / blocks)
        .map(|block| {
            let mut counts = BTreeMap::new();
            for &channel in block {
                *counts.entry(channel).or_insert(0) += 1;
            }
            counts
        })
        .collect();
    if counts.windows(2).all(|pair| pair[0] == pair[1]) {
        return Fit::Always;
    }
    let mut order: Vec<ChannelId> = Vec::new();
    let mut seen = BTreeSet::new();
    order.extend(channels.iter().filter(|channel| seen.insert(**channel)));
    let all: Vec<usize> = counts
        .iter()
        .flat_map(|counts| counts.values().copied())
        .collect();
    let disjoint = counts.iter().map(BTreeMap::len).sum::<usize>() == order.len();
    let equal = all.windows(2).all(|pair| pair[0] == pair[1]);
    let group = order.first().and_then(|first| starts.get(first).copied());
    let group = group.filter(|&group| groups[group].channels == order);
    match group {
        Some(group) if disjoint && equal => Fit::Group(group),
        _ => Fit::None,
    }
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}
