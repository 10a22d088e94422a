//! Sums, means and extremes along dimensions, and sorting.

use burn_ir::{DimOpIr, NumericOperationIr as Numeric, OperationIr, ReduceDimOpIr, TensorIr};

use crate::graph::{Attribute, Element, Node};

use super::arithmetic::type_code;
use super::sizes::Part;
use super::{Lower, Lowering, Unsupported};

const KEEP: (&str, i64) = ("keepdims", 1);

/// Over dimensions that stay, with size 1.
pub(super) fn dims(
    l: &mut Lower,
    operator: &str,
    input: &TensorIr,
    axes: &[usize],
    out: &TensorIr,
) -> Lowering {
    let x = l.input(input)?;
    let axes = l.ints(axes.iter().map(|&axis| axis as i64));
    l.push(operator, [x, axes], out)
        .set(KEEP.0, Attribute::Int(KEEP.1));
    Ok(())
}

/// Over all elements, to a tensor of one.
pub(super) fn all(l: &mut Lower, operator: &str, input: &TensorIr, out: &TensorIr) -> Lowering {
    let x = l.input(input)?;
    let reduced = l.step(operator, [x], [("keepdims", Attribute::Int(0))]);
    let shape = l.ints(out.shape.to_vec().iter().map(|&size| size as i64));
    l.push("Reshape", [reduced, shape], out);
    Ok(())
}

/// A mean; over both sides of an image it is one operator, which runtimes execute in integers.
pub(super) fn mean(l: &mut Lower, op: &ReduceDimOpIr) -> Lowering {
    let rank = op.input.shape.to_vec().len();
    if let Some(image) = l.half_pooled.remove(&op.input.id) {
        let x = l.input(&image)?;
        l.push("GlobalAveragePool", [x], &op.out);
        return Ok(());
    }
    let other_side = |other: &ReduceDimOpIr| {
        rank == 4
            && [op.axis, other.axis]
                .iter()
                .all(|axis| [2, 3].contains(axis))
            && op.axis != other.axis
    };
    let is_half = match l.only_reader(&op.out) {
        Some(OperationIr::NumericFloat(_, Numeric::MeanDim(next))) => other_side(next),
        _ => false,
    };
    if is_half {
        l.half_pooled.insert(op.out.id, op.input.clone());
        return Ok(());
    }
    dims(l, "ReduceMean", &op.input, &[op.axis], &op.out)
}

impl Lower<'_> {
    /// The operation that reads a tensor, if it is the only one and the tensor is no output.
    fn only_reader(&self, tensor: &TensorIr) -> Option<&OperationIr> {
        if self.trace.outputs.contains(&tensor.id) {
            return None;
        }
        match self.readers.get(&tensor.id)?.as_slice() {
            [reader] => self.trace.operations.get(*reader),
            _ => None,
        }
    }
}

/// The largest magnitude.
pub(super) fn largest(
    l: &mut Lower,
    input: &TensorIr,
    axis: Option<usize>,
    out: &TensorIr,
) -> Lowering {
    let x = l.input(input)?;
    let magnitudes = l.step("Abs", [x], []);
    match axis {
        Some(axis) => {
            let axes = l.ints([axis as i64]);
            l.push("ReduceMax", [magnitudes, axes], out)
                .set(KEEP.0, Attribute::Int(KEEP.1));
        }
        None => {
            let reduced = l.step("ReduceMax", [magnitudes], [("keepdims", Attribute::Int(0))]);
            let shape = l.ints([1]);
            l.push("Reshape", [reduced, shape], out);
        }
    }
    Ok(())
}

/// Whether all or any are true, or not zero: the smallest or largest of zeros and ones.
pub(super) fn bools(
    l: &mut Lower,
    operator: &str,
    input: &TensorIr,
    axis: Option<usize>,
    out: &TensorIr,
) -> Lowering {
    let mut x = l.input(input)?;
    if !input.dtype.is_bool() {
        x = l.step("Cast", [x], [("to", type_code(Element::Bool))]);
    }
    let x = l.step("Cast", [x], [("to", type_code(Element::Int64))]);
    let reduced = match axis {
        Some(axis) => {
            let axes = l.ints([axis as i64]);
            l.step(operator, [x, axes], [("keepdims", Attribute::Int(1))])
        }
        None => {
            let reduced = l.step(operator, [x], [("keepdims", Attribute::Int(0))]);
            let shape = l.ints([1]);
            l.step("Reshape", [reduced, shape], [])
        }
    };
    l.push("Cast", [reduced], out)
        .set("to", type_code(Element::Bool));
    Ok(())
}

/// The position of an extreme, the first one of several.
pub(super) fn position(
    l: &mut Lower,
    operator: &str,
    input: &TensorIr,
    axis: usize,
    out: &TensorIr,
) -> Lowering {
    let x = l.input(input)?;
    l.push(operator, [x], out)
        .set("axis", Attribute::Int(axis as i64))
        .set(KEEP.0, Attribute::Int(KEEP.1));
    Ok(())
}

/// The largest or smallest elements in their order, as many as the output has.
pub(super) fn top(
    l: &mut Lower,
    input: &TensorIr,
    axis: usize,
    largest: bool,
    values: Option<&TensorIr>,
    indices: Option<&TensorIr>,
) -> Lowering {
    let x = l.input(input)?;
    let Some(first) = values.or(indices) else {
        return Err(Unsupported::new("it has no output"));
    };
    let sizes = l.sizes(first)[axis].clone();
    let count = l.vector(vec![match sizes.fixed() {
        Some(size) => Part::Number(size as i64),
        None => Part::Size(sizes),
    }])?;
    let wish = l.stem.clone();
    let outputs = [values, indices].map(|tensor| match tensor {
        Some(tensor) => {
            l.pending.remove(&tensor.id);
            l.output(tensor)
        }
        None => l.unique(&format!("{wish}.unread")),
    });
    let node = Node::new("TopK", [x, count], outputs);
    l.append(node)
        .set("axis", Attribute::Int(axis as i64))
        .set("largest", Attribute::Int(i64::from(largest)))
        .set("sorted", Attribute::Int(1));
    Ok(())
}

pub(super) fn cumulative_sum(l: &mut Lower, op: &DimOpIr) -> Lowering {
    let x = l.input(&op.input)?;
    let axis = l.ints([op.axis as i64]);
    l.push("CumSum", [x, axis], &op.out);
    Ok(())
}
