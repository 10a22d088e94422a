//! Operations that read or write a part of a dimension.
//!
//! The bounds of a slice are numbers in the forward pass. Equal parts, as `chunk` makes them, are
//! recomputed from the dimension's size, so that they stay right as long as every part loses
//! equally many channels; any other part along a dimension with channels protects them.

use burn_ir::{SelectOpIr, SliceAssignOpIr, SliceOpIr, TensorIr, UnfoldOpIr};

use super::super::analysis::{Analysis, Blocks};
use super::super::labels::Axis;

/// `tensor[ranges]`.
pub(super) fn slice(a: &mut Analysis, op: &SliceOpIr) {
    let value = a.value(&op.tensor);
    let mut axes = Vec::with_capacity(value.axes.len());
    for (dim, axis) in value.axes.iter().enumerate() {
        let size = value.shape[dim];
        let Some(axis) = axis else {
            axes.push(None);
            continue;
        };
        let (range, step) = match op.ranges.get(dim) {
            Some(slice) => slice.to_range_and_step(size),
            None => (0..size, 1),
        };
        axes.push(part(a, axis, range, step));
    }
    a.set(&op.out, axes, value.data);
}

fn part(a: &mut Analysis, axis: &Axis, range: std::ops::Range<usize>, step: isize) -> Option<Axis> {
    let size = axis.labels.len();
    if range == (0..size) && step == 1 {
        return Some(axis.clone());
    }
    let length = range.len();
    let equal = length > 0 && step == 1;
    if equal && size.is_multiple_of(length) && range.start.is_multiple_of(length) {
        let layer = a.op_name();
        a.blocks.push(Blocks {
            layer,
            blocks: size / length,
            labels: axis.labels.clone(),
        });
        return axis.take(range);
    }
    let why = format!("is cut at {range:?} of {size} by a slice");
    a.protect(axis, &why);
    match step {
        1.. => axis.take(range.step_by(step.unsigned_abs())),
        _ => axis.take(range.rev().step_by(step.unsigned_abs())),
    }
}

/// `tensor[ranges] = value`.
pub(super) fn slice_assign(a: &mut Analysis, op: &SliceAssignOpIr) {
    let (tensor, value) = (a.value(&op.tensor), a.value(&op.value));
    let mut axes = Vec::with_capacity(tensor.axes.len());
    for (dim, &size) in tensor.shape.iter().enumerate() {
        let whole = op.ranges.get(dim).is_none_or(|slice| {
            let (range, step) = slice.to_range_and_step(size);
            range == (0..size) && step == 1
        });
        let (x, y) = (tensor.axes[dim].as_ref(), value.axes[dim].as_ref());
        if whole {
            a.join(
                x,
                y,
                "is combined with a size that cannot change in a slice assignment",
            );
            axes.push(x.or(y).map(|axis| {
                Axis {
                    value: (0..size)
                        .map(|i| {
                            let (x, y) = (x.and_then(|x| x.value[i]), y.and_then(|y| y.value[i]));
                            if x == y { x } else { None }
                        })
                        .collect(),
                    ..axis.clone()
                }
            }));
        } else {
            for axis in [x, y].into_iter().flatten() {
                a.protect(axis, "is written in part by a slice assignment");
            }
            axes.push(None);
        }
    }
    a.set(&op.out, axes, tensor.data || value.data);
}

/// `tensor[.., indices, ..]`.
pub(super) fn select(a: &mut Analysis, op: &SelectOpIr) {
    let indices = a.value(&op.indices);
    let mut value = a.value(&op.tensor);
    let why = "is picked by index in `select`";
    for axis in indices.axes.iter().flatten() {
        a.protect(axis, why);
    }
    if let Some(axis) = value.axes[op.dim].take() {
        a.protect(&axis, why);
    }
    a.set(&op.out, value.axes, value.data || indices.data);
}

/// Windows along a dimension, the window's elements in a new last dimension.
pub(super) fn unfold(a: &mut Analysis, op: &UnfoldOpIr) {
    let mut value = a.value(&op.input);
    if let Some(axis) = value.axes[op.dim].take() {
        a.protect(&axis, "is cut into windows by `unfold`");
    }
    value.axes.push(None);
    set_checked(a, &op.out, value.axes, value.data);
}

fn set_checked(a: &mut Analysis, out: &TensorIr, axes: Vec<Option<Axis>>, data: bool) {
    if axes.len() == out.shape.to_vec().len() {
        a.set(out, axes, data);
    } else {
        for axis in axes.iter().flatten() {
            a.protect(axis, "cannot be followed through `unfold`");
        }
        a.set_plain(out, data);
    }
}
