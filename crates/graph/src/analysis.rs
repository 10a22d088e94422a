//! State of the channel analysis: the description of every tensor, and the steps of rules.

use std::collections::{BTreeMap, BTreeSet};

use burn_capture::TensorId;
use burn_ir::TensorIr;

use super::capture::{Captured, place};
use super::labels::{Axis, Label, Labels, Origin, Value};
use super::operation::name;
use super::plain_norms::{self, PlainNorm};
use super::{GraphError, rules};
use crate::target::{Target, TargetId};

/// Use of a parameter's dimension in the forward pass.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Role {
    /// Source of channels: masking the entry makes the channel zero.
    pub producer: bool,
    /// Reader of channels, as the input of a contraction.
    pub consumer: bool,
}

/// A convolution whose channels are split into groups.
#[derive(Debug)]
pub(super) struct Grouped {
    pub weight: usize,
    pub groups: usize,
    pub input: Vec<Label>,
    pub output: Vec<Label>,
}

/// Labels along a dimension that is split into equal contiguous blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    pub layer: String,
    pub blocks: usize,
    pub labels: Vec<Label>,
}

/// A number that a layer holds and that follows the channels along a dimension.
#[derive(Debug)]
pub(super) struct SizeRule {
    pub layer: String,
    pub field: &'static str,
    pub labels: Vec<Label>,
    pub count: Count,
}

/// Meaning of a number that a layer holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// The channels.
    Channels,
    /// Of so many parts of equal size those that keep a channel.
    Parts(usize),
}

/// Multiply-accumulates of one operation: the product of the sizes, divided by `divisor`.
#[derive(Debug)]
pub(super) struct Macs {
    pub layer: String,
    pub sizes: Vec<Size>,
    pub divisor: u64,
}

/// A factor of a count, with the labels of the dimension it is the size of.
#[derive(Debug)]
pub(super) struct Size {
    pub size: u64,
    pub labels: Option<Vec<Label>>,
}

impl Size {
    pub fn fixed(size: usize) -> Self {
        Self {
            size: size as u64,
            labels: None,
        }
    }

    /// The dimension `dim` of a tensor.
    pub fn of(value: &Value, dim: usize) -> Self {
        Self {
            size: value.shape[dim] as u64,
            labels: value.axes[dim].as_ref().map(|axis| axis.labels.clone()),
        }
    }
}

/// Abstract interpretation of a captured graph.
pub(super) struct Analysis<'a> {
    pub captured: &'a Captured,
    pub labels: Labels,
    pub tensors: BTreeMap<TensorId, Value>,
    pub params: Vec<Value>,
    pub roles: Vec<Vec<Role>>,
    pub statistics: BTreeSet<usize>,
    pub grouped: Vec<Grouped>,
    /// Weights of depthwise convolutions, with the number of groups.
    pub depthwise: BTreeMap<usize, usize>,
    pub blocks: Vec<Blocks>,
    pub sizes: Vec<SizeRule>,
    /// The wrapped multi-head attentions that compute with the sizes of their weights.
    pub attentions: BTreeSet<String>,
    /// Labels whose channels enter statistics that run over channels: what is zero there counts.
    pub counted: BTreeSet<usize>,
    pub macs: Vec<Macs>,
    /// Tensors padded with minus infinity, with the tensors before the padding.
    pub padded: BTreeMap<TensorId, TensorIr>,
    /// Names of operations with a rule of the user that was applied.
    pub ruled: BTreeSet<String>,
    /// The plain norms by the operations that they are made of.
    plain_norms: BTreeMap<usize, PlainNorm>,
    /// Remedies of reasons, where one is known to help.
    pub remedies: BTreeMap<String, String>,
    inputs: BTreeSet<TensorId>,
    op: usize,
}

impl<'a> Analysis<'a> {
    /// Labels the parameters and follows the labels through every operation.
    pub fn run(captured: &'a Captured) -> Result<Self, GraphError> {
        let mut analysis = Self {
            captured,
            labels: Labels::default(),
            tensors: BTreeMap::new(),
            params: Vec::new(),
            roles: Vec::new(),
            statistics: BTreeSet::new(),
            grouped: Vec::new(),
            depthwise: BTreeMap::new(),
            blocks: Vec::new(),
            sizes: Vec::new(),
            attentions: BTreeSet::new(),
            counted: BTreeSet::new(),
            macs: Vec::new(),
            padded: BTreeMap::new(),
            ruled: BTreeSet::new(),
            plain_norms: plain_norms::find(captured),
            remedies: BTreeMap::new(),
            inputs: captured.inputs.iter().copied().collect(),
            op: 0,
        };
        analysis.label_params();
        analysis.protect_recurrent();
        for (index, op) in captured.graph.operations.iter().enumerate() {
            analysis.op = index;
            rules::apply(&mut analysis, op)?;
        }
        let unused = |name: &&str| !analysis.ruled.contains(*name);
        if let Some(name) = captured.rules.names().find(unused) {
            return Err(GraphError::UnusedRule {
                operation: name.to_string(),
            });
        }
        analysis.op = captured.graph.operations.len();
        analysis.protect_checked();
        analysis.protect_outputs();
        analysis.hide_unused();
        Ok(analysis)
    }

    fn label_params(&mut self) {
        for (index, param) in self.captured.params.iter().enumerate() {
            let mut value = Value::plain(param.shape.clone(), false);
            for (dim, &size) in param.shape.iter().enumerate() {
                // The only entry of a dimension cannot be removed.
                if size > 1 {
                    let labels = (0..size).map(|_| Some(self.labels.fresh())).collect();
                    value.axes[dim] = Some(Axis {
                        labels,
                        value: vec![Some(0.0); size],
                        origins: vec![(index, dim)],
                        nonzero_since: None,
                    });
                }
            }
            self.roles.push(vec![Role::default(); param.shape.len()]);
            self.tensors.insert(param.tensor, value.clone());
            self.params.push(value);
        }
    }

    /// The hidden units of recurrent layers that are not wrapped.
    fn protect_recurrent(&mut self) {
        let ports = self.captured.ports.iter();
        let wrapped: BTreeSet<&str> = ports.map(|(port, _)| port.layer.as_str()).collect();
        for (param, value) in self.captured.params.iter().zip(self.params.clone()) {
            let Some((layer, kind)) = &param.recurrent else {
                continue;
            };
            let (false, Some(Some(units))) = (wrapped.contains(&**layer), value.axes.last()) else {
                continue;
            };
            let reason = format!("`d_hidden` of `{layer}` is a constant of the plain `{kind}`");
            let remedy =
                format!("make the field `{layer}` a `Wrapper<{kind}>`, or exclude the layer");
            self.remedies.insert(reason.clone(), remedy);
            self.protect(units, &reason);
        }
    }

    fn protect_checked(&mut self) {
        for (param, value) in self.captured.params.iter().zip(self.params.clone()) {
            let layer = &param.holder_path;
            let (Some(kind), false) = (param.checked_by, self.attentions.contains(layer)) else {
                continue;
            };
            if let Some(Some(inputs)) = value.axes.first() {
                let reason = format!("is a width that the `{kind}` `{layer}` requires");
                let place = place(param.kinds.get(2));
                let remedy = format!(
                    "make the field `{layer}` a `Wrapper<{kind}>`{place} and call it with an \
                     `AttentionInput`, or exclude the layer"
                );
                self.remedies.insert(reason.clone(), remedy);
                self.protect(inputs, &reason);
            }
        }
    }

    fn protect_outputs(&mut self) {
        for id in &self.captured.outputs {
            if let Some(value) = self.tensors.get(id).cloned() {
                for axis in value.axes.iter().flatten() {
                    self.protect(axis, "reaches the model's output");
                }
            }
        }
    }

    fn hide_unused(&mut self) {
        let read = self.captured.read();
        for (param, value) in self.captured.params.iter().zip(self.params.clone()) {
            if !read.contains(&param.tensor) {
                for axis in value.axes.iter().flatten() {
                    self.hide(axis, "is not used by the forward pass");
                }
            }
        }
    }

    /// Description of a tensor; its shape alone if no rule has described it.
    pub fn value(&self, tensor: &TensorIr) -> Value {
        match self.tensors.get(&tensor.id) {
            Some(value) => value.clone(),
            None => {
                let inputs = &self.captured.inputs;
                // Without declared inputs a constant may be one.
                let data = inputs.is_empty() || inputs.contains(&tensor.id);
                Value::plain(tensor.shape.to_vec(), data)
            }
        }
    }

    /// Describes an operation's output.
    ///
    /// Where an input depends on the model's inputs, the parameters behind the axes make its
    /// channels.
    pub fn set(&mut self, out: &TensorIr, mut axes: Vec<Option<Axis>>, data: bool) {
        for axis in axes.iter_mut().flatten() {
            let labelled = axis.labels.iter().zip(&axis.value);
            let zero = labelled
                .filter(|(label, _)| label.is_some())
                .all(|(_, value)| *value == Some(0.0));
            axis.nonzero_since = match zero {
                true => None,
                false => axis.nonzero_since.or(Some(self.op)),
            };
            if data {
                for (param, dim) in std::mem::take(&mut axis.origins) {
                    self.roles[param][dim].producer = true;
                }
            }
        }
        let shape = out.shape.to_vec();
        debug_assert_eq!(shape.len(), axes.len());
        self.tensors.insert(out.id, Value { shape, axes, data });
    }

    /// Describes an output without labels.
    pub fn set_plain(&mut self, out: &TensorIr, data: bool) {
        self.set(out, vec![None; out.shape.to_vec().len()], data);
    }

    /// The wrapped layer that returns a tensor.
    pub fn returned_by(&self, tensor: &TensorIr) -> Option<String> {
        let returns = |(target, id): &&(TargetId, TensorId)| {
            *id == tensor.id && matches!(target.target, Target::Output(_))
        };
        let port = self.captured.ports.iter().find(returns);
        port.map(|(target, _)| target.layer.clone())
    }

    /// Notes that `field` of `layer` counts channels along an axis, or parts of them.
    ///
    /// A layer that is called several times has one number, so that the channels of its calls go
    /// together.
    pub fn follow_size(&mut self, rule: SizeRule) {
        let same = |known: &&SizeRule| known.layer == rule.layer && known.field == rule.field;
        if let Some(known) = self.sizes.iter().find(same) {
            let why = format!("`{}` of `{}` is one number", rule.field, rule.layer);
            let axis = |labels: &Vec<Label>| Axis::new(labels.clone(), vec![None; labels.len()]);
            let (known, new) = (axis(&known.labels), axis(&rule.labels));
            return self.join(known.as_ref(), new.as_ref(), &why);
        }
        self.sizes.push(rule);
    }

    /// The name of the operation under analysis.
    pub fn op_name(&self) -> String {
        name(&self.captured.graph.operations[self.op])
    }

    /// The name of the layer whose parameters a tensor is made of, the operation's if none.
    pub fn layer(&self, value: &Value) -> String {
        let origin = value.axes.iter().flatten().find_map(|a| a.origins.first());
        match origin.map(|&(param, _)| layer_of(&self.captured.params[param].path)) {
            // The model itself is the layer.
            None | Some("") => self.op_name(),
            Some(layer) => layer.to_string(),
        }
    }

    /// Forbids the removal of every channel along an axis.
    pub fn protect(&mut self, axis: &Axis, why: &str) {
        let reason = self.reason(why);
        for &atom in axis.labels.iter().flatten() {
            self.labels.protect(atom, reason);
        }
    }

    /// Forbids the removal of one channel.
    pub fn protect_label(&mut self, label: Label, why: &str) {
        if let Some(atom) = label {
            let reason = self.reason(why);
            self.labels.protect(atom, reason);
        }
    }

    /// The reason `why`, or the plain norm that the operation under analysis is a part of.
    fn reason(&mut self, why: &str) -> usize {
        match self.plain_norms.get(&self.op) {
            None => self.labels.reason(why.to_string()),
            Some(norm) => {
                let PlainNorm { reason, remedy } = norm.clone();
                self.remedies.insert(reason.clone(), remedy);
                self.labels.reason(reason)
            }
        }
    }

    /// Declares that the indices of an axis are no channels, and protects them.
    pub fn hide(&mut self, axis: &Axis, why: &str) {
        self.protect(axis, why);
        for &atom in axis.labels.iter().flatten() {
            self.labels.hide(atom);
        }
    }

    /// Protects the labels of every dimension of the inputs; the outputs carry none.
    pub fn opaque<'t>(
        &mut self,
        inputs: impl IntoIterator<Item = &'t TensorIr>,
        outs: impl IntoIterator<Item = &'t TensorIr>,
    ) {
        let why = format!("is read by `{}`", self.op_name());
        let mut data = false;
        for tensor in inputs {
            let value = self.value(tensor);
            data |= value.data;
            for axis in value.axes.iter().flatten() {
                self.protect(axis, &why);
            }
        }
        for out in outs {
            self.set_plain(out, data);
        }
    }

    /// Parameters that make the channels of tensors, for messages.
    pub fn producers_of(&self, values: &[Value]) -> String {
        let axes = || values.iter().flat_map(|v| v.axes.iter().flatten());
        let wanted: BTreeSet<usize> = axes()
            .flat_map(|axis| axis.labels.iter().flatten())
            .map(|&atom| self.labels.find(atom))
            .collect();
        let names: Vec<String> = self
            .params
            .iter()
            .zip(&self.captured.params)
            .filter(|(value, _)| {
                let mut labels = value.axes.iter().flatten().flat_map(|axis| &axis.labels);
                labels.any(|label| label.is_some_and(|a| wanted.contains(&self.labels.find(a))))
            })
            .map(|(_, param)| format!("`{}`", param.path))
            .collect();
        names.join(", ")
    }

    /// A shape that a rule cannot read.
    pub fn shape_error(&self, tensors: &[&TensorIr]) -> GraphError {
        let shapes: Vec<_> = tensors.iter().map(|t| t.shape.to_vec()).collect();
        GraphError::Shape {
            operation: self.op_name(),
            found: format!("{shapes:?}"),
        }
    }

    /// Joins two axes index by index; an index that is labelled on one side alone is protected.
    pub fn join(&mut self, a: Option<&Axis>, b: Option<&Axis>, why: &str) {
        match (a, b) {
            (Some(a), Some(b)) => {
                for (&x, &y) in a.labels.iter().zip(&b.labels) {
                    match (x, y) {
                        (Some(x), Some(y)) => self.labels.join(x, y),
                        (one, other) => self.protect_label(one.or(other), why),
                    }
                }
            }
            (Some(axis), None) | (None, Some(axis)) => self.protect(axis, why),
            (None, None) => {}
        }
    }

    /// A contraction: `sum_k a[.., k, ..] * b[.., k, ..]`.
    ///
    /// Both sides lose the same indices. That changes nothing if one side is exactly zero there,
    /// where a parameter that is only read does not count: nobody masks it.
    pub fn contract(&mut self, a: Option<&Axis>, b: Option<&Axis>, layer: &str, input: bool) {
        let fixed = match input {
            true => format!("`{layer}` reads it from the model's input"),
            false => format!("is combined with a size that cannot change in `{layer}`"),
        };
        self.join(a, b, &fixed);
        let is_param = |axis: Option<&Axis>| axis.is_some_and(|axis| !axis.origins.is_empty());
        let both = is_param(a) && is_param(b);
        for axis in [a, b].into_iter().flatten() {
            for &(param, dim) in &axis.origins {
                match both {
                    true => self.roles[param][dim].producer = true,
                    false => self.roles[param][dim].consumer = true,
                }
            }
        }
        let (Some(a), Some(b)) = (a, b) else { return };
        let nonzero_since = [a, b].into_iter().find_map(|axis| axis.nonzero_since);
        let what = match nonzero_since {
            Some(op) => name(&self.captured.graph.operations[op]),
            None => "what is left".to_string(),
        };
        let why = format!("`{what}` of a removed channel is not zero before `{layer}`");
        let masked = |axis: &Axis, i: usize| match axis.origins.is_empty() || both {
            true => axis.value[i],
            false => None,
        };
        for i in 0..a.labels.len() {
            let values = [masked(a, i), masked(b, i)];
            let zero = values.contains(&Some(0.0));
            let broken = values.iter().flatten().any(|value| !value.is_finite());
            if !zero || broken {
                self.protect_label(a.labels[i].or(b.labels[i]), &why);
            }
        }
    }

    /// The parameter dimension that an axis is, entry by entry, if it is one.
    pub fn origin(&self, axis: Option<&Axis>) -> Option<Origin> {
        let axis = axis?;
        let [(param, dim)] = axis.origins[..] else {
            return None;
        };
        let own = self.params[param].axes[dim].as_ref()?;
        (own.labels == axis.labels).then_some((param, dim))
    }

    /// Reason for protecting channels that this operation combines with an unlabelled `tensor`.
    pub fn fixed_by(&self, tensor: &TensorIr) -> String {
        match self.is_input(tensor) {
            true => "is a channel of the model's input".to_string(),
            false => format!(
                "is combined with a size that cannot change in `{}`",
                self.op_name()
            ),
        }
    }

    /// Whether a tensor is an input of the model, possibly in another shape.
    pub fn is_input(&self, tensor: &TensorIr) -> bool {
        self.inputs.contains(&tensor.id)
    }

    /// Notes that `out` is `input` in another shape.
    pub fn same_source(&mut self, input: &TensorIr, out: &TensorIr) {
        if self.is_input(input) {
            self.inputs.insert(out.id);
        }
    }
}

/// Path of the layer of the parameter at `path`.
pub(super) fn layer_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(layer, _)| layer)
}
