//! From masks to the channels that go.

use std::collections::BTreeSet;

use burn_compress_core::graph::{ChannelGraph, ChannelId};
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Mask, Masks};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::outputs::parameter_masks;
use crate::partial::{self, PartialChannels};

/// The channels to remove and the masks that stay.
#[derive(Debug)]
pub(crate) struct Decision {
    pub masks: Masks,
    /// The masks as masks of parameters, which the channels were found with.
    pub by_parameter: IndexMap<String, Mask>,
    /// In the order in which they were found.
    pub order: Vec<ChannelId>,
    pub removed: BTreeSet<ChannelId>,
    /// The number of channels whose masks were lifted.
    pub lifted: usize,
}

/// The parameter dimensions of which masks take whole heads, see
/// [`ChannelEntries::whole_heads`](burn_compress_core::graph::ChannelEntries::whole_heads).
pub(crate) fn heads(
    graph: &ChannelGraph,
    layers: &[LayerInfo],
    masks: &Masks,
) -> Result<BTreeSet<(String, usize)>, SpeedupError> {
    let masks = parameter_masks(graph, layers, masks)?;
    Ok(graph.entries().whole_heads(&masks)?)
}

impl Decision {
    /// The channels that `masks` remove.
    ///
    /// # Errors
    ///
    /// A mask that does not fit the graph, and a layer of which nothing would be left.
    pub fn new(
        graph: &ChannelGraph,
        layers: &[LayerInfo],
        mut masks: Masks,
        partial_channels: PartialChannels,
    ) -> Result<Self, SpeedupError> {
        let mut lifted = BTreeSet::new();
        loop {
            let by_parameter = parameter_masks(graph, layers, &masks)?;
            let order = graph.entries().removal_order(&by_parameter)?;
            let removed = order.iter().copied().collect();
            let found = match partial_channels {
                PartialChannels::Keep => None,
                PartialChannels::Lift => {
                    let found = partial::lift(graph, layers, &masks, &by_parameter, &removed)?;
                    (!found.channels.is_empty()).then_some(found)
                }
            };
            let Some(found) = found else {
                return Ok(Self {
                    masks,
                    by_parameter,
                    order,
                    removed,
                    lifted: lifted.len(),
                });
            };
            // Raw weights may read channels that only masked ones did not read: these stay now.
            lifted.extend(found.channels);
            masks = found.masks;
        }
    }
}
