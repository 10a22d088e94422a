//! Elements by their positions.

use burn::tensor::IndexingUpdateOp;
use burn_ir::{
    GatherNdOpIr, GatherOpIr, ScatterNdOpIr, ScatterOpIr, SelectAssignOpIr, SelectOpIr, TensorIr,
    UnfoldOpIr,
};

use crate::graph::{Attribute, Element, Values};

use super::arithmetic::{fixed, type_code};
use super::{Lower, Lowering, Unsupported, element, ints};

pub(super) fn select(l: &mut Lower, op: &SelectOpIr) -> Lowering {
    let inputs = [l.input(&op.tensor)?, l.input(&op.indices)?];
    let axis = Attribute::Int(op.dim as i64);
    l.push("Gather", inputs, &op.out).set("axis", axis);
    Ok(())
}

pub(super) fn gather(l: &mut Lower, op: &GatherOpIr) -> Lowering {
    let inputs = [l.input(&op.tensor)?, l.input(&op.indices)?];
    let axis = Attribute::Int(op.dim as i64);
    l.push("GatherElements", inputs, &op.out).set("axis", axis);
    Ok(())
}

pub(super) fn gather_nd(l: &mut Lower, op: &GatherNdOpIr) -> Lowering {
    let inputs = [l.input(&op.data)?, l.input(&op.indices)?];
    l.push("GatherND", inputs, &op.out);
    Ok(())
}

pub(super) fn scatter(l: &mut Lower, op: &ScatterOpIr) -> Lowering {
    let axis = ("axis", Attribute::Int(op.dim as i64));
    let tensors = [&op.tensor, &op.indices, &op.value];
    write(
        l,
        "ScatterElements",
        tensors,
        Some(axis),
        &op.update,
        &op.out,
    )
}

pub(super) fn scatter_nd(l: &mut Lower, op: &ScatterNdOpIr) -> Lowering {
    let tensors = [&op.data, &op.indices, &op.values];
    write(l, "ScatterND", tensors, None, &op.reduction, &op.out)
}

/// Writes values at positions; booleans as integers, since no operator combines booleans.
fn write(
    l: &mut Lower,
    operator: &str,
    [tensor, indices, value]: [&TensorIr; 3],
    axis: Option<(&'static str, Attribute)>,
    update: &IndexingUpdateOp,
    out: &TensorIr,
) -> Lowering {
    let names = [l.input(tensor)?, l.input(indices)?, l.input(value)?];
    let attributes = [axis, reduction(tensor, update)?].into_iter().flatten();
    let name = combined(l, operator, names, attributes.collect(), tensor)?;
    l.alias(name, out);
    Ok(())
}

fn combined(
    l: &mut Lower,
    operator: &str,
    [tensor, indices, value]: [String; 3],
    attributes: Vec<(&'static str, Attribute)>,
    of: &TensorIr,
) -> Result<String, Unsupported> {
    if element(of.dtype)? != Element::Bool {
        return Ok(l.step(operator, [tensor, indices, value], attributes));
    }
    let to = |code| [("to", type_code(code))];
    let tensor = l.step("Cast", [tensor], to(Element::Int64));
    let value = l.step("Cast", [value], to(Element::Int64));
    let written = l.step(operator, [tensor, indices, value], attributes);
    Ok(l.step("Cast", [written], to(Element::Bool)))
}

/// How a value is combined with what stands at its position.
fn reduction(
    tensor: &TensorIr,
    update: &IndexingUpdateOp,
) -> Result<Option<(&'static str, Attribute)>, Unsupported> {
    let name = match update {
        IndexingUpdateOp::Assign => return Ok(None),
        // The sum of booleans is true where any is.
        IndexingUpdateOp::Add if element(tensor.dtype)? == Element::Bool => "max",
        IndexingUpdateOp::Add => "add",
        IndexingUpdateOp::Mul => "mul",
        IndexingUpdateOp::Min => "min",
        IndexingUpdateOp::Max => "max",
    };
    Ok(Some(("reduction", Attribute::Text(name.to_string()))))
}

/// Rows along one dimension, written with that dimension in front.
pub(super) fn select_assign(l: &mut Lower, op: &SelectAssignOpIr) -> Lowering {
    let rank = op.tensor.shape.to_vec().len();
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(0, op.dim);
    let turned = |l: &mut Lower, name: String| match op.dim {
        0 => name,
        _ => l.step("Transpose", [name], [("perm", ints(order.iter().copied()))]),
    };
    let (tensor, value) = (l.input(&op.tensor)?, l.input(&op.value)?);
    let indices = l.input(&op.indices)?;
    let last = l.ints([-1]);
    let indices = l.step("Unsqueeze", [indices, last], []);
    let (tensor, value) = (turned(l, tensor), turned(l, value));
    let attributes = reduction(&op.tensor, &op.update)?.into_iter().collect();
    let written = combined(
        l,
        "ScatterND",
        [tensor, indices, value],
        attributes,
        &op.tensor,
    )?;
    let written = turned(l, written);
    l.alias(written, &op.out);
    Ok(())
}

/// Windows along a dimension: `[.., size, ..] -> [.., windows, .., window]`.
pub(super) fn unfold(l: &mut Lower, op: &UnfoldOpIr) -> Lowering {
    let size = fixed(
        &l.sizes(&op.input)[op.dim],
        "the dimension that it cuts into windows",
    )?;
    if size < op.size || op.step == 0 {
        return Err(Unsupported::new(
            "its windows are larger than the dimension",
        ));
    }
    let x = l.input(&op.input)?;
    let windows = (size - op.size) / op.step + 1;
    let at = (0..windows).flat_map(|window| (0..op.size).map(move |i| window * op.step + i));
    let values = Values::Int64(at.map(|at| at as i64).collect());
    let at = l.constant("windows", vec![windows, op.size], values);
    let axis = Attribute::Int(op.dim as i64);
    let gathered = l.step("Gather", [x, at], [("axis", axis)]);
    // The elements of a window stand behind it; they come last.
    let rank = op.input.shape.to_vec().len() + 1;
    let mut order: Vec<usize> = (0..rank).filter(|&dim| dim != op.dim + 1).collect();
    order.push(op.dim + 1);
    l.push("Transpose", [gathered], &op.out)
        .set("perm", ints(order));
    Ok(())
}
