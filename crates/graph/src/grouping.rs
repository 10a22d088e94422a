//! Groups of channels, and the number of equal blocks that each group is split into.

use std::collections::{BTreeMap, BTreeSet};

use super::analysis::Analysis;
use super::facts::{Blocks, Role};
use super::labels::{ChannelId, Label};
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

/// The number of equal blocks of every group, after its channels are brought into their order.
///
/// Every rule splits labels into parts that keep the same share. Channels that lie alike in the parts of
/// all rules are a cell; where every cell keeps the same share, every part does. Cells are cut into
/// blocks of the size that divides all of them. A rule that no choice of the channels of one group
/// fulfils protects its channels, and one whose parts hold the same channels anyway asks for nothing.
pub(super) fn fit_blocks(analysis: &mut Analysis, groups: &mut [Found]) -> Vec<usize> {
    let mut group_of: BTreeMap<ChannelId, usize> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        group_of.extend(group.channels.iter().map(|&channel| (channel, index)));
    }
    let rules = std::mem::take(&mut analysis.blocks);
    let mut cells: BTreeMap<ChannelId, Cell> = BTreeMap::new();
    let mut of_group: Vec<Vec<usize>> = vec![Vec::new(); groups.len()];
    for (index, rule) in rules.iter().enumerate() {
        match fit(analysis, rule, &group_of) {
            Fit::Always => {}
            Fit::Group(group, shares) => {
                of_group[group].push(index);
                for (channel, share) in shares {
                    cells.entry(channel).or_default().push((index, share));
                }
            }
            Fit::None => protect(analysis, &rule.labels, &rule.why),
        }
    }
    let mut blocks = vec![1; groups.len()];
    for (index, group) in groups.iter_mut().enumerate() {
        let rules = of_group[index].iter().map(|&rule| &rules[rule]);
        blocks[index] = order(analysis, group, &cells, &rules.collect::<Vec<_>>());
    }
    analysis.blocks = rules;
    blocks
}

/// How a channel lies in the parts of every rule: by rule, the share of each part that it has.
type Cell = Vec<(usize, Shares)>;

/// By part, the share of it that a channel has beyond what it has of every part.
type Shares = Vec<(usize, usize)>;

enum Fit {
    Always,
    Group(usize, BTreeMap<ChannelId, Shares>),
    None,
}

fn fit(analysis: &Analysis, rule: &Blocks, group_of: &BTreeMap<ChannelId, usize>) -> Fit {
    // Shares as multiples of one over this number.
    let whole = rule.sizes.iter().copied().fold(1, lcm);
    let mut shares: BTreeMap<Option<ChannelId>, BTreeMap<usize, usize>> = BTreeMap::new();
    for (part, labels) in rule.parts().enumerate() {
        for label in labels {
            let channel = label.map(|atom| analysis.labels.channel(atom));
            let share = whole / labels.len();
            *shares.entry(channel).or_default().entry(part).or_default() += share;
        }
    }
    let mut found = BTreeMap::new();
    let mut groups = BTreeSet::new();
    for (channel, mut of) in shares {
        if of.len() == rule.sizes.len() {
            let least = of.values().copied().min().unwrap_or(0);
            of.values_mut().for_each(|share| *share -= least);
            of.retain(|_, share| *share > 0);
        }
        if of.is_empty() {
            continue;
        }
        // What cannot go has to have its share of every part.
        let Some(channel) = channel else {
            return Fit::None;
        };
        match group_of.get(&channel) {
            Some(&group) => groups.insert(group),
            None => return Fit::None,
        };
        found.insert(channel, of.into_iter().collect());
    }
    let mut groups = groups.into_iter();
    match (groups.next(), groups.next()) {
        (None, _) => Fit::Always,
        (Some(group), None) => Fit::Group(group, found),
        _ => Fit::None,
    }
}

/// Orders the channels of a group by blocks and returns how many there are.
fn order(
    analysis: &mut Analysis,
    group: &mut Found,
    cells: &BTreeMap<ChannelId, Cell>,
    rules: &[&Blocks],
) -> usize {
    let mut found: Vec<Vec<ChannelId>> = Vec::new();
    let mut at: BTreeMap<&Cell, usize> = BTreeMap::new();
    let mut free = Vec::new();
    for &channel in &group.channels {
        match cells.get(&channel) {
            Some(cell) => {
                let index = *at.entry(cell).or_insert_with(|| {
                    found.push(Vec::new());
                    found.len() - 1
                });
                found[index].push(channel);
            }
            None => free.push(channel),
        }
    }
    let size = found.iter().map(Vec::len).reduce(gcd);
    let Some(size) = size else { return 1 };
    let equal = |rule: &&Blocks| rule.sizes.windows(2).all(|pair| pair[0] == pair[1]);
    if size == 1 && (!free.is_empty() || !rules.iter().all(equal)) {
        let (even, uneven): (Vec<&Blocks>, Vec<_>) = rules.iter().copied().partition(equal);
        for rule in uneven.into_iter().chain(even) {
            protect(analysis, &rule.labels, &rule.why);
        }
        return 1;
    }
    // Free channels that fill no block stay.
    let rest = free.split_off(free.len() - free.len() % size);
    if let (false, Some(rule)) = (rest.is_empty(), rules.first()) {
        let reason = analysis.labels.reason(rule.why.clone());
        rest.iter()
            .for_each(|channel| analysis.labels.protect(channel.0, reason));
    }
    group.channels = found.concat();
    group.channels.extend(free);
    group.channels.len() / size
}

fn protect(analysis: &mut Analysis, labels: &[Label], why: &str) {
    for &label in labels {
        analysis.protect_label(label, why);
    }
}

fn gcd(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

fn lcm(a: usize, b: usize) -> usize {
    a / gcd(a, b).max(1) * b
}
