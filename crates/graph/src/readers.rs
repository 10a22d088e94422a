//! What reads the tensors of wrapped layers, for a placement of quantizers.
//!
//! Integer hardware keeps a tensor in integers through rectifiers, batch norms that are folded, max
//! pooling and changes of shape. [`Captured::float_readers`] follows the output of a layer through
//! these up to the next quantized port, and names what it meets before.

use std::collections::BTreeSet;

use burn_capture::TensorId;
use burn_ir::{
    ActivationOperationIr as Activation, BaseOperationIr as Base, ModuleOperationIr as Module,
    NumericOperationIr as Numeric, OperationIr,
};

use super::Captured;
use crate::operation::name;
use crate::target::{Target, TargetId};

/// What reads a tensor in floating point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FloatReader {
    /// A sum of two tensors that depend on the inputs, which no wrapped layer returns.
    Add,
    /// A concatenation that no wrapped layer returns.
    Concat,
    /// A mean over positions that no wrapped layer returns, average pooling included.
    Mean,
    /// Another operation, by its name.
    Other(String),
    /// The caller of the forward pass.
    Output,
}

impl Captured {
    /// The inputs and outputs of wrapped layers, in the order of the calls.
    pub fn port_targets(&self) -> impl Iterator<Item = &TargetId> {
        self.ports.iter().map(|(id, _)| id)
    }

    /// The inputs and outputs of wrapped layers through which a tensor of `id` passes, `id` itself
    /// included.
    pub fn same_tensor(&self, id: &TargetId) -> BTreeSet<&TargetId> {
        let tensors = self.tensors_of(id);
        let ports = self.ports.iter();
        let same = ports.filter(|(_, tensor)| tensors.contains(tensor));
        same.map(|(id, _)| id).collect()
    }

    /// What reads the output or input `id` before it passes a port that is `quantized`; nothing where
    /// all that reads it does so in integers.
    pub fn float_readers(
        &self,
        id: &TargetId,
        quantized: impl Fn(&TargetId) -> bool,
    ) -> BTreeSet<FloatReader> {
        let dependent = self.dependent();
        let mut waiting = self.tensors_of(id);
        let mut seen: BTreeSet<TensorId> = waiting.iter().copied().collect();
        let mut found = BTreeSet::new();
        while let Some(tensor) = waiting.pop() {
            let mut ports = self.ports.iter().filter(|(_, port)| *port == tensor);
            if ports.any(|(port, _)| quantized(port)) {
                continue;
            }
            if self.outputs.contains(&tensor) {
                found.insert(FloatReader::Output);
            }
            let operations = self.graph.operations.iter();
            let reads = |op: &&OperationIr| {
                !matches!(op, OperationIr::Init(_) | OperationIr::Drop(_))
                    && op.inputs().any(|input| input.id == tensor)
            };
            for op in operations.filter(reads) {
                match keeps_integers(op) {
                    true => {
                        let next = op.outputs().map(|out| out.id);
                        waiting.extend(next.filter(|id| seen.insert(*id)));
                    }
                    false if self.is_a_layers(op) => {
                        found.insert(FloatReader::Other(name(op)));
                    }
                    false => {
                        found.insert(reader(op, &dependent));
                    }
                }
            }
        }
        found
    }

    /// Whether a wrapped layer returns what the operation makes.
    fn is_a_layers(&self, op: &OperationIr) -> bool {
        let returned = self
            .ports
            .iter()
            .filter(|(id, _)| matches!(id.target, Target::Output(_)));
        let mut returned = returned.map(|(_, tensor)| tensor);
        returned.any(|tensor| op.outputs().any(|out| out.id == *tensor))
    }

    /// The tensors that pass an input or output, one a call.
    fn tensors_of(&self, id: &TargetId) -> Vec<TensorId> {
        let ports = self.ports.iter().filter(|(port, _)| port == id);
        ports.map(|(_, tensor)| *tensor).collect()
    }

    /// The tensors that depend on the inputs of the model.
    fn dependent(&self) -> BTreeSet<TensorId> {
        let mut dependent: BTreeSet<TensorId> = self.inputs.iter().copied().collect();
        // Inputs that the forward pass makes itself are those of the first layer.
        let made = self.ports.iter().map(|(_, tensor)| *tensor);
        dependent.extend(made);
        for op in &self.graph.operations {
            if op.inputs().any(|input| dependent.contains(&input.id)) {
                dependent.extend(op.outputs().map(|out| out.id));
            }
        }
        dependent
    }
}

/// Whether an operation gives integers of the scale that it is given.
fn keeps_integers(op: &OperationIr) -> bool {
    match op {
        OperationIr::Activation(Activation::Relu(_)) => true,
        OperationIr::NumericFloat(_, op) => matches!(
            op,
            Numeric::Clamp(_) | Numeric::ClampMin(_) | Numeric::ClampMax(_)
        ),
        OperationIr::BaseFloat(op) => {
            matches!(op, Base::Reshape(_) | Base::SwapDims(_) | Base::Permute(_))
        }
        OperationIr::Module(op) => matches!(
            op,
            Module::BatchNorm(_) | Module::MaxPool1d(_) | Module::MaxPool2d(_)
        ),
        _ => false,
    }
}

fn reader(op: &OperationIr, dependent: &BTreeSet<TensorId>) -> FloatReader {
    match op {
        OperationIr::NumericFloat(_, Numeric::Add(_))
            if op.inputs().all(|input| dependent.contains(&input.id)) =>
        {
            FloatReader::Add
        }
        OperationIr::NumericFloat(_, Numeric::MeanDim(_)) => FloatReader::Mean,
        OperationIr::BaseFloat(Base::Cat(_)) => FloatReader::Concat,
        OperationIr::Module(
            Module::AvgPool1d(_)
            | Module::AvgPool2d(_)
            | Module::AdaptiveAvgPool1d(_)
            | Module::AdaptiveAvgPool2d(_)
            | Module::AdaptiveAvgPool3d(_),
        ) => FloatReader::Mean,
        _ => FloatReader::Other(name(op)),
    }
}

impl FloatReader {
    /// The layer that gives the operation targets, in a `Wrapper`; `None` where there is none.
    pub fn layer(&self) -> Option<&'static str> {
        match self {
            Self::Add => Some("Add"),
            Self::Concat => Some("Concat"),
            Self::Mean => Some("AdaptiveAvgPool2d"),
            Self::Other(_) | Self::Output => None,
        }
    }
}
