//! Removable channels of masked parameters.
//!
//! A channel is removed when the output of the model does not depend on it, for one of two reasons:
//!
//! ```text
//! it is zero:   every entry that makes it is masked: the rows of every convolution or linear layer
//!               that feeds it, their biases, gamma and beta of every normalization
//! it is unread: every entry of every weight that reads it is masked
//! ```
//!
//! A channel that is fed by several layers joined by an addition goes only when all of them agree:
//! what any of them keeps is kept (the union of the kept). Entries of a removed channel count as
//! masked from then on, so a channel that was read by removed channels alone goes as well, and so
//! on until nothing changes (a fixpoint).
//!
//! Masks are those of parameters: for pruners the masks about to be written, for speedup those that
//! a run has left.
//!
//! Reference: the mask conflicts and the mask inference of NNI's `ModelSpeedup`. There, masks are
//! found numerically, by running random inputs and testing for constant outputs; here they follow
//! from the graph, so that a channel is never removed by chance.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::error::GraphError;
use super::group::{ChannelGraph, ChannelGroup, GroupMember, ParamNode};
use super::labels::ChannelId;

/// Entries of one channel in a parameter: everything at `index` along `dim`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Path of the parameter, `conv1.weight`.
    pub param: String,
    /// The dimension that the channel runs along.
    pub dim: usize,
    /// The index along that dimension.
    pub index: usize,
}

impl Position {
    /// Entries at `index` along `dim` of the parameter at `param`.
    pub fn new(param: impl Into<String>, dim: usize, index: usize) -> Self {
        Self {
            param: param.into(),
            dim,
            index,
        }
    }
}

/// The mask of a parameter: which of its entries are kept.
pub trait ParamMask {
    /// The shape, that of the parameter.
    fn shape(&self) -> &[usize];

    /// Whether each element is kept, in row-major order.
    fn kept(&self) -> impl Iterator<Item = bool>;
}

/// The parameter entries that make and that read every channel of a [`ChannelGraph`].
///
/// ```text
/// made   every entry that makes the channel: when all are masked it is zero wherever it is read
/// read   every entry that reads the channel
/// ```
#[derive(Debug, Default)]
pub struct ChannelEntries {
    shapes: BTreeMap<String, Vec<usize>>,
    groups: Vec<Group>,
    made: BTreeMap<ChannelId, Vec<Position>>,
    read: BTreeMap<ChannelId, Vec<Position>>,
    /// The channels that must stay whatever is masked.
    fixed: BTreeSet<ChannelId>,
    /// The parts, of each reshape that takes channels apart.
    parts: Vec<Vec<Vec<ChannelId>>>,
}

/// Channels of the same tensors, in order.
#[derive(Debug)]
struct Group {
    /// Name of the group in errors: the layer that makes the channels.
    name: String,
    channels: Vec<ChannelId>,
    /// Into how many contiguous blocks the channels are split. Each keeps the same number.
    blocks: usize,
}

impl ChannelEntries {
    /// Sorts the entries of `graph` by channel.
    pub fn new(graph: &ChannelGraph) -> Self {
        let shape = |node: &ParamNode| (node.path.clone(), node.shape.clone());
        let mut entries = Self {
            shapes: graph.params().map(shape).collect(),
            ..Self::default()
        };
        for group in graph.groups() {
            for member in &group.members {
                add(&mut entries.made, &group.channels, member);
            }
            for member in &group.consumers {
                add(&mut entries.read, &group.channels, member);
            }
            let fixed = group.channels.iter().copied();
            (entries.fixed).extend(fixed.filter(|&channel| graph.protected(channel).is_some()));
            entries.groups.push(Group {
                name: layer_name(group),
                channels: group.channels.clone(),
                blocks: group.blocks,
            });
        }
        for rule in graph.blocks.iter().filter(|rule| rule.taken_apart) {
            let part = |part: &[Option<ChannelId>]| part.iter().flatten().copied().collect();
            entries.parts.push(rule.parts().map(part).collect());
        }
        // Convolutions in groups read channels as well, but not along one index of a dimension:
        // what they read counts as read.
        let convs = graph.grouped().iter();
        for channel in convs.flat_map(|conv| conv.input.iter().flatten()) {
            entries.read.remove(channel);
        }
        // So do statistics that run over channels.
        entries
            .read
            .retain(|&channel, _| !graph.is_counted(channel));
        entries
    }

    /// The parameter dimensions of which masks take whole heads: of what a reshape takes apart, some
    /// parts are masked from end to end, and others are not. With these the graph has to be
    /// [analysed](ChannelGraph::analyze_heads) again, as heads are what can go then.
    ///
    /// # Errors
    ///
    /// As [`removable`](Self::removable), of masks that do not fit.
    pub fn whole_heads(
        &self,
        masks: &IndexMap<String, impl ParamMask>,
    ) -> Result<BTreeSet<(String, usize)>, GraphError> {
        let kept = Kept::new(&self.shapes, masks)?;
        let mut heads = BTreeSet::new();
        for parts in &self.parts {
            let mut masked = 0;
            for part in parts {
                let mut all = true;
                for &channel in part {
                    let made = self.made(channel);
                    all &= !made.is_empty() && kept.all_masked(made)?;
                }
                masked += usize::from(all);
            }
            if masked > 0 && masked < parts.len() {
                let made = parts
                    .iter()
                    .flatten()
                    .flat_map(|&channel| self.made(channel));
                let matrices = made.filter(|at| self.shapes[&at.param].len() > 1);
                heads.extend(matrices.map(|at| (at.param.clone(), at.dim)));
            }
        }
        Ok(heads)
    }

    /// The entries that make a channel.
    pub fn made(&self, channel: ChannelId) -> &[Position] {
        self.made.get(&channel).map_or(&[], Vec::as_slice)
    }

    /// The entries that read a channel; none where a convolution in groups or a norm over channels
    /// reads it as well.
    pub fn read(&self, channel: ChannelId) -> &[Position] {
        self.read.get(&channel).map_or(&[], Vec::as_slice)
    }

    /// The layer that makes a channel, for messages.
    pub fn layer_of(&self, channel: ChannelId) -> Option<&str> {
        let group = (self.groups.iter()).find(|group| group.channels.contains(&channel))?;
        Some(&group.name)
    }

    /// The channels that can be removed without changing what the masked model computes.
    ///
    /// A parameter without a mask keeps everything. At least one channel of each group stays.
    ///
    /// # Errors
    ///
    /// [`GraphError::NothingLeft`] when all channels of a group would go,
    /// [`GraphError::MaskShape`] when a mask does not have the shape of its parameter and
    /// [`GraphError::UnknownParameter`] when there is no such parameter.
    pub fn removable(
        &self,
        masks: &IndexMap<String, impl ParamMask>,
    ) -> Result<BTreeSet<ChannelId>, GraphError> {
        Ok(self.removal_order(masks)?.into_iter().collect())
    }

    /// The channels of [`removable`](Self::removable) in the order in which they were found.
    ///
    /// Every channel depends only on those before it, so removing the first few alone does not
    /// change the function either, apart from the balance of blocks.
    ///
    /// # Errors
    ///
    /// As [`removable`](Self::removable).
    pub fn removal_order(
        &self,
        masks: &IndexMap<String, impl ParamMask>,
    ) -> Result<Vec<ChannelId>, GraphError> {
        let mut kept = Kept::new(&self.shapes, masks)?;
        let mut removed = BTreeSet::new();
        let mut order = Vec::new();
        loop {
            let before = removed.len();
            for group in &self.groups {
                for &channel in &group.channels {
                    if removed.contains(&channel) || self.fixed.contains(&channel) {
                        continue;
                    }
                    let (makes, reads) = (self.made(channel), self.read(channel));
                    let is_zero = !makes.is_empty() && kept.all_masked(makes)?;
                    let is_unread = !reads.is_empty() && kept.all_masked(reads)?;
                    if is_zero || is_unread {
                        kept.mask(makes.iter().chain(reads))?;
                        removed.insert(channel);
                        order.push(channel);
                    }
                }
            }
            if removed.len() == before {
                break;
            }
        }
        for group in &self.groups {
            if group
                .channels
                .iter()
                .all(|channel| removed.contains(channel))
            {
                if group.channels.is_empty() {
                    continue;
                }
                return Err(GraphError::NothingLeft {
                    layer: group.name.clone(),
                });
            }
            balance(group, &mut removed);
        }
        order.retain(|channel| removed.contains(channel));
        Ok(order)
    }
}

fn add(
    entries: &mut BTreeMap<ChannelId, Vec<Position>>,
    channels: &[ChannelId],
    member: &GroupMember,
) {
    for (&channel, indices) in channels.iter().zip(&member.positions) {
        let at = indices
            .iter()
            .map(|&index| Position::new(&member.param, member.dim, index));
        entries.entry(channel).or_default().extend(at);
    }
}

/// The layer of the first parameter that makes the channels.
fn layer_name(group: &ChannelGroup) -> String {
    let first = group.members.first().map_or("", |member| &member.param);
    let layer = first.rsplit_once('.').map_or(first, |(layer, _)| layer);
    layer.to_string()
}

/// Puts the surplus back, so that every block keeps as many channels as the fullest one.
///
/// A channel that is put back is still zero or still unread, so the function does not change.
fn balance(group: &Group, removed: &mut BTreeSet<ChannelId>) {
    if group.blocks <= 1 || !group.channels.len().is_multiple_of(group.blocks) {
        return;
    }
    let blocks: Vec<&[ChannelId]> = group
        .channels
        .chunks(group.channels.len() / group.blocks)
        .collect();
    let count = |block: &[ChannelId], removed: &BTreeSet<ChannelId>| {
        block
            .iter()
            .filter(|channel| !removed.contains(channel))
            .count()
    };
    let most = blocks
        .iter()
        .map(|block| count(block, removed))
        .max()
        .unwrap_or(0);
    for block in blocks {
        let missing = most - count(block, removed);
        let back: Vec<ChannelId> = block
            .iter()
            .copied()
            .filter(|channel| removed.contains(channel))
            .take(missing)
            .collect();
        for channel in back {
            removed.remove(&channel);
        }
    }
}

/// Kept entries of each parameter; parameters without any masked entry are absent.
struct Kept<'a> {
    shapes: &'a BTreeMap<String, Vec<usize>>,
    params: BTreeMap<String, KeptEntries>,
}

impl<'a> Kept<'a> {
    fn new(
        shapes: &'a BTreeMap<String, Vec<usize>>,
        masks: &IndexMap<String, impl ParamMask>,
    ) -> Result<Self, GraphError> {
        let mut kept = Self {
            shapes,
            params: BTreeMap::new(),
        };
        for (path, mask) in masks {
            let shape = kept.shape(path)?;
            if mask.shape() != shape {
                return Err(GraphError::MaskShape {
                    param: path.clone(),
                    expected: shape.to_vec(),
                    found: mask.shape().to_vec(),
                });
            }
            let entries = KeptEntries::of(shape, mask.kept());
            kept.params.insert(path.clone(), entries);
        }
        Ok(kept)
    }

    fn shape(&self, path: &str) -> Result<&'a [usize], GraphError> {
        let shape = self.shapes.get(path).map(Vec::as_slice);
        shape.ok_or_else(|| GraphError::UnknownParameter {
            param: path.to_string(),
        })
    }

    fn all_masked(&self, positions: &[Position]) -> Result<bool, GraphError> {
        for position in positions {
            check_position(self.shape(&position.param)?, position)?;
            let entries = self.params.get(&position.param);
            if entries.is_none_or(|entries| entries.kept[position.dim][position.index] != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn mask<'b>(
        &mut self,
        positions: impl Iterator<Item = &'b Position>,
    ) -> Result<(), GraphError> {
        for position in positions {
            let shape = self.shape(&position.param)?;
            check_position(shape, position)?;
            let entries = self.params.entry(position.param.clone());
            let entries = entries.or_insert_with(|| KeptEntries::all(shape));
            entries.mask(shape, position.dim, position.index);
        }
        Ok(())
    }
}

/// The kept entries of one parameter, counted for every index of every dimension.
///
/// A mask of a pruner is nearly always one of whole indices. Then an entry is kept if all of its
/// indices are, and counting takes no look at the entries:
///
/// ```text
/// kept at index i of dimension d  =  product over the other dimensions of their kept indices
/// ```
struct KeptEntries {
    /// The kept entries at each index of each dimension.
    kept: Vec<Vec<usize>>,
    /// Every entry, unless all entries are kept but those at masked indices.
    single: Option<Vec<bool>>,
}

impl KeptEntries {
    fn all(shape: &[usize]) -> Self {
        let elements: usize = shape.iter().product();
        let at = |&size: &usize| vec![elements / size.max(1); size];
        Self {
            kept: shape.iter().map(at).collect(),
            single: None,
        }
    }

    fn of(shape: &[usize], entries: impl Iterator<Item = bool>) -> Self {
        let single: Vec<bool> = entries.collect();
        let mut kept: Vec<Vec<usize>> = shape.iter().map(|&size| vec![0; size]).collect();
        // Sums over the last dimension first: those are runs of entries.
        let last = shape.last().copied().unwrap_or(1).max(1);
        let mut counts = Vec::with_capacity(single.len() / last);
        for run in single.chunks(last) {
            if let Some(kept) = kept.last_mut() {
                let entries = run.iter().zip(kept);
                entries.for_each(|(&entry, at)| *at += usize::from(entry));
            }
            counts.push(run.iter().filter(|&&entry| entry).count());
        }
        for dim in (0..shape.len().saturating_sub(1)).rev() {
            let size = shape[dim];
            for run in counts.chunks(size.max(1)) {
                run.iter().zip(&mut kept[dim]).for_each(|(n, at)| *at += n);
            }
            let runs = counts.chunks(size.max(1));
            counts = runs.map(|run| run.iter().sum()).collect();
        }
        // Of whole indices, as many are kept as the product of the kept indices.
        let whole: usize = kept
            .iter()
            .map(|along| along.iter().filter(|&&n| n > 0).count())
            .product();
        let total = counts.first().copied().unwrap_or(0);
        let single = (whole != total).then_some(single);
        Self { kept, single }
    }

    /// Masks everything at an index.
    fn mask(&mut self, shape: &[usize], dim: usize, index: usize) {
        if self.kept[dim][index] == 0 {
            return;
        }
        if let Some(single) = &mut self.single {
            let inner: usize = shape[dim + 1..].iter().product();
            for (block, run) in single.chunks_mut(shape[dim] * inner).enumerate() {
                for (offset, kept) in run[index * inner..][..inner].iter_mut().enumerate() {
                    if std::mem::take(kept) {
                        let mut at = (block * shape[dim] + index) * inner + offset;
                        for (along, &size) in self.kept.iter_mut().zip(shape).rev() {
                            along[at % size] -= 1;
                            at /= size;
                        }
                    }
                }
            }
            return;
        }
        let count = |along: &Vec<usize>| along.iter().filter(|&&n| n > 0).count();
        let counts: Vec<usize> = self.kept.iter().map(count).collect();
        self.kept[dim][index] = 0;
        for (other, along) in self.kept.iter_mut().enumerate() {
            if other == dim {
                continue;
            }
            let lost: usize = (0..counts.len())
                .filter(|&d| d != dim && d != other)
                .map(|d| counts[d])
                .product();
            along
                .iter_mut()
                .filter(|n| **n > 0)
                .for_each(|n| *n -= lost);
        }
    }
}

fn check_position(shape: &[usize], position: &Position) -> Result<(), GraphError> {
    let Position { param, dim, index } = position;
    if *dim >= shape.len() || *index >= shape[*dim] {
        return Err(GraphError::Index {
            param: param.clone(),
            dim: *dim,
            index: *index,
            shape: shape.to_vec(),
        });
    }
    Ok(())
}

/// The row-major offsets of the entries at a position of a parameter of this shape.
///
/// # Errors
///
/// [`GraphError::Index`] when the position is outside of the shape.
pub fn entries_at(
    shape: &[usize],
    position: &Position,
) -> Result<impl Iterator<Item = usize> + use<>, GraphError> {
    check_position(shape, position)?;
    let Position { dim, index, .. } = position;
    let inner: usize = shape[dim + 1..].iter().product();
    let step = shape[*dim] * inner;
    let outer: usize = shape[..*dim].iter().product();
    let start = index * inner;
    Ok((0..outer).flat_map(move |block| {
        let first = block * step + start;
        first..first + inner
    }))
}

#[cfg(test)]
mod tests;
