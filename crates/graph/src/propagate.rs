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

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::channel_set::ChannelSet;
use super::entries::{ChannelEntries, Group, Place, Places};
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

    /// The shape of what [`kept`](Self::kept) lists: that of the mask, or 1 along dimensions that it
    /// does not distinguish, as a mask of whole rows has columns.
    fn extent(&self) -> &[usize] {
        self.shape()
    }

    /// Whether each element is kept, in row-major order.
    fn kept(&self) -> impl Iterator<Item = bool>;
}

/// Adds what lies on the channels of a group, each of which is in one group alone.
fn extend(
    places: &mut Places,
    shapes: &IndexMap<String, Vec<usize>>,
    channels: &[ChannelId],
    members: &[GroupMember],
) {
    let known = members.iter().filter_map(|member| {
        let param = shapes.get_index_of(&member.param)?;
        Some((param, member.dim, &member.positions))
    });
    let known: Vec<_> = known.collect();
    for (at, &channel) in channels.iter().enumerate() {
        let entries = known.iter().flat_map(|&(param, dim, positions)| {
            let indices = positions[at].iter();
            indices.map(move |&index| Place { param, dim, index })
        });
        places.insert(channel, entries);
    }
}

impl ChannelGraph {
    /// The parameter entries that make and that read every channel.
    pub fn entries(&self) -> &ChannelEntries {
        self.entries.get_or_init(|| ChannelEntries::new(self))
    }
}

impl ChannelEntries {
    /// Sorts the entries of `graph` by channel; [`ChannelGraph::entries`] does it once.
    pub fn new(graph: &ChannelGraph) -> Self {
        let shape = |node: &ParamNode| (node.path.clone(), node.shape.clone());
        let mut entries = Self {
            shapes: graph.params().map(shape).collect(),
            ..Self::default()
        };
        for group in graph.groups() {
            let (shapes, channels) = (&entries.shapes, &group.channels);
            extend(&mut entries.made, shapes, channels, &group.members);
            extend(&mut entries.read, shapes, channels, &group.consumers);
            for &channel in channels {
                if graph.protected(channel).is_some() {
                    entries.fixed.insert(channel);
                }
                // Statistics that run over channels read them, but not along one index.
                if graph.is_counted(channel) {
                    entries.read.insert(channel, std::iter::empty());
                }
            }
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
        for &channel in convs.flat_map(|conv| conv.input.iter().flatten()) {
            entries.read.insert(channel, std::iter::empty());
        }
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
                    let made = self.made.of(channel);
                    all &= !made.is_empty() && kept.all_masked(made);
                }
                masked += usize::from(all);
            }
            if masked > 0 && masked < parts.len() {
                let made = parts
                    .iter()
                    .flatten()
                    .flat_map(|&channel| self.made.of(channel));
                let dims: BTreeSet<(usize, usize)> = made.map(|at| (at.param, at.dim)).collect();
                let dims = dims.into_iter().filter_map(|(param, dim)| {
                    let (path, shape) = self.shapes.get_index(param)?;
                    (shape.len() > 1).then(|| (path.clone(), dim))
                });
                heads.extend(dims);
            }
        }
        Ok(heads)
    }

    /// The entries that make a channel.
    pub fn made(&self, channel: ChannelId) -> impl Iterator<Item = Position> {
        self.positions(self.made.of(channel))
    }

    /// The entries that read a channel; none where a convolution in groups or a norm over channels
    /// reads it as well.
    pub fn read(&self, channel: ChannelId) -> impl Iterator<Item = Position> {
        self.positions(self.read.of(channel))
    }

    fn positions(&self, places: &[Place]) -> impl Iterator<Item = Position> {
        places.iter().filter_map(|place| {
            let (path, _) = self.shapes.get_index(place.param)?;
            Some(Position::new(path, place.dim, place.index))
        })
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
        let mut removed = ChannelSet::default();
        let mut order = Vec::new();
        loop {
            let before = order.len();
            for group in &self.groups {
                for &channel in &group.channels {
                    if removed.contains(channel) || self.fixed.contains(channel) {
                        continue;
                    }
                    let (makes, reads) = (self.made.of(channel), self.read.of(channel));
                    let is_zero = !makes.is_empty() && kept.all_masked(makes);
                    let is_unread = !reads.is_empty() && kept.all_masked(reads);
                    if is_zero || is_unread {
                        kept.mask(makes.iter().chain(reads));
                        removed.insert(channel);
                        order.push(channel);
                    }
                }
            }
            if order.len() == before {
                break;
            }
        }
        for group in &self.groups {
            if group
                .channels
                .iter()
                .all(|&channel| removed.contains(channel))
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
        order.retain(|&channel| removed.contains(channel));
        Ok(order)
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
fn balance(group: &Group, removed: &mut ChannelSet) {
    if group.blocks <= 1 || !group.channels.len().is_multiple_of(group.blocks) {
        return;
    }
    let blocks: Vec<&[ChannelId]> = group
        .channels
        .chunks(group.channels.len() / group.blocks)
        .collect();
    let count = |block: &[ChannelId], removed: &ChannelSet| {
        let kept = block.iter().filter(|&&channel| !removed.contains(channel));
        kept.count()
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
            .filter(|&channel| removed.contains(channel))
            .take(missing)
            .collect();
        for channel in back {
            removed.remove(channel);
        }
    }
}

/// Kept entries of each parameter; none for parameters without any masked entry.
struct Kept<'a> {
    shapes: &'a IndexMap<String, Vec<usize>>,
    params: Vec<Option<KeptEntries>>,
}

impl<'a> Kept<'a> {
    fn new(
        shapes: &'a IndexMap<String, Vec<usize>>,
        masks: &IndexMap<String, impl ParamMask>,
    ) -> Result<Self, GraphError> {
        let mut params: Vec<Option<KeptEntries>> = Vec::new();
        params.resize_with(shapes.len(), || None);
        for (path, mask) in masks {
            let Some((index, _, shape)) = shapes.get_full(path) else {
                return Err(GraphError::UnknownParameter {
                    param: path.clone(),
                });
            };
            if mask.shape() != shape {
                return Err(GraphError::MaskShape {
                    param: path.clone(),
                    expected: shape.to_vec(),
                    found: mask.shape().to_vec(),
                });
            }
            params[index] = Some(KeptEntries::of(shape, mask.extent(), mask.kept()));
        }
        Ok(Self { shapes, params })
    }

    fn all_masked(&self, places: &[Place]) -> bool {
        let is_masked = |place: &Place| {
            let entries = self.params[place.param].as_ref();
            entries.is_some_and(|entries| entries.is_masked(place.dim, place.index))
        };
        places.iter().all(is_masked)
    }

    fn mask<'b>(&mut self, places: impl Iterator<Item = &'b Place>) {
        for place in places {
            let shape = &self.shapes[place.param];
            let entries = self.params[place.param].get_or_insert_with(|| KeptEntries::all(shape));
            entries.mask(shape, place.dim, place.index);
        }
    }
}

/// The kept entries of one parameter.
///
/// A mask of a pruner is nearly always one of whole indices. Then an entry is kept if all of its
/// indices are, and no look is taken at the entries:
///
/// ```text
/// kept at index i of dimension d  =  product over the other dimensions of their kept indices
/// ```
enum KeptEntries {
    /// All entries but those at masked indices.
    Whole {
        /// Whether each index of each dimension is kept.
        kept: Vec<Vec<bool>>,
        /// The number of kept indices of each dimension.
        counts: Vec<usize>,
    },
    /// Entry by entry.
    Single {
        entries: Vec<bool>,
        /// The number of kept entries at each index of each dimension.
        counts: Vec<Vec<usize>>,
    },
}

impl KeptEntries {
    fn all(shape: &[usize]) -> Self {
        Self::Whole {
            kept: shape.iter().map(|&size| vec![true; size]).collect(),
            counts: shape.to_vec(),
        }
    }

    /// Of a mask of this shape, whose entries fill the `extent`.
    fn of(shape: &[usize], extent: &[usize], entries: impl Iterator<Item = bool>) -> Self {
        let entries: Vec<bool> = entries.collect();
        let (mut counts, total) = counted(extent, &entries);
        let used = |along: &Vec<usize>| along.iter().filter(|&&n| n > 0).count();
        // Of whole indices, as many are kept as the product of the kept indices.
        let whole: usize = counts.iter().map(used).product();
        if whole == total {
            for (along, &size) in counts.iter_mut().zip(shape) {
                if along.len() < size {
                    *along = vec![along[0]; size];
                }
            }
            let kept = |along: &Vec<usize>| along.iter().map(|&n| n > 0).collect();
            return Self::Whole {
                kept: counts.iter().map(kept).collect(),
                counts: counts.iter().map(used).collect(),
            };
        }
        if extent == shape {
            return Self::Single { entries, counts };
        }
        let entries = every_element(entries, extent, shape);
        let (counts, _) = counted(shape, &entries);
        Self::Single { entries, counts }
    }

    /// Whether no entry at an index is kept.
    fn is_masked(&self, dim: usize, index: usize) -> bool {
        match self {
            Self::Whole { kept, counts } => {
                let mut others = counts.iter().enumerate().filter(|(other, _)| *other != dim);
                !kept[dim][index] || others.any(|(_, &count)| count == 0)
            }
            Self::Single { counts, .. } => counts[dim][index] == 0,
        }
    }

    /// Masks everything at an index.
    fn mask(&mut self, shape: &[usize], dim: usize, index: usize) {
        match self {
            Self::Whole { kept, counts } => {
                let was_kept = std::mem::take(&mut kept[dim][index]);
                counts[dim] -= usize::from(was_kept);
            }
            Self::Single { entries, counts } => {
                if counts[dim][index] == 0 {
                    return;
                }
                let inner: usize = shape[dim + 1..].iter().product();
                for (block, run) in entries.chunks_mut(shape[dim] * inner).enumerate() {
                    for (offset, kept) in run[index * inner..][..inner].iter_mut().enumerate() {
                        if std::mem::take(kept) {
                            let mut at = (block * shape[dim] + index) * inner + offset;
                            for (along, &size) in counts.iter_mut().zip(shape).rev() {
                                along[at % size] -= 1;
                                at /= size;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The number of kept entries at each index of each dimension, and of all.
fn counted(shape: &[usize], entries: &[bool]) -> (Vec<Vec<usize>>, usize) {
    let mut counts: Vec<Vec<usize>> = shape.iter().map(|&size| vec![0; size]).collect();
    // Sums over the last dimension first: those are runs of entries.
    let last = shape.last().copied().unwrap_or(1).max(1);
    let mut sums = Vec::with_capacity(entries.len() / last);
    for run in entries.chunks(last) {
        if let Some(counts) = counts.last_mut() {
            let entries = run.iter().zip(counts);
            entries.for_each(|(&entry, at)| *at += usize::from(entry));
        }
        sums.push(run.iter().filter(|&&entry| entry).count());
    }
    for dim in (0..shape.len().saturating_sub(1)).rev() {
        let size = shape[dim].max(1);
        for run in sums.chunks(size) {
            let sums = run.iter().zip(&mut counts[dim]);
            sums.for_each(|(n, at)| *at += n);
        }
        sums = sums.chunks(size).map(|run| run.iter().sum()).collect();
    }
    (counts, sums.first().copied().unwrap_or(0))
}

/// The entries of a mask of this shape, which `entries` are those of along the `extent`.
fn every_element(mut entries: Vec<bool>, extent: &[usize], shape: &[usize]) -> Vec<bool> {
    let mut inner = 1;
    for (&own, &size) in extent.iter().zip(shape).rev() {
        if own != size {
            let runs = entries.chunks(inner);
            entries = runs.flat_map(|run| run.repeat(size)).collect();
        }
        inner *= size;
    }
    entries
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
