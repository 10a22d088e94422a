//! What of a selection can be pruned, found before anything is claimed or trained.
//!
//! Masks of whole channels promise that a cut can follow them. Whatever breaks the promise is looked
//! for here, and all of it reported at once:
//!
//! - layers that the forward pass never calls, and channels that must stay;
//! - channels that are coupled with those of a layer that is not selected;
//! - blocks of whole channels, and channels that a configuration groups by hand, where something
//!   else makes the same channels and is not masked with them;
//! - forward passes that need the number of channels, found by a
//!   [trial cut](Compressor::trial_cut).
//!
//! Masks of elements, of patterns and of blocks smaller than a channel promise no cut.

use std::collections::BTreeSet;

use burn::module::Module;
use burn_compress_core::config::Selected;
use burn_compress_core::graph::propagate::removable;
use burn_compress_core::graph::{CapturedView, ChannelGraph, ChannelGroup, ChannelId, GroupMember};
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{Compressor, Mask, MaskMethod, Obstacle, TargetId};
use indexmap::{IndexMap, IndexSet};

use super::coupled::Planned;
use super::{granularity, output_dim};
use crate::settings::OnUnprunable;
use crate::{Granularity, PruningError, PruningSettings};

type Item = Selected<PruningSettings>;

const EXCLUDE: &str = "exclude the layer";
const NO_CUT: &str = "remove its channels one by one (`\"granularity\": \"out_channel\"` without \
    `dependency_group_id`), or elements or an N:M `pattern`, which promise no cut; to keep masks that \
    no cut follows, set `coupled` of the `PrunerConfig` to `false`";

/// A selection, sorted into groups of the graph and what is decided about on its own.
pub(super) struct Sorted {
    pub(super) grouped: IndexMap<usize, Vec<Item>>,
    pub(super) left: Vec<Item>,
    /// What is left out on request.
    pub(super) skipped: Vec<Obstacle>,
    /// What of the selection cannot be pruned and is in none of the above.
    pub(super) refused: Option<Refused>,
}

/// The selected targets that cannot be pruned.
pub(super) struct Refused {
    obstacles: Vec<Obstacle>,
    /// Whether all of them stand outside of the groups. A contradiction of their settings explains
    /// the refusal then.
    alone: bool,
}

impl Refused {
    /// One error of all that cannot be pruned and of `other`, which was found in the rest.
    pub(super) fn with(self, other: Option<PruningError>, selected: &[Item]) -> PruningError {
        let mut obstacles = self.obstacles;
        let others = other.map(|error| error.into_obstacles(&mut obstacles));
        let mut others = others.unwrap_or_default();
        if self.alone && !others.is_empty() {
            return others.remove(0);
        }
        sort_by_selection(&mut obstacles, selected);
        let error = PruningError::Unprunable { obstacles };
        if others.is_empty() {
            return error;
        }
        others.insert(0, error);
        PruningError::Several(others)
    }
}

/// Items that cannot be pruned, for one reason.
struct Finding {
    items: Vec<Item>,
    /// Whether they stand outside of the groups.
    alone: bool,
    reason: String,
    remedy: String,
}

/// Sorts what a configuration selects. Without `coupled` nothing promises a cut.
pub(super) fn sort<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    pruner: &'static str,
    selected: &[Item],
    default: &Granularity,
    coupled: bool,
) -> Result<Sorted, PruningError> {
    let mut sorted = Sorted {
        grouped: IndexMap::new(),
        left: Vec::new(),
        skipped: Vec::new(),
        refused: None,
    };
    let mut findings = Vec::new();
    for item in selected {
        refuse_added(item)?;
        let Some(dim) = output_dim(item, default, coupled)? else {
            sorted.left.push(item.clone());
            continue;
        };
        let graph = compressor.graph(pruner)?;
        let param = item.target.to_string();
        match graph.group_of(&item.layer.path, &param, dim) {
            Some(group) => sorted.grouped.entry(group).or_default().push(item.clone()),
            None => findings.push(no_channels(&graph, item, dim)),
        }
    }
    let whole = match coupled {
        true => whole(&sorted.left, default)?,
        false => Vec::new(),
    };
    let known = compressor.evaluator().dummy_input().is_some();
    if !whole.is_empty() && !known {
        log::warn!(
            "{pruner} masks whole channels, but no dummy input tells whether a cut can follow"
        );
    }
    if known && !(sorted.grouped.is_empty() && whole.is_empty()) {
        let graph = compressor.graph(pruner)?;
        findings.extend(look(compressor, pruner, &graph, &sorted, &whole)?);
    }
    Ok(settle(selected, sorted, findings))
}

/// An added mask takes 1000 from a parameter, which makes nothing of it zero.
fn refuse_added(item: &Item) -> Result<(), PruningError> {
    let added = item.settings.apply_method == Some(MaskMethod::Add);
    match added && item.settings.is_active() && item.target.is_param() {
        false => Ok(()),
        true => Err(PruningError::Setting {
            key: "apply_method",
            value: "add".to_string(),
            expected: "`mul`, which makes masked elements zero; `add` is for inputs and outputs",
        }
        .at(item.id())),
    }
}

fn no_channels(graph: &ChannelGraph, item: &Item, dim: usize) -> Finding {
    let path = item.id().to_string();
    let size = item.layer.param(&item.target.to_string());
    let (reason, remedy) = if !graph.is_used(&path) {
        (
            "the forward pass of the dummy input never calls its layer",
            "exclude the layer, or call it in the forward pass",
        )
    } else if size.is_some_and(|param| param.shape[dim] == 1) {
        ("it has a single channel, which must stay", EXCLUDE)
    } else {
        ("its output channels are not channels of the graph", EXCLUDE)
    };
    Finding {
        items: vec![item.clone()],
        alone: false,
        reason: reason.to_string(),
        remedy: remedy.to_string(),
    }
}

/// An item outside of the groups whose blocks are whole channels along a dimension.
struct Whole<'a> {
    item: &'a Item,
    dim: usize,
}

/// The items whose blocks span everything but several indices along their output or input
/// channels.
fn whole<'a>(items: &'a [Item], default: &Granularity) -> Result<Vec<Whole<'a>>, PruningError> {
    let mut found = Vec::new();
    for item in items {
        let settings = &item.settings;
        let name = item.target.param_name();
        let Some(param) = name.and_then(|name| item.layer.param(name)) else {
            continue;
        };
        // What follows another target promises what that one does.
        let follows = settings.align.is_some();
        if !settings.is_active() || settings.pattern.is_some() || follows {
            continue;
        }
        let granularity = granularity(settings);
        let elements = match &granularity {
            Granularity::Default => *default == Granularity::Default,
            Granularity::Block(sizes) => sizes.iter().all(|&size| size == 1),
            _ => false,
        };
        if elements {
            continue;
        }
        let dims = channel_dims(&item.layer.kind, &param.name, param.shape.len());
        let blocks = granularity
            .resolve(&param.shape, dims.into(), default)
            .map_err(|error| error.at(item.id()))?;
        let mut split = (blocks.grid().iter().enumerate()).filter(|(_, count)| **count > 1);
        if let (Some((dim, _)), None) = (split.next(), split.next())
            && [dims.output, dims.input].contains(&Some(dim))
        {
            found.push(Whole { item, dim });
        }
    }
    Ok(found)
}

/// Everything in the way of a cut.
fn look<M: Module + 'static, I: 'static>(
    compressor: &Compressor<M, I>,
    pruner: &'static str,
    graph: &ChannelGraph,
    sorted: &Sorted,
    whole: &[Whole<'_>],
) -> Result<Vec<Finding>, PruningError> {
    let mut findings = Vec::new();
    let (mut tried, mut sets) = (Vec::new(), Vec::new());
    let mut add = |items: &[Item], alone: bool, found: Result<_, (String, String)>| {
        let items = items.to_vec();
        match found {
            Ok(set) => {
                tried.push((items, alone));
                sets.push(set);
            }
            Err((reason, remedy)) => findings.push(Finding {
                items,
                alone,
                reason,
                remedy,
            }),
        }
    };
    let matrices = matrices(compressor);
    for (&index, items) in &sorted.grouped {
        add(items, false, removable_of(graph, index, items, &matrices));
    }
    let trial = Trial::new(graph, &sorted.left, whole)?;
    for whole in whole {
        add(
            std::slice::from_ref(whole.item),
            true,
            trial.followed(whole),
        );
    }
    let failures = compressor.trial_cut(pruner, &sets)?;
    for ((items, alone), failure) in tried.into_iter().zip(failures) {
        findings.extend(failure.map(|failure| Finding {
            items,
            alone,
            reason: failure.to_string(),
            remedy: failure.remedy(),
        }));
    }
    Ok(findings)
}

/// The paths of the parameters that are no vectors.
fn matrices<M: Module + 'static, I: 'static>(compressor: &Compressor<M, I>) -> IndexSet<String> {
    let mut found = IndexSet::new();
    for layer in compressor.layers() {
        for param in layer.params.iter().filter(|param| param.shape.len() > 1) {
            let target = burn_compress_core::Target::param(&param.name);
            found.insert(TargetId::new(&layer.path, target).to_string());
        }
    }
    found
}

/// Channels to try without of a group, or why none of it can be removed.
fn removable_of(
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
        return Err((reason, EXCLUDE.to_string()));
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
    Ok(some_channels(graph, group))
}

/// About half of the channels of a group, as many in each of its blocks, such that a cut leaves
/// something of every parameter. None where nothing can go.
fn some_channels(graph: &ChannelGraph, group: &ChannelGroup) -> BTreeSet<ChannelId> {
    let size = group.channels.len() / group.blocks.max(1);
    // What is all that a parameter has of the group must stay.
    let parts = group.members.iter().chain(&group.consumers);
    let alone: BTreeSet<ChannelId> = parts
        .filter_map(|part| {
            let mut held = (group.channels.iter().zip(&part.positions))
                .filter(|(_, positions)| !positions.is_empty());
            match (held.next(), held.next()) {
                (Some((channel, _)), None) => Some(*channel),
                _ => None,
            }
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
    let blocks: Vec<Vec<ChannelId>> = group.channels.chunks(size.max(1)).map(free).collect();
    let possible = |free: &Vec<ChannelId>| free.len().min(size.saturating_sub(1));
    let most = blocks.iter().map(possible).min().unwrap_or(0);
    for count in [most.min((size / 2).max(1)), most.min(1)] {
        let chosen = blocks.iter().flat_map(|free| free[..count].iter().copied());
        let chosen: BTreeSet<ChannelId> = chosen.collect();
        let mut parts = group.members.iter().chain(&group.consumers);
        let leaves_some = |part: &GroupMember| {
            let mut held = group.channels.iter().zip(&part.positions);
            held.any(|(channel, positions)| !positions.is_empty() && !chosen.contains(channel))
        };
        if parts.all(leaves_some) {
            return chosen;
        }
    }
    BTreeSet::new()
}

/// Masks of some channels of everything outside of the groups, and what they remove.
struct Trial<'a> {
    graph: &'a ChannelGraph,
    wanted: BTreeSet<ChannelId>,
    masks: IndexMap<String, Mask>,
    removed: BTreeSet<ChannelId>,
}

impl<'a> Trial<'a> {
    fn new(
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
            .flat_map(|group| some_channels(graph, group))
            .collect();
        let mut trial = Self {
            graph,
            wanted,
            masks: IndexMap::new(),
            removed: BTreeSet::new(),
        };
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
            let view = CapturedView::new(graph);
            let removed = removable(&view, &trial.masks);
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

    /// The channels that go with the masks of `whole`, or why no cut follows them.
    fn followed(&self, whole: &Whole<'_>) -> Result<BTreeSet<ChannelId>, (String, String)> {
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
        if let Some(why) = channels.iter().find_map(|&c| self.graph.protected(c)) {
            return refused(format!("{blocks}: {why}"));
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

/// Refuses what was found, or leaves it out where every rule concerned asks for that.
fn settle(selected: &[Item], mut sorted: Sorted, findings: Vec<Finding>) -> Sorted {
    if findings.is_empty() {
        return sorted;
    }
    let skipped = |finding: &Finding| finding.items.iter().all(skips);
    let ids = |findings: &[Finding]| -> IndexSet<TargetId> {
        let items = findings.iter().flat_map(|finding| &finding.items);
        items.map(Item::id).collect()
    };
    let found = ids(&findings);
    let mut active = selected.iter().filter(|item| item.settings.is_active());
    let nothing_left = active.all(|item| found.contains(&item.id()));
    let (skip, refuse): (Vec<Finding>, Vec<Finding>) = findings
        .into_iter()
        .partition(|finding| skipped(finding) && !nothing_left);
    let mut gone = ids(&skip);
    if !refuse.is_empty() {
        // Those that stand alone stay, so that a contradiction in what is asked of them is found.
        let alone = refuse.iter().all(|finding| finding.alone);
        if !alone {
            gone.extend(ids(&refuse));
        }
        let obstacles = obstacles(selected, refuse);
        sorted.refused = Some(Refused { obstacles, alone });
    }
    sorted.skipped = obstacles(selected, skip);
    let stays = |item: &Item| !gone.contains(&item.id());
    sorted.grouped.retain(|_, items| items.iter().all(stays));
    sorted.left.retain(stays);
    drop_followers(&mut sorted.left, gone);
    sorted
}

/// Whether the rule of an item asks to leave it out where it cannot be pruned.
pub(super) fn skips(item: &Item) -> bool {
    item.settings.on_unprunable == Some(OnUnprunable::Skip)
}

/// Leaves out the groups of which every channel must stay, where their rules ask for that and
/// something else is left to prune.
pub(super) fn skip_stuck(
    plans: &mut Vec<Planned>,
    left: &mut Vec<Item>,
    skipped: &mut Vec<Obstacle>,
    keep_at_least_one: bool,
) {
    let stuck = |plan: &Planned| match plan.skips() {
        true => plan.decision(keep_at_least_one).stuck(),
        false => None,
    };
    let found: Vec<Option<PruningError>> = plans.iter().map(stuck).collect();
    let active = left.iter().any(|item| item.settings.is_active());
    if !active && found.iter().all(Option::is_some) {
        return;
    }
    let mut gone = IndexSet::new();
    let mut found = found.into_iter();
    plans.retain(|plan| match found.next().flatten() {
        Some(error) => {
            error.into_obstacles(skipped);
            gone.extend(plan.ids().cloned());
            false
        }
        None => true,
    });
    drop_followers(left, gone);
}

/// Takes out what would follow the masks of targets that are gone: the bias of a skipped layer.
fn drop_followers(left: &mut Vec<Item>, mut gone: IndexSet<TargetId>) {
    loop {
        let follows = |item: &Item| {
            let Some(align) = &item.settings.align else {
                return false;
            };
            let layer = align.module_name.as_ref().unwrap_or(&item.layer.path);
            gone.contains(&TargetId::new(layer, align.target_name.clone()))
        };
        let (out, stay): (Vec<Item>, Vec<Item>) = left.drain(..).partition(follows);
        *left = stay;
        if out.is_empty() {
            return;
        }
        gone.extend(out.iter().map(Item::id));
    }
}

/// The findings as obstacles, one a target, in the order of the selection.
fn obstacles(selected: &[Item], findings: Vec<Finding>) -> Vec<Obstacle> {
    let mut found: IndexMap<TargetId, Obstacle> = IndexMap::new();
    for finding in findings {
        for item in finding.items {
            let target = item.id();
            found.entry(target.clone()).or_insert_with(|| Obstacle {
                target,
                kind: item.layer.kind.clone(),
                reason: finding.reason.clone(),
                remedy: finding.remedy.clone(),
            });
        }
    }
    let mut found: Vec<Obstacle> = found.into_values().collect();
    sort_by_selection(&mut found, selected);
    found
}

/// Brings obstacles into the order of the selection and names the types of their layers.
pub(super) fn sort_by_selection(obstacles: &mut [Obstacle], selected: &[Item]) {
    let order: IndexMap<TargetId, usize> = (selected.iter().enumerate())
        .map(|(at, item)| (item.id(), at))
        .collect();
    for obstacle in &mut *obstacles {
        if let Some(&at) = order.get(&obstacle.target) {
            obstacle.kind.clone_from(&selected[at].layer.kind);
        }
    }
    obstacles.sort_by_cached_key(|obstacle| order.get(&obstacle.target).copied());
}
