//! Trial cuts of some channels of all selected targets.

use std::collections::BTreeSet;

use burn::module::Module;
use burn_compress_core::graph::{ChannelGraph, ChannelGroup, ChannelId, GroupMember, SlicedPart};
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{Chain, Mask, Target, TargetId};
use indexmap::{IndexMap, IndexSet};

use super::member::is_matrix;
use super::selected::{Item, ParamBlocks};
use crate::{Granularity, PruningError};

pub(super) const EXCLUDE: &str = "exclude the layer";
const NO_CUT: &str = "remove its channels one by one (`\"granularity\": \"out_channel\"` without \
    `dependency_group_id`), or elements or an N:M `pattern`, which promise no cut; to keep masks that \
    no cut follows, set `coupled` of the `PrunerConfig` to `false`";

/// An item outside of the groups whose blocks are whole channels along a dimension.
pub(super) struct Whole<'a> {
    pub(super) item: &'a Item,
    pub(super) dim: usize,
}

/// The items whose blocks span everything but several indices along their output or input
/// channels.
pub(super) fn whole<'a>(
    items: &'a [Item],
    default: &Granularity,
) -> Result<Vec<Whole<'a>>, PruningError> {
    let mut found = Vec::new();
    for item in items {
        let settings = &item.settings;
        // What follows another target promises what that one does.
        let decided =
            settings.is_active() && settings.pattern.is_none() && settings.align.is_none();
        let Some(blocks) = ParamBlocks::of(item, default).filter(|b| decided && !b.are_elements())
        else {
            continue;
        };
        let dims = blocks.dims();
        let blocks = blocks.resolve()?;
        let mut split = (blocks.grid().iter().enumerate()).filter(|(_, count)| **count > 1);
        if let (Some((dim, _)), None) = (split.next(), split.next())
            && [dims.output, dims.input].contains(&Some(dim))
        {
            found.push(Whole { item, dim });
        }
    }
    Ok(found)
}

/// The paths of the parameters that are no vectors.
pub(super) fn matrices<M: Module + 'static, I: 'static>(
    chain: &Chain<'_, M, I>,
) -> IndexSet<String> {
    let mut found = IndexSet::new();
    for layer in chain.layers() {
        for param in layer.params.iter().filter(|param| is_matrix(layer, param)) {
            let target = Target::param(&param.name);
            found.insert(TargetId::new(&layer.path, target).to_string());
        }
    }
    found
}

/// Channels of a group to remove in the trial, or the reason that keeps all of them.
pub(super) fn removable_of(
    graph: &ChannelGraph,
    index: usize,
    items: &[Item],
    matrices: &IndexSet<String>,
) -> Result<BTreeSet<ChannelId>, (String, String)> {
    let group = &graph.groups()[index];
    let selected: IndexSet<String> = items.iter().map(|item| item.id().to_string()).collect();
    let reasons: Option<Vec<&str>> = (group.channels.iter())
        .map(|&channel| graph.protected(channel))
        .collect();
    if let Some(reason) = reasons.as_ref().and_then(|reasons| reasons.first()) {
        let reason = format!("its channels cannot be removed: {reason}");
        let first = group.channels.first();
        let remedy = first
            .and_then(|&channel| graph.remedy(channel))
            .unwrap_or(EXCLUDE);
        return Err((reason, remedy.to_string()));
    }
    let not_selected = group
        .members
        .iter()
        .find(|member| matrices.contains(&member.param) && !selected.contains(&member.param));
    if let Some(member) = not_selected {
        let (coupled, _) = member.param.rsplit_once('.').unwrap_or(("", &member.param));
        let reason = format!(
            "its channels are coupled with those of `{coupled}`, which the configuration does not \
             select"
        );
        return Err((reason, "select or exclude both".to_string()));
    }
    // Groups that share a number follow a cut together only as long as both lose as many.
    let ratio = items.iter().find_map(|item| item.settings.sparse_ratio);
    Ok(some_channels(graph, group, ratio.unwrap_or(HALF)))
}

/// The fraction of channels that a trial removes where none is asked for.
const HALF: f64 = 0.5;

/// About `ratio` of the channels of a group, as many in each of its blocks and at least one, such that
/// a cut leaves something of every parameter; none where all must stay.
fn some_channels(graph: &ChannelGraph, group: &ChannelGroup, ratio: f64) -> BTreeSet<ChannelId> {
    let size = block_size(group);
    let blocks = free_blocks(graph, group);
    let most = most(group, &blocks);
    let asked = (size as f64 * ratio) as usize;
    for count in [most.min(asked.max(1)), most.min(1)] {
        let chosen = blocks.iter().flat_map(|free| free[..count].iter().copied());
        let chosen: BTreeSet<ChannelId> = chosen.collect();
        if leaves_some(group, &chosen) {
            return chosen;
        }
    }
    BTreeSet::new()
}

/// For each part of a slice whose bounds have to follow by themselves: as many of its channels as can
/// go, and of others no more than equal blocks ask for. Bounds that are a share of all channels, or
/// numbers that are written down, are wrong for one of them at least.
pub(super) fn cuts_of_slices(graph: &ChannelGraph, index: usize) -> Vec<BTreeSet<ChannelId>> {
    let group = &graph.groups()[index];
    let parts: IndexSet<&Vec<usize>> = group.slices.iter().map(|part| &part.channels).collect();
    let cuts = parts.into_iter().map(|part| {
        let held: BTreeSet<ChannelId> = part.iter().map(|&at| group.channels[at]).collect();
        let mut blocks = free_blocks(graph, group);
        let held_by = |free: &Vec<ChannelId>| free.iter().filter(|c| held.contains(c)).count();
        let count = blocks.iter().map(held_by).max().unwrap_or(0);
        for free in &mut blocks {
            free.sort_by_key(|channel| !held.contains(channel));
        }
        let counts = (1..=count.min(most(group, &blocks))).rev();
        let mut chosen = counts.map(|count| {
            let chosen = blocks.iter().flat_map(|free| free[..count].iter().copied());
            chosen.collect::<BTreeSet<ChannelId>>()
        });
        chosen.find(|chosen| leaves_some(group, chosen))
    });
    cuts.flatten().collect()
}

fn block_size(group: &ChannelGroup) -> usize {
    group.channels.len() / group.blocks.max(1)
}

/// The most channels that can go of each block.
fn most(group: &ChannelGroup, free: &[Vec<ChannelId>]) -> usize {
    let possible = |free: &Vec<ChannelId>| free.len().min(block_size(group).saturating_sub(1));
    free.iter().map(possible).min().unwrap_or(0)
}

/// The channels of each block that need not stay.
fn free_blocks(graph: &ChannelGraph, group: &ChannelGroup) -> Vec<Vec<ChannelId>> {
    // What is all that a parameter or a slice has of the group must stay.
    let alone: BTreeSet<ChannelId> = (parts(group).into_iter())
        .filter_map(|held| match held[..] {
            [channel] => Some(channel),
            _ => None,
        })
        .collect();
    let free = |block: &[ChannelId]| -> Vec<ChannelId> {
        let stays =
            |channel: &ChannelId| graph.protected(*channel).is_some() || alone.contains(channel);
        let free: Vec<ChannelId> = block.iter().copied().filter(|c| !stays(c)).collect();
        // Every second one, so that runs of channels keep some.
        let odd = free.iter().skip(1).step_by(2);
        odd.chain(free.iter().step_by(2)).copied().collect()
    };
    let blocks = group.channels.chunks(block_size(group).max(1));
    blocks.map(free).collect()
}

/// The channels of a group that each parameter and each part of a slice has.
fn parts(group: &ChannelGroup) -> Vec<Vec<ChannelId>> {
    let held = |member: &GroupMember| {
        let held = group.channels.iter().zip(member.positions.iter());
        let held = held.filter(|(_, positions)| !positions.is_empty());
        held.map(|(channel, _)| *channel).collect()
    };
    let members = group.members.iter().chain(&group.consumers).map(held);
    let slices = group.slices.iter().filter(|part| part.whole);
    let of = |part: &SlicedPart| part.channels.iter().map(|&at| group.channels[at]).collect();
    members.chain(slices.map(of)).collect()
}

/// Whether something is left of every parameter and every part of a slice.
fn leaves_some(group: &ChannelGroup, removed: &BTreeSet<ChannelId>) -> bool {
    let left = |held: &Vec<ChannelId>| held.iter().any(|channel| !removed.contains(channel));
    parts(group).iter().all(left)
}

/// Masks of some channels of independent targets, and the channels that they remove.
pub(super) struct Trial<'a> {
    graph: &'a ChannelGraph,
    wanted: BTreeSet<ChannelId>,
    masks: IndexMap<String, Mask>,
    removed: BTreeSet<ChannelId>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        graph: &'a ChannelGraph,
        left: &[Item],
        whole: &[Whole<'_>],
    ) -> Result<Self, PruningError> {
        let mut touched: BTreeSet<ChannelId> = BTreeSet::new();
        for whole in whole {
            let path = whole.item.id().to_string();
            touched.extend(graph.param_channels(&path, whole.dim).unwrap_or_default());
        }
        let groups = graph.groups().iter();
        let groups = groups.filter(|group| group.channels.iter().any(|c| touched.contains(c)));
        let wanted = groups
            .flat_map(|group| some_channels(graph, group, HALF))
            .collect();
        let mut trial = Self {
            graph,
            wanted,
            masks: IndexMap::new(),
            removed: BTreeSet::new(),
        };
        if whole.is_empty() {
            return Ok(trial);
        }
        for whole in whole {
            trial.mask(whole.item, whole.dim)?;
        }
        // What follows another target has masks of its channels as well.
        let follow = |item: &&Item| item.settings.align.is_some() && item.target.is_param();
        for item in left.iter().filter(follow) {
            let name = item.target.to_string();
            let rank = item.layer.param(&name).map_or(0, |param| param.shape.len());
            if let Some(dim) = channel_dims(&item.layer.kind, &name, rank).output {
                trial.mask(item, dim)?;
            }
        }
        if !trial.masks.is_empty() {
            let removed = graph.entries().removable(&trial.masks);
            trial.removed = removed.map_err(burn_compress_core::Error::from)?;
        }
        Ok(trial)
    }

    /// Masks the wanted channels along a dimension of an item's parameter.
    fn mask(&mut self, item: &Item, dim: usize) -> Result<(), PruningError> {
        let path = item.id().to_string();
        let param = item.layer.param(&item.target.to_string());
        let (Some(param), Some(channels)) = (param, self.graph.param_channels(&path, dim)) else {
            return Ok(());
        };
        let inner: usize = param.shape[dim + 1..].iter().product();
        let elements: usize = param.shape.iter().product();
        let masked = |at: usize| self.wanted.contains(&channels[at / inner % channels.len()]);
        let old = self.masks.get(&path);
        let kept = |at: usize| old.is_none_or(|mask| mask.values()[at] != 0.0) && !masked(at);
        let values = (0..elements).map(|at| f32::from(kept(at))).collect();
        let mask = Mask::new(values, param.shape.clone())?;
        self.masks.insert(path, mask);
        Ok(())
    }

    /// Channels removed by the masks of `whole`, or the reason that prevents a cut.
    pub(super) fn followed(
        &self,
        whole: &Whole<'_>,
    ) -> Result<BTreeSet<ChannelId>, (String, String)> {
        let path = whole.item.id().to_string();
        let refused = |reason: String| Err((reason, NO_CUT.to_string()));
        let Some(channels) = self.graph.param_channels(&path, whole.dim) else {
            return match self.graph.is_used(&path) {
                false => refused("the forward pass never calls its layer".to_string()),
                true => refused(
                    "its blocks are whole channels, but they are no channels of the graph"
                        .to_string(),
                ),
            };
        };
        let blocks = "its blocks are whole channels that no cut can follow";
        let mut stays = channels.iter().copied();
        let stays = stays.find_map(|channel| Some((channel, self.graph.protected(channel)?)));
        if let Some((channel, why)) = stays {
            let remedy = self.graph.remedy(channel).unwrap_or(NO_CUT);
            return Err((format!("{blocks}: {why}"), remedy.to_string()));
        }
        // Several channels of a part at once leave parts of other sizes.
        let apart = self.graph.taken_apart();
        if let Some(why) = channels.iter().find_map(|channel| apart.get(channel)) {
            return Err((format!("{blocks}: {why}"), NO_CUT.to_string()));
        }
        let masked: BTreeSet<ChannelId> = (channels.iter().copied())
            .filter(|channel| self.wanted.contains(channel))
            .collect();
        match masked
            .iter()
            .find(|channel| !self.removed.contains(channel))
        {
            None => Ok(masked),
            Some(&channel) => {
                let others = self.unmasked(channel, &path);
                refused(format!(
                    "{blocks}: {others} the same channels and is not masked with it"
                ))
            }
        }
    }

    /// The first parameter that makes or reads a channel and whose mask does not cover it.
    fn unmasked(&self, channel: ChannelId, path: &str) -> String {
        let covers = |param: &str, dim: usize, positions: &[usize]| {
            self.masks.get(param).is_some_and(|mask| {
                let removed = mask.removed_along(dim);
                positions.iter().all(|&position| removed[position])
            })
        };
        let groups = self.graph.groups().iter();
        for group in groups {
            let Some(at) = group.channels.iter().position(|c| *c == channel) else {
                continue;
            };
            for (members, does) in [(&group.members, "makes"), (&group.consumers, "reads")] {
                let other = members.iter().find(|member| {
                    let positions = &member.positions[at];
                    member.param != path
                        && !positions.is_empty()
                        && !covers(&member.param, member.dim, positions)
                });
                if let Some(other) = other {
                    return format!("`{}` {does}", other.param);
                }
            }
        }
        "something else makes".to_string()
    }
}
