//! The channels of a network that belong together, and what masks keep of them.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;
use burn_compress::graph::{ChannelGraph, GroupMember, capture};
use burn_compress::layer::{LayerInfo, channel_dims, layers};
use burn_compress::{Mask, Masks};
use burn_compress_tests::random_net::{Net, NetSpec};
use proptest::test_runner::TestCaseError;

/// Channels that are pruned together.
pub struct Group {
    pub layers: Vec<String>,
    pub members: Vec<GroupMember>,
    pub protected: Vec<bool>,
    pub blocks: usize,
    /// Channels that are all that some parameter has of the group, each of which keeps one.
    pub branches: BTreeSet<Vec<usize>>,
    pub ratio: f64,
}

impl Group {
    /// How many channels the ratio removes: the integer part in each block.
    pub fn goal(&self) -> usize {
        let per_block = self.protected.len() / self.blocks;
        self.blocks * (per_block as f64 * self.ratio) as usize
    }

    /// Whether the goal can be reached whatever channels the branches keep.
    pub fn is_reachable(&self) -> bool {
        let staying = self
            .protected
            .iter()
            .filter(|protected| **protected)
            .count();
        let per_block = self.protected.len() / self.blocks;
        let needed = self.branches.len() + staying;
        self.branches.is_empty() || self.goal() / self.blocks + needed <= per_block
    }
}

/// The dimension of the output channels of a layer's weight.
pub fn output_dim(layer: &LayerInfo) -> Option<usize> {
    let weight = layer
        .param("weight")
        .filter(|weight| weight.shape.len() > 1)?;
    channel_dims(&layer.kind, "weight", weight.shape.len()).output
}

pub fn graph(spec: &NetSpec, net: &Net, device: &Device) -> Result<ChannelGraph, TestCaseError> {
    Ok(ChannelGraph::analyze(&capture(
        net,
        &spec.dummy_input(device),
    )?)?)
}

/// The groups of convolutions, and of the hidden linear layer if asked for, that have a channel to
/// lose, each with one of `ratios`.
pub fn groups(graph: &ChannelGraph, net: &Net, with_linear: bool, ratios: &[f64]) -> Vec<Group> {
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for layer in layers(net) {
        let is_pruned = layer.kind == "Conv2d" || with_linear && layer.path == "hidden";
        let dim = output_dim(&layer).filter(|_| is_pruned);
        if let Some(index) = dim.and_then(|dim| graph.group_of(&layer.path, "weight", dim)) {
            found.entry(index).or_default().push(layer.path);
        }
    }
    let mut groups = Vec::new();
    for ((index, layers), ratio) in found.into_iter().zip(ratios.iter().cycle()) {
        let group = &graph.groups()[index];
        let protected: Vec<bool> = group
            .channels
            .iter()
            .map(|&channel| graph.protected(channel).is_some())
            .collect();
        if protected.iter().all(|&protected| protected) {
            continue;
        }
        // A block cannot lose more than its channels that are free.
        let per_block = protected.len() / group.blocks;
        let free = protected
            .chunks(per_block)
            .map(|block| block.iter().filter(|p| !**p).count());
        let most = free.min().unwrap_or(0) as f64 / per_block as f64;
        let branches = group.members.iter().chain(&group.consumers).map(|member| {
            let all = 0..group.channels.len();
            all.filter(|&channel| !member.positions[channel].is_empty())
                .collect::<Vec<_>>()
        });
        let partial = |branch: &Vec<usize>| (1..group.channels.len()).contains(&branch.len());
        let branches: BTreeSet<Vec<usize>> = branches.filter(partial).collect();
        // A goal is refused where every channel must stay: the only one of its block, or the last of
        // its branch.
        let staying = protected.iter().filter(|protected| **protected).count();
        let all_stay = !branches.is_empty() && per_block <= staying + branches.len();
        groups.push(Group {
            layers,
            branches,
            members: group.members.clone(),
            protected,
            blocks: group.blocks,
            ratio: match per_block == 1 || all_stay {
                true => 0.0,
                false => ratio.min(most),
            },
        });
    }
    groups
}

pub fn mask_of(masks: &Masks, param: &str) -> Option<Mask> {
    masks
        .iter()
        .find(|(id, _)| id.to_string() == param)
        .map(|(_, mask)| mask.clone())
}

/// For each channel of a group, whether the mask of a member keeps it; `None` where the member
/// does not carry the channel.
pub fn kept(masks: &Masks, member: &GroupMember) -> Vec<Option<bool>> {
    let removed = mask_of(masks, &member.param).map(|mask| mask.removed_along(member.dim));
    let keeps = |positions: &[usize]| match (&removed, positions.is_empty()) {
        (_, true) => None,
        (None, false) => Some(true),
        // A depthwise convolution has several filters a channel: one is enough.
        (Some(removed), false) => Some(positions.iter().any(|&position| !removed[position])),
    };
    member.positions.iter().map(keeps).collect()
}

/// The sizes that the small model has along the dimensions that make a group's channels.
pub fn sizes(small: &Net, group: &[GroupMember]) -> Vec<usize> {
    let found = layers(small);
    let size = |member: &GroupMember| {
        found
            .iter()
            .flat_map(|layer| layer.params.iter().map(move |p| (&layer.path, p)))
            .find(|(path, param)| format!("{path}.{}", param.name) == member.param)
            .map(|(_, param)| param.shape[member.dim])
    };
    group.iter().filter_map(size).collect()
}
