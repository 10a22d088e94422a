//! Groups of channels: those that are made by the same parameters, or that have to lose equally many.

use std::collections::{BTreeMap, BTreeSet};

use super::analysis::Analysis;
use super::equal_blocks::{AllShares, Rules, shares};
use super::facts::Role;
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
    let mut first: BTreeMap<ChannelId, usize> = BTreeMap::new();
    for (index, (_, channels)) in made.iter().enumerate() {
        for &channel in channels {
            let other = *first.entry(channel).or_insert(index);
            let (x, y) = (root(&mut parent, index), root(&mut parent, other));
            parent[x.max(y)] = x.min(y);
        }
    }
    for shares in shares.iter().flatten() {
        let made: Option<Vec<usize>> = shares.keys().map(|c| first.get(c).copied()).collect();
        for pair in made.unwrap_or_default().windows(2) {
            let (x, y) = (root(&mut parent, pair[0]), root(&mut parent, pair[1]));
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
