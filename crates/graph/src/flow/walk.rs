//! The search for the activations behind one layer.

use std::collections::BTreeSet;

use burn_capture::TensorId;
use burn_ir::{
    ActivationOperationIr as Activation, BaseOperationIr as Base, ModuleOperationIr as Module,
    NumericOperationIr as Numeric, OperationIr, TensorIr,
};

use super::links::{Flow, Place};
use crate::layer::LayerRole;
use crate::observed::Bend;

/// A search for the activations behind one layer.
pub(super) struct Walk<'a> {
    pub(super) flow: &'a Flow<'a>,
    /// The dimension of the channels, for concatenations; the last one if none is given.
    pub(super) channel_dim: Option<usize>,
    pub(super) seen: BTreeSet<TensorId>,
    pub(super) activations: Vec<Place>,
    pub(super) passed: Vec<Place>,
}

impl Walk<'_> {
    pub(super) fn follow(&mut self, start: TensorId) {
        let mut waiting = vec![(start, None)];
        while let Some((tensor, first)) = waiting.pop() {
            if !self.seen.insert(tensor) {
                continue;
            }
            self.passed.push((tensor, first));
            let mut next = self.next(tensor, first);
            // The first way is taken first.
            next.reverse();
            waiting.extend(next);
        }
    }

    /// Notes the activations that read `tensor`, and returns where its channels go on.
    fn next(&mut self, tensor: TensorId, first: Option<usize>) -> Vec<Place> {
        let flow = self.flow;
        let mut next = Vec::new();
        let mut readers = flow.readers(tensor).to_vec();
        for &(layer, output) in flow.calls.get(&tensor).into_iter().flatten() {
            let apart = matches!(flow.role(layer), LayerRole::Norm | LayerRole::Pool);
            if apart && output != tensor {
                let inside = flow.between(tensor, output);
                readers.retain(|op| !inside.contains(op));
                next.push((output, first));
            }
        }
        let (made, used) = flow.functions(tensor, &readers);
        for (&out, &bend) in &made {
            let leaves = |op: &usize| !used.contains(op);
            let read = flow.readers(out).iter().any(leaves);
            if out == tensor || !(read || flow.captured.outputs.contains(&out)) {
                continue;
            }
            match bend {
                Bend::None => next.push((out, first)),
                Bend::Activation => self.found(out, first),
                Bend::Other => {}
            }
        }
        for reader in readers.into_iter().filter(|reader| !used.contains(reader)) {
            match self.passes(&flow.captured.graph.operations[reader], tensor, first) {
                Some(Passage::Apart(out, first)) => next.push((out, first)),
                Some(Passage::Activation(out)) => self.found(out, first),
                None => {}
            }
        }
        next
    }

    fn found(&mut self, tensor: TensorId, first: Option<usize>) {
        if self.activations.iter().all(|(known, _)| *known != tensor) {
            self.activations.push((tensor, first));
        }
    }

    /// Channels of `tensor` behind an operation that reads it beside others; `None` where it mixes
    /// them.
    fn passes(&self, op: &OperationIr, tensor: TensorId, first: Option<usize>) -> Option<Passage> {
        let apart = |input: &TensorIr, out: &TensorIr| {
            (input.id == tensor).then_some(Passage::Apart(out.id, first))
        };
        match op {
            OperationIr::Module(module) => match module {
                Module::BatchNorm(op) => apart(&op.x, &op.out),
                Module::LayerNorm(op) => apart(&op.input, &op.out),
                Module::AvgPool1d(op) => apart(&op.x, &op.out),
                Module::AvgPool2d(op) => apart(&op.x, &op.out),
                Module::AdaptiveAvgPool1d(op) => apart(&op.x, &op.out),
                Module::AdaptiveAvgPool2d(op) => apart(&op.x, &op.out),
                Module::AdaptiveAvgPool3d(op) => apart(&op.x, &op.out),
                Module::MaxPool1d(op) => apart(&op.x, &op.out),
                Module::MaxPool2d(op) => apart(&op.x, &op.out),
                Module::MaxPool1dWithIndices(op) => apart(&op.x, &op.out),
                Module::MaxPool2dWithIndices(op) => apart(&op.x, &op.out),
                Module::Interpolate(op) => apart(&op.x, &op.out),
                _ => None,
            },
            OperationIr::NumericFloat(_, numeric) => match numeric {
                Numeric::Add(op) | Numeric::Sub(op) | Numeric::Mul(op) | Numeric::Div(op) => {
                    Some(Passage::Apart(op.out.id, first))
                }
                Numeric::Pad(op) => apart(&op.input, &op.out),
                _ => None,
            },
            OperationIr::BaseFloat(base) => match base {
                Base::Reshape(op) => apart(&op.input, &op.out),
                Base::Cat(op) => {
                    let at = op.tensors.iter().position(|part| part.id == tensor)?;
                    let rank = op.out.shape.to_vec().len();
                    let channels = self.channel_dim.unwrap_or(rank.saturating_sub(1));
                    let before = op.tensors[..at]
                        .iter()
                        .map(|part| part.shape.to_vec()[op.dim]);
                    let first = match op.dim == channels {
                        true => Some(first.unwrap_or(0) + before.sum::<usize>()),
                        false => first,
                    };
                    Some(Passage::Apart(op.out.id, first))
                }
                _ => None,
            },
            OperationIr::Activation(Activation::PRelu(op)) if op.lhs.id == tensor => {
                Some(Passage::Activation(op.out.id))
            }
            _ => self.passes_by_rule(op, tensor, first),
        }
    }

    /// Channels of `tensor` behind an operation with a rule of the user.
    fn passes_by_rule(
        &self,
        op: &OperationIr,
        tensor: TensorId,
        first: Option<usize>,
    ) -> Option<Passage> {
        let rule = self.flow.captured.rules.get(op)?;
        let input = op.inputs().position(|input| input.id == tensor)?;
        let rank = op.inputs().nth(input)?.shape.to_vec().len();
        let dim = self.channel_dim.unwrap_or(rank.saturating_sub(1));
        let carried = rule.carried.iter().find(|c| c.from.contains(&(input, dim)));
        let out = match (&rule.elementwise, carried) {
            (Some(_), _) => 0,
            (None, carried) => carried?.to.0,
        };
        let out = op.outputs().nth(out)?.id;
        Some(match rule.activation {
            true => Passage::Activation(out),
            false => Passage::Apart(out, first),
        })
    }
}

/// Channels behind an operation that keeps them apart.
enum Passage {
    /// The channels, with the position of the first of them.
    Apart(TensorId, Option<usize>),
    Activation(TensorId),
}
