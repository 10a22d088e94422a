//! Slice plans: the kept indices of every parameter, layer and port once channels are removed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::channel_set::ChannelSet;
use super::facts::Count;
use super::group::SizeChannels;
use super::labels::ChannelId;
use super::{ChannelGraph, GraphError, GroupedConv};
use crate::target::TargetId;

/// Kept parts of a model without a set of channels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlicePlan {
    /// The parameters and running statistics that change, in module order, by path.
    pub params: IndexMap<String, ParamSlice>,
    /// The numbers of layers that change.
    pub sizes: Vec<SizeSlice>,
    /// The inputs and outputs of wrapped layers that change.
    pub ports: Vec<PortSlice>,
    /// Inputs and outputs of layers that are called several times and keep other indices, or run
    /// along another dimension, from call to call: nothing per channel can be kept there.
    pub ambiguous_ports: Vec<TargetId>,
}

/// Kept indices of one parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamSlice {
    /// The parameter's path.
    pub path: String,
    /// The kept indices of each dimension that changes.
    pub keep: BTreeMap<usize, Vec<usize>>,
    /// The kept input columns of a grouped convolution's weight, if they change.
    pub columns: Option<GroupedRows>,
    /// Its shape afterwards.
    pub shape: Vec<usize>,
}

/// Kept input columns of a grouped convolution: each group of rows keeps columns of its own.
///
/// With `g` groups, row `r` of the *unsliced* weight `[out, in / g, ..]` is in group
/// `r / (out / g)` and keeps the columns `keep[r / (out / g)]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupedRows {
    /// For each group the kept indices along the weight's second dimension, equally many.
    pub keep: Vec<Vec<usize>>,
}

/// A number that a layer holds beside its parameters and that follows the channels: `groups` of a
/// depthwise convolution, `num_channels` of a group norm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeSlice {
    /// The layer's path.
    pub layer: String,
    /// The field that holds the number.
    pub field: Cow<'static, str>,
    /// The number before.
    pub before: usize,
    /// The number afterwards.
    pub after: usize,
}

/// Numbers that layers hold beside their parameters, by the path of the layer and the field.
pub type LayerSizes = BTreeMap<String, BTreeMap<String, usize>>;

/// Kept indices of an input or output of a wrapped layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSlice {
    /// The layer and which of its inputs or outputs.
    pub target: TargetId,
    /// The dimension that shrinks.
    pub dim: usize,
    /// The size it had.
    pub size: usize,
    /// The kept indices.
    pub keep: Vec<usize>,
}

impl SlicePlan {
    /// The numbers of layers afterwards.
    pub fn layer_sizes(&self) -> LayerSizes {
        let mut sizes = LayerSizes::new();
        for size in &self.sizes {
            let fields = sizes.entry(size.layer.clone()).or_default();
            fields.insert(size.field.to_string(), size.after);
        }
        sizes
    }
}

impl ChannelGraph {
    /// Slice plan without the channels `removed`.
    ///
    /// # Errors
    ///
    /// When a channel is unknown or protected, when a dimension would lose all its channels, and
    /// when the groups of a convolution or the parts of a split would keep different numbers.
    pub fn slice_plan(&self, removed: &BTreeSet<ChannelId>) -> Result<SlicePlan, GraphError> {
        self.check_removable(removed)?;
        let removed = &ChannelSet::from(removed);
        let mut plan = SlicePlan::default();
        for node in self.params() {
            let mut slice = ParamSlice {
                path: node.path.clone(),
                keep: BTreeMap::new(),
                columns: None,
                shape: node.shape.clone(),
            };
            for (dim, channels) in node.channels.iter().enumerate() {
                let Some(channels) = channels else { continue };
                let keep = kept(channels.iter().map(|channel| Some(*channel)), removed);
                if keep.is_empty() {
                    return Err(GraphError::Emptied {
                        param: node.path.clone(),
                        dim,
                    });
                }
                if keep.len() < channels.len() {
                    slice.shape[dim] = keep.len();
                    slice.keep.insert(dim, keep);
                }
            }
            if !slice.keep.is_empty() {
                plan.params.insert(node.path.clone(), slice);
            }
        }
        self.check_blocks(removed)?;
        for conv in &self.grouped {
            self.slice_grouped(conv, removed, &mut plan)?;
        }
        for (weight, groups) in &self.depthwise {
            self.slice_depthwise(weight, *groups, &mut plan);
        }
        for size in &self.sizes {
            let (before, after) = size.before_and_after(removed);
            if after != before {
                plan.sizes.push(SizeSlice {
                    layer: size.layer.clone(),
                    field: size.field.into(),
                    before,
                    after,
                });
            }
        }
        self.slice_ports(removed, &mut plan);
        plan.params
            .sort_by_cached_key(|path, _| self.params.get_index_of(path));
        Ok(plan)
    }

    fn check_removable(&self, removed: &BTreeSet<ChannelId>) -> Result<(), GraphError> {
        for &channel in removed {
            if !self.channels.contains(channel) {
                return Err(GraphError::UnknownChannel {
                    channel: channel.to_string(),
                });
            }
            if let Some(reason) = self.protected(channel) {
                return Err(GraphError::Protected {
                    param: self.param_of(channel),
                    reason: reason.to_string(),
                });
            }
        }
        Ok(())
    }

    /// The first parameter that a channel lives on.
    fn param_of(&self, channel: ChannelId) -> String {
        let lives = |channels: &Vec<ChannelId>| channels.contains(&channel);
        let mut params = self.params();
        let node = params.find(|node| node.channels.iter().flatten().any(lives));
        node.map_or_else(|| channel.to_string(), |node| node.path.clone())
    }

    fn check_blocks(&self, removed: &ChannelSet) -> Result<(), GraphError> {
        for rule in &self.blocks {
            let kept: Vec<usize> = rule.parts().map(|part| removed.kept(part)).collect();
            let shares = kept.iter().zip(&rule.sizes);
            if shares
                .into_iter()
                .any(|(count, size)| count * rule.sizes[0] != kept[0] * size)
            {
                return Err(GraphError::UnequalBlocks {
                    layer: rule.layer.clone(),
                    blocks: rule.sizes.len(),
                    kept,
                });
            }
        }
        Ok(())
    }

    fn slice_grouped(
        &self,
        conv: &GroupedConv,
        removed: &ChannelSet,
        plan: &mut SlicePlan,
    ) -> Result<(), GraphError> {
        if conv.input.is_empty() {
            return Ok(());
        }
        let per_group = conv.input.len() / conv.groups;
        let keep: Vec<Vec<usize>> = conv
            .input
            .chunks(per_group)
            .map(|group| kept(group.iter().copied(), removed))
            .collect();
        let count = keep[0].len();
        if count == per_group {
            return Ok(());
        }
        if count == 0 {
            return Err(GraphError::Emptied {
                param: conv.weight.clone(),
                dim: 1,
            });
        }
        let node = &self.params[&conv.weight];
        let slice = plan
            .params
            .entry(conv.weight.clone())
            .or_insert_with(|| ParamSlice {
                path: node.path.clone(),
                keep: BTreeMap::new(),
                columns: None,
                shape: node.shape.clone(),
            });
        slice.shape[1] = count;
        let columns = GroupedRows { keep };
        // The same layer called twice has to read the same columns.
        if slice
            .columns
            .as_ref()
            .is_some_and(|known| *known != columns)
        {
            return Err(GraphError::UnequalBlocks {
                layer: conv.layer.clone(),
                blocks: conv.groups,
                kept: columns.keep.iter().map(Vec::len).collect(),
            });
        }
        slice.columns = Some(columns);
        Ok(())
    }

    fn slice_depthwise(&self, weight: &str, before: usize, plan: &mut SlicePlan) {
        let node = &self.params[weight];
        let rows = plan.params.get(weight).and_then(|slice| slice.keep.get(&0));
        let Some(rows) = rows else { return };
        // All filters of one input go together.
        let filters = node.shape[0] / before;
        plan.sizes.push(SizeSlice {
            layer: node.layer().to_string(),
            field: "groups".into(),
            before,
            after: rows.len() / filters,
        });
    }

    fn slice_ports(&self, removed: &ChannelSet, plan: &mut SlicePlan) {
        for (target, calls) in &self.ports {
            let slices: Vec<PortSlice> = calls
                .iter()
                .map(|call| PortSlice {
                    target: target.clone(),
                    dim: call.dim,
                    size: call.channels.len(),
                    keep: kept(call.channels.iter().copied(), removed),
                })
                .collect();
            let Some(first) = slices.first() else {
                continue;
            };
            if slices.iter().any(|slice| slice != first) {
                plan.ambiguous_ports.push(target.clone());
            } else if first.keep.len() < first.size {
                plan.ports.push(first.clone());
            }
        }
    }
}

impl SizeChannels {
    /// The number with all channels and without those `removed`.
    fn before_and_after(&self, removed: &ChannelSet) -> (usize, usize) {
        let left = |channels: &[Option<ChannelId>]| removed.kept(channels);
        let size = self.channels.len();
        match self.count {
            Count::Channels => (size, left(&self.channels)),
            Count::Parts(count) => {
                let parts = self.channels.chunks(size / count.clamp(1, size.max(1)));
                (count, parts.filter(|part| left(part) > 0).count())
            }
        }
    }
}

/// The indices whose channel stays.
fn kept(channels: impl Iterator<Item = Option<ChannelId>>, removed: &ChannelSet) -> Vec<usize> {
    channels
        .enumerate()
        .filter(|(_, channel)| channel.is_none_or(|channel| !removed.contains(channel)))
        .map(|(index, _)| index)
        .collect()
}
