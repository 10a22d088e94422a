//! Operations that move elements and compute nothing.

use burn_ir::{CatOpIr, FlipOpIr, RepeatDimOpIr, ShapeOpIr, SwapDimsOpIr, TensorIr};

use crate::graph::Attribute;
use crate::trace::Sizes;

use super::sizes::Part;
use super::{Lower, Lowering, ints};

/// A reshape; dynamic sizes by `0` (that of the input), `-1` (what is left) or, where there are more,
/// computed.
pub(super) fn reshape(l: &mut Lower, input: &TensorIr, out: &TensorIr) -> Lowering {
    let (from, to) = (l.sizes(input), l.sizes(out));
    let x = l.input(input)?;
    if from == to {
        l.alias(x, out);
        return Ok(());
    }
    let mut left = 0;
    let parts = to
        .iter()
        .enumerate()
        .map(|(dim, sizes)| match sizes.fixed() {
            Some(size) => Part::Number(size as i64),
            None if from.get(dim) == Some(sizes) => Part::Number(0),
            None => {
                left += 1;
                match left {
                    1 => Part::Number(-1),
                    _ => Part::Size(sizes.clone()),
                }
            }
        });
    let shape = l.vector(parts.collect())?;
    l.push("Reshape", [x, shape], out);
    Ok(())
}

pub(super) fn permute(l: &mut Lower, input: &TensorIr, axes: &[usize], out: &TensorIr) -> Lowering {
    let x = l.input(input)?;
    l.push("Transpose", [x], out)
        .set("perm", ints(axes.iter().copied()));
    Ok(())
}

pub(super) fn swap_dims(l: &mut Lower, op: &SwapDimsOpIr) -> Lowering {
    let mut axes: Vec<usize> = (0..op.input.shape.to_vec().len()).collect();
    axes.swap(op.dim1, op.dim2);
    permute(l, &op.input, &axes, &op.out)
}

pub(super) fn flip(l: &mut Lower, op: &FlipOpIr) -> Lowering {
    let x = l.input(&op.input)?;
    let starts = l.ints(op.axes.iter().map(|_| -1));
    let ends = l.ints(op.axes.iter().map(|_| i64::MIN));
    let axes = l.ints(op.axes.iter().map(|&axis| axis as i64));
    let steps = l.ints(op.axes.iter().map(|_| -1));
    l.push("Slice", [x, starts, ends, axes, steps], &op.out);
    Ok(())
}

/// Dimensions of size 1 repeated, and new ones in front. A dimension that stays is written as 1, which
/// leaves it alone whatever its size.
pub(super) fn expand(l: &mut Lower, op: &ShapeOpIr) -> Lowering {
    let (from, to) = (l.sizes(&op.input), l.sizes(&op.out));
    let x = l.input(&op.input)?;
    if from == to {
        l.alias(x, &op.out);
        return Ok(());
    }
    let new = to.len() - from.len();
    let stays = |dim: usize, sizes: &Sizes| dim >= new && from[dim - new] == *sizes;
    let parts = to
        .iter()
        .enumerate()
        .map(|(dim, sizes)| match sizes.fixed() {
            _ if stays(dim, sizes) => Part::Number(1),
            Some(size) => Part::Number(size as i64),
            None => Part::Size(sizes.clone()),
        });
    let shape = l.vector(parts.collect())?;
    l.push("Expand", [x, shape], &op.out);
    Ok(())
}

pub(super) fn repeat(l: &mut Lower, op: &RepeatDimOpIr) -> Lowering {
    use burn_ir::{BaseOperationIr as Base, OperationIr as Op};
    let x = l.input(&op.tensor)?;
    let times = l.in_all(|op| match op {
        Op::BaseFloat(Base::RepeatDim(op))
        | Op::BaseInt(Base::RepeatDim(op))
        | Op::BaseBool(Base::RepeatDim(op)) => Some(op.times),
        _ => None,
    });
    let times = Sizes::new(times);
    let rank = op.tensor.shape.to_vec().len();
    let parts = (0..rank).map(|dim| match (dim == op.dim, times.fixed()) {
        (false, _) => Part::Number(1),
        (true, Some(times)) => Part::Number(times as i64),
        (true, None) => Part::Size(times.clone()),
    });
    let repeats = l.vector(parts.collect())?;
    l.push("Tile", [x, repeats], &op.out);
    Ok(())
}

pub(super) fn cat(l: &mut Lower, op: &CatOpIr) -> Lowering {
    let inputs = op.tensors.iter().map(|tensor| l.input(tensor));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let axis = Attribute::Int(op.dim as i64);
    l.push("Concat", inputs, &op.out).set("axis", axis);
    Ok(())
}
