//! The parameter entries of every channel.

use std::ops::Range;

use indexmap::IndexMap;

use super::channel_set::ChannelSet;
use super::labels::ChannelId;

/// The parameter entries that make and that read every channel of a [`ChannelGraph`](crate::ChannelGraph).
///
/// ```text
/// made   every entry that makes the channel: when all are masked it is zero wherever it is read
/// read   every entry that reads the channel
/// ```
#[derive(Debug, Clone, Default)]
pub struct ChannelEntries {
    /// The shape of each parameter.
    pub(super) shapes: IndexMap<String, Vec<usize>>,
    pub(super) groups: Vec<Group>,
    pub(super) made: Places,
    pub(super) read: Places,
    /// The channels that must stay whatever is masked.
    pub(super) fixed: ChannelSet,
    /// The parts, of each reshape that takes channels apart.
    pub(super) parts: Vec<Vec<Vec<ChannelId>>>,
}

/// Channels of the same tensors, in order.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// Name of the group in errors: the layer that makes the channels.
    pub(super) name: String,
    pub(super) channels: Vec<ChannelId>,
    /// Into how many contiguous blocks the channels are split. Each keeps the same number.
    pub(super) blocks: usize,
}

/// Entries of one channel: everything at `index` along `dim` of the parameter at this place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) param: usize,
    pub(super) dim: usize,
    pub(super) index: usize,
}

/// The entries of each channel.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// By the number of a channel, where its entries are in the list of all.
    pub(super) ranges: Vec<Range<usize>>,
    pub(super) all: Vec<Place>,
}

impl Places {
    pub(super) fn of(&self, channel: ChannelId) -> &[Place] {
        let range = self.ranges.get(channel.0).cloned();
        &self.all[range.unwrap_or(0..0)]
    }

    pub(super) fn insert(&mut self, channel: ChannelId, places: impl Iterator<Item = Place>) {
        if self.ranges.len() <= channel.0 {
            self.ranges.resize(channel.0 + 1, 0..0);
        }
        let start = self.all.len();
        self.all.extend(places);
        self.ranges[channel.0] = start..self.all.len();
    }
}
