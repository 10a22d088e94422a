//! A cut that is tried before it is made: the forward pass of the smaller model, on the capture
//! device.
//!
//! The analysis follows a channel through the operations of a forward pass. The *number* of
//! channels also enters the code between them: a `reshape` to a literal number, a norm that
//! compares its input with a field of its own, an attention that divides by the root of a width. A
//! trial gives every parameter the shape that a [`SlicePlan`] leaves of it and captures the forward
//! pass again, which computes nothing. The pass follows the cut when it ends, puts out the shapes
//! that it put out before, and consists of the same operations with the same constants, but for what
//! Burn itself chooses by the number of channels.
//!
//! ```text
//! all sets together --passes--> done
//!                   --fails--->  each half by itself, down to single sets
//! ```
//!
//! `k` sets of `n` that fail cost about `2 k log2(n)` passes, none that fails costs one.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic;
use std::sync::Once;

use burn::module::Module;
use burn::tensor::Device;
use burn_ir::OperationIr;

use super::capture::{Shrink, record};
use super::channel_set::ChannelSet;
use super::compared::{compared, fingerprint};
use super::operation::name;
use super::ports::Detail;
use super::size_check::is_reshape;
use super::{ChannelGraph, ChannelId, DummyInput, LayerSizes, SizeSlice, SlicePlan};
use crate::layer::{LayerInfo, ParamInfo, layers};
use crate::target::layer_of;
use crate::target::{Target, TargetId};

/// Reason that prevents a forward pass from following a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CutFailure {
    /// A number that would have to follow is a constant of a plain layer.
    Size {
        /// The layer.
        layer: String,
        /// Its type.
        kind: String,
        /// The field that holds the number.
        field: Cow<'static, str>,
    },
    /// The forward pass panics.
    Forward {
        /// The operation at which it ends, where that is known.
        operation: Option<String>,
        /// The last layer before that.
        after: Option<String>,
        /// The shape that it has in the whole model, if it is a reshape.
        shape: Option<Vec<usize>>,
        /// The panic's message.
        message: String,
    },
    /// A reshape or a slice has numbers that do not follow.
    Number {
        /// What is written in the forward pass, with the numbers of the whole model: `the reshape to
        /// [2, 4, 3, 4]`.
        written: String,
        /// The last layer before it.
        after: Option<String>,
        /// The shape or range with fewer channels.
        found: String,
        /// What it would have to be.
        expected: String,
    },
    /// An operation is another one, or has another constant.
    Operation {
        /// The operation.
        operation: String,
        /// The last layer before it.
        after: Option<String>,
    },
    /// An output has another shape.
    Output {
        /// Its position.
        index: usize,
        /// Its shape before.
        before: Vec<usize>,
        /// Its shape after the cut.
        after: Vec<usize>,
    },
}

impl CutFailure {
    /// Remedy.
    pub fn remedy(&self) -> String {
        match self {
            Self::Size { layer, kind, .. } => {
                format!("make the field `{layer}` a `Wrapper<{kind}>`, or exclude the layer")
            }
            Self::Forward { .. } | Self::Output { .. } | Self::Number { .. } => {
                "take sizes from tensors (`x.dims()`) in the forward pass where they are written \
                 down, or -1 in a reshape, or exclude the layer"
                    .to_string()
            }
            Self::Operation { .. } => {
                "compute with a constant where the number of channels is used, or exclude the layer"
                    .to_string()
            }
        }
    }
}

impl fmt::Display for CutFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behind = |after: &Option<String>| match after {
            Some(layer) => format!(" behind `{layer}`"),
            None => String::new(),
        };
        match self {
            Self::Size { layer, kind, field } => {
                let what = match &**field {
                    "groups" => "the depthwise convolution ",
                    _ => "",
                };
                write!(
                    f,
                    "`{field}` of {what}`{layer}` would have to follow, but is a constant of the \
                     plain `{kind}`"
                )
            }
            Self::Forward {
                operation,
                after,
                shape,
                message,
            } => {
                write!(f, "the forward pass fails with fewer channels")?;
                if let Some(operation) = operation {
                    write!(f, " at `{operation}`")?;
                    if let Some(shape) = shape {
                        write!(f, " to {shape:?}")?;
                    }
                    write!(f, "{}", behind(after))?;
                }
                // Messages of Burn run over several lines.
                let message: Vec<&str> = message.split_whitespace().collect();
                write!(f, ": {}", message.join(" "))
            }
            Self::Number {
                written,
                after,
                found,
                expected,
            } => write!(
                f,
                "{written}{} gives {found} with fewer channels, where {expected} would follow",
                behind(after)
            ),
            Self::Operation { operation, after } => write!(
                f,
                "`{operation}`{} depends on the number of channels",
                behind(after)
            ),
            Self::Output {
                index,
                before,
                after,
            } => write!(
                f,
                "output {index} would have the shape {after:?} in place of {before:?}"
            ),
        }
    }
}

/// Sets numbers of layers, and returns those that cannot be reached.
pub type SetSizes<M> = fn(M, LayerSizes) -> (M, LayerSizes);

/// A model whose cuts are tried.
#[derive(Debug)]
pub struct Trial<'a, M> {
    model: M,
    dummy: &'a DummyInput<M>,
    graph: &'a ChannelGraph,
    layers: Vec<LayerInfo>,
    set_sizes: SetSizes<M>,
    /// The operations of the uncut model that are compared, without names and sizes, each with its
    /// position.
    steps: Vec<(usize, u64)>,
}

impl<'a, M: Module> Trial<'a, M> {
    /// Tries cuts of the plain `model` that `graph` is of.
    ///
    /// `set_sizes` changes the numbers that no parameter holds, such as the number of groups of a
    /// depthwise convolution.
    pub fn new(
        model: M,
        dummy: &'a DummyInput<M>,
        graph: &'a ChannelGraph,
        set_sizes: SetSizes<M>,
    ) -> Self {
        let steps = compared(&graph.operations).into_iter();
        Self {
            layers: layers(&model),
            steps: steps
                .map(|at| (at, fingerprint(&graph.operations[at])))
                .collect(),
            model,
            dummy,
            graph,
            set_sizes,
        }
    }

    /// For each set of channels why the forward pass does not follow when it is cut off, `None` if
    /// it does.
    pub fn failures(&self, sets: &[BTreeSet<ChannelId>]) -> Vec<Option<CutFailure>> {
        let mut failures = self.constants(sets);
        let open: Vec<usize> = (0..sets.len())
            .filter(|&set| failures[set].is_none() && !sets[set].is_empty())
            .collect();
        self.search(sets, &open, &mut failures);
        failures
    }

    /// The sets with channels whose number a plain layer holds as a constant.
    fn constants(&self, sets: &[BTreeSet<ChannelId>]) -> Vec<Option<CutFailure>> {
        let mut failures = vec![None; sets.len()];
        let mut set_of: BTreeMap<ChannelId, usize> = BTreeMap::new();
        for (index, set) in sets.iter().enumerate() {
            set_of.extend(set.iter().map(|&channel| (channel, index)));
        }
        let wrapped: BTreeSet<&str> = (self.layers.iter())
            .filter(|layer| layer.wrapped)
            .map(|layer| layer.path.as_str())
            .collect();
        let depthwise = self.graph.depthwise.iter();
        let depthwise = depthwise.map(|(weight, _)| (weight.clone(), "groups"));
        let norms = self
            .layers
            .iter()
            .filter(|layer| layer.kind == "InstanceNorm");
        let norms = norms.map(|layer| {
            let gamma = TargetId::new(&layer.path, Target::param("gamma"));
            (gamma.to_string(), "num_channels")
        });
        for (param, field) in depthwise.chain(norms) {
            let layer = layer_of(&param);
            if wrapped.contains(layer) {
                continue;
            }
            let channels = self.graph.param_channels(&param, 0).unwrap_or_default();
            let sets: BTreeSet<usize> = (channels.iter())
                .filter_map(|channel| set_of.get(channel).copied())
                .collect();
            for set in sets {
                failures[set].get_or_insert_with(|| CutFailure::Size {
                    layer: layer.to_string(),
                    kind: self.kind(layer),
                    field: field.into(),
                });
            }
        }
        failures
    }

    fn kind(&self, path: &str) -> String {
        let layer = self.layers.iter().find(|layer| layer.path == path);
        layer.map_or_else(String::new, |layer| layer.kind.clone())
    }

    /// Finds the failing ones among `open` by halves.
    fn search(
        &self,
        sets: &[BTreeSet<ChannelId>],
        open: &[usize],
        failures: &mut [Option<CutFailure>],
    ) {
        let removed = open.iter().flat_map(|&set| sets[set].iter().copied());
        let Err(failure) = self.cut(&removed.collect()) else {
            return;
        };
        if let [only] = open {
            failures[*only] = Some(failure);
            return;
        }
        let (first, second) = open.split_at(open.len() / 2);
        self.search(sets, first, failures);
        self.search(sets, second, failures);
        if open.iter().all(|&set| failures[set].is_none()) {
            // They fail only together.
            open.iter()
                .for_each(|&set| failures[set] = Some(failure.clone()));
        }
    }

    /// Captures the forward pass without the channels `removed`.
    fn cut(&self, removed: &BTreeSet<ChannelId>) -> Result<(), CutFailure> {
        if removed.is_empty() {
            return Ok(());
        }
        // What no plan can be made of is no cut that a mask leads to.
        let Ok(plan) = self.graph.slice_plan(removed) else {
            return Ok(());
        };
        let (model, left) = (self.set_sizes)(self.model.valid(), plan.layer_sizes());
        let unset = |size: &&SizeSlice| {
            let fields = left.get(&size.layer);
            fields.is_some_and(|fields| fields.contains_key(&*size.field))
        };
        if let Some(size) = plan.sizes.iter().find(unset) {
            return Err(CutFailure::Size {
                layer: size.layer.clone(),
                kind: self.kind(&size.layer),
                field: size.field.clone(),
            });
        }
        let recorded = quietly(|| {
            record(self.dummy, Detail::Layers, |device| {
                let shrunk = model.map(&mut Shrink::new(&plan, device));
                shrunk.to_device(device)
            })
        });
        let recorded = recorded.map_err(|error| CutFailure::Forward {
            operation: None,
            after: None,
            shape: None,
            message: error.to_string(),
        })?;
        let forward = recorded.captured.forward_operations();
        let forward: Vec<&OperationIr> = compared(forward).iter().map(|&at| &forward[at]).collect();
        let same = self.common(forward.iter().copied());
        if let Some(message) = recorded.panic {
            // Parameters of a pass that did not end are not known apart from its operations.
            let operations = &recorded.captured.graph.operations;
            let params = self.graph.params().count().min(operations.len());
            let begun = &operations[params..];
            let begun: Vec<&OperationIr> = compared(begun).iter().map(|&at| &begun[at]).collect();
            let same = self.common(begun.iter().copied());
            // A number that does not follow is the cause of what comes after it.
            if let Some(failure) = self.wrong_size(&begun[..same], removed) {
                return Err(failure);
            }
            // A linear layer may reshape as well: what takes channels apart is what holds numbers.
            let (begin, end) = (self.begun(operations), self.position(same));
            let apart = |&at: &usize| {
                let mut outputs = self.graph.operations[at].outputs();
                outputs.any(|out| self.graph.taken_apart.contains(&out.id))
            };
            let end = end.min(self.graph.operations.len());
            let same = (begin..end).find(apart).unwrap_or(begin);
            let operation = self.graph.operations.get(same);
            let reshape = operation.filter(|op| is_reshape(op));
            let shape = reshape.and_then(|op| Some(op.outputs().next()?.shape.to_vec()));
            return Err(CutFailure::Forward {
                operation: operation.map(name),
                after: self.layer_before(same),
                shape,
                message,
            });
        }
        if same < forward.len() || same < self.steps.len() {
            let at = self.position(same);
            let found = forward.get(same).copied();
            let operation = found.or(self.graph.operations.get(at)).map(name);
            return Err(CutFailure::Operation {
                operation: operation.unwrap_or_default(),
                after: self.layer_before(at),
            });
        }
        if let Some(failure) = self.wrong_size(&forward, removed) {
            return Err(failure);
        }
        let outputs = recorded.captured.output_shapes();
        let mut pairs = self.graph.outputs.iter().zip(outputs).enumerate();
        match pairs.find(|(_, (before, after))| *before != after) {
            None => Ok(()),
            Some((index, (before, after))) => Err(CutFailure::Output {
                index,
                before: before.clone(),
                after,
            }),
        }
    }

    /// The first number of a pass that does not follow; the pass consists of these operations but
    /// reshapes, as the whole one does so far.
    fn wrong_size(
        &self,
        forward: &[&OperationIr],
        removed: &BTreeSet<ChannelId>,
    ) -> Option<CutFailure> {
        let removed = ChannelSet::from(removed);
        self.graph.size_checks.iter().find_map(|check| {
            let step = self.steps.binary_search_by_key(&check.at, |(at, _)| *at);
            let wrong = check.failure(forward.get(step.ok()?)?, &removed)?;
            Some(CutFailure::Number {
                written: wrong.written,
                after: self.layer_before(check.at),
                found: wrong.found,
                expected: wrong.expected,
            })
        })
    }

    /// Number of operations, without reshapes, that a pass has in common with the whole one.
    fn common<'b>(&self, pass: impl Iterator<Item = &'b OperationIr>) -> usize {
        let pairs = pass.zip(&self.steps);
        let equal = |(op, (_, step)): &(&OperationIr, &(usize, u64))| fingerprint(op) == *step;
        pairs.take_while(equal).count()
    }

    /// The position of an operation among all of the whole pass.
    fn position(&self, step: usize) -> usize {
        let end = self.graph.operations.len();
        self.steps.get(step).map_or(end, |(at, _)| *at)
    }

    /// The position in the whole pass at which a pass ended that recorded these operations.
    fn begun(&self, recorded: &[OperationIr]) -> usize {
        let params = self.graph.params().count();
        let recorded = &recorded[params.min(recorded.len())..];
        let same = self.common(compared(recorded).iter().map(|&at| &recorded[at]));
        let reshapes = recorded
            .iter()
            .rev()
            .take_while(|op| is_reshape(op))
            .count();
        let begin = same
            .checked_sub(1)
            .map_or(0, |last| self.position(last) + 1);
        self.position(same).min(begin + reshapes)
    }

    /// The last layer whose parameters are read by the first `count` operations.
    fn layer_before(&self, count: usize) -> Option<String> {
        let begun = &self.graph.operations[..count.min(self.graph.operations.len())];
        begun.iter().rev().find_map(|op| {
            let path = op
                .inputs()
                .find_map(|tensor| self.graph.param_tensors.get(&tensor.id))?;
            Some(layer_of(path).to_string())
        })
    }
}

/// Parameters that a forward pass uses, and wrappers that it calls.
#[derive(Debug)]
pub struct Calls {
    used: BTreeSet<String>,
    wrappers: BTreeSet<String>,
}

impl Calls {
    /// Whether the pass uses parameters of the wrapped `layer` without a call of its wrapper.
    pub fn bypass(&self, layer: &LayerInfo) -> bool {
        let path = |param: &ParamInfo| TargetId::new(&layer.path, Target::param(&param.name));
        let is_used = |param: &ParamInfo| self.used.contains(&path(param).to_string());
        layer.params.iter().any(is_used) && !self.wrappers.contains(&layer.path)
    }
}

/// Calls in the forward pass of a plain model; `None` if it cannot be captured.
pub fn calls<M: Module>(model: M, dummy: &DummyInput<M>) -> Option<Calls> {
    let plan = SlicePlan::default();
    let prepare = |device: &Device| model.map(&mut Shrink::new(&plan, device)).to_device(device);
    let recorded = quietly(|| record(dummy, Detail::Layers, prepare)).ok()?;
    if recorded.panic.is_some() {
        return None;
    }
    let ports = recorded.captured.ports.iter();
    Some(Calls {
        used: recorded.captured.used(),
        wrappers: ports.map(|(port, _)| port.layer.clone()).collect(),
    })
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` without the lines that a panic of this thread writes to the standard error: a pass that
/// does not follow a cut is a finding, and its message becomes part of an error.
fn quietly<T>(f: impl FnOnce() -> T) -> T {
    struct Guard;

    impl Drop for Guard {
        fn drop(&mut self) {
            QUIET.set(false);
        }
    }

    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let _guard = Guard;
    f()
}
