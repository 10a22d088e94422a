//! Groups of channels: those that are made by the same parameters, or that have to lose equally many.

use std::collections::{BTreeMap, BTreeSet};

use super::analysis::Analysis;
use super::channel_set::ChannelMap;
use super::equal_blocks::{AllShares, Rules, shares};
use super::facts::{Found, Role};
use super::labels::ChannelId;
use super::value::Value;

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

/// By the number of each channel its group and its place among the channels of the group.
pub(super) fn places(groups: &[Found]) -> Vec<Option<(usize, usize)>> {
    let all = || groups.iter().flat_map(|group| &group.channels);
    let count = all().map(|channel| channel.0 + 1).max().unwrap_or(0);
    let mut places = vec![None; count];
    for (index, group) in groups.iter().enumerate() {
        for (place, channel) in group.channels.iter().enumerate() {
            places[channel.0] = Some((index, place));
        }
    }
    places
}

/// All groups.
pub(super) struct Groups {
    pub found: Vec<Found>,
    /// The group that each parameter dimension makes.
    pub producers: BTreeMap<(usize, usize), usize>,
    /// The number of equal blocks of each group.
    pub blocks: Vec<usize>,
}

impl Groups {
    /// Groups and their blocks.
    ///
    /// A slice whose parts cannot keep the same share is left to the numbers of the forward pass: its
    /// bounds may be sizes of tensors that follow a cut.
    pub fn find(analysis: &mut Analysis) -> Self {
        loop {
            let shares: Vec<Option<AllShares>> = (analysis.blocks.iter())
                .map(|rule| shares(analysis, rule))
                .collect();
            let (mut found, producers) = find(analysis, &shares);
            let fitted = Rules::new(&found, shares);
            let unequal = fitted.unequal_slices(analysis, &found);
            if unequal.is_empty() {
                let blocks = fitted.fit(analysis, &mut found);
                return Self {
                    found,
                    producers,
                    blocks,
                };
            }
            let rules = std::mem::take(&mut analysis.blocks);
            for (index, rule) in rules.into_iter().enumerate() {
                match unequal.contains(&index) {
                    true => analysis.unequal_slices.push(rule),
                    false => analysis.blocks.push(rule),
                }
            }
        }
    }
}

/// Connects the channels that share a producing parameter dimension, and those of parts that keep the
/// same share.
fn find(
    analysis: &Analysis,
    shares: &[Option<AllShares>],
) -> (Vec<Found>, BTreeMap<(usize, usize), usize>) {
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
    let mut first = ChannelMap::default();
    for (index, (_, channels)) in made.iter().enumerate() {
        for &channel in channels {
            let other = first.get_or_insert(channel, index);
            let (x, y) = (root(&mut parent, index), root(&mut parent, other));
            parent[x.max(y)] = x.min(y);
        }
    }
    for shares in shares.iter().flatten() {
        let made: Option<Vec<usize>> = shares.keys().map(|&c| first.get(c)).collect();
        for pair in made.unwrap_or_default().windows(2) {
            let (x, y) = (root(&mut parent, pair[0]), root(&mut parent, pair[1]));
            parent[x.max(y)] = x.min(y);
        }
    }
    let mut groups: Vec<Found> = Vec::new();
    let mut index_of: BTreeMap<usize, usize> = BTreeMap::new();
    let mut group_of = ChannelMap::default();
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
            if group_of.get(channel).is_none() {
                group_of.get_or_insert(channel, group);
                groups[group].channels.push(channel);
            }
        }
    }
    for (at, channels) in read {
        let groups_of = channels.iter().filter_map(|&channel| group_of.get(channel));
        // Neighbours are mostly of one group.
        let mut readers: Vec<usize> = groups_of.collect();
        readers.dedup();
        let readers: BTreeSet<usize> = readers.into_iter().collect();
        for group in readers {
            groups[group].consumers.push(at);
        }
    }
    (groups, producers)
}
