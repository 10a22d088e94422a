//! Operations that read or write a part of a dimension.
//!
//! The bounds of a slice are numbers in the forward pass. Computed from the dimension's size, as
//! `chunk` does, they stay right as long as every part loses the same share of its channels. Whether
//! they follow is for a trial cut to tell.

use burn_ir::{SelectOpIr, SliceAssignOpIr, SliceOpIr, TensorIr, UnfoldOpIr};

use super::super::analysis::Analysis;
use super::super::facts::Blocks;
use super::super::labels::Axis;
use super::super::split::Split;

/// `tensor[ranges]`.
pub(super) fn slice(a: &mut Analysis, op: &SliceOpIr) {
    let value = a.split_value(&op.tensor);
    let part_of = |dim: usize| {
        let size = value.shape[dim];
        match op.ranges.get(dim) {
            Some(slice) => slice.to_range_and_step(size),
            None => (0..size, 1),
        }
    };
    let mut axes = Vec::with_capacity(value.axes.len());
    for (dim, axis) in value.axes.iter().enumerate() {
        let Some(axis) = axis else {
            axes.push(None);
            continue;
        };
        let (range, step) = part_of(dim);
        let split = part(a, Split::plain(dim, axis.clone()), 0, range, step);
        axes.push(split.map(|split| split.axis));
    }
    let mut splits = Vec::new();
    for split in &value.splits {
        let mut left = Some(split.clone());
        for (place, &dim) in split.dims.iter().enumerate() {
            let (range, step) = part_of(dim);
            left = left.and_then(|split| part(a, split, place, range, step));
        }
        splits.extend(left);
    }
    a.set_split(&op.out, axes, splits, value.data);
}

/// A range of the dimension at `place`.
///
/// What becomes smaller in a cut keeps the same share within the range as outside of it.
fn part(
    a: &mut Analysis,
    split: Split,
    place: usize,
    range: std::ops::Range<usize>,
    step: isize,
) -> Option<Split> {
    let size = split.sizes[place];
    if range == (0..size) && step == 1 {
        return Some(split);
    }
    let shrinks = place + 1 == split.dims.len();
    let length = range.len();
    let why = format!("is cut at {range:?} of {size} by a slice");
    if shrinks && length > 0 && step == 1 {
        a.note_slice(&split);
        let lengths = [range.start, length, size - range.end];
        if size.is_multiple_of(length) && range.start.is_multiple_of(length) {
            let layer = a.op_name();
            let labels = split.axis.labels.clone();
            a.blocks
                .push(Blocks::equal(layer, labels.len() / length, labels));
        } else {
            a.keep_share(&split, &lengths, why);
        }
        if let Some(rule) = a.blocks.last_mut() {
            rule.slice = Some(lengths);
        }
    } else if shrinks {
        a.protect(&split.axis, &why);
    }
    let keep: Vec<usize> = match step {
        1.. => range.step_by(step.unsigned_abs()).collect(),
        _ => range.rev().step_by(step.unsigned_abs()).collect(),
    };
    split.take(place, &keep)
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
    let mut value = a.split_value(&op.tensor);
    a.narrow(&mut value, |_, dim| dim != op.dim);
    let why = "is picked by index in `select`";
    for axis in indices.axes.iter().flatten() {
        a.protect(axis, why);
    }
    if let Some(axis) = value.axes[op.dim].take() {
        a.protect(&axis, why);
    }
    a.set_split(
        &op.out,
        value.axes,
        value.splits,
        value.data || indices.data,
    );
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
