//! The layers of a model: what a configuration can select from.
//!
//! A layer is a module that directly owns float parameters (`Conv2d`, `Linear`, `BatchNorm`, a
//! model's own struct with a `Param` field), a module without parameters (`MaxPool2d`, `Dropout`,
//! `Relu`), or whatever stands in a `Wrapper`. Modules that only contain other modules are not
//! layers, unless they are wrapped.
//!
//! Visitors of Burn receive the *enclosing* type with each field, so that only fields give a
//! module's type. A module without fields (`Relu`, `MaxPool2d`), and a field that is `None`, has an
//! empty [`LayerInfo::kind`]; a `Wrapper` names the type of what it holds.
//!
//! ```
//! use burn::nn::conv::{Conv2d, Conv2dConfig};
//! use burn::nn::{Linear, LinearConfig, Relu};
//! use burn::prelude::*;
//! use burn_compress_graph::layer::layers;
//!
//! #[derive(Module, Debug)]
//! struct Net {
//!     conv: Conv2d,
//!     relu: Relu,
//!     fc: Linear,
//! }
//!
//! let device = Device::flex();
//! let net = Net {
//!     conv: Conv2dConfig::new([1, 4], [3, 3]).init(&device),
//!     relu: Relu::new(),
//!     fc: LinearConfig::new(4, 2).init(&device),
//! };
//! let found: Vec<_> = layers(&net).into_iter().map(|l| (l.path, l.kind)).collect();
//! let expected = [("conv", "Conv2d"), ("relu", ""), ("fc", "Linear")];
//! assert_eq!(found, expected.map(|(path, kind)| (path.to_string(), kind.to_string())));
//! ```

use std::cell::Cell;

use burn::module::{Flag, Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Int, Tensor};

use crate::target::Target;

mod kind;

pub use kind::{
    ChannelDims, KindError, LayerKind, LayerRole, PortChannels, channel_dims, port_channel_dim,
};

/// A layer of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// The field names from the model down to the layer, `blocks.0.conv1`; empty when the model
    /// itself owns parameters.
    pub path: String,
    /// The short type name, `Conv2d`; empty where the module shows none (see the [module](self)).
    pub kind: String,
    /// Whether the layer stands in a `Wrapper`, so that its inputs and outputs can be targets.
    pub wrapped: bool,
    /// Its own float parameters in the order of its fields. Running statistics are not parameters.
    pub params: Vec<ParamInfo>,
}

/// A float parameter of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamInfo {
    /// The field name, `weight`; with the position behind it in a list of parameters, `scales.0`.
    pub name: String,
    /// The shape in Burn's layout.
    pub shape: Vec<usize>,
    /// Burn's identity of the parameter.
    pub id: ParamId,
}

impl LayerInfo {
    /// The parameter called `name`.
    pub fn param(&self, name: &str) -> Option<&ParamInfo> {
        self.params.iter().find(|param| param.name == name)
    }

    /// Whether `target` exists in this layer as it stands: a parameter it owns, or any input or
    /// output when it is wrapped.
    pub fn has(&self, target: &Target) -> bool {
        match target {
            Target::Param(name) => self.param(name).is_some(),
            Target::Input(_) | Target::Output(_) => self.wrapped,
        }
    }

    /// Number of dimensions of its inputs and outputs, where the type of the layer fixes it.
    pub fn port_rank(&self) -> Option<usize> {
        LayerKind::of(&self.kind).rank()
    }

    /// Whether a masked `gamma` and `beta` take a channel out of statistics that run over channels,
    /// as in a wrapped layer norm. The masks then do more than to make zeros.
    pub fn has_masked_statistics(&self) -> bool {
        let apart = ["BatchNorm", "InstanceNorm"].contains(&self.kind.as_str());
        self.wrapped && !apart && LayerKind::of(&self.kind).role() == LayerRole::Norm
    }

    /// The last part of the path: the name of the field, or its position in a list.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }
}

/// The layers of `model`, in the order of its fields.
///
/// Lazy parameters are initialized: only then is their shape known for certain, since Burn turns
/// the weight of a `Linear` in `LinearLayout::Col` over when it is initialized.
pub fn layers<M: Module>(model: &M) -> Vec<LayerInfo> {
    let mut collector = LayerCollector::new();
    model.visit(&mut collector);
    collector.finish()
}

thread_local! {
    static ANNOUNCED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Announces to a collector on this thread that the visited module is in a wrapper around `L`.
///
/// A wrapper's `visit` calls this before it visits its inner layer, without entering a module of
/// its own. The collector reads it at its next event, which still belongs to the wrapped field.
pub fn announce_wrapper<L>() {
    ANNOUNCED.set(Some(short_type_name::<L>()));
}

/// The type's name without its path and its parameters: `Conv2d`.
fn short_type_name<L>() -> &'static str {
    let name = std::any::type_name::<L>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

/// The visitor behind [`layers`]: records the tree of modules, from which [`finish`](Self::finish)
/// takes the layers.
pub(crate) struct LayerCollector {
    /// In visiting order, parents before children; the first is the model.
    nodes: Vec<Node>,
    /// The modules that are entered, as indices of `nodes`.
    stack: Vec<usize>,
    /// Depth of the visit inside the parameters of a reparameterization.
    muted: usize,
}

struct Node {
    path: String,
    parent: usize,
    /// The type of the struct or enum, once one of its fields was entered.
    kind: Option<String>,
    /// Whether the field is one of a struct or enum, not of a list.
    field: bool,
    wrapped: bool,
    /// Whether anything was found in it: a module, a parameter, a flag.
    empty: bool,
    params: Vec<ParamInfo>,
    /// Whether a module with a known type is among its descendants.
    composite: bool,
}

impl LayerCollector {
    pub(crate) fn new() -> Self {
        // Other visits announce as well, without a collector to read it.
        ANNOUNCED.set(None);
        Self {
            nodes: vec![Node::new(String::new(), 0, false)],
            stack: vec![0],
            muted: 0,
        }
    }

    /// Marks the module at `path` as wrapped, with the inner layer's type.
    pub(crate) fn wrapped(&mut self, path: &str, kind: &str) {
        if let Some(node) = self.nodes.iter_mut().rfind(|node| node.path == path) {
            node.wrapped = true;
            node.kind = Some(kind.to_string());
        }
    }

    /// The layers, in visiting order.
    pub(crate) fn finish(mut self) -> Vec<LayerInfo> {
        self.hear();
        for index in (1..self.nodes.len()).rev() {
            if self.nodes[index].kind.is_some() || self.nodes[index].composite {
                let parent = self.nodes[index].parent;
                self.nodes[parent].composite = true;
            }
        }
        let is_layer: Vec<bool> = (0..self.nodes.len()).map(|i| self.is_layer(i)).collect();
        self.nodes
            .into_iter()
            .zip(is_layer)
            .filter(|(_, is_layer)| *is_layer)
            .map(|(node, _)| LayerInfo {
                path: node.path,
                kind: node.kind.unwrap_or_default(),
                wrapped: node.wrapped,
                params: node.params,
            })
            .collect()
    }

    fn is_layer(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        if node.wrapped || !node.params.is_empty() {
            return true;
        }
        if index == 0 || node.composite {
            return false;
        }
        // A module without parameters. What is empty in a plain layer is an absent bias or a
        // setting; only what stands beside other modules is a layer.
        node.kind.is_some() || (node.empty && self.nodes[self.owner(index)].composite)
    }

    /// The nearest struct or enum that holds the module `index`.
    fn owner(&self, mut index: usize) -> usize {
        while !self.nodes[index].field && index != 0 {
            index = self.nodes[index].parent;
        }
        self.nodes[index].parent
    }

    fn top(&self) -> usize {
        self.stack[self.stack.len() - 1]
    }

    /// Takes a wrapper's announcement, which is about the innermost module.
    fn hear(&mut self) {
        if let Some(kind) = ANNOUNCED.take() {
            let path = self.nodes[self.top()].path.clone();
            self.wrapped(&path, kind);
        }
    }

    fn occupy(&mut self) {
        self.hear();
        let top = self.top();
        self.nodes[top].empty = false;
    }
}

impl Node {
    fn new(path: String, parent: usize, field: bool) -> Self {
        Self {
            path,
            parent,
            kind: None,
            field,
            wrapped: false,
            empty: true,
            params: Vec::new(),
            composite: false,
        }
    }
}

impl ModuleVisitor for LayerCollector {
    fn enter_module(&mut self, name: &str, container: &str) {
        if self.muted > 0 || container == "Reparameterization" {
            self.muted += 1;
            return;
        }
        self.occupy();
        let parent = self.top();
        let kind = container
            .strip_prefix("Struct:")
            .or(container.strip_prefix("Enum:"));
        if let (Some(kind), None) = (kind, &self.nodes[parent].kind) {
            self.nodes[parent].kind = Some(kind.to_string());
        }
        let path = match self.nodes[parent].path.as_str() {
            "" => name.to_string(),
            path => format!("{path}.{name}"),
        };
        self.stack.push(self.nodes.len());
        self.nodes.push(Node::new(path, parent, kind.is_some()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        if self.muted > 0 {
            self.muted -= 1;
            return;
        }
        self.hear();
        self.stack.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.muted > 0 {
            return;
        }
        self.occupy();
        let top = self.top();
        let owner = self.owner(top);
        let path = &self.nodes[top].path;
        let name = match self.nodes[owner].path.len() {
            0 => path.clone(),
            prefix => path[prefix + 1..].to_string(),
        };
        let kind = self.nodes[owner].kind.as_deref().unwrap_or_default();
        let is_statistic = matches!(name.as_str(), "running_mean" | "running_var");
        if is_statistic && kind.starts_with("BatchNorm") {
            return;
        }
        self.nodes[owner].params.push(ParamInfo {
            name,
            shape: param.dims().to_vec(),
            id: param.id,
        });
    }

    fn visit_int<const D: usize>(&mut self, _param: &Param<Tensor<D, Int>>) {
        if self.muted == 0 {
            self.occupy();
        }
    }

    fn visit_bool<const D: usize>(&mut self, _param: &Param<Tensor<D, Bool>>) {
        if self.muted == 0 {
            self.occupy();
        }
    }

    fn visit_flag(&mut self, _flag: &Param<Flag>) {
        if self.muted == 0 {
            self.occupy();
        }
    }
}

#[cfg(test)]
mod tests;
