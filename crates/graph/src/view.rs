//! A captured channel graph as the propagation sees it.

use std::collections::{BTreeMap, BTreeSet};

use super::labels::ChannelId;
use super::propagate::{GraphView, Position, ViewedGroup};
use super::{ChannelGraph, ChannelGroup, GroupMember};

/// The channels of a [`ChannelGraph`] with the positions that make and read them.
#[derive(Debug)]
pub struct CapturedView<'a> {
    graph: &'a ChannelGraph,
    made: BTreeMap<ChannelId, Vec<Position>>,
    read: BTreeMap<ChannelId, Vec<Position>>,
}

impl<'a> CapturedView<'a> {
    /// Sorts the positions of `graph` by channel.
    pub fn new(graph: &'a ChannelGraph) -> Self {
        let (mut made, mut read) = (BTreeMap::new(), BTreeMap::new());
        for group in graph.groups() {
            for member in &group.members {
                add(&mut made, &group.channels, member);
            }
            for member in &group.consumers {
                add(&mut read, &group.channels, member);
            }
        }
        // Convolutions in groups read channels as well, but not along one index of a dimension:
        // what they read counts as read.
        let inputs = graph
            .grouped()
            .iter()
            .flat_map(|conv| conv.input.iter().flatten());
        for channel in inputs.collect::<BTreeSet<_>>() {
            read.remove(channel);
        }
        Self { graph, made, read }
    }

    /// The layer that makes a channel, for messages.
    pub fn layer_of(&self, channel: ChannelId) -> Option<String> {
        let groups = self.graph.groups();
        groups
            .iter()
            .find(|group| group.channels.contains(&channel))
            .map(name)
    }
}

fn add(
    positions: &mut BTreeMap<ChannelId, Vec<Position>>,
    channels: &[ChannelId],
    member: &GroupMember,
) {
    for (&channel, indices) in channels.iter().zip(&member.positions) {
        let at = indices
            .iter()
            .map(|&index| Position::new(&member.param, member.dim, index));
        positions.entry(channel).or_default().extend(at);
    }
}

fn name(group: &ChannelGroup) -> String {
    let first = group
        .members
        .first()
        .map_or("", |member| member.param.as_str());
    first
        .rsplit_once('.')
        .map_or(first, |(layer, _)| layer)
        .to_string()
}

impl GraphView for CapturedView<'_> {
    type Channel = ChannelId;

    fn shape(&self, path: &str) -> Option<Vec<usize>> {
        let node = self.graph.params.get(path)?;
        Some(node.shape.clone())
    }

    fn groups(&self) -> Vec<ViewedGroup<ChannelId>> {
        let group = |group: &ChannelGroup| ViewedGroup {
            name: name(group),
            channels: group.channels.clone(),
            blocks: group.blocks,
        };
        self.graph.groups().iter().map(group).collect()
    }

    fn producers(&self, channel: ChannelId) -> Vec<Position> {
        self.made.get(&channel).cloned().unwrap_or_default()
    }

    fn consumers(&self, channel: ChannelId) -> Vec<Position> {
        self.read.get(&channel).cloned().unwrap_or_default()
    }

    fn is_fixed(&self, channel: ChannelId) -> bool {
        self.graph.protected(channel).is_some()
    }
}
