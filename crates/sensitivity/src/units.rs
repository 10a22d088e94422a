//! What is measured alone: groups of layers that lose channels together, and single layers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use burn_compress_core::config::{ConfigList, Rule, Selected, Settings};
use burn_compress_core::graph::{ChannelGraph, ChannelId};
use burn_compress_core::layer::{LayerInfo, channel_dims};
use burn_compress_core::{Error, Masks, Target, TargetId};
use burn_compress_pruning::{PruningRule, PruningSettings};
use burn_compress_quantization::{QuantDtype, QuantizationRule, QuantizationSettings};
use indexmap::IndexMap;

/// Layers that are pruned together.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub layers: Vec<String>,
    makers: Vec<Maker>,
    /// Parts of the channels that lose equally many.
    pub parts: usize,
    /// Position of the group in the graph.
    group: Option<usize>,
}

/// A parameter that makes channels, with their dimension and the channel of each index.
type Maker = (TargetId, usize, Vec<Key>);

/// A channel of the graph, or an index of a parameter that is pruned alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Channel(ChannelId),
    Index(usize),
}

impl Unit {
    /// The number of channels.
    pub fn channels(&self) -> usize {
        let keys = self.makers.iter().flat_map(|(.., keys)| keys);
        keys.collect::<BTreeSet<_>>().len()
    }

    /// The number of channels that are masked wherever they are made.
    pub fn removed(&self, masks: &Masks) -> usize {
        let mut removed = BTreeSet::new();
        for (target, dim, keys) in &self.makers {
            let Some(mask) = masks.get(target) else {
                continue;
            };
            let gone = mask.removed_along(*dim);
            removed.extend(
                keys.iter()
                    .zip(gone)
                    .filter(|(_, gone)| *gone)
                    .map(|(key, _)| *key),
            );
        }
        removed.len()
    }

    /// The rule that takes `sparsity` of the channels, with these settings besides.
    pub fn rule(&self, settings: &PruningSettings, sparsity: f64) -> Rule<PruningSettings> {
        let rule = Rule::new().with_op_names(self.layers.clone());
        rule.with_settings(settings.clone()).sparse_ratio(sparsity)
    }
}

/// The units of the layers that the rule selects, in the order of their first layers.
///
/// Layers whose channels belong to one group of `graph` are one unit; without a graph each layer is.
pub(crate) fn units(
    rule: &Rule<PruningSettings>,
    layers: &[LayerInfo],
    graph: Option<&Arc<ChannelGraph>>,
) -> Result<Vec<Unit>, Error> {
    // A rule without a goal is none.
    let rules = ConfigList::from(rule.clone().sparse_ratio(0.5));
    let selected = rules.select(layers)?;
    // By group; a layer whose channels nothing else makes or reads has none, and goes by itself.
    let mut units: IndexMap<(Option<usize>, &str), Unit> = IndexMap::new();
    for item in &selected {
        let (maker, group) = maker(item, graph).unzip();
        let group = group.flatten();
        let layer = &item.layer.path;
        let alone = if group.is_some() { "" } else { layer };
        let unit = units.entry((group, alone)).or_insert_with(|| Unit {
            layers: Vec::new(),
            makers: Vec::new(),
            parts: parts(graph, group),
            group,
        });
        if !unit.layers.contains(layer) {
            unit.layers.push(layer.clone());
        }
        // Without channels, the pruner of the unit tells why it cannot be pruned.
        unit.makers.extend(maker);
    }
    Ok(units.into_values().collect())
}

/// The parameter that makes channels, and its group in the graph; none without channels.
fn maker(
    item: &Selected<PruningSettings>,
    graph: Option<&Arc<ChannelGraph>>,
) -> Option<(Maker, Option<usize>)> {
    let layer = &item.layer;
    let param = item.target.param_name()?;
    let shape = &layer.param(param)?.shape;
    let dim = channel_dims(&layer.kind, param, shape.len()).output?;
    let group = graph.and_then(|graph| graph.group_of(&layer.path, param, dim));
    let channels = graph.filter(|_| group.is_some());
    let channels = channels.and_then(|graph| graph.param_channels(&item.id().to_string(), dim));
    let keys = match channels {
        Some(channels) => channels.iter().copied().map(Key::Channel).collect(),
        None => (0..shape[dim]).map(Key::Index).collect(),
    };
    Some(((item.id(), dim, keys), group))
}

fn parts(graph: Option<&Arc<ChannelGraph>>, group: Option<usize>) -> usize {
    let group = graph.zip(group);
    let parts = group.map(|(graph, group)| graph.groups()[group].blocks);
    parts.unwrap_or(1).max(1)
}

/// The unit of each channel of their groups.
pub(crate) fn unit_of(units: &[Unit], graph: &ChannelGraph) -> BTreeMap<ChannelId, usize> {
    let mut unit_of = BTreeMap::new();
    for (at, unit) in units.iter().enumerate() {
        let group = unit.group.and_then(|group| graph.groups().get(group));
        for &channel in group.iter().flat_map(|group| &group.channels) {
            unit_of.insert(channel, at);
        }
    }
    unit_of
}

/// A layer that is quantized alone, with the rule for it.
#[derive(Clone, Debug)]
pub(crate) struct QuantizedLayer {
    pub layer: String,
    rule: Rule<QuantizationSettings>,
}

impl QuantizedLayer {
    /// The rule that rounds the layer's targets to this type.
    pub fn rule(&self, dtype: QuantDtype) -> Rule<QuantizationSettings> {
        self.rule.clone().quant_dtype(dtype)
    }
}

/// The layers that the rule selects, in module order.
pub(crate) fn quantized_layers(
    rule: &Rule<QuantizationSettings>,
    layers: &[LayerInfo],
) -> Result<Vec<QuantizedLayer>, Error> {
    let selected = ConfigList::from(rule.clone()).select(layers)?;
    let mut targets: IndexMap<String, Vec<Target>> = IndexMap::new();
    for item in selected {
        let of_layer = targets.entry(item.layer.path).or_default();
        of_layer.push(item.target);
    }
    let quantized = targets.into_iter().map(|(layer, targets)| {
        let mut rule = single(rule, &layer).with_target_names(targets.clone());
        // A target that this layer does not have would leave its settings without a use.
        rule.target_settings
            .retain(|target, _| targets.contains(target));
        QuantizedLayer { layer, rule }
    });
    Ok(quantized.collect())
}

/// The settings of a rule for one of its layers.
fn single<S: Settings>(rule: &Rule<S>, layer: &str) -> Rule<S> {
    Rule {
        op_names: vec![layer.to_string()],
        settings: rule.settings.clone(),
        target_settings: rule.target_settings.clone(),
        ..Rule::new()
    }
}
