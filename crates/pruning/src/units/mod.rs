//! What a pruner decides about: single targets, and groups of coupled channels.

mod activations;
mod coupled;
mod member;
mod prunable;
mod single;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::config::Selected;
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{Compressor, FlatTensor, HostTensor, TargetId, TargetSpace};
use indexmap::{IndexMap, IndexSet};

use crate::learned::SharedScore;
use crate::mask::{MaskConfig, TargetMask, generate};
use crate::metrics::Importance;
use crate::{Blocks, Granularity, PruningError, PruningSettings};
use coupled::{Coupled, couple};
use prunable::Sorted;
use single::{Single, claim_single};

/// Everything that one pruner decides about.
pub(crate) struct Units {
    single: Vec<Single>,
    coupled: Vec<Coupled>,
    sources: IndexSet<String>,
    device: Device,
}

/// Sorts what a configuration selects into units and claims their targets.
pub(crate) fn build<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    pruner: &'static str,
    selected: &[Selected<PruningSettings>],
    importance: &dyn Importance,
    coupled: bool,
) -> Result<Units, PruningError> {
    let default = &importance.default_granularity();
    let device = compressor.model().devices().first().cloned();
    let mut units = Units {
        single: Vec::new(),
        coupled: Vec::new(),
        sources: IndexSet::new(),
        device: device.unwrap_or_default(),
    };
    let Sorted {
        grouped,
        mut left,
        refused,
    } = prunable::sort(compressor, pruner, selected, default, coupled)?;
    let mut covered = IndexSet::new();
    for (index, items) in grouped {
        let graph = compressor.graph(pruner)?;
        let group = couple(compressor, &graph, index, &items, importance)?;
        covered.extend(group.written.iter().map(|member| member.id.clone()));
        let scored = group.scored.iter().map(|member| member.id.to_string());
        units.sources.extend(scored);
        units.coupled.push(group);
    }
    left.retain(|item| !covered.contains(&item.id()));
    let shapes = activations::shapes(compressor, &left)?;
    for item in left {
        let shape = shapes.get(&item.id()).cloned();
        let single = claim_single(compressor, item, shape, default)?;
        if single.settings.is_active() {
            if !single.id.target.is_param() {
                return Err(PruningError::NotScored.at(&single.id));
            }
            single.check(importance)?;
            units.sources.insert(single.id.to_string());
        }
        units.single.push(single);
    }
    units.mark_followers();
    units.rehearse()?;
    match refused {
        Some(error) => Err(error),
        None => Ok(units),
    }
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

fn granularity(settings: &PruningSettings) -> Granularity {
    settings.granularity.clone().unwrap_or(Granularity::Default)
}

impl Units {
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

    /// Whether the channels of two parameters with scores are decided together.
    pub(crate) fn are_coupled(&self, one: &TargetId, other: &TargetId) -> bool {
        self.coupled.iter().any(|group| {
            let has = |id: &TargetId| group.scored.iter().any(|member| member.id == *id);
            has(one) && has(other)
        })
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
        let config = MaskConfig::new().with_keep_at_least_one(keep_at_least_one);
        let (followers, others): (Vec<&Single>, Vec<_>) =
            self.single.iter().partition(|single| single.follows);
        let mut targets = Vec::new();
        for group in &self.coupled {
            targets.push(group.target(data, importance, factor, keep_at_least_one)?);
        }
        for single in others {
            targets.push(single.target(data, importance, factor)?);
        }
        let mut masks = generate(&targets, config)?;

        let mut targets = Vec::new();
        for group in &self.coupled {
            for member in group.written.iter().filter(|m| self.is_followed(&m.id)) {
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
        loop {
            let waits = |single: &Single| {
                let source = single.align.as_ref().map(|(source, _)| source);
                let of_follower =
                    |id: &TargetId| self.single.iter().any(|s| s.follows && s.id == *id);
                source.is_some_and(|id| self.is_coupled(id) || of_follower(id))
            };
            let next = self.single.iter().position(|s| !s.follows && waits(s));
            match next {
                Some(next) => self.single[next].follows = true,
                None => return,
            }
        }
    }

    /// Generates masks of zeros as scores, to find settings that contradict each other before the
    /// training. Nothing is written.
    fn rehearse(&self) -> Result<(), PruningError> {
        if self.single.iter().any(|single| single.shape().is_none()) {
            return Ok(());
        }
        let zeros = self.scored()?.into_iter().map(|(space, blocks, _)| {
            let zeros = vec![0.0; blocks.elements_count()];
            (space.id().to_string(), zeros)
        });
        self.masks(&zeros.collect(), &SharedScore, 1.0, true)?;
        Ok(())
    }

    fn is_coupled(&self, id: &TargetId) -> bool {
        let mut members = self.coupled.iter().flat_map(|group| &group.written);
        members.any(|member| member.id == *id)
    }

    fn is_followed(&self, id: &TargetId) -> bool {
        let sources = self.single.iter().filter_map(|s| s.align.as_ref());
        sources.into_iter().any(|(source, _)| source == id)
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
