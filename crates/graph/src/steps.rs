//! The steps that rules are made of: protecting, joining and contracting channels.

use std::collections::BTreeSet;

use burn_ir::TensorIr;

use super::GraphError;
use super::analysis::Analysis;
use super::capture::Captured;
use super::labels::{Axis, Label, Origin};
use super::operation::name;
use super::plain_norms::PlainNorm;
use super::value::Value;

impl Analysis<'_> {
    /// Forbids the removal of every channel along an axis.
    pub fn protect(&mut self, axis: &Axis, why: &str) {
        let reason = self.reason(why);
        for &atom in axis.labels.iter().flatten() {
            self.labels.protect(atom, reason);
        }
    }

    /// Whether a channel along an axis may go, as far as is known.
    pub fn is_free(&self, axis: &Axis) -> bool {
        let mut atoms = axis.labels.iter().flatten();
        atoms.any(|&atom| self.labels.protected(atom).is_none())
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
            let value = self.split_value(tensor);
            data |= value.data;
            for axis in value.labelled() {
                self.protect(axis, &why);
            }
        }
        for out in outs {
            self.set_plain(out, data);
        }
    }

    /// Parameters that make the channels of tensors, for messages.
    pub fn producers_of(&self, values: &[Value]) -> String {
        let axes = || values.iter().flat_map(Value::labelled);
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
        let single = [a, b]
            .into_iter()
            .flatten()
            .any(|axis| axis.labels.len() == 1);
        let fixed = match input {
            true => format!("`{layer}` reads it from the model's input"),
            false if single => format!("is the only channel that `{layer}` reads"),
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

    /// The position of a parameter's dimension, by the path of the parameter.
    pub fn origins_at(captured: &Captured, at: &BTreeSet<(String, usize)>) -> Vec<Origin> {
        let params = captured.params.iter().enumerate();
        let origins = params.flat_map(|(index, param)| {
            let dims = 0..param.shape.len();
            dims.filter(|&dim| at.contains(&(param.path.clone(), dim)))
                .map(move |dim| (index, dim))
        });
        origins.collect()
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
