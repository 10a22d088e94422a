//! The operations and tensors of a captured forward pass by what reads and makes them.

use std::collections::{BTreeMap, BTreeSet};

use burn_capture::TensorId;
use burn_ir::OperationIr;

use crate::capture::Captured;
use crate::layer::{LayerInfo, LayerKind, LayerRole};
use crate::observed::{Bend, bend};
use crate::operation::name;
use crate::target::{Target, TargetId};

/// A tensor, and where in it a concatenation has put the first channel.
pub(super) type Place = (TensorId, Option<usize>);

/// The way of values through a captured forward pass.
#[derive(Debug)]
pub struct Flow<'a> {
    pub(super) captured: &'a Captured,
    pub(super) layers: &'a [LayerInfo],
    pub(super) tensors: BTreeMap<TensorId, Vec<usize>>,
    pub(super) readers: BTreeMap<TensorId, Vec<usize>>,
    pub(super) makers: BTreeMap<TensorId, usize>,
    pub(super) calls: BTreeMap<TensorId, Vec<(&'a str, TensorId)>>,
    pub(super) ports: BTreeMap<TensorId, (&'a TargetId, usize)>,
    pub(super) times: BTreeMap<&'a TargetId, usize>,
}

impl<'a> Flow<'a> {
    /// The flow through `captured`, the forward pass of a model with these layers.
    pub fn new(captured: &'a Captured, layers: &'a [LayerInfo]) -> Self {
        let mut flow = Self {
            captured,
            layers,
            tensors: BTreeMap::new(),
            readers: BTreeMap::new(),
            makers: BTreeMap::new(),
            calls: BTreeMap::new(),
            ports: BTreeMap::new(),
            times: BTreeMap::new(),
        };
        for (index, op) in captured.graph.operations.iter().enumerate() {
            if matches!(op, OperationIr::Init(_) | OperationIr::Drop(_)) {
                continue;
            }
            for tensor in op.inputs() {
                let readers = flow.readers.entry(tensor.id).or_default();
                if readers.last() != Some(&index) {
                    readers.push(index);
                }
            }
            for tensor in op.outputs() {
                flow.makers.insert(tensor.id, index);
            }
            for tensor in op.nodes() {
                flow.tensors.insert(tensor.id, tensor.shape.to_vec());
            }
        }
        let mut inputs: BTreeMap<&str, Vec<TensorId>> = BTreeMap::new();
        let mut outputs: BTreeMap<&str, Vec<TensorId>> = BTreeMap::new();
        for (target, tensor) in &captured.ports {
            let times = flow.times.entry(target).or_default();
            let call = *times;
            *times += 1;
            let output = matches!(target.target, Target::Output(_));
            let known = flow.ports.get(tensor);
            let better =
                known.is_none_or(|(known, _)| output && matches!(known.target, Target::Input(_)));
            if better {
                flow.ports.insert(*tensor, (target, call));
            }
            let calls = match target.target {
                Target::Input(0) => &mut inputs,
                Target::Output(0) => &mut outputs,
                _ => continue,
            };
            calls.entry(&target.layer).or_default().push(*tensor);
        }
        for (layer, inputs) in inputs {
            let outputs = outputs.get(layer).map(Vec::as_slice).unwrap_or_default();
            if inputs.len() == outputs.len() {
                for (input, output) in inputs.into_iter().zip(outputs) {
                    let calls = flow.calls.entry(input).or_default();
                    calls.push((layer, *output));
                }
            }
        }
        flow
    }

    pub(super) fn readers(&self, tensor: TensorId) -> &[usize] {
        self.readers
            .get(&tensor)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    pub(super) fn role(&self, layer: &str) -> LayerRole {
        let found = self.layers.iter().find(|known| known.path == layer);
        LayerKind::of(found.map_or("", |layer| &layer.kind)).role()
    }

    /// The operations between two tensors.
    pub(super) fn between(&self, from: TensorId, to: TensorId) -> BTreeSet<usize> {
        let mut inside = BTreeSet::new();
        let mut waiting = vec![to];
        while let Some(tensor) = waiting.pop() {
            if tensor == from {
                continue;
            }
            if let Some(&maker) = self.makers.get(&tensor)
                && inside.insert(maker)
            {
                let op = &self.captured.graph.operations[maker];
                waiting.extend(op.inputs().map(|input| input.id));
            }
        }
        inside
    }

    /// Tensors computed element by element from `tensor` alone, with the operations.
    pub(super) fn functions(
        &self,
        tensor: TensorId,
        readers: &[usize],
    ) -> (BTreeMap<TensorId, Bend>, BTreeSet<usize>) {
        let mut made = BTreeMap::from([(tensor, Bend::None)]);
        let mut used = BTreeSet::new();
        let mut waiting = vec![tensor];
        while let Some(at) = waiting.pop() {
            let readers = if at == tensor {
                readers
            } else {
                self.readers(at)
            };
            // The output of a wrapped activation is that of the activation, whatever comes behind.
            let whole = made[&at] == Bend::Activation && self.is_returned(at);
            for &reader in readers {
                let op = &self.captured.graph.operations[reader];
                if whole && op.inputs().all(|input| input.id == at) {
                    continue;
                }
                let Some(own) = self.bend(op) else { continue };
                let inputs: Option<Vec<Bend>> = op
                    .inputs()
                    .map(|input| made.get(&input.id).copied())
                    .collect();
                let Some(inputs) = inputs else { continue };
                if used.insert(reader) {
                    let bend = inputs.into_iter().fold(own, Bend::max);
                    for out in op.outputs() {
                        made.insert(out.id, bend);
                        waiting.push(out.id);
                    }
                }
            }
        }
        (made, used)
    }

    /// The bend of an operation that works element by element, also by a rule of the user.
    pub(super) fn bend(&self, op: &OperationIr) -> Option<Bend> {
        bend(op).or_else(|| {
            let rule = self.captured.rules.get(op)?;
            rule.elementwise.as_ref()?;
            Some(match rule.activation {
                true => Bend::Activation,
                false => Bend::None,
            })
        })
    }

    pub(super) fn is_returned(&self, tensor: TensorId) -> bool {
        let port = self.ports.get(&tensor);
        port.is_some_and(|(id, _)| matches!(id.target, Target::Output(_)))
    }

    pub(super) fn operation(&self, tensor: TensorId) -> Option<String> {
        let maker = *self.makers.get(&tensor)?;
        Some(name(&self.captured.graph.operations[maker]))
    }
}
