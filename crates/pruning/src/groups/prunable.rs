//! Targets that cannot be pruned, found before anything is claimed or trained.
//!
//! Masks of whole channels must allow a cut. All obstacles are found here and reported at once:
//!
//! - layers that the forward pass never calls, and channels that must stay;
//! - channels that are coupled with those of a layer that is not selected;
//! - blocks of whole channels, and channels that a configuration groups by hand, where something
//!   else makes the same channels and is not masked with them;
//! - forward passes that need the number of channels, found by a
//!   [trial cut](Chain::trial_cut), or operations that cannot be cut where the captured forward pass is
//!   ([`CutOf::Graph`]).
//!
//! Masks of elements, of patterns and of blocks smaller than a channel need not allow one.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::graph::{Captured, ChannelGraph, ChannelId, CutFailure, GraphError};
use burn_compress_core::{Chain, Error, MaskMethod, Obstacle, TargetId};
use indexmap::{IndexMap, IndexSet};

use super::plan::PlannedGroup;
use super::selected::{Item, output_dim, skips};
use super::trial::{EXCLUDE, Trial, Whole, cuts_of_slices, matrices, removable_of, whole};
use crate::{CutOf, Granularity, PrunerConfig, PruningError};

const GRAPH: &str = ", or set `cut_of` of the `PrunerConfig` to `graph` and export the cut graph";

const UNEQUAL_PARTS: &str = "no channels can go that leave the same share on both sides: take the bounds \
    of the slice from the sizes of the layers that read its parts, or exclude the layer";

/// A selection, sorted into groups of the graph and independent targets.
pub(super) struct Sorted {
    pub(super) grouped: IndexMap<usize, Vec<Item>>,
    pub(super) left: Vec<Item>,
    /// Targets that are left out on request.
    pub(super) skipped: Vec<Obstacle>,
    /// Selected targets that cannot be pruned and are in none of the above.
    pub(super) refused: Option<Refused>,
    /// The graph of the groups, where any target needs one.
    pub(super) graph: Option<Arc<ChannelGraph>>,
}

/// The selected targets that cannot be pruned.
pub(super) struct Refused {
    obstacles: Vec<Obstacle>,
    /// Whether all of them are outside of the groups: a contradiction of their settings is the cause
    /// then.
    alone: bool,
}

impl Refused {
    /// One error of all that cannot be pruned and of `other`, which was found in the rest.
    pub(super) fn with(self, other: Option<PruningError>, selected: &[Item]) -> PruningError {
        let mut obstacles = self.obstacles;
        let others = other.map(|error| error.into_obstacles(&mut obstacles));
        let mut others = others.unwrap_or_default();
        if !self.alone || others.is_empty() {
            sort_by_selection(&mut obstacles, selected);
            // What stands alone is checked further, so that its goal may be found as well.
            let mut seen = IndexSet::new();
            obstacles.retain(|obstacle| seen.insert(obstacle.target.clone()));
            others.insert(0, PruningError::Unprunable { obstacles });
        }
        match others.len() {
            1 => others.remove(0),
            _ => PruningError::Several(others),
        }
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

/// Sorts the selection of a configuration. Without `coupled` no mask needs to allow a cut.
pub(super) fn sort<M: Module + 'static, I: 'static>(
    chain: &mut Chain<'_, M, I>,
    pruner: &'static str,
    selected: &[Item],
    default: &Granularity,
    config: PrunerConfig,
) -> Result<Sorted, PruningError> {
    let coupled = config.coupled;
    let mut sorted = Sorted {
        grouped: IndexMap::new(),
        left: Vec::new(),
        skipped: Vec::new(),
        refused: None,
        graph: None,
    };
    let mut findings = Vec::new();
    let mut dims = Vec::new();
    for item in selected {
        reject_added(item)?;
        dims.push(output_dim(item, default, coupled)?);
    }
    let heads = heads(selected, &dims)?;
    if dims.iter().any(Option::is_some) {
        let (graph, unsplit) = graph_of_heads(chain, pruner, heads)?;
        let is_unsplit = |item: &&Item| unsplit.contains(&item.id().to_string());
        let found = selected
            .iter()
            .zip(&dims)
            .filter(|(item, _)| is_unsplit(item));
        findings.extend(found.map(|(item, _)| never_split(item)));
        let found = selected.iter().zip(&dims);
        let found = found.filter(|(item, dim)| dim.is_some_and(|dim| is_whole(&graph, item, dim)));
        findings.extend(found.map(|(item, _)| never_split(item)));
        sorted.graph = Some(graph);
    }
    let never_split: IndexSet<TargetId> = (findings.iter())
        .flat_map(|finding: &Finding| finding.items.iter().map(Item::id))
        .collect();
    for (item, dim) in selected.iter().zip(dims) {
        let (Some(dim), Some(graph)) = (dim, &sorted.graph) else {
            sorted.left.push(item.clone());
            continue;
        };
        if never_split.contains(&item.id()) {
            continue;
        }
        let param = item.target.to_string();
        match graph.group_of(&item.layer.path, &param, dim) {
            Some(group) => sorted.grouped.entry(group).or_default().push(item.clone()),
            None => findings.push(no_channels(graph, item, dim)),
        }
    }
    let whole = match coupled {
        true => whole(&sorted.left, default)?,
        false => Vec::new(),
    };
    let known = chain.evaluator().dummy_input().is_some();
    if !whole.is_empty() && !known {
        let warning =
            "whole channels are masked, but no dummy input tells whether a cut can follow";
        chain.warn(pruner, warning);
    }
    if known && !(sorted.grouped.is_empty() && whole.is_empty()) {
        let graph = match &sorted.graph {
            Some(graph) => graph.clone(),
            None => chain.graph(pruner)?,
        };
        findings.extend(look(
            (chain, pruner, config.cut_of),
            &graph,
            &sorted,
            &whole,
        )?);
    }
    Ok(leave_out(selected, sorted, findings))
}

/// Added masks, which take 1000 from a parameter and make nothing of it zero.
fn reject_added(item: &Item) -> Result<(), PruningError> {
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

/// The parameter dimensions whose heads are to be pruned as a whole.
fn heads(
    selected: &[Item],
    dims: &[Option<usize>],
) -> Result<BTreeSet<(String, usize)>, PruningError> {
    let mut heads = BTreeSet::new();
    for (item, dim) in selected.iter().zip(dims) {
        let value = match item.settings.granularity {
            Some(Granularity::Head) => "head",
            Some(Granularity::HeadDim) => "head_dim",
            _ => continue,
        };
        if !item.settings.is_active() {
            continue;
        }
        let Some(dim) = dim else {
            return Err(PruningError::Setting {
                key: "granularity",
                value: value.to_string(),
                expected: "another granularity without `coupled` or with a `dependency_group_id`: \
                           heads go with all that is coupled with them",
            }
            .at(item.id()));
        };
        if value == "head" {
            heads.insert((item.id().to_string(), *dim));
        }
    }
    Ok(heads)
}

/// The graph with these heads as channels, and the parameters that have none.
fn graph_of_heads<M: Module + 'static, I: 'static>(
    chain: &Chain<'_, M, I>,
    pruner: &'static str,
    mut heads: BTreeSet<(String, usize)>,
) -> Result<(Arc<ChannelGraph>, Vec<String>), PruningError> {
    let mut unsplit = Vec::new();
    loop {
        match chain.graph_of_heads(pruner, &heads) {
            Ok(graph) => return Ok((graph, unsplit)),
            Err(Error::Graph(GraphError::NeverSplit { params })) if !params.is_empty() => {
                heads.retain(|(path, _)| !params.contains(path));
                unsplit.extend(params);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the features of heads are asked for where no reshape takes the channels apart.
fn is_whole(graph: &ChannelGraph, item: &Item, dim: usize) -> bool {
    let wanted = item.settings.granularity == Some(Granularity::HeadDim);
    if !wanted || !item.settings.is_active() {
        return false;
    }
    let apart = graph.taken_apart();
    let channels = graph.param_channels(&item.id().to_string(), dim);
    let mut channels = channels.unwrap_or_default().iter();
    !channels.any(|channel| apart.contains_key(channel))
}

fn never_split(item: &Item) -> Finding {
    Finding {
        items: vec![item.clone()],
        alone: false,
        reason: "no reshape splits its output into parts: it has no heads".to_string(),
        remedy: "use another `granularity`, or exclude the layer".to_string(),
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

/// All obstacles of a cut.
fn look<M: Module + 'static, I: 'static>(
    (chain, pruner, cut_of): (&Chain<'_, M, I>, &'static str, CutOf),
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
    let matrices = matrices(chain);
    // Cuts of one group that are tried one after the other.
    let mut others = Vec::new();
    for (&index, items) in &sorted.grouped {
        let found = removable_of(graph, index, items, &matrices);
        if found.is_ok() {
            others.push(cuts_of_slices(graph, index));
        }
        add(items, false, found);
    }
    let trial = Trial::new(graph, &sorted.left, whole)?;
    for whole in whole {
        add(
            std::slice::from_ref(whole.item),
            true,
            trial.followed(whole),
        );
    }
    let mut failures = cuts((chain, pruner, cut_of), graph, &sets)?;
    for round in 0..others.iter().map(Vec::len).max().unwrap_or(0) {
        let cut = |cuts: &Vec<BTreeSet<ChannelId>>| cuts.get(round).cloned().unwrap_or_default();
        let sets: Vec<_> = others.iter().map(cut).collect();
        let found = cuts((chain, pruner, cut_of), graph, &sets)?;
        for (known, failure) in failures.iter_mut().zip(found) {
            *known = known.take().or(failure);
        }
    }
    for (at, ((items, alone), failure)) in tried.into_iter().zip(failures).enumerate() {
        let is_sliced = others.get(at).is_some_and(|cuts| !cuts.is_empty());
        findings.extend(failure.map(|failure| Finding {
            items,
            alone,
            reason: failure.reason,
            remedy: match is_sliced && failure.is_number {
                true => UNEQUAL_PARTS.to_string(),
                false => failure.remedy,
            },
        }));
    }
    Ok(findings)
}

/// Why channels cannot be cut.
#[derive(Clone)]
struct Uncut {
    reason: String,
    remedy: String,
    /// Whether a number of the forward pass does not follow.
    is_number: bool,
}

/// For each of `sets` why its channels cannot be cut, if they cannot.
fn cuts<M: Module + 'static, I: 'static>(
    (chain, pruner, cut_of): (&Chain<'_, M, I>, &'static str, CutOf),
    graph: &ChannelGraph,
    sets: &[BTreeSet<ChannelId>],
) -> Result<Vec<Option<Uncut>>, Error> {
    if cut_of == CutOf::Graph {
        return Ok(cuts_of_graph(&chain.captured(pruner)?, graph, sets));
    }
    let uncut = |failure: CutFailure| {
        let mut remedy = failure.remedy();
        if matches!(failure, CutFailure::Size { .. }) {
            remedy.push_str(GRAPH);
        }
        Uncut {
            reason: failure.to_string(),
            remedy,
            is_number: matches!(failure, CutFailure::Number { .. }),
        }
    };
    let failures = chain.trial_cut(pruner, graph, sets)?.into_iter();
    Ok(failures.map(|failure| failure.map(uncut)).collect())
}

/// The same of the captured forward pass.
fn cuts_of_graph(
    captured: &Captured,
    graph: &ChannelGraph,
    sets: &[BTreeSet<ChannelId>],
) -> Vec<Option<Uncut>> {
    let failure = |set: &BTreeSet<ChannelId>| captured.without(graph, set).err();
    let all = sets.iter().flatten().copied().collect();
    if failure(&all).is_none() {
        return vec![None; sets.len()];
    }
    let uncut = |error: GraphError| Uncut {
        reason: error.to_string(),
        remedy: EXCLUDE.to_string(),
        is_number: false,
    };
    sets.iter().map(|set| failure(set).map(uncut)).collect()
}

/// Rejects the obstacles, or leaves their targets out where every rule concerned is set to skip.
fn leave_out(selected: &[Item], mut sorted: Sorted, findings: Vec<Finding>) -> Sorted {
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
    let (skip, reject): (Vec<Finding>, Vec<Finding>) = findings
        .into_iter()
        .partition(|finding| skipped(finding) && !nothing_left);
    let mut gone = ids(&skip);
    if !reject.is_empty() {
        // Groups of one stay, so that a contradiction in their settings is found.
        let alone = reject.iter().all(|finding| finding.alone);
        if !alone {
            gone.extend(ids(&reject));
        }
        let obstacles = obstacles(selected, reject);
        sorted.refused = Some(Refused { obstacles, alone });
    }
    sorted.skipped = obstacles(selected, skip);
    let stays = |item: &Item| !gone.contains(&item.id());
    sorted.grouped.retain(|_, items| items.iter().all(stays));
    sorted.left.retain(stays);
    drop_followers(&mut sorted.left, gone);
    sorted
}

/// Leaves out the groups of which every channel must stay, where their rules are set to skip and other
/// targets are left to prune.
pub(super) fn skip_stuck(
    plans: &mut Vec<PlannedGroup>,
    left: &mut Vec<Item>,
    skipped: &mut Vec<Obstacle>,
    keep_at_least_one: bool,
) {
    let stuck = |plan: &PlannedGroup| match plan.skips() {
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

/// Removes targets that follow the masks of skipped ones: the bias of a skipped layer.
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
