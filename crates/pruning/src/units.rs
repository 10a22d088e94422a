//! What a pruner decides about: single targets, and groups of coupled channels.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::config::Selected;
use burn_compress_core::graph::{ChannelGraph, ChannelGroup};
use burn_compress_core::layer::{LayerInfo, channel_dims};
use burn_compress_core::{
    Compressor, FlatTensor, HostTensor, Mask, Mode, Target, TargetId, TargetSpace,
};
use indexmap::{IndexMap, IndexSet};

use crate::mask::{MaskTarget, TargetMask};
use crate::metrics::Importance;
use crate::{Axes, Blocks, Granularity, PruningError, PruningSettings};

/// Everything that one pruner decides about.
pub(crate) struct Units {
    single: Vec<Single>,
    coupled: Vec<Coupled>,
    sources: IndexSet<String>,
    device: Device,
}

/// A target with blocks of its own.
struct Single {
    id: TargetId,
    space: Arc<TargetSpace>,
    settings: PruningSettings,
    axes: Axes,
    granularity: Granularity,
    align: Option<(TargetId, Vec<usize>)>,
}

/// A group of channels that parameters share.
struct Coupled {
    key: String,
    settings: PruningSettings,
    channels: usize,
    /// The elements that one channel takes in the members with a score, for global ranking.
    elements: usize,
    scored: Vec<Member>,
    written: Vec<Member>,
    /// Why a channel must stay.
    protected: Vec<Option<String>>,
    /// Channels that are all that some parameter has of the group, as a branch of a concatenation;
    /// fewest first. Not all of them can go.
    branches: Vec<Vec<usize>>,
}

/// A parameter dimension that carries channels of a group.
struct Member {
    id: TargetId,
    space: Arc<TargetSpace>,
    shape: Vec<usize>,
    dim: usize,
    positions: Vec<Vec<usize>>,
}

/// Sorts what a configuration selects into units and claims their targets.
pub(crate) fn build<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    pruner: &'static str,
    selected: Vec<Selected<PruningSettings>>,
    default: &Granularity,
    coupled: bool,
) -> Result<Units, PruningError> {
    let mut units = Units {
        single: Vec::new(),
        coupled: Vec::new(),
        sources: IndexSet::new(),
        device: compressor
            .model()
            .devices()
            .first()
            .cloned()
            .unwrap_or_default(),
    };
    let mut left = Vec::new();
    let mut grouped: IndexMap<usize, Vec<Selected<PruningSettings>>> = IndexMap::new();
    for item in selected {
        match output_dim(&item, default, coupled)? {
            Some(dim) => {
                let graph = compressor.graph(pruner)?;
                let name = item.target.to_string();
                let group = graph
                    .group_of(&item.layer.path, &name, dim)
                    .ok_or_else(|| {
                        let reason =
                            "its output channels are not channels of the graph".to_string();
                        PruningError::Protected { reason }.at(item.id())
                    })?;
                grouped.entry(group).or_default().push(item);
            }
            None => left.push(item),
        }
    }
    let mut covered = IndexSet::new();
    for (index, items) in grouped {
        let graph = compressor.graph(pruner)?;
        let group = couple(compressor, &graph, index, &items)?;
        covered.extend(group.written.iter().map(|member| member.id.clone()));
        units
            .sources
            .extend(group.scored.iter().map(|member| member.id.to_string()));
        units.coupled.push(group);
    }
    for item in left
        .into_iter()
        .filter(|item| !covered.contains(&item.id()))
    {
        let single = claim_single(compressor, item, default)?;
        if single.settings.is_active() {
            if !single.id.target.is_param() {
                return Err(PruningError::NotScored.at(&single.id));
            }
            units.sources.insert(single.id.to_string());
        }
        units.single.push(single);
    }
    Ok(units)
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
    let (Some(dim), true) = (dims.output, coupled && settings.is_active() && !by_hand) else {
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

fn couple<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    graph: &ChannelGraph,
    index: usize,
    items: &[Selected<PruningSettings>],
) -> Result<Coupled, PruningError> {
    let group = &graph.groups()[index];
    let first = &items[0];
    let settings = agreed(items)?;
    let protected: Vec<Option<String>> = group
        .channels
        .iter()
        .map(|&channel| graph.protected(channel).map(str::to_string))
        .collect();
    if let Some(reason) = protected.iter().flatten().next()
        && protected.iter().all(Option::is_some)
    {
        return Err(PruningError::Protected {
            reason: reason.clone(),
        }
        .at(first.id()));
    }
    let members = claim_members(compressor, group, items)?;
    let (mut scored, mut written) = (Vec::new(), Vec::new());
    for member in members {
        if items.iter().any(|item| item.id() == member.id) {
            scored.push(member.clone_handle());
        }
        written.push(member);
    }
    let elements = scored
        .iter()
        .map(|member| member.shape.iter().product::<usize>() / group.channels.len())
        .sum::<usize>()
        .max(1);
    let key = format!("the channels of `{}`", first.id());
    let settings = PruningSettings {
        granularity: None,
        dependency_group_id: (group.blocks > 1).then(|| key.clone()),
        internal_metric_block: (group.blocks > 1).then_some(group.blocks),
        ..settings
    };
    let channels = group.channels.len();
    let branches = branches(group);
    Ok(Coupled {
        key,
        settings,
        channels,
        elements,
        scored,
        written,
        protected,
        branches,
    })
}

/// The channels of every parameter dimension that has some of the group only, fewest first.
fn branches(group: &ChannelGroup) -> Vec<Vec<usize>> {
    let mut branches: Vec<Vec<usize>> = group
        .members
        .iter()
        .chain(&group.consumers)
        .map(|member| {
            let all = member.positions.iter().enumerate();
            all.filter(|(_, at)| !at.is_empty())
                .map(|(channel, _)| channel)
                .collect()
        })
        .filter(|branch: &Vec<usize>| !branch.is_empty() && branch.len() < group.channels.len())
        .collect();
    branches.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    branches.dedup();
    branches
}

/// The settings of a group, which all its selected members must share.
fn agreed(items: &[Selected<PruningSettings>]) -> Result<PruningSettings, PruningError> {
    let goals = |item: &Selected<PruningSettings>| PruningSettings {
        granularity: None,
        ..item.settings.clone()
    };
    let first = goals(&items[0]);
    match items.iter().find(|item| goals(item) != first) {
        None => Ok(first),
        Some(other) => Err(PruningError::CoupledSettings {
            member: items[0].id().to_string(),
            found: format!("{:?}", goals(other)),
            expected: format!("{first:?}"),
        }
        .at(other.id())),
    }
}

/// Claims all members of a group; a weight among them that nobody selected must not be masked.
fn claim_members<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    group: &ChannelGroup,
    items: &[Selected<PruningSettings>],
) -> Result<Vec<Member>, PruningError> {
    let mut found = Vec::new();
    for member in &group.members {
        let (layer, param) = find(compressor.layers(), &member.param)?;
        let id = TargetId::new(layer.path.clone(), Target::param(param.name.clone()));
        let selected = items.iter().any(|item| item.id() == id);
        if param.shape.len() > 1 && !selected {
            let coupled = id.layer.clone();
            return Err(PruningError::CoupledLayer { coupled }.at(items[0].id()));
        }
        found.push((id, param.shape.clone(), member));
    }
    let ids: Vec<TargetId> = found.iter().map(|(id, ..)| id.clone()).collect();
    let spaces = compressor.claim(Mode::Pruning, &ids)?;
    Ok(found
        .into_iter()
        .zip(spaces)
        .map(|((id, shape, member), space)| Member {
            id,
            space,
            shape,
            dim: member.dim,
            positions: member.positions.clone(),
        })
        .collect())
}

fn find<'a>(
    layers: &'a [LayerInfo],
    path: &str,
) -> Result<(&'a LayerInfo, &'a burn_compress_core::layer::ParamInfo), PruningError> {
    layers
        .iter()
        .find_map(|layer| {
            let name = match layer.path.as_str() {
                "" => path,
                prefix => path.strip_prefix(prefix)?.strip_prefix('.')?,
            };
            Some((layer, layer.param(name)?))
        })
        .ok_or_else(|| PruningError::UnknownParameter {
            path: path.to_string(),
        })
}

fn claim_single<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    item: Selected<PruningSettings>,
    default: &Granularity,
) -> Result<Single, PruningError> {
    let id = item.id();
    let axes = match &item.target {
        Target::Param(name) => {
            let rank = item.layer.param(name).map_or(0, |param| param.shape.len());
            Axes::from(channel_dims(&item.layer.kind, name, rank))
        }
        Target::Input(_) | Target::Output(_) => Axes::Activation { channel: 1 },
    };
    let align = item.settings.align.as_ref().map(|align| {
        let layer = align
            .module_name
            .clone()
            .unwrap_or_else(|| id.layer.clone());
        (
            TargetId::new(layer, align.target_name.clone()),
            align.dims.clone(),
        )
    });
    let granularity = match (&item.target, granularity(&item.settings)) {
        (Target::Input(_) | Target::Output(_), Granularity::Default) => Granularity::PerChannel,
        (Target::Param(_), Granularity::Default) => default.clone(),
        (_, set) => set,
    };
    let space = compressor
        .claim(Mode::Pruning, std::slice::from_ref(&id))?
        .remove(0);
    Ok(Single {
        id,
        space,
        settings: item.settings,
        axes,
        granularity,
        align,
    })
}

impl Member {
    fn clone_handle(&self) -> Self {
        Self {
            id: self.id.clone(),
            space: self.space.clone(),
            shape: self.shape.clone(),
            dim: self.dim,
            positions: self.positions.clone(),
        }
    }

    /// The score of each index along the dimension, summed over the indices of each channel;
    /// `None` for channels that the parameter does not carry.
    fn channel_scores(
        &self,
        data: &[f32],
        importance: &dyn Importance,
    ) -> Result<Vec<Option<f32>>, PruningError> {
        let block: Vec<i64> = (0..self.shape.len())
            .map(|dim| if dim == self.dim { 1 } else { -1 })
            .collect();
        let blocks = Blocks::new(&self.shape, &block).map_err(|error| error.at(&self.id))?;
        let scores = importance.score(data, &blocks);
        let sum = |indices: &Vec<usize>| match indices.is_empty() {
            true => None,
            false => Some(indices.iter().map(|&index| scores[index]).sum()),
        };
        Ok(self.positions.iter().map(sum).collect())
    }

    fn write(&self, keep: &[bool], settings: &PruningSettings) -> Result<(), PruningError> {
        let size = self.shape[self.dim];
        let inner: usize = self.shape[self.dim + 1..].iter().product();
        let mut kept = vec![true; size];
        for (positions, keep) in self.positions.iter().zip(keep) {
            for &position in positions {
                kept[position] = *keep;
            }
        }
        let elements: usize = self.shape.iter().product();
        let value = |at: usize| if kept[at / inner % size] { 1.0 } else { 0.0 };
        let mask = Mask::new((0..elements).map(value).collect(), self.shape.clone())?
            .with_method(settings.apply_method.unwrap_or_default());
        Ok(self.space.set_mask(Some(mask))?)
    }
}

impl Single {
    fn blocks(&self) -> Result<Blocks, PruningError> {
        let shape = self
            .space
            .shape()
            .ok_or_else(|| PruningError::UnknownShape.at(&self.id))?;
        self.granularity
            .resolve(&shape, self.axes, &Granularity::Default)
            .map_err(|error| error.at(&self.id))
    }

    /// Which blocks the mask in force keeps, if there is one.
    fn current(&self, blocks: &Blocks) -> Option<Vec<bool>> {
        let mask = self.space.mask()?;
        if mask.shape() != blocks.shape() {
            return None;
        }
        let kept = blocks.reduce(mask.values(), |block| {
            block.iter().copied().fold(0.0, f32::max)
        });
        Some(kept.into_iter().map(|value| value > 0.0).collect())
    }

    fn write(&self, mask: &TargetMask) -> Result<(), PruningError> {
        let (values, shape) = match self.id.target {
            Target::Param(_) => (mask.expand(), mask.blocks().shape().to_vec()),
            Target::Input(_) | Target::Output(_) => mask.expand_broadcast(),
        };
        let mask =
            Mask::new(values, shape)?.with_method(self.settings.apply_method.unwrap_or_default());
        Ok(self.space.set_mask(Some(mask))?)
    }
}

impl Coupled {
    fn target(
        &self,
        data: &IndexMap<String, Vec<f32>>,
        importance: &dyn Importance,
        factor: f64,
        keep_at_least_one: bool,
    ) -> Result<MaskTarget<String>, PruningError> {
        let mut sums = vec![(0.0f64, 0u32); self.channels];
        for member in &self.scored {
            let values = data
                .get(&member.id.to_string())
                .map(Vec::as_slice)
                .unwrap_or_default();
            let scores = member.channel_scores(values, importance)?;
            for ((sum, count), score) in sums.iter_mut().zip(scores) {
                if let Some(score) = score {
                    *sum += f64::from(score);
                    *count += 1;
                }
            }
        }
        let mut scores: Vec<f32> = sums
            .into_iter()
            .map(|(sum, count)| (sum / f64::from(count.max(1))) as f32)
            .collect();
        let mut settings = self.settings.scaled(factor);
        let mut stays: Vec<bool> = self.protected.iter().map(Option::is_some).collect();
        if keep_at_least_one && self.keep_branches(&scores, &mut stays) {
            self.limit(&mut settings, &stays);
        }
        for (score, stays) in scores.iter_mut().zip(stays) {
            if stays {
                *score = f32::INFINITY;
            }
        }
        let blocks = Blocks::new(&[self.channels, self.elements], &[1, -1])?;
        let target = MaskTarget::new(self.key.clone(), blocks, settings).with_scores(scores);
        Ok(match self.current() {
            Some(keep) => target.with_current(&keep),
            None => target,
        })
    }

    /// Lets the best channel of every branch stay; whether there is one that had to be chosen.
    fn keep_branches(&self, scores: &[f32], stays: &mut [bool]) -> bool {
        let mut chosen = false;
        for branch in &self.branches {
            if branch.iter().any(|&channel| stays[channel]) {
                continue;
            }
            let best = branch.iter().copied().reduce(|best, channel| {
                if scores[channel] > scores[best] {
                    channel
                } else {
                    best
                }
            });
            if let Some(best) = best {
                stays[best] = true;
                chosen = true;
            }
        }
        chosen
    }

    /// Limits the goal to the channels that may go, as many in each block.
    fn limit(&self, settings: &mut PruningSettings, stays: &[bool]) {
        let size = self.channels / settings.internal_metric_block.unwrap_or(1);
        let free = stays
            .chunks(size)
            .map(|block| block.iter().filter(|stays| !**stays).count());
        // Half a channel more, so that the integer part is the count whatever is rounded.
        let most = (free.min().unwrap_or(0) as f64 + 0.5) / size as f64;
        settings.max_sparse_ratio =
            Some(settings.max_sparse_ratio.map_or(most, |max| max.min(most)));
        settings.min_sparse_ratio = settings.min_sparse_ratio.map(|min| min.min(most));
    }

    fn current(&self) -> Option<Vec<bool>> {
        let member = self
            .scored
            .iter()
            .find(|m| m.positions.iter().all(|p| !p.is_empty()))?;
        let removed = member.space.mask()?.removed_along(member.dim);
        Some(
            member
                .positions
                .iter()
                .map(|positions| !removed[positions[0]])
                .collect(),
        )
    }

    fn write(&self, mask: &TargetMask) -> Result<(), PruningError> {
        let keep = mask.keep();
        let violated = keep.iter().zip(&self.protected).find(|(keep, _)| !**keep);
        if let Some((_, Some(reason))) = violated.filter(|(_, protected)| protected.is_some()) {
            return Err(PruningError::Protected {
                reason: reason.clone(),
            }
            .at(&self.key));
        }
        self.written
            .iter()
            .try_for_each(|member| member.write(keep, &self.settings))
    }
}

impl Units {
    /// The parameters that have a score.
    pub(crate) fn sources(&self) -> &IndexSet<String> {
        &self.sources
    }

    /// What the masks are generated for, with goals scaled by `factor`.
    ///
    /// With `keep_at_least_one`, no parameter loses all channels that it has of a group.
    pub(crate) fn targets(
        &self,
        data: &IndexMap<String, Vec<f32>>,
        importance: &dyn Importance,
        factor: f64,
        keep_at_least_one: bool,
    ) -> Result<Vec<MaskTarget<String>>, PruningError> {
        let mut targets = Vec::new();
        for group in &self.coupled {
            targets.push(group.target(data, importance, factor, keep_at_least_one)?);
        }
        for single in &self.single {
            let blocks = single.blocks()?;
            let current = single.current(&blocks);
            let key = single.id.to_string();
            let mut target =
                MaskTarget::new(key.clone(), blocks.clone(), single.settings.scaled(factor));
            if single.settings.is_active() {
                let values = data.get(&key).map(Vec::as_slice).unwrap_or_default();
                target = target.with_scores(importance.score(values, &blocks));
            }
            if let Some((source, dims)) = &single.align {
                if self.is_coupled(source) {
                    continue;
                }
                target = target.with_align(source.to_string(), dims.clone());
            }
            targets.push(match current {
                Some(keep) => target.with_current(&keep),
                None => target,
            });
        }
        Ok(targets)
    }

    fn is_coupled(&self, id: &TargetId) -> bool {
        self.coupled
            .iter()
            .flat_map(|group| &group.written)
            .any(|member| member.id == *id)
    }

    /// Writes generated masks to their targets.
    pub(crate) fn write(&self, masks: &IndexMap<String, TargetMask>) -> Result<(), PruningError> {
        for group in &self.coupled {
            group.write(&masks[&group.key])?;
        }
        for single in &self.single {
            match (masks.get(&single.id.to_string()), &single.align) {
                (Some(mask), _) => single.write(mask)?,
                (None, Some((source, dims))) => self.follow(single, source, dims)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Takes the mask of a target from a parameter whose channels are coupled.
    fn follow(
        &self,
        single: &Single,
        source: &TargetId,
        dims: &[usize],
    ) -> Result<(), PruningError> {
        let members = self.coupled.iter().flat_map(|group| &group.written);
        let mask = members
            .filter(|m| m.id == *source)
            .find_map(|member| member.space.mask());
        let Some(mask) = mask else { return Ok(()) };
        let blocks = single.blocks()?;
        let [dim] = dims else {
            let (from, dims) = (source.to_string(), dims.to_vec());
            let shape = mask.shape().to_vec();
            return Err(PruningError::AlignDims { from, dims, shape }.at(&single.id));
        };
        let keep: Vec<bool> = mask
            .removed_along(*dim)
            .iter()
            .map(|removed| !removed)
            .collect();
        if keep.len() != blocks.count() {
            return Err(PruningError::AlignShape {
                from: source.to_string(),
                found: vec![keep.len()],
                shape: blocks.shape().to_vec(),
            }
            .at(&single.id));
        }
        let (values, shape) = match single.id.target {
            Target::Param(_) => (blocks.expand(&keep), blocks.shape().to_vec()),
            Target::Input(_) | Target::Output(_) => blocks.expand_broadcast(&keep),
        };
        Ok(single.space.set_mask(Some(Mask::new(values, shape)?))?)
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
mod tests {
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{Initializer, PaddingConfig2d};
    use burn_compress_core::config::ConfigList;
    use burn_compress_core::{Budget, Compressed, DummyInput, Evaluator};

    use super::*;
    use crate::{L1NormPruner, LevelPruner, PrunerConfig};

    /// `x + f(x)` behind two branches of 2 and 6 channels, `x = cat(left, right)`.
    #[derive(Module, Debug)]
    struct Net {
        left: Conv2d,
        right: Conv2d,
        block: Conv2d,
        head: Conv2d,
    }

    fn net(device: &Device) -> Net {
        let conv = |channels: [usize; 2], value: f64| {
            Conv2dConfig::new(channels, [1, 1])
                .with_padding(PaddingConfig2d::Valid)
                .with_bias(false)
                .with_initializer(Initializer::Constant { value })
                .init(device)
        };
        Net {
            left: conv([1, 2], 0.1),
            right: conv([1, 6], 1.0),
            block: conv([8, 8], 1.0),
            head: conv([8, 1], 1.0),
        }
    }

    fn evaluator(device: &Device) -> Evaluator<Net, ()> {
        let input = Tensor::<4>::ones([1, 1, 2, 2], device);
        Evaluator::new().with_dummy_input(DummyInput::new(input, |net: &Net, x: Tensor<4>| {
            let x = Tensor::cat(vec![net.left.forward(x.clone()), net.right.forward(x)], 1);
            net.head.forward(net.block.forward(x.clone()) + x)
        }))
    }

    fn removed(compressed: &Compressed<Net>, target: &str) -> Vec<bool> {
        compressed.masks()[&target.parse::<TargetId>().unwrap()].removed_along(0)
    }

    #[test]
    fn a_branch_of_a_concatenation_keeps_its_best_channel() {
        let device = Device::flex();
        // int(8 * 0.75) = 6 of 8 channels go, those of `left` first but for one. With 0.95 that
        // would be 7, but each branch keeps one.
        for (ratio, expected) in [(0.75, 6), (0.95, 6), (0.25, 2)] {
            let config = ConfigList::from_json(&format!(
                r#"[{{"op_names": ["left", "right", "block"], "sparse_ratio": {ratio}}}]"#
            ));
            let (model, options) = (net(&device), PrunerConfig::new());
            let pruner =
                L1NormPruner::new(model, &config.unwrap(), evaluator(&device), options).unwrap();
            let compressed = pruner.compress(Budget::none()).unwrap();
            assert_eq!(removed(&compressed, "left.weight"), [false, true]);
            let block = removed(&compressed, "block.weight");
            assert_eq!(
                block.iter().filter(|removed| **removed).count(),
                expected,
                "{ratio}"
            );
            assert_eq!(removed(&compressed, "right.weight"), block[2..]);
        }
    }

    #[test]
    fn elements_are_not_coupled_even_where_a_channel_has_one() {
        let device = Device::flex();
        let config = ConfigList::from_json(
            r#"[{"op_names": ["left", "right", "block"], "sparse_ratio": 0.5}]"#,
        );
        let (model, options) = (net(&device), PrunerConfig::new());
        let pruner =
            LevelPruner::new(model, &config.unwrap(), evaluator(&device), options).unwrap();
        let compressed = pruner.compress(Budget::none()).unwrap();
        let sparsity =
            |target: &str| compressed.masks()[&target.parse::<TargetId>().unwrap()].sparsity();
        // Each weight alone loses half of its elements.
        assert_eq!(
            ["left.weight", "right.weight", "block.weight"].map(sparsity),
            [0.5; 3]
        );
    }
}
