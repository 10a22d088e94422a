//! What a pruner decides about: single targets, and groups of coupled channels.

mod activations;
mod coupled;
mod decision;
mod goals;
mod member;
mod prunable;
mod rehearsal;
mod single;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::config::Selected;
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{
    AlgorithmState, Compressor, Error, FlatTensor, HostTensor, Mode, TargetId, TargetSpace,
};
use indexmap::{IndexMap, IndexSet};

use crate::mask::{MaskConfig, TargetMask, generate};
use crate::metrics::Importance;
use crate::{Blocks, Granularity, PrunerConfig, PruningError, PruningSettings};
use coupled::{Coupled, Planned, couple};
use member::Parameters;
use prunable::{Sorted, sort_by_selection};
use single::{Single, claimed_single};

/// Everything that one pruner decides about.
pub(crate) struct Units {
    single: Vec<Single>,
    coupled: Vec<Coupled>,
    /// The position of the group that each coupled parameter belongs to.
    groups: IndexMap<TargetId, usize>,
    sources: IndexSet<String>,
    options: PrunerConfig,
    device: Device,
}

/// Sorts what a configuration selects into units and claims their targets.
///
/// What cannot work is refused here: targets that cannot be pruned, values that are not finite,
/// settings that contradict each other, goals that can remove nothing.
pub(crate) fn build<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    pruner: &'static str,
    selected: &[Selected<PruningSettings>],
    importance: &dyn Importance,
    options: PrunerConfig,
) -> Result<Units, PruningError> {
    let default = &importance.default_granularity();
    let mut sorted = prunable::sort(compressor, pruner, selected, default, options.coupled)?;
    let refused = sorted.refused.take();
    let units = checked(compressor, pruner, &mut sorted, importance, options);
    if let Some(refused) = refused {
        return Err(refused.with(units.err(), selected));
    }
    let units = units?;
    sort_by_selection(&mut sorted.skipped, selected);
    compressor.skip(pruner, sorted.skipped);
    units.warn_of_goals(pruner)?;
    Ok(units)
}

/// The units of what can be pruned, after all checks.
fn checked<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    pruner: &'static str,
    sorted: &mut Sorted,
    importance: &dyn Importance,
    options: PrunerConfig,
) -> Result<Units, PruningError> {
    let grouped = std::mem::take(&mut sorted.grouped);
    let mut left = std::mem::take(&mut sorted.left);
    let default = &importance.default_granularity();
    let device = compressor.model().devices().first().cloned();
    let mut plans = Vec::new();
    if !grouped.is_empty() {
        let graph = compressor.graph(pruner)?;
        let parameters = Parameters::new(compressor.layers());
        for (index, items) in grouped {
            plans.push(couple(&parameters, &graph, index, &items, importance)?);
        }
    }
    let keep = options.keep_at_least_one;
    prunable::skip_stuck(&mut plans, &mut left, &mut sorted.skipped, keep);
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
    let shapes = activations::shapes(compressor, &left)?;
    let mut spaces = claim(compressor, &plans, &left)?.into_iter();
    let plans = plans.into_iter();
    let units = Units {
        coupled: plans.map(|plan| plan.claimed(&mut spaces)).collect(),
        single: left
            .into_iter()
            .zip(spaces)
            .map(|(item, space)| {
                let shape = shapes.get(&item.id()).cloned();
                claimed_single(item, space, shape, default)
            })
            .collect(),
        device: device.unwrap_or_default(),
        sources: IndexSet::new(),
        groups: IndexMap::new(),
        options,
    };
    units.indexed(compressor.model(), importance)
}

/// The states of the members of `plans` and then of `singles`, all claimed at once: each claim walks
/// the whole model.
fn claim<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    plans: &[Planned],
    singles: &[Selected<PruningSettings>],
) -> Result<Vec<Arc<TargetSpace>>, PruningError> {
    let members = plans.iter().flat_map(|plan| plan.ids().cloned());
    let ids: Vec<TargetId> = members.chain(singles.iter().map(Selected::id)).collect();
    let mut seen = IndexSet::new();
    if let Some(twice) = ids.iter().find(|&id| !seen.insert(id)) {
        let (target, mode) = (twice.clone(), Mode::Pruning);
        return Err(Error::TargetTaken { target, mode }.into());
    }
    Ok(compressor.claim(Mode::Pruning, &ids)?)
}

/// The scores of a target's blocks, which are all finite.
fn scores(
    importance: &dyn Importance,
    data: &[f32],
    blocks: &Blocks,
    id: &TargetId,
) -> Result<Vec<f32>, PruningError> {
    let check = |what, values: &[f32]| match values.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            let value = values[at];
            Err(PruningError::NotFinite { what, at, value }.at(id))
        }
        None => Ok(()),
    };
    check("value", data)?;
    let scores = importance.score(data, blocks);
    check("score", &scores)?;
    Ok(scores)
}

/// The dimension of the output channels if the item removes whole output channels of a parameter
/// and nobody has set its dependencies by hand.
fn output_dim(
    item: &Selected<PruningSettings>,
    default: &Granularity,
    coupled: bool,
) -> Result<Option<usize>, PruningError> {
    let settings = &item.settings;
    let Some(param) = item
        .target
        .param_name()
        .and_then(|name| item.layer.param(name))
    else {
        return Ok(None);
    };
    let dims = channel_dims(&item.layer.kind, &param.name, param.shape.len());
    let by_hand = settings.dependency_group_id.is_some();
    let channels = settings.is_active() && settings.pattern.is_none();
    let (Some(dim), true) = (dims.output, coupled && channels && !by_hand) else {
        return Ok(None);
    };
    let granularity = granularity(settings);
    let blocks = granularity
        .resolve(&param.shape, dims.into(), default)
        .map_err(|error| error.at(item.id()))?;
    // Elements are no channels, not even where a channel has a single element.
    let elements = match &granularity {
        Granularity::Default => *default == Granularity::Default,
        Granularity::Block(sizes) => param.shape.len() > 1 && sizes.iter().all(|&size| size == 1),
        _ => false,
    };
    if elements {
        return Ok(None);
    }
    let whole_channels = blocks
        .grid()
        .iter()
        .enumerate()
        .all(|(at, &count)| count == if at == dim { param.shape[dim] } else { 1 });
    Ok(whole_channels.then_some(dim))
}

/// The source and the dims of an alignment.
fn alignment(item: &Selected<PruningSettings>) -> Option<(TargetId, Vec<usize>)> {
    let align = item.settings.align.as_ref()?;
    let layer = align.module_name.as_ref().unwrap_or(&item.layer.path);
    let source = TargetId::new(layer, align.target_name.clone());
    Some((source, align.dims.clone()))
}

fn granularity(settings: &PruningSettings) -> Granularity {
    settings.granularity.clone().unwrap_or(Granularity::Default)
}

impl Units {
    /// These units with what is known of them together, after the checks of all of them.
    fn indexed<M: Module>(
        mut self,
        model: &M,
        importance: &dyn Importance,
    ) -> Result<Self, PruningError> {
        for (index, group) in self.coupled.iter().enumerate() {
            let ids = group.written.iter().map(|member| member.id.clone());
            self.groups.extend(ids.map(|id| (id, index)));
            let scored = group.scored.iter().map(|member| member.id.to_string());
            self.sources.extend(scored);
        }
        for single in self.single.iter().filter(|s| s.settings.is_active()) {
            if !single.id.target.is_param() {
                return Err(PruningError::NotScored.at(&single.id));
            }
            single.check(importance)?;
            self.sources.insert(single.id.to_string());
        }
        self.mark_followers();
        self.rehearse()?;
        self.check_goals()?;
        self.check_values(model)?;
        Ok(self)
    }

    /// The parameters that have a score.
    pub(crate) fn sources(&self) -> &IndexSet<String> {
        &self.sources
    }

    /// Every parameter that has a score, with the blocks that are scored and its settings.
    pub(crate) fn scored(
        &self,
    ) -> Result<Vec<(Arc<TargetSpace>, Blocks, PruningSettings)>, PruningError> {
        let mut scored = Vec::new();
        for group in &self.coupled {
            for member in &group.scored {
                let space = member.space.clone();
                scored.push((space, member.blocks()?, group.settings.clone()));
            }
        }
        for single in self.single.iter().filter(|s| s.settings.is_active()) {
            let space = single.space.clone();
            scored.push((space, single.blocks()?, single.settings.clone()));
        }
        Ok(scored)
    }

    /// Whether the channels of two parameters are decided together.
    pub(crate) fn are_coupled(&self, one: &TargetId, other: &TargetId) -> bool {
        let group = self.groups.get(one);
        group.is_some() && group == self.groups.get(other)
    }

    /// Whether the graph couples channels that nobody has grouped by hand.
    pub(crate) const fn are_by_graph(&self) -> bool {
        self.options.coupled
    }

    /// Whether the channels of a parameter are those of a group.
    fn is_coupled(&self, id: &TargetId) -> bool {
        self.groups.contains_key(id)
    }

    /// Generates the masks for goals scaled by `factor` and writes them to their targets.
    pub(crate) fn decide(
        &self,
        data: &IndexMap<String, Vec<f32>>,
        importance: &dyn Importance,
        factor: f64,
        keep_at_least_one: bool,
    ) -> Result<(), PruningError> {
        let masks = self.masks(data, importance, factor, keep_at_least_one)?;
        for group in &self.coupled {
            group.write(&masks[&group.key])?;
        }
        let mut single = self.single.iter();
        single.try_for_each(|single| single.write(&masks[&single.id.to_string()]))
    }

    /// The masks of coupled groups, by key, and of single targets, with goals scaled by `factor`.
    ///
    /// With `keep_at_least_one`, no parameter loses all channels that it has of a group.
    fn masks(
        &self,
        data: &IndexMap<String, Vec<f32>>,
        importance: &dyn Importance,
        factor: f64,
        keep_at_least_one: bool,
    ) -> Result<IndexMap<String, TargetMask>, PruningError> {
        let singles: Vec<&Single> = self.single.iter().collect();
        self.masks_of(&singles, data, importance, factor, keep_at_least_one)
    }

    /// The masks of coupled groups and of these among the single targets.
    fn masks_of(
        &self,
        singles: &[&Single],
        data: &IndexMap<String, Vec<f32>>,
        importance: &dyn Importance,
        factor: f64,
        keep_at_least_one: bool,
    ) -> Result<IndexMap<String, TargetMask>, PruningError> {
        let config = MaskConfig::new().with_keep_at_least_one(keep_at_least_one);
        let (followers, others): (Vec<&Single>, Vec<_>) =
            singles.iter().partition(|single| single.follows);
        let mut targets = Vec::new();
        for group in &self.coupled {
            targets.push(group.target(data, importance, factor, keep_at_least_one)?);
        }
        for single in others {
            targets.push(single.target(data, importance, factor)?);
        }
        let mut masks = generate(&targets, config)?;

        let sources = followers.iter().filter_map(|single| single.source());
        let followed: IndexSet<&TargetId> = sources.collect();
        let mut targets = Vec::new();
        for group in &self.coupled {
            for member in group.written.iter().filter(|m| followed.contains(&m.id)) {
                targets.push(member.decided(masks[&group.key].keep())?);
            }
        }
        for single in followers {
            targets.push(single.target(data, importance, factor)?);
        }
        masks.extend(generate(&targets, config)?);
        Ok(masks)
    }

    /// Marks the targets that wait for the masks of coupled channels, directly or by others.
    fn mark_followers(&mut self) {
        let ids = self.single.iter().enumerate();
        let at: IndexMap<TargetId, usize> = ids.map(|(at, s)| (s.id.clone(), at)).collect();
        let mut known: Vec<Option<bool>> = vec![None; self.single.len()];
        for start in 0..self.single.len() {
            let (mut chain, mut next) = (Vec::new(), Some(start));
            let follows = loop {
                let Some(single) = next else { break false };
                if let Some(known) = known[single] {
                    break known;
                }
                // Until more is known, which also ends a circle.
                known[single] = Some(false);
                chain.push(single);
                match self.single[single].source() {
                    Some(source) if self.is_coupled(source) => break true,
                    source => next = source.and_then(|source| at.get(source).copied()),
                }
            };
            for single in chain {
                known[single] = Some(follows);
                self.single[single].follows = follows;
            }
        }
    }

    /// Refuses saved sums that are not those of the scored parameters: one number an element or, of
    /// a score `by_channel`, one an output channel.
    pub(crate) fn check_state(
        &self,
        state: &AlgorithmState,
        by_channel: bool,
    ) -> Result<(), PruningError> {
        let scored = self.scored()?;
        for (path, tensor) in &state.tensors {
            let mut scored = scored.iter().map(|(space, ..)| space);
            let space = scored.find(|space| space.id().to_string() == *path);
            let shape = space.and_then(|space| space.shape()).unwrap_or_default();
            let fits = match (by_channel, &tensor.shape[..]) {
                (true, [channels]) => shape.contains(channels),
                (true, _) => false,
                (false, found) => found == shape,
            };
            if !fits {
                return Err(PruningError::State {
                    path: path.clone(),
                    found: tensor.shape.clone(),
                });
            }
        }
        Ok(())
    }

    /// A saved tensor on the device of the model.
    pub(crate) fn load(&self, host: &HostTensor) -> FlatTensor {
        let device = self.device.clone().without_autodiff();
        let values = Tensor::from_data(TensorData::from(host.values.as_slice()), &device);
        FlatTensor {
            values,
            shape: host.shape.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
