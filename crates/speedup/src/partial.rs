//! Channels that some of the layers which make them mask and others keep.
//!
//! Two convolutions whose sum is read, masked independently of each other, are the usual case:
//!
//! ```text
//! first   masks   0 1
//! second  masks     1 2
//! removed           1        both mask it
//! stay            0   2      each kept by the other one
//! ```
//!
//! [`PartialChannels`] sets what happens to the masks of `0` in the first and of `2` in the second.
//! NNI's `ModelSpeedup` keeps the union of the kept channels with their raw weights, which is
//! [`PartialChannels::Lift`].

use std::collections::{BTreeMap, BTreeSet};

use burn_compress_core::graph::{ChannelGraph, ChannelId, Position, entries_at};
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Mask, Masks, Target, TargetId};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::SpeedupError;
use crate::outputs::MaskableOutput;

/// Treatment of the masks of a channel that stays because not all layers that make it mask it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartialChannels {
    /// The masks stay: the small model computes exactly what the simulated one does, with zeros in
    /// the channels that could not go.
    #[default]
    Keep,
    /// The masks are lifted: the channel gets its raw weights back in every layer, and the small
    /// model computes what the simulated one does without these masks. The size is the same.
    ///
    /// Only a layer that masks the channel altogether loses its masks there. Masks of single values
    /// are never lifted, nor are those of channels that stay for another reason: because the
    /// model's output needs them, or so that the groups of a convolution stay equal.
    Lift,
}

/// Masks without those of partial channels.
pub(crate) struct Lifted {
    pub masks: Masks,
    /// The channels whose masks were lifted.
    pub channels: BTreeSet<ChannelId>,
}

/// Lifts the masks of the channels that stay although one of their layers masks them.
///
/// `by_parameter` are the masks that `removed` was found with.
pub(crate) fn lift(
    graph: &ChannelGraph,
    layers: &[LayerInfo],
    masks: &Masks,
    by_parameter: &IndexMap<String, Mask>,
    removed: &BTreeSet<ChannelId>,
) -> Result<Lifted, SpeedupError> {
    let mut masks = masks.clone();
    let mut channels = BTreeSet::new();
    for ((layer, channel), positions) in partial(graph, by_parameter, removed) {
        let mut places: Vec<(TargetId, usize, usize)> = Vec::new();
        for position in positions {
            if let Ok(target) = position.param.parse() {
                places.push((target, position.dim, position.index));
            }
        }
        // A mask of single values in one parameter tells that the others hold single values, too.
        let is_whole = |(target, dim, _): &(TargetId, usize, usize)| {
            let mask = masks.get(target);
            mask.is_none_or(|mask| pattern(mask, *dim).is_some())
        };
        if !places.iter().all(is_whole) {
            places.clear();
        }
        places.extend(output(graph, layers, &masks, &layer, channel));
        for (target, dim, index) in places {
            let Some(mask) = masks.get(&target) else {
                continue;
            };
            if let Some(mask) = unmask(mask, dim, index)? {
                masks.insert(target, mask);
                channels.insert(channel);
            }
        }
    }
    masks.retain(|_, mask| mask.removed() > 0);
    Ok(Lifted { masks, channels })
}

/// The positions of a partial channel in each layer that masks it altogether.
fn partial(
    graph: &ChannelGraph,
    by_parameter: &IndexMap<String, Mask>,
    removed: &BTreeSet<ChannelId>,
) -> IndexMap<(String, ChannelId), Vec<Position>> {
    let mut along: BTreeMap<(String, usize), Vec<bool>> = BTreeMap::new();
    let mut found = IndexMap::new();
    for group in graph.groups() {
        for &channel in &group.channels {
            if removed.contains(&channel) {
                continue;
            }
            let mut by_layer: IndexMap<String, (bool, Vec<Position>)> = IndexMap::new();
            for position in graph.entries().made(channel) {
                let masked = by_parameter.get(&position.param).is_some_and(|mask| {
                    along
                        .entry((position.param.clone(), position.dim))
                        .or_insert_with(|| mask.removed_along(position.dim))[position.index]
                });
                let layer = position
                    .param
                    .rsplit_once('.')
                    .map_or("", |(layer, _)| layer);
                let (all_masked, positions) = by_layer
                    .entry(layer.to_string())
                    .or_insert((true, Vec::new()));
                *all_masked &= masked;
                positions.push(position);
            }
            // A channel that all layers mask stays for another reason.
            if by_layer.values().all(|(all_masked, _)| *all_masked) {
                continue;
            }
            for (layer, (all_masked, positions)) in by_layer {
                if all_masked {
                    found.insert((layer, channel), positions);
                }
            }
        }
    }
    found
}

/// Position of a channel in a mask of the layer's output.
fn output(
    graph: &ChannelGraph,
    layers: &[LayerInfo],
    masks: &Masks,
    layer: &str,
    channel: ChannelId,
) -> Vec<(TargetId, usize, usize)> {
    let target = TargetId::new(layer, Target::Output(0));
    let find = || {
        let output = MaskableOutput::find(graph, layers, &target, masks.get(&target)?)?;
        let (_, channels) = graph.port_channels(layer, &target.target)?;
        let indices = (0..channels.len()).filter(|&index| channels[index] == channel);
        Some(
            indices
                .map(|index| (target.clone(), output.dim, index))
                .collect(),
        )
    };
    find().unwrap_or_default()
}

/// The mask with `index` along `dim` as the other indices are that are not masked altogether;
/// `None` if `index` is not masked altogether, or if the others are masked value by value.
fn unmask(mask: &Mask, dim: usize, index: usize) -> Result<Option<Mask>, SpeedupError> {
    if !mask.removed_along(dim)[index] {
        return Ok(None);
    }
    let Some(pattern) = pattern(mask, dim) else {
        return Ok(None);
    };
    let mut values = mask.values().to_vec();
    let position = Position::new(String::new(), dim, index);
    for (at, value) in entries_at(mask.shape(), &position)?.zip(pattern) {
        values[at] = value;
    }
    let method = mask.method();
    Ok(Some(Mask::new(values, mask.shape())?.with_method(method)))
}

/// The entries of the indices along `dim` that are not masked altogether: ones, but for whole
/// channels of the other dimensions. `None` if they are masked value by value.
fn pattern(mask: &Mask, dim: usize) -> Option<Vec<f32>> {
    let gone = mask.removed_along(dim);
    let mut shape = mask.shape().to_vec();
    shape[dim] = 1;
    let mut kept = (0..gone.len()).filter(|&index| !gone[index]).map(|index| {
        let position = Position::new(String::new(), dim, index);
        let entries = entries_at(mask.shape(), &position).ok()?;
        Some(entries.map(|at| mask.values()[at]).collect::<Vec<f32>>())
    });
    let Some(first) = kept.next() else {
        return Some(vec![1.0; shape.iter().product()]);
    };
    let first = first?;
    if !kept.all(|other| other.as_ref() == Some(&first)) {
        return None;
    }
    // Every zero must come from an index of some dimension that is masked altogether.
    let slice = Mask::new(first.clone(), shape.clone()).ok()?;
    let gone: Vec<Vec<bool>> = (0..shape.len())
        .map(|dim| slice.removed_along(dim))
        .collect();
    let explained = |mut at: usize| {
        shape.iter().zip(&gone).rev().any(|(&size, gone)| {
            let index = at % size;
            at /= size;
            gone[index]
        })
    };
    let is_whole = (0..first.len()).all(|at| first[at] != 0.0 || explained(at));
    is_whole.then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(shape: &[usize], values: &[f32]) -> Mask {
        Mask::new(values.to_vec(), shape).unwrap()
    }

    #[test]
    fn a_row_comes_back_without_the_masked_columns() {
        // Row 1 and column 2 of [3, 3].
        let given = mask(&[3, 3], &[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
        let lifted = unmask(&given, 0, 1).unwrap().unwrap();
        assert_eq!(lifted, mask(&[3, 3], &[1.0, 1.0, 0.0].repeat(3)));
        let lifted = unmask(&given, 1, 2).unwrap().unwrap();
        let row_1 = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        assert_eq!(lifted, mask(&[3, 3], &row_1));
        assert_eq!(unmask(&given, 0, 0).unwrap(), None);
    }

    #[test]
    fn the_last_row_comes_back_whole() {
        let lifted = unmask(&mask(&[2, 2], &[0.0; 4]), 0, 1).unwrap().unwrap();
        assert_eq!(lifted, mask(&[2, 2], &[0.0, 0.0, 1.0, 1.0]));
    }

    #[test]
    fn single_values_are_no_channels() {
        // The first row is masked altogether, but by chance.
        let chance = mask(&[3, 2], &[0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(unmask(&chance, 0, 0).unwrap(), None);
        // All kept rows are alike, but (0, 1) of the inner [2, 2] belongs to no channel of it.
        let alike = [vec![0.0; 4], [1.0, 0.0, 1.0, 1.0].repeat(2)].concat();
        assert_eq!(unmask(&mask(&[3, 2, 2], &alike), 0, 0).unwrap(), None);
    }
}
