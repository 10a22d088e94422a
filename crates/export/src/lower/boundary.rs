//! Inputs and outputs of the graph.

use std::collections::HashSet;

use burn::tensor::DType;
use burn_compress_core::TargetId;
use burn_ir::TensorId;
use indexmap::IndexMap;

use crate::graph::{Element, Node, Size, Value};
use crate::trace::Sizes;
use crate::{ExportError, OnnxConfig};

use super::{Lower, Lowered, Unsupported, element};

impl Lower<'_> {
    /// Names the inputs.
    pub(super) fn name_inputs(&mut self, config: &OnnxConfig) -> Result<(), ExportError> {
        let inputs = &self.trace.inputs;
        let names = names("input", inputs.len(), config.input_names.as_deref())?;
        for ((id, dtype), name) in inputs.iter().zip(names) {
            let element = element(*dtype).map_err(|Unsupported(reason)| ExportError::Names {
                what: "input",
                names: vec![name.clone()],
                reason,
            })?;
            let dims = self.trace.shapes[id].clone();
            self.graph.inputs.push(Value {
                name: name.clone(),
                element,
                dims: dims.iter().map(|sizes| self.named_size(sizes)).collect(),
            });
            self.note_dims(&name, &dims);
            self.used.insert(name.clone());
            self.names.insert(*id, name);
        }
        Ok(())
    }

    /// Names the outputs, which operators write to.
    pub(super) fn name_outputs(&mut self, config: &OnnxConfig) -> Result<(), ExportError> {
        let outputs = &self.trace.outputs;
        let names = names("output", outputs.len(), config.output_names.as_deref())?;
        let made: HashSet<TensorId> = self
            .trace
            .operations
            .iter()
            .flat_map(|op| op.outputs().map(|out| out.id))
            .collect();
        for (id, name) in outputs.iter().zip(names) {
            if !self.used.insert(name.clone()) {
                return Err(ExportError::Names {
                    what: "output",
                    names: vec![name],
                    reason: "an input has the same name".to_string(),
                });
            }
            // The first output of a tensor is the tensor itself, every other a copy of it.
            if made.contains(id) && !self.names.contains_key(id) {
                self.names.insert(*id, name.clone());
                self.pending.insert(*id);
            }
            self.graph.outputs.push(Value {
                name,
                element: Element::Float,
                dims: Vec::new(),
            });
        }
        Ok(())
    }

    /// Puts the outputs out and leaves out what nothing reads.
    pub(super) fn finish(mut self) -> Result<Lowered, ExportError> {
        let outputs = self.trace.outputs.clone();
        for (at, id) in outputs.iter().enumerate() {
            let wanted = self.graph.outputs[at].name.clone();
            self.stem = wanted.clone();
            let name = self
                .read(*id)
                .map_err(|Unsupported(reason)| ExportError::Names {
                    what: "output",
                    names: vec![wanted.clone()],
                    reason,
                })?;
            if name != wanted {
                self.append(Node::new("Identity", [name], [wanted]));
            }
            let dtype = self.dtype_of(*id);
            self.graph.outputs[at].element = element(dtype).unwrap_or(Element::Float);
            let dims = self.trace.shapes.get(id).cloned().unwrap_or_default();
            self.graph.outputs[at].dims = dims.iter().map(|s| self.named_size(s)).collect();
        }
        self.drop_unread();
        let mut ports: IndexMap<TargetId, Vec<String>> = IndexMap::new();
        for (target, id) in &self.trace.ports {
            if let Some(name) = self.names.get(id) {
                ports.entry(target.clone()).or_default().push(name.clone());
            }
        }
        Ok(Lowered {
            ports,
            graph: self.graph,
            notes: self.notes,
        })
    }

    fn dtype_of(&self, id: TensorId) -> DType {
        let made = self.trace.operations.iter().flat_map(|op| op.nodes());
        let made = made.map(|tensor| (tensor.id, tensor.dtype));
        let constants = self.trace.constants.iter();
        let constants = constants.map(|(id, data)| (*id, data[0].dtype()));
        let given = self.trace.inputs.iter().copied();
        let mut all = made.chain(constants).chain(given);
        all.find(|(found, _)| *found == id)
            .map_or(DType::F32, |(_, dtype)| dtype)
    }

    /// Leaves out operators and constants that nothing reads.
    fn drop_unread(&mut self) {
        let mut read: HashSet<String> = self.graph.outputs.iter().map(|o| o.name.clone()).collect();
        let mut kept: Vec<Node> = Vec::with_capacity(self.graph.nodes.len());
        for node in self.graph.nodes.drain(..).rev() {
            if node.outputs.iter().any(|output| read.contains(output)) {
                read.extend(node.inputs.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.graph.nodes = kept;
        self.graph
            .initializers
            .retain(|name, _| read.contains(name));
    }

    /// A size in the type of an input or output.
    fn named_size(&self, sizes: &Sizes) -> Size {
        match sizes.fixed() {
            Some(size) => Size::Fixed(size),
            None => Size::Named(self.size_label(sizes)),
        }
    }
}

/// The wished names, or those by number.
fn names(
    what: &'static str,
    count: usize,
    wished: Option<&[String]>,
) -> Result<Vec<String>, ExportError> {
    let Some(names) = wished else {
        return Ok(match count {
            1 => vec![what.to_string()],
            count => (0..count).map(|at| format!("{what}_{at}")).collect(),
        });
    };
    let refuse = |reason: String| {
        let names = names.to_vec();
        Err(ExportError::Names {
            what,
            names,
            reason,
        })
    };
    if names.len() != count {
        return refuse(format!("the model has {count} {what}s"));
    }
    if names.iter().any(String::is_empty) {
        return refuse("a name is empty".to_string());
    }
    let unique: HashSet<&String> = names.iter().collect();
    if unique.len() != count {
        return refuse("a name is given twice".to_string());
    }
    Ok(names.to_vec())
}
