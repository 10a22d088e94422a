//! The masks of a small model that the cut could not follow.
//!
//! Masks of single values promise no cut. Masks of whole channels do, and where a channel stays all
//! the same the report names what keeps it.

use std::fmt;

use burn_compress_core::graph::{ChannelGraph, ChannelId, Position, SlicePlan};
use burn_compress_core::layer::{LayerInfo, channel_dims};
use burn_compress_core::{Mask, Masks, TargetId};
use serde::{Deserialize, Serialize};

use crate::decision::Decision;

/// A target that is masked in the small model as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UncutMask {
    /// The target, `attention.query.weight`.
    pub target: TargetId,
    /// The number of its masked values.
    pub masked: usize,
    /// The number of values of its mask.
    pub values: usize,
    /// The number of its masked output channels.
    #[serde(default)]
    pub channels: usize,
    /// The reason that the first of these channels stays; absent where none is masked as a whole.
    #[serde(default)]
    pub reason: Option<String>,
}

impl fmt::Display for UncutMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            masked,
            values,
            channels,
            reason,
        } = self;
        write!(f, "{target}  {masked} of {values} values")?;
        match (channels, reason) {
            (0, _) => Ok(()),
            (1, Some(reason)) => write!(f, ", 1 whole channel: {reason}"),
            (channels, Some(reason)) => write!(f, ", {channels} whole channels: {reason}"),
            (channels, None) => write!(f, ", {channels} whole channels"),
        }
    }
}

/// The masks `left` once `plan` is carried out.
pub(crate) fn uncut(
    graph: &ChannelGraph,
    layers: &[LayerInfo],
    decision: &Decision,
    left: &Masks,
    plan: &SlicePlan,
) -> Vec<UncutMask> {
    let masked = left.iter().filter(|(_, mask)| mask.removed() > 0);
    let found = masked.map(|(target, mask)| {
        let stays = channels(graph, layers, target, mask, plan);
        let first = stays.first().copied();
        UncutMask {
            target: target.clone(),
            masked: mask.removed(),
            values: mask.elements(),
            channels: stays.len(),
            reason: first.map(|channel| match channel {
                Some(channel) => reason(graph, decision, channel),
                None => "they are no channels of the graph".to_string(),
            }),
        }
    });
    found.collect()
}

/// The masked output channels of a parameter in the small model, `None` for one that the graph
/// does not know.
fn channels(
    graph: &ChannelGraph,
    layers: &[LayerInfo],
    target: &TargetId,
    mask: &Mask,
    plan: &SlicePlan,
) -> Vec<Option<ChannelId>> {
    let layer = layers.iter().find(|layer| layer.path == target.layer);
    let (Some(layer), Some(name)) = (layer, target.target.param_name()) else {
        return Vec::new();
    };
    let Some(dim) = channel_dims(&layer.kind, name, mask.shape().len()).output else {
        return Vec::new();
    };
    let path = target.to_string();
    let kept = (plan.params.get(&path)).and_then(|slice| slice.keep.get(&dim));
    let along = graph.param_channels(&path, dim);
    let before = |index: usize| kept.map_or(index, |kept| kept[index]);
    let removed = mask.removed_along(dim);
    (0..removed.len())
        .filter(|&index| removed[index])
        .map(|index| along.map(|along| along[before(index)]))
        .collect()
}

/// The reason that a masked channel stays.
fn reason(graph: &ChannelGraph, decision: &Decision, channel: ChannelId) -> String {
    if let Some(reason) = graph.protected(channel) {
        return reason.to_string();
    }
    let is_masked = |position: &Position| {
        let mask = decision.by_parameter.get(&position.param);
        mask.is_some_and(|mask| mask.removed_along(position.dim)[position.index])
    };
    let mut makes = graph.entries().made(channel);
    match makes.find(|position| !is_masked(position)) {
        Some(other) => format!("`{}` makes the same channels and keeps them", other.param),
        None => "the groups of a convolution or of a norm keep equally many".to_string(),
    }
}
