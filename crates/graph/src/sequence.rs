//! Wrapped layers that directly follow one another.

use burn_capture::TensorId;
use burn_ir::OperationIr;
use indexmap::IndexMap;

use super::Captured;
use crate::target::Target;

/// The only reader of a layer's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// Path of the wrapped layer that reads it.
    pub layer: String,
    /// The number of dimensions of the tensor between the two.
    pub rank: usize,
}

impl Captured {
    /// The wrapped layer that directly follows each wrapped layer: it reads the output, nothing
    /// else does, and both are called once in a forward pass.
    pub fn successors(&self) -> IndexMap<String, Successor> {
        let outputs = self.calls(&Target::Output(0));
        let inputs = self.calls(&Target::Input(0));
        let once = |layer: &str| {
            let calls = |calls: &[(String, TensorId)]| {
                calls.iter().filter(|(path, _)| path == layer).count()
            };
            calls(&inputs) == 1 && calls(&outputs) == 1
        };
        let mut successors = IndexMap::new();
        for (layer, tensor) in &outputs {
            let reader = inputs.iter().find(|(_, input)| input == tensor);
            let Some((next, _)) = reader else { continue };
            let alone = self.reads(*tensor) == 1 && !self.outputs.contains(tensor);
            if alone && once(layer) && once(next) {
                let successor = Successor {
                    layer: next.clone(),
                    rank: self.rank(*tensor),
                };
                successors.insert(layer.clone(), successor);
            }
        }
        successors
    }

    /// The tensors that pass through one port of each wrapped layer, in the order of the calls.
    fn calls(&self, target: &Target) -> Vec<(String, TensorId)> {
        let ports = self.ports.iter().filter(|(id, _)| id.target == *target);
        ports
            .map(|(id, tensor)| (id.layer.clone(), *tensor))
            .collect()
    }

    /// Number of operations that read a tensor.
    fn reads(&self, tensor: TensorId) -> usize {
        let computes =
            |op: &&OperationIr| !matches!(op, OperationIr::Init(_) | OperationIr::Drop(_));
        let operations = self.graph.operations.iter().filter(computes);
        let inputs = operations.flat_map(|op| op.inputs());
        inputs.filter(|input| input.id == tensor).count()
    }

    fn rank(&self, tensor: TensorId) -> usize {
        let mut nodes = self.graph.operations.iter().flat_map(|op| op.nodes());
        let found = nodes.find(|node| node.id == tensor);
        found.map_or(0, |node| node.shape.to_vec().len())
    }
}
