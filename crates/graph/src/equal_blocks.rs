//! The equal blocks that groups are split into.
//!
//! Every rule splits labels into parts that keep the same share. Channels that lie alike in the parts of
//! all rules are a cell; where every cell keeps the same share, every part does. Cells are cut into
//! blocks of the size that divides all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::analysis::Analysis;
use super::facts::{Blocks, Found};
use super::labels::{ChannelId, Label};

/// What a slice takes or leaves of the channels of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicedPart {
    /// Positions in [`channels`](crate::ChannelGroup::channels).
    pub channels: Vec<usize>,
    /// Whether it is what the slice takes, and nothing else, so that one of its channels has to stay.
    pub whole: bool,
}

/// How a channel lies in the parts of every rule: by rule, the share of each part that it has.
type Cell = Vec<(usize, Shares)>;

/// By part, the share of it that a channel has beyond what it has of every part.
type Shares = Vec<(usize, usize)>;

/// By channel, how it lies in the parts of a rule.
pub(super) type AllShares = BTreeMap<ChannelId, Shares>;

/// The rules that concern each group, and how their channels lie in them.
pub(super) struct Rules {
    of_group: Vec<Vec<usize>>,
    cells: BTreeMap<ChannelId, Cell>,
    /// The rules that no choice of channels of one group fulfils.
    unfit: Vec<usize>,
}

impl Rules {
    /// From the [`shares`] of each rule.
    pub fn new(groups: &[Found], shares: Vec<Option<AllShares>>) -> Self {
        let mut group_of: BTreeMap<ChannelId, usize> = BTreeMap::new();
        for (index, group) in groups.iter().enumerate() {
            group_of.extend(group.channels.iter().map(|&channel| (channel, index)));
        }
        let mut rules = Self {
            of_group: vec![Vec::new(); groups.len()],
            cells: BTreeMap::new(),
            unfit: Vec::new(),
        };
        for (index, shares) in shares.into_iter().enumerate() {
            let of = |shares: &AllShares| {
                let groups = shares.keys().map(|channel| group_of.get(channel).copied());
                groups.collect::<Option<BTreeSet<usize>>>()
            };
            let groups = shares.as_ref().and_then(of);
            match (shares, groups) {
                (Some(shares), Some(groups)) if groups.len() <= 1 => {
                    for group in groups {
                        rules.of_group[group].push(index);
                    }
                    for (channel, share) in shares {
                        rules.cells.entry(channel).or_default().push((index, share));
                    }
                }
                _ => rules.unfit.push(index),
            }
        }
        rules
    }

    /// The channels of a group by cell, and those of none.
    fn cells_of(&self, group: &Found) -> (Vec<Vec<ChannelId>>, Vec<ChannelId>) {
        let (mut found, mut free): (Vec<Vec<ChannelId>>, _) = (Vec::new(), Vec::new());
        let mut at: BTreeMap<&Cell, usize> = BTreeMap::new();
        for &channel in &group.channels {
            match self.cells.get(&channel) {
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
        (found, free)
    }

    /// The rules of slices that keep others from being fulfilled, or cannot be.
    pub fn unequal_slices(&self, analysis: &Analysis, groups: &[Found]) -> BTreeSet<usize> {
        let is_slice = |&rule: &usize| analysis.blocks[rule].slice.is_some();
        let mut found: BTreeSet<usize> = self.unfit.iter().copied().filter(is_slice).collect();
        for (group, of) in groups.iter().zip(&self.of_group) {
            let mut slices = of.iter().copied().filter(is_slice).peekable();
            // The only channel of a block cannot go.
            if slices.peek().is_some() && block_size(&self.cells_of(group).0) == Some(1) {
                found.extend(slices);
            }
        }
        found
    }

    /// The number of equal blocks of every group, after its channels are brought into their order.
    ///
    /// A rule that no choice of the channels of one group fulfils protects its channels, and one whose
    /// parts hold the same channels anyway asks for nothing.
    pub fn fit(&self, analysis: &mut Analysis, groups: &mut [Found]) -> Vec<usize> {
        let blocks = std::mem::take(&mut analysis.blocks);
        for &rule in &self.unfit {
            protect(analysis, &blocks[rule].labels, &blocks[rule].why);
        }
        let counts = groups.iter_mut().zip(&self.of_group).map(|(group, of)| {
            let of: Vec<&Blocks> = of.iter().map(|&rule| &blocks[rule]).collect();
            order(analysis, group, self, &of)
        });
        let counts = counts.collect();
        analysis.blocks = blocks;
        counts
    }
}

/// The number of channels of a block.
fn block_size(cells: &[Vec<ChannelId>]) -> Option<usize> {
    cells.iter().map(Vec::len).reduce(gcd)
}

fn is_equal(rule: &Blocks) -> bool {
    rule.sizes.windows(2).all(|pair| pair[0] == pair[1])
}

/// By channel, how it lies in the parts of a rule; none where a part holds what cannot go.
pub(super) fn shares(analysis: &Analysis, rule: &Blocks) -> Option<AllShares> {
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
    for (channel, mut of) in shares {
        if of.len() == rule.sizes.len() {
            let least = of.values().copied().min().unwrap_or(0);
            of.values_mut().for_each(|share| *share -= least);
            of.retain(|_, share| *share > 0);
        }
        if !of.is_empty() {
            // What cannot go has to have its share of every part.
            found.insert(channel?, of.into_iter().collect());
        }
    }
    Some(found)
}

/// Orders the channels of a group by blocks and returns how many there are.
fn order(analysis: &mut Analysis, group: &mut Found, rules: &Rules, of: &[&Blocks]) -> usize {
    let (cells, mut free) = rules.cells_of(group);
    let Some(size) = block_size(&cells) else {
        return 1;
    };
    if size == 1 && (!free.is_empty() || !of.iter().all(|rule| is_equal(rule))) {
        let (even, uneven): (Vec<&Blocks>, Vec<_>) = of.iter().partition(|rule| is_equal(rule));
        for rule in uneven.into_iter().chain(even) {
            protect(analysis, &rule.labels, &rule.why);
        }
        return 1;
    }
    // Free channels that fill no block stay.
    let rest = free.split_off(free.len() - free.len() % size);
    if let (false, Some(rule)) = (rest.is_empty(), of.first()) {
        let reason = analysis.labels.reason(rule.why.clone());
        rest.iter()
            .for_each(|channel| analysis.labels.protect(channel.0, reason));
    }
    group.channels = cells.concat();
    group.channels.extend(free);
    group.channels.len() / size
}

/// The parts of slices among the channels of a group that need not keep the same share.
pub(super) fn slices(analysis: &Analysis, channels: &[ChannelId]) -> Vec<SlicedPart> {
    let mut found = Vec::new();
    for (index, piece) in
        (analysis.unequal_slices.iter()).flat_map(|rule| rule.pieces().enumerate())
    {
        let labels = piece.iter().flatten();
        let held: BTreeSet<ChannelId> = labels.map(|&x| analysis.labels.channel(x)).collect();
        let at = (0..channels.len()).filter(|&at| held.contains(&channels[at]));
        let at: Vec<usize> = at.collect();
        if !at.is_empty() {
            // Before, in and behind the slice.
            let is_taken = index % 3 == 1;
            found.push(SlicedPart {
                whole: is_taken && at.len() == held.len() && !piece.contains(&None),
                channels: at,
            });
        }
    }
    found
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
