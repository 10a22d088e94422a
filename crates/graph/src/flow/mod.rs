//! Tensors behind a layer in a captured forward pass, up to its activation.
//!
//! From the output of a layer the values are followed through everything that keeps its channels
//! apart: normalizations, pooling, arithmetic between elements, concatenations, changes of shape.
//! The way ends at an activation, and where another layer mixes the channels. Several ways may lead
//! on, and several activations may be found: which of them counts is for the caller to decide.

mod links;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use burn_capture::TensorId;
use burn_ir::{BaseOperationIr as Base, ModuleOperationIr as Module, OperationIr, TensorIr};

use crate::layer::{LayerInfo, LayerRole};
use crate::observed::{Function, Observed};
use crate::target::{Target, TargetId};

pub use links::Flow;
use links::Place;
use walk::Walk;

/// The functions and ports that make up one observed value at most.
const LARGEST: usize = 64;

/// A tensor on the way from a layer.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Name in messages: the path of the wrapped layer that returns it, or the operation.
    pub name: String,
    /// The wrapped layer that returns it, if one does.
    pub layer: Option<String>,
    /// Its shape with the dummy input.
    pub shape: Vec<usize>,
    /// The operation that makes it.
    pub operation: Option<String>,
    /// Offset of the layer's first channel behind a concatenation; `None` without one on the way.
    pub first: Option<usize>,
    /// Way to observe it; `None` where no wrapped layer reads or returns what it is made of.
    pub observed: Option<Observed>,
}

/// Tensors behind a layer.
#[derive(Debug, Clone)]
pub struct Follow {
    /// The outputs of the layer itself, one a call.
    pub own: Vec<Stop>,
    /// The output of the normalizations that directly follow, of the layer itself without any; of a
    /// layer that is called several times, one a call.
    pub normalized: Vec<Stop>,
    /// The activations that are reached before the channels are mixed.
    pub activations: Vec<Stop>,
    /// Outputs of wrapped layers on the way, the layer itself included.
    pub returned: Vec<Stop>,
}

impl Flow<'_> {
    /// Tensors behind the layer that computes with the parameter `param`; none if it is never
    /// called.
    pub fn follow(&self, layer: &LayerInfo, param: &str, channel_dim: Option<usize>) -> Follow {
        let starts = match layer.wrapped {
            true => self.outputs(&layer.path),
            false => self.results(&TargetId::new(&*layer.path, Target::param(param))),
        };
        let mut walk = Walk {
            flow: self,
            channel_dim,
            seen: BTreeSet::new(),
            activations: Vec::new(),
            passed: Vec::new(),
        };
        for &start in &starts {
            walk.follow(start);
        }
        let stops = |tensors: &[Place]| -> Vec<Stop> {
            let stops = tensors.iter();
            stops
                .map(|&(tensor, first)| self.stop(tensor, first))
                .collect()
        };
        let own: Vec<_> = starts.iter().map(|&start| (start, None)).collect();
        let normalized: Vec<_> = starts.iter().map(|&s| (self.normalized(s), None)).collect();
        let all = walk.passed.iter().chain(&walk.activations);
        Follow {
            own: stops(&own),
            normalized: stops(&normalized),
            activations: stops(&walk.activations),
            returned: all
                .flat_map(|&(tensor, first)| self.returns(tensor, first))
                .collect(),
        }
    }

    /// The outputs of a wrapped layer, one a call.
    pub fn calls_of(&self, layer: &str) -> Vec<Stop> {
        let outputs = self.outputs(layer).into_iter();
        outputs
            .flat_map(|tensor| self.returns(tensor, None))
            .filter(|stop| stop.layer.as_deref() == Some(layer))
            .collect()
    }

    fn outputs(&self, layer: &str) -> Vec<TensorId> {
        let ports = self.captured.ports.iter();
        ports
            .filter(|(id, _)| id.layer == layer && id.target == Target::Output(0))
            .map(|(_, tensor)| *tensor)
            .collect()
    }

    /// Tensors computed with a parameter, one a call.
    fn results(&self, param: &TargetId) -> Vec<TensorId> {
        let path = param.to_string();
        let found = self.captured.params.iter().find(|known| known.path == path);
        let mut waiting: Vec<TensorId> = found.map(|param| param.tensor).into_iter().collect();
        let mut results = Vec::new();
        while let Some(tensor) = waiting.pop() {
            for &reader in self.readers(tensor) {
                let op = &self.captured.graph.operations[reader];
                // The parameter itself in another shape.
                let turned = matches!(
                    op,
                    OperationIr::BaseFloat(Base::Reshape(_) | Base::SwapDims(_) | Base::Permute(_))
                );
                let outputs = op.outputs().map(|out| out.id);
                match turned {
                    true => waiting.extend(outputs),
                    false => results.extend(outputs),
                }
            }
        }
        results.sort_unstable();
        results
    }

    /// The last tensor of the normalizations that directly follow `tensor`.
    fn normalized(&self, mut tensor: TensorId) -> TensorId {
        while let Some(next) = self.norm_of(tensor) {
            tensor = next;
        }
        tensor
    }

    /// The output of the normalization that alone reads `tensor`.
    fn norm_of(&self, tensor: TensorId) -> Option<TensorId> {
        let readers = self.readers(tensor);
        let wrapped = self.calls.get(&tensor).into_iter().flatten();
        for &(layer, output) in wrapped {
            if self.role(layer) == LayerRole::Norm && output != tensor {
                let inside = self.between(tensor, output);
                return readers
                    .iter()
                    .all(|op| inside.contains(op))
                    .then_some(output);
            }
        }
        match readers {
            [only] => match &self.captured.graph.operations[*only] {
                OperationIr::Module(Module::BatchNorm(op)) if op.x.id == tensor => Some(op.out.id),
                OperationIr::Module(Module::LayerNorm(op)) if op.input.id == tensor => {
                    Some(op.out.id)
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn stop(&self, tensor: TensorId, first: Option<usize>) -> Stop {
        let returned = self.ports.get(&tensor);
        let layer = returned.filter(|(id, _)| id.target == Target::Output(0));
        let layer = layer.map(|(id, _)| id.layer.clone());
        let operation = self.operation(tensor);
        let name = match (&layer, &operation, returned) {
            (Some(layer), ..) => format!("`{layer}`"),
            (None, Some(operation), Some((id, _))) => {
                format!("the `{operation}` in front of `{}`", id.layer)
            }
            (None, Some(operation), None) => format!("a `{operation}`"),
            (None, None, _) => "an input".to_string(),
        };
        Stop {
            name,
            layer,
            operation,
            shape: self.tensors.get(&tensor).cloned().unwrap_or_default(),
            first,
            observed: self.observed(tensor, &mut LARGEST.clone()),
        }
    }

    /// One stop for each wrapped layer that returns a tensor: some return what they were given.
    fn returns(&self, tensor: TensorId, first: Option<usize>) -> Vec<Stop> {
        let mut times: BTreeMap<&TargetId, usize> = BTreeMap::new();
        let mut stops = Vec::new();
        for (target, id) in &self.captured.ports {
            let call = times.entry(target).or_default();
            if *id == tensor && target.target == Target::Output(0) {
                let observed = Observed::Port {
                    target: target.clone(),
                    call: *call,
                    calls: self.times[target],
                };
                stops.push(Stop {
                    name: format!("`{}`", target.layer),
                    layer: Some(target.layer.clone()),
                    operation: self.operation(tensor),
                    observed: Some(observed),
                    shape: self.tensors.get(&tensor).cloned().unwrap_or_default(),
                    first,
                });
            }
            *call += 1;
        }
        stops
    }

    /// A tensor as something that passes a wrapped layer, or as functions of such.
    fn observed(&self, tensor: TensorId, left: &mut usize) -> Option<Observed> {
        *left = left.checked_sub(1)?;
        if let Some((target, call)) = self.ports.get(&tensor) {
            return Some(Observed::Port {
                target: (*target).clone(),
                call: *call,
                calls: self.times[target],
            });
        }
        let op = &self.captured.graph.operations[*self.makers.get(&tensor)?];
        let function = Function::of(op)?;
        let shape = self.tensors.get(&tensor)?;
        let same = |input: &&TensorIr| input.shape.to_vec() == *shape;
        let inputs: Vec<&TensorIr> = op.inputs().collect();
        if !inputs.iter().all(same) {
            return None;
        }
        let inputs = inputs.into_iter();
        let inputs: Option<Vec<Observed>> =
            inputs.map(|input| self.observed(input.id, left)).collect();
        Some(Observed::Function(function, inputs?))
    }
}
