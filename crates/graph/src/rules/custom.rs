//! Operations without a rule of this crate: the user's rule, or an error.

use std::collections::BTreeSet;

use burn_ir::{OperationIr, TensorIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::custom::{Dim, OperationRule};
use super::super::facts::{Macs, Size};
use super::super::value::Value;
use super::elementwise::{self, Operand};

/// Applies the rule of the user. Without one, an operation that reads labels is an error.
pub(super) fn apply(a: &mut Analysis, op: &OperationIr) -> Result<(), GraphError> {
    let inputs: Vec<&TensorIr> = op.inputs().collect();
    let outputs: Vec<&TensorIr> = op.outputs().collect();
    let values: Vec<Value> = inputs.iter().map(|tensor| a.value(tensor)).collect();
    let data = values.iter().any(|value| value.data);
    let Some(rule) = a.captured.rules.get(op) else {
        if values.iter().any(Value::is_labelled) {
            return Err(GraphError::UnknownOperation {
                operation: a.op_name(),
                parameters: a.producers_of(&values),
            });
        }
        outputs.iter().for_each(|out| a.set_plain(out, data));
        return Ok(());
    };
    let name = a.op_name();
    a.ruled.insert(name);
    let operation = Ruled {
        rule: &rule,
        inputs,
        outputs,
        values,
    };
    operation.check(a)?;
    match &rule.elementwise {
        Some(constant) => {
            let (inputs, out) = (&operation.inputs, operation.outputs[0]);
            elementwise::elementwise(a, inputs, out, &**constant)?;
        }
        None => operation.follow(a, data),
    }
    operation.count(a, data);
    Ok(())
}

/// An operation with the user's rule.
struct Ruled<'a> {
    rule: &'a OperationRule,
    inputs: Vec<&'a TensorIr>,
    outputs: Vec<&'a TensorIr>,
    values: Vec<Value>,
}

impl Ruled<'_> {
    /// Checks that the operation has every tensor and dimension of the rule.
    fn check(&self, a: &Analysis) -> Result<(), GraphError> {
        let fail = |found: String| {
            Err(GraphError::Rule {
                operation: a.op_name(),
                found,
            })
        };
        if self.rule.elementwise.is_some() {
            let (count, lists) = (self.outputs.len(), self.lists_dims());
            return match (count, lists) {
                (1, false) => self.check_macs(&fail),
                (1, true) => fail("an elementwise rule carries and contracts nothing".into()),
                _ => fail(format!("it is elementwise, but there are {count} outputs")),
            };
        }
        let size = |kind: &str, tensors: &[&TensorIr], (tensor, dim): (usize, usize)| {
            let shape = tensors.get(tensor).map(|tensor| tensor.shape.to_vec());
            match shape.as_ref().and_then(|shape| shape.get(dim)) {
                Some(&size) => Ok(size),
                None => fail(format!(
                    "it lists dimension {dim} of {kind} {tensor}, which has the shape {shape:?}"
                ))
                .map(|()| 0),
            }
        };
        let mut known = BTreeSet::new();
        for carried in &self.rule.carried {
            let out = size("output", &self.outputs, carried.to)?;
            if !known.insert(carried.to) {
                return fail(format!("it carries to {:?} twice", carried.to));
            }
            for &from in &carried.from {
                let found = size("input", &self.inputs, from)?;
                if found != out && found != 1 {
                    return fail(format!(
                        "it carries {found} indices of {from:?} to {out} of {:?}",
                        carried.to
                    ));
                }
            }
        }
        for &[x, y] in &self.rule.contracted {
            let (m, n) = (
                size("input", &self.inputs, x)?,
                size("input", &self.inputs, y)?,
            );
            if m != n {
                return fail(format!(
                    "it contracts {m} indices of {x:?} with {n} of {y:?}"
                ));
            }
        }
        self.check_macs(&fail)
    }

    fn lists_dims(&self) -> bool {
        !self.rule.carried.is_empty() || !self.rule.contracted.is_empty()
    }

    fn check_macs(
        &self,
        fail: &impl Fn(String) -> Result<(), GraphError>,
    ) -> Result<(), GraphError> {
        for factor in &self.rule.macs {
            let (tensors, tensor, dim) = match *factor {
                Dim::Input(tensor, dim) => (&self.inputs, tensor, dim),
                Dim::Output(tensor, dim) => (&self.outputs, tensor, dim),
            };
            let rank = tensors.get(tensor).map_or(0, |t| t.shape.to_vec().len());
            if dim >= rank {
                return fail(format!("it counts {factor:?}, which is not there"));
            }
        }
        Ok(())
    }

    /// Describes the outputs and joins what is contracted.
    fn follow(&self, a: &mut Analysis, data: bool) {
        let layer = self.layer(a);
        for &[x, y] in &self.rule.contracted {
            let [left, right] = [x, y].map(|(tensor, dim)| self.values[tensor].axes[dim].as_ref());
            let is_input = [x, y].iter().any(|at| a.is_input(self.inputs[at.0]));
            a.contract(left, right, &layer, is_input);
        }
        let mut axes: Vec<Vec<_>> = (self.outputs.iter())
            .map(|out| vec![None; out.shape.to_vec().len()])
            .collect();
        for carried in &self.rule.carried {
            let (out, dim) = carried.to;
            let size = self.outputs[out].shape.to_vec()[dim];
            let operands = carried.from.iter();
            let operands = operands.map(|&(from, dim)| Operand::new(&self.values[from], dim, size));
            let operands: Vec<Operand> = operands.collect();
            axes[out][dim] = elementwise::combine(a, &operands, size, &*carried.constant);
        }
        self.keep_unlisted(a);
        for (out, axes) in self.outputs.iter().zip(axes) {
            a.set(out, axes, data);
        }
    }

    /// Protects the channels that the rule leaves out; along a parameter they are no channels.
    fn keep_unlisted(&self, a: &mut Analysis) {
        let carried = self.rule.carried.iter().flat_map(|carried| &carried.from);
        let contracted = self.rule.contracted.iter().flatten();
        let listed: BTreeSet<_> = carried.chain(contracted).copied().collect();
        let why = format!("is read by `{}`, whose rule leaves it out", a.op_name());
        for (tensor, value) in self.values.iter().enumerate() {
            for (dim, axis) in value.axes.iter().enumerate() {
                let Some(axis) = axis.as_ref().filter(|_| !listed.contains(&(tensor, dim))) else {
                    continue;
                };
                match a.origin(Some(axis)) {
                    Some(_) => a.hide(axis, &why),
                    None => a.protect(axis, &why),
                }
            }
        }
    }

    fn count(&self, a: &mut Analysis, data: bool) {
        if self.rule.macs.is_empty() || !data {
            return;
        }
        let outputs: Vec<Value> = self.outputs.iter().map(|out| a.value(out)).collect();
        let sizes = self.rule.macs.iter().map(|factor| match *factor {
            Dim::Input(tensor, dim) => Size::of(&self.values[tensor], dim),
            Dim::Output(tensor, dim) => Size::of(&outputs[tensor], dim),
        });
        let (layer, sizes) = (self.layer(a), sizes.collect());
        a.macs.push(Macs {
            layer,
            sizes,
            divisor: 1,
        });
    }

    /// The layer whose parameters the operation reads, its own name without any.
    fn layer(&self, a: &Analysis) -> String {
        let has_origin = |value: &&Value| {
            let mut axes = value.axes.iter().flatten();
            axes.any(|axis| !axis.origins.is_empty())
        };
        let value = self.values.iter().find(has_origin);
        value.map_or_else(|| a.op_name(), |value| a.layer(value))
    }
}
