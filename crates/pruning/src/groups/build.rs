//! From a selection to the groups of a pruner, with all checks that need no training.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::{Chain, Error, Mode, TargetId, TargetSpace, parameters, reads};
use indexmap::{IndexMap, IndexSet};

use super::dry_run::dry_run;
use super::goals::{check_goals, warn_of_goals};
use super::independent::IndependentTarget;
use super::member::Parameters;
use super::plan::{PlannedGroup, couple};
use super::port_shapes::port_shapes;
use super::prunable::{Sorted, skip_stuck, sort, sort_by_selection};
use super::pruning_groups::PruningGroups;
use super::selected::Item;
use crate::importance::Scorer;
use crate::{PrunerConfig, PruningError};

/// Sorts the selection of a configuration into groups and claims their targets.
///
/// Rejects what cannot work: targets that cannot be pruned, values that are not finite,
/// settings that contradict each other, goals that can remove nothing.
pub(crate) fn build<M: Module + 'static, I: 'static>(
    chain: &mut Chain<'_, M, I>,
    scorer: &Scorer,
    selected: &[Item],
    options: PrunerConfig,
) -> Result<PruningGroups, PruningError> {
    let (pruner, default) = (scorer.pruner, &scorer.default_granularity());
    let mut sorted = sort(chain, pruner, selected, default, options)?;
    let refused = sorted.refused.take();
    let groups = checked(chain, scorer, &mut sorted, options);
    if let Some(refused) = refused {
        return Err(refused.with(groups.err(), selected));
    }
    let groups = groups?;
    sort_by_selection(&mut sorted.skipped, selected);
    chain.skip(pruner, sorted.skipped);
    warn_of_goals(pruner, &groups.decisions()?);
    Ok(groups)
}

/// Groups of the targets that can be pruned, after all checks.
fn checked<M: Module + 'static, I: 'static>(
    chain: &mut Chain<'_, M, I>,
    scorer: &Scorer,
    sorted: &mut Sorted,
    options: PrunerConfig,
) -> Result<PruningGroups, PruningError> {
    let grouped = std::mem::take(&mut sorted.grouped);
    let mut left = std::mem::take(&mut sorted.left);
    let default = &scorer.default_granularity();
    let mut plans = Vec::new();
    if let Some(graph) = sorted.graph.clone() {
        let parameters = Parameters::new(chain.layers());
        for (index, items) in grouped {
            plans.push(couple(&parameters, &graph, index, &items, scorer)?);
        }
    }
    let keep = options.keep_at_least_one;
    skip_stuck(&mut plans, &mut left, &mut sorted.skipped, keep);
    let mut covered = IndexMap::new();
    for (index, plan) in plans.iter().enumerate() {
        covered.extend(plan.ids().map(|id| (id.clone(), index)));
    }
    for item in &left {
        if let Some(&plan) = covered.get(&item.id()) {
            plans[plan].check_follower(item)?;
        }
    }
    left.retain(|item| !covered.contains_key(&item.id()));
    let shapes = port_shapes(chain, &left)?;
    let mut spaces = claim(chain, &plans, &left)?.into_iter();
    let plans = plans.into_iter();
    let groups = PruningGroups {
        coupled: plans.map(|plan| plan.claimed(&mut spaces)).collect(),
        independent: left
            .into_iter()
            .zip(spaces)
            .map(|(item, space)| {
                let shape = shapes.get(&item.id()).cloned();
                IndependentTarget::new(item, space, shape, default)
            })
            .collect(),
        groups: IndexMap::new(),
        options,
    };
    indexed(groups, chain.model(), scorer)
}

/// The states of the members of `plans` and then of `targets`, all claimed at once: each claim walks
/// the whole model.
fn claim<M: Module + 'static, I: 'static>(
    chain: &mut Chain<'_, M, I>,
    plans: &[PlannedGroup],
    targets: &[Item],
) -> Result<Vec<Arc<TargetSpace>>, PruningError> {
    let members = plans.iter().flat_map(|plan| plan.ids().cloned());
    let ids: Vec<TargetId> = members.chain(targets.iter().map(Item::id)).collect();
    let mut seen = IndexSet::new();
    if let Some(twice) = ids.iter().find(|&id| !seen.insert(id)) {
        let (target, mode) = (twice.clone(), Mode::Pruning);
        return Err(Error::TargetTaken { target, mode }.into());
    }
    Ok(chain.claim(Mode::Pruning, &ids)?)
}

/// The groups as one, after the checks that concern all of them.
fn indexed<M: Module>(
    mut groups: PruningGroups,
    model: &M,
    scorer: &Scorer,
) -> Result<PruningGroups, PruningError> {
    for (index, group) in groups.coupled.iter().enumerate() {
        let ids = group.written.iter().map(|member| member.id.clone());
        groups.groups.extend(ids.map(|id| (id, index)));
    }
    for target in groups.independent.iter().filter(|t| t.settings.is_active()) {
        if !target.id.target.is_param() {
            return Err(PruningError::NotScored.at(&target.id));
        }
        target.check(scorer)?;
    }
    mark_followers(&mut groups);
    let scored = groups.scored()?;
    let paths = scored.iter().map(|target| target.id().to_string());
    let paths: IndexSet<String> = paths.collect();
    dry_run(&groups, &scored)?;
    check_goals(&groups.decisions()?)?;
    check_values(model, &paths)?;
    Ok(groups)
}

/// Rejects parameters to be scored that hold values that are not finite, all of them at once.
///
/// The device tells which ones they are, and only their values are read.
fn check_values<M: Module>(model: &M, paths: &IndexSet<String>) -> Result<(), PruningError> {
    let weights = parameters(model, paths);
    let values: Vec<Tensor<1>> = weights
        .values()
        .map(|weight| weight.values.clone())
        .collect();
    let is_finite = reads::finite(&values)?;
    let mut errors = Vec::new();
    for ((path, weight), is_finite) in weights.into_iter().zip(is_finite) {
        if is_finite {
            continue;
        }
        let values = weight.to_vec()?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (what, value) = ("value", values[at]);
            errors.push(PruningError::NotFinite { what, at, value }.at(path));
        }
    }
    PruningError::all(errors)
}

/// Marks the targets that wait for the masks of coupled channels, directly or by others.
fn mark_followers(groups: &mut PruningGroups) {
    let ids = groups.independent.iter().enumerate();
    let at: IndexMap<TargetId, usize> = ids.map(|(at, s)| (s.id.clone(), at)).collect();
    let mut known: Vec<Option<bool>> = vec![None; groups.independent.len()];
    for start in 0..groups.independent.len() {
        let (mut chain, mut next) = (Vec::new(), Some(start));
        let follows = loop {
            let Some(target) = next else { break false };
            if let Some(known) = known[target] {
                break known;
            }
            // Until more is known, which also ends a circle.
            known[target] = Some(false);
            chain.push(target);
            match groups.independent[target].source() {
                Some(source) if groups.groups.contains_key(source) => break true,
                source => next = source.and_then(|source| at.get(source).copied()),
            }
        };
        for target in chain {
            known[target] = Some(follows);
            groups.independent[target].follows = follows;
        }
    }
}
