//! Memory of the activations of a forward pass, before and after channels are removed.
//!
//! A tensor is in memory from the operation that makes it to the last one that reads it; an input of
//! the model from the first operation on, an output to the last one:
//!
//! ```text
//! peak = max over operations t of the sum of the bytes of all tensors with first <= t <= last
//! ```
//!
//! Reshapes, permutations and expansions show the values of another tensor and take no memory of their
//! own. Parameters are not counted, nor is what an operation needs inside. A backend that computes in
//! place needs less. The batch is that of the dummy input: not every tensor grows with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use burn_capture::TensorId;
use burn_ir::{BaseOperationIr as Base, OperationIr, TensorIr};

use super::analysis::Analysis;
use super::channel_set::ChannelSet;
use super::facts::Size;
use super::labels::ChannelId;

/// A tensor with the operations between which it is in memory.
#[derive(Debug, Clone)]
pub(super) struct LiveTensor {
    first: usize,
    last: usize,
    /// Bytes of an index of all labelled dimensions.
    bytes: u64,
    channels: Vec<Vec<Option<ChannelId>>>,
}

impl LiveTensor {
    /// The tensors of the captured forward pass.
    pub fn all(analysis: &Analysis) -> Vec<Self> {
        let operations = analysis.captured.forward_operations();
        let mut live = Liveness::default();
        let params = analysis.captured.params.iter();
        live.uncounted.extend(params.map(|param| param.tensor));
        for (at, op) in operations.iter().enumerate() {
            live.follow(at, op);
        }
        let end = operations.len().saturating_sub(1);
        for output in &analysis.captured.outputs {
            let root = live.root(*output);
            if let Some((_, last)) = live.found.get_mut(&root) {
                *last = end;
            }
        }
        // In the order of the operations, so that equal passes give equal lists.
        let mut found: Vec<_> = live.found.into_iter().collect();
        found.sort_by_key(|(id, (first, _))| (*first, *id));
        let tensors = found.into_iter();
        tensors
            .filter_map(|(id, (first, last))| {
                let (bytes, channels) = sizes(analysis, live.tensors.get(&id)?);
                Some(Self {
                    first,
                    last,
                    bytes,
                    channels,
                })
            })
            .collect()
    }

    fn bytes(&self, removed: &ChannelSet) -> u64 {
        let kept = |channels: &Vec<Option<ChannelId>>| removed.kept(channels) as u64;
        self.channels.iter().map(kept).product::<u64>() * self.bytes
    }
}

/// The bytes of all tensors that are in memory at once, at the operation where they are most.
pub(super) fn peak(tensors: &[LiveTensor], removed: &ChannelSet) -> u64 {
    let mut changes: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for tensor in tensors {
        let bytes = tensor.bytes(removed);
        changes.entry(tensor.first).or_default().0 += bytes;
        changes.entry(tensor.last + 1).or_default().1 += bytes;
    }
    let (mut now, mut most) = (0, 0);
    for (added, freed) in changes.into_values() {
        now = now + added - freed;
        most = most.max(now);
    }
    most
}

#[derive(Default)]
struct Liveness<'a> {
    /// The tensor whose memory a view shows.
    views: HashMap<TensorId, TensorId>,
    uncounted: BTreeSet<TensorId>,
    tensors: HashMap<TensorId, &'a TensorIr>,
    found: HashMap<TensorId, (usize, usize)>,
}

impl<'a> Liveness<'a> {
    fn root(&self, mut id: TensorId) -> TensorId {
        while let Some(&source) = self.views.get(&id) {
            id = source;
        }
        id
    }

    fn follow(&mut self, at: usize, op: &'a OperationIr) {
        if matches!(op, OperationIr::Drop(_)) {
            return;
        }
        for tensor in op.inputs() {
            // What no operation has made is there from the beginning.
            self.note(tensor, 0, at);
        }
        if let Some((input, out)) = view(op) {
            self.views.insert(out, input);
            return;
        }
        for tensor in op.outputs() {
            self.note(tensor, at, at);
        }
    }

    fn note(&mut self, tensor: &'a TensorIr, first: usize, last: usize) {
        let root = self.root(tensor.id);
        if self.uncounted.contains(&root) {
            return;
        }
        if root == tensor.id {
            self.tensors.entry(root).or_insert(tensor);
        }
        let (_, known) = self.found.entry(root).or_insert((first, last));
        *known = last;
    }
}

/// The tensor that an operation shows in another way, and that view.
fn view(op: &OperationIr) -> Option<(TensorId, TensorId)> {
    let (OperationIr::BaseFloat(base) | OperationIr::BaseInt(base) | OperationIr::BaseBool(base)) =
        op
    else {
        return None;
    };
    match base {
        Base::Reshape(op) | Base::Expand(op) => Some((op.input.id, op.out.id)),
        Base::SwapDims(op) => Some((op.input.id, op.out.id)),
        Base::Permute(op) => Some((op.input.id, op.out.id)),
        _ => None,
    }
}

/// The bytes of the sizes that stay, and the channels along the others.
fn sizes(analysis: &Analysis, tensor: &TensorIr) -> (u64, Vec<Vec<Option<ChannelId>>>) {
    let (mut bytes, mut channels) = (tensor.dtype.size() as u64, Vec::new());
    let value = analysis.split_value(tensor);
    let alone = (0..value.shape.len()).filter(|&dim| value.split_at(dim).is_none());
    let along = alone.map(|dim| Size::of(&value, dim));
    for size in along.chain(value.splits.iter().map(Size::of_split)) {
        match size {
            Size {
                labels: Some(labels),
                ..
            } => {
                let along = labels.iter();
                let along = along.map(|label| label.map(|atom| analysis.labels.channel(atom)));
                channels.push(along.collect());
            }
            Size { size, .. } => bytes *= size,
        }
    }
    (bytes, channels)
}
