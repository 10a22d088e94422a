//! Result of the analysis: channels, their groups, and the reasons why some must stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use burn::module::ParamId;
use burn_capture::TensorId;
use burn_ir::OperationIr;
use indexmap::IndexMap;

use super::analysis::Analysis;
use super::capture::CapturedParam;
use super::channel_set::{ChannelSet, Positions};
use super::entries::ChannelEntries;
use super::equal_blocks::{self, SlicedPart};
use super::facts::{Count, Found};
use super::grouping::{self, Groups, visible};
use super::labels::{ChannelId, Label};
use super::macs::{CountedOp, MacsProduct, OperationMacs};
use super::memory::{self, LiveTensor};
use super::size_check::SizeCheck;
use super::value::Value;
use super::{Captured, GraphError};
use crate::target::layer_of;
use crate::target::{Target, TargetId};

/// Coupling of a model's parameters, channel by channel.
#[derive(Debug, Clone)]
pub struct ChannelGraph {
    pub(super) params: IndexMap<String, ParamNode>,
    pub(super) channels: ChannelSet,
    protected: BTreeMap<ChannelId, String>,
    groups: Vec<ChannelGroup>,
    producers: BTreeMap<(usize, usize), usize>,
    pub(super) grouped: Vec<GroupedConv>,
    pub(super) depthwise: Vec<(String, usize)>,
    pub(super) blocks: Vec<BlockRule>,
    /// The parameter dimensions that were asked for as whole heads.
    pub(super) heads: BTreeSet<(String, usize)>,
    pub(super) sizes: Vec<SizeChannels>,
    counted: BTreeSet<ChannelId>,
    remedies: BTreeMap<String, String>,
    pub(super) ports: BTreeMap<TargetId, Vec<PortChannels>>,
    pub(super) ops: Vec<CountedOp>,
    tensors: Vec<LiveTensor>,
    pub(super) batch: u64,
    /// Operations of the forward pass, for trial cuts.
    pub(super) operations: Vec<OperationIr>,
    pub(super) size_checks: Vec<SizeCheck>,
    /// The results of reshapes that take channels apart.
    pub(super) taken_apart: BTreeSet<TensorId>,
    pub(super) outputs: Vec<Vec<usize>>,
    pub(super) param_tensors: BTreeMap<TensorId, String>,
    used: BTreeSet<String>,
    pub(super) entries: OnceLock<ChannelEntries>,
}

/// A parameter or running statistic of the model.
#[derive(Debug, Clone)]
pub struct ParamNode {
    /// Its path, `blocks.0.conv1.weight`.
    pub path: String,
    /// Its identifier in Burn.
    pub param_id: ParamId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is a running statistic of a normalization: sliced like a parameter, never masked.
    pub statistic: bool,
    /// Per dimension the channel of each index; `None` where indices are no channels.
    pub channels: Vec<Option<Vec<ChannelId>>>,
}

impl ParamNode {
    /// Path of its layer, `blocks.0.conv1`.
    pub fn layer(&self) -> &str {
        layer_of(&self.path)
    }

    /// Its name in that layer, `weight`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}

/// Channels whose parameters overlap: a pruner chooses among them and masks all members alike.
#[derive(Debug, Clone)]
pub struct ChannelGroup {
    /// The channels, block by block, in the index order of the first member otherwise.
    pub channels: Vec<ChannelId>,
    /// The parameter dimensions that make the channels, in module order.
    pub members: Vec<GroupMember>,
    /// The parameter dimensions that read the channels.
    pub consumers: Vec<GroupMember>,
    /// Number of contiguous blocks of `channels` that must lose equally many; 1 if free.
    pub blocks: usize,
    /// The parts of slices that need not keep the same share: their bounds have to be sizes that follow
    /// a cut.
    pub slices: Vec<SlicedPart>,
    /// Reason that keeps a channel of the group, if there is one. Others may still be removable:
    /// see [`ChannelGraph::protected`].
    pub protected: Option<String>,
}

/// A dimension of a parameter as part of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// The parameter's path.
    pub param: String,
    /// The dimension.
    pub dim: usize,
    /// Indices of each channel of the group along the dimension.
    pub positions: Positions,
}

/// A convolution with more than one group that is not depthwise. Column `j` of the weight's second
/// dimension is another input channel in every group, so that it carries no labels.
#[derive(Debug, Clone)]
pub struct GroupedConv {
    /// The layer's path.
    pub layer: String,
    /// The weight's path.
    pub weight: String,
    /// The number of groups, which stays.
    pub groups: usize,
    /// The channel of each input, `None` where it cannot be removed.
    pub input: Vec<Option<ChannelId>>,
    /// The channel of each output.
    pub output: Vec<Option<ChannelId>>,
}

/// Parts of channels that must keep the same share of them.
#[derive(Debug, Clone)]
pub(super) struct BlockRule {
    pub layer: String,
    /// The number of channels of each part.
    pub sizes: Vec<usize>,
    /// The channels, part by part.
    pub channels: Vec<Option<ChannelId>>,
    /// Whether a reshape has taken the parts apart.
    pub taken_apart: bool,
    /// The reason for which they would have to stay.
    pub why: String,
}

impl BlockRule {
    /// The channels of each part.
    pub fn parts(&self) -> impl Iterator<Item = &[Option<ChannelId>]> {
        let mut rest = &self.channels[..];
        self.sizes.iter().map(move |&size| {
            let (part, others) = rest.split_at(size);
            rest = others;
            part
        })
    }
}

/// A number that a layer holds and what it counts.
#[derive(Debug, Clone)]
pub(super) struct SizeChannels {
    pub layer: String,
    pub field: &'static str,
    pub count: Count,
    pub channels: Vec<Option<ChannelId>>,
}

/// The labelled dimension of a wrapped layer's input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortChannels {
    pub dim: usize,
    pub channels: Vec<Option<ChannelId>>,
}

impl ChannelGraph {
    /// Follows the channels of every parameter through a captured forward pass.
    ///
    /// # Errors
    ///
    /// When an operation without a rule reads channels, or one has shapes that its rule cannot
    /// read.
    pub fn analyze(captured: &Captured) -> Result<Self, GraphError> {
        Self::analyze_heads(captured, &BTreeSet::new())
    }

    /// As [`analyze`](Self::analyze), with whole heads as channels: the channels along each of the
    /// parameter dimensions `heads` are joined within the parts that the first reshape takes them apart
    /// into. Whatever is coupled with them has whole heads too: queries with their keys and values, and
    /// the projection behind them.
    ///
    /// # Errors
    ///
    /// Those of [`analyze`](Self::analyze), and [`GraphError::NeverSplit`] for dimensions that no
    /// reshape takes apart.
    pub fn analyze_heads(
        captured: &Captured,
        heads: &BTreeSet<(String, usize)>,
    ) -> Result<Self, GraphError> {
        let origins = Analysis::origins_at(captured, heads);
        let mut analysis = Analysis::run(captured, &origins)?;
        let unsplit = analysis.never_split(&origins);
        if !unsplit.is_empty() {
            let path = |&(param, _): &(usize, usize)| captured.params[param].path.clone();
            return Err(GraphError::NeverSplit {
                params: unsplit.iter().map(path).collect(),
            });
        }
        analysis.labels.compress();
        // Blocks that fit no group protect their channels, which groups then report.
        let groups = Groups::find(&mut analysis);
        let graph = Self::build(captured, analysis, groups);
        Ok(Self {
            heads: heads.clone(),
            ..graph
        })
    }

    fn build(captured: &Captured, analysis: Analysis, groups: Groups) -> Self {
        let Groups {
            found,
            producers,
            blocks,
        } = groups;
        let params = nodes(&analysis);
        let channels: ChannelSet = params
            .values()
            .flat_map(|node| node.channels.iter().flatten().flatten().copied())
            .collect();
        let reason = |channel: &ChannelId| analysis.labels.protected(channel.0);
        let protected = channels
            .iter()
            .filter_map(|channel| Some((channel, reason(&channel)?.to_string())))
            .collect();
        let places = grouping::places(&found);
        let groups = found
            .iter()
            .zip(blocks)
            .enumerate()
            .map(|(index, (found, blocks))| {
                let positions = |&(param, dim): &(usize, usize)| {
                    let along = params[param].channels[dim].iter().flatten();
                    let places = along.map(|channel| {
                        let (group, place) = places.get(channel.0).copied().flatten()?;
                        (group == index).then_some(place)
                    });
                    Positions::new(found.channels.len(), places)
                };
                group(&analysis, found, blocks, positions)
            })
            .collect();
        Self {
            grouped: grouped(&analysis),
            heads: BTreeSet::new(),
            blocks: rules(&analysis),
            sizes: sizes(&analysis),
            counted: (analysis.counted.iter())
                .map(|&atom| analysis.labels.channel(atom))
                .collect(),
            remedies: analysis.remedies.clone(),
            ops: CountedOp::all(&analysis),
            tensors: LiveTensor::all(&analysis),
            batch: captured.batch,
            taken_apart: analysis.taken_apart.iter().copied().collect(),
            size_checks: SizeCheck::all(&analysis, captured.forward_operations()),
            operations: captured.forward_operations().to_vec(),
            outputs: captured.output_shapes(),
            param_tensors: (captured.params.iter())
                .map(|param| (param.tensor, param.path.clone()))
                .collect(),
            used: captured.used(),
            entries: OnceLock::new(),
            depthwise: analysis
                .depthwise
                .iter()
                .map(|(&weight, &groups)| (captured.params[weight].path.clone(), groups))
                .collect(),
            ports: ports(&analysis),
            params,
            channels,
            protected,
            groups,
            producers,
        }
    }

    /// The groups, in the module order of their first members.
    pub fn groups(&self) -> &[ChannelGroup] {
        &self.groups
    }

    /// The group whose channels dimension `dim` of a layer's parameter makes: its output channels,
    /// not the ones it reads.
    pub fn group_of(&self, layer: &str, param: &str, dim: usize) -> Option<usize> {
        let path = TargetId::new(layer, Target::param(param)).to_string();
        let index = self.params.get_index_of(&path)?;
        self.producers.get(&(index, dim)).copied()
    }

    /// The channel of every index along dimension `dim` of the parameter at `path`, `None` if the
    /// indices are no channels: kernel sizes, rows of an embedding, a dimension of size 1.
    pub fn param_channels(&self, path: &str, dim: usize) -> Option<&[ChannelId]> {
        self.params.get(path)?.channels.get(dim)?.as_deref()
    }

    /// The channels of a wrapped layer's input or output, with the dimension they run along.
    ///
    /// `None` if nothing along it can be removed, if only some of its indices are channels, or if
    /// the layer is called several times with different channels.
    pub fn port_channels(&self, layer: &str, target: &Target) -> Option<(usize, Vec<ChannelId>)> {
        let calls = self.ports.get(&TargetId::new(layer, target.clone()))?;
        let first = calls.first()?;
        if calls.iter().any(|call| call != first) {
            return None;
        }
        let channels: Option<Vec<ChannelId>> = first.channels.iter().copied().collect();
        Some((first.dim, channels?))
    }

    /// The channels that reshapes take apart, as the features of heads, each with the reshape: `is taken
    /// apart by reshape [2, 12] -> [2, 3, 4]`.
    pub fn taken_apart(&self) -> BTreeMap<ChannelId, &str> {
        let rules = self.blocks.iter().filter(|rule| rule.taken_apart);
        let of = |rule: &'_ BlockRule| rule.channels.iter().flatten().copied().collect::<Vec<_>>();
        let mut found = BTreeMap::new();
        for rule in rules {
            for channel in of(rule) {
                found.entry(channel).or_insert(rule.why.as_str());
            }
        }
        found
    }

    /// The same graph, of which all channels stay that reshapes take apart.
    pub fn keep_taken_apart(&self) -> Self {
        let mut graph = self.clone();
        graph.entries = OnceLock::new();
        for (channel, why) in self.taken_apart() {
            let why = || why.to_string();
            graph.protected.entry(channel).or_insert_with(why);
        }
        for group in &mut graph.groups {
            let mut reasons = group.channels.iter().filter_map(|c| graph.protected.get(c));
            group.protected = reasons.next().cloned();
        }
        graph
    }

    /// Whether the forward pass reads the parameter or running statistic at `path`.
    pub fn is_used(&self, path: &str) -> bool {
        self.used.contains(path)
    }

    /// Whether the forward pass has passed an input or output of a layer through its wrapper.
    pub fn is_reached(&self, layer: &str) -> bool {
        self.ports.keys().any(|port| port.layer == layer)
    }

    /// Reason that keeps a channel, `None` if it can be removed.
    pub fn protected(&self, channel: ChannelId) -> Option<&str> {
        self.protected.get(&channel).map(String::as_str)
    }

    /// Remedy of the reason that keeps a channel, where one is known to help.
    pub fn remedy(&self, channel: ChannelId) -> Option<&str> {
        let reason = self.protected.get(&channel)?;
        self.remedies.get(reason).map(String::as_str)
    }

    /// Whether statistics run over this channel and others. Then it can be removed only where it is
    /// masked, not where nobody reads it: the statistics read it.
    pub fn is_counted(&self, channel: ChannelId) -> bool {
        self.counted.contains(&channel)
    }

    /// The parameters and running statistics, in module order.
    pub fn params(&self) -> impl Iterator<Item = &ParamNode> {
        self.params.values()
    }

    /// The convolutions whose channels are split into groups.
    pub fn grouped(&self) -> &[GroupedConv] {
        &self.grouped
    }

    /// Multiply-accumulates of the model for one element of the batch.
    pub fn macs(&self) -> u64 {
        self.macs_after(&BTreeSet::new())
    }

    /// Multiply-accumulates that are left without the channels `removed`.
    pub fn macs_after(&self, removed: &BTreeSet<ChannelId>) -> u64 {
        let removed = removed.into();
        let macs = self.ops.iter().map(|op| op.macs(&removed, self.batch));
        macs.sum()
    }

    /// Bytes of the activations that are in memory at once, at the operation where they are most,
    /// without the channels `removed`: of the whole batch of the dummy input.
    ///
    /// ```text
    /// peak = max over operations of the bytes of all tensors that are made and still to be read
    /// ```
    ///
    /// Reshapes, permutations and expansions take no memory of their own; parameters are not counted.
    pub fn peak_activation_bytes(&self, removed: &BTreeSet<ChannelId>) -> u64 {
        memory::peak(&self.tensors, &removed.into())
    }

    /// Batch size of the dummy input, see [`Captured::batch`].
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Multiply-accumulates of each operation as a product of sizes, in execution order.
    pub fn macs_products(&self) -> Vec<MacsProduct> {
        self.ops.iter().map(|op| op.product(self.batch)).collect()
    }

    /// Multiply-accumulates of each operation without the channels `removed`, in execution order.
    pub fn macs_by_operation(&self, removed: &BTreeSet<ChannelId>) -> Vec<OperationMacs> {
        let removed = ChannelSet::from(removed);
        let count = |op: &CountedOp| OperationMacs {
            layer: op.layer.clone(),
            macs: op.macs(&removed, self.batch),
        };
        self.ops.iter().map(count).collect()
    }
}

/// The parameters and running statistics, in module order.
fn nodes(analysis: &Analysis) -> IndexMap<String, ParamNode> {
    let params = analysis.params.iter().zip(&analysis.captured.params);
    let node = |(index, (value, param)): (usize, (&Value, &CapturedParam))| ParamNode {
        path: param.path.clone(),
        param_id: param.param_id,
        shape: param.shape.clone(),
        statistic: analysis.statistics.contains(&index),
        channels: (0..param.shape.len())
            .map(|dim| visible(analysis, value, dim))
            .collect(),
    };
    params
        .enumerate()
        .map(node)
        .map(|node| (node.path.clone(), node))
        .collect()
}

fn group(
    analysis: &Analysis,
    found: &Found,
    blocks: usize,
    positions: impl Fn(&(usize, usize)) -> Positions,
) -> ChannelGroup {
    let member = |at: &(usize, usize)| GroupMember {
        param: analysis.captured.params[at.0].path.clone(),
        dim: at.1,
        positions: positions(at),
    };
    let mut reasons = found
        .channels
        .iter()
        .filter_map(|channel| analysis.labels.protected(channel.0));
    ChannelGroup {
        channels: found.channels.clone(),
        members: found.members.iter().map(member).collect(),
        consumers: found.consumers.iter().map(member).collect(),
        blocks,
        slices: equal_blocks::slices(analysis, &found.channels),
        protected: reasons.next().map(str::to_string),
    }
}

fn grouped(analysis: &Analysis) -> Vec<GroupedConv> {
    let convs = analysis.grouped.iter();
    convs
        .map(|conv| {
            let weight = &analysis.captured.params[conv.weight].path;
            GroupedConv {
                layer: layer_of(weight).to_string(),
                weight: weight.clone(),
                groups: conv.groups,
                input: channels_of(analysis, &conv.input),
                output: channels_of(analysis, &conv.output),
            }
        })
        .collect()
}

fn rules(analysis: &Analysis) -> Vec<BlockRule> {
    let rules = analysis.blocks.iter();
    rules
        .map(|rule| BlockRule {
            layer: rule.layer.clone(),
            sizes: rule.sizes.clone(),
            channels: channels_of(analysis, &rule.labels),
            taken_apart: rule.taken_apart,
            why: rule.why.clone(),
        })
        .collect()
}

fn sizes(analysis: &Analysis) -> Vec<SizeChannels> {
    let sizes = analysis.sizes.iter();
    sizes
        .map(|size| SizeChannels {
            layer: size.layer.clone(),
            field: size.field,
            count: size.count,
            channels: channels_of(analysis, &size.labels),
        })
        .collect()
}

/// The channels of each call of every wrapped layer's inputs and outputs.
fn ports(analysis: &Analysis) -> BTreeMap<TargetId, Vec<PortChannels>> {
    let mut ports: BTreeMap<TargetId, Vec<PortChannels>> = BTreeMap::new();
    for (target, id) in &analysis.captured.ports {
        let found = analysis
            .tensors
            .get(id)
            .and_then(|value| port(analysis, value));
        let calls = ports.entry(target.clone()).or_default();
        calls.extend(found.map(|(dim, labels)| PortChannels {
            dim,
            channels: channels_of(analysis, &labels),
        }));
    }
    ports
}

fn channels_of(analysis: &Analysis, labels: &[Label]) -> Vec<Option<ChannelId>> {
    let channel = |label: &Label| label.map(|atom| analysis.labels.channel(atom));
    labels.iter().map(channel).collect()
}

/// The dimension of a port that carries channels: the second of a feature map, otherwise the last.
///
/// A dimension whose channels must all stay, as the places of a sequence with learned positions, is
/// taken only where there is no other.
fn port(analysis: &Analysis, value: &Value) -> Option<(usize, Vec<Label>)> {
    let labels = &analysis.labels;
    let carries = |&dim: &usize| {
        let axis = value.axes.get(dim).and_then(Option::as_ref);
        axis.is_some_and(|axis| !axis.labels.iter().flatten().any(|&a| labels.is_hidden(a)))
    };
    let is_free = |&dim: &usize| {
        let axis = value.axes[dim].iter();
        let mut atoms = axis.flat_map(|axis| axis.labels.iter().flatten());
        atoms.any(|&atom| labels.protected(atom).is_none())
    };
    let rank = value.shape.len();
    let second = (rank >= 3).then_some(1);
    let dims: Vec<usize> = second
        .into_iter()
        .chain((0..rank).rev())
        .filter(carries)
        .collect();
    let dim = *dims.iter().find(|dim| is_free(dim)).or(dims.first())?;
    Some((dim, value.axes[dim].as_ref()?.labels.clone()))
}
