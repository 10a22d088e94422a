//! Operations that move elements and change none: reshape, permutation, repetition, concatenation.

use burn_ir::{CatOpIr, FlipOpIr, RepeatDimOpIr, ShapeOpIr, SwapDimsOpIr, TensorIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::labels::{Axis, Value};

/// Permutation of dimensions: `out[i] = input[axes[i]]`.
pub(super) fn permute(a: &mut Analysis, input: &TensorIr, axes: &[usize], out: &TensorIr) {
    let value = a.value(input);
    a.same_source(input, out);
    let moved = axes.iter().map(|&dim| value.axes[dim].clone()).collect();
    a.set(out, moved, value.data);
}

/// Exchange of two dimensions.
pub(super) fn swap_dims(a: &mut Analysis, op: &SwapDimsOpIr) {
    let mut axes: Vec<usize> = (0..op.out.shape.to_vec().len()).collect();
    axes.swap(op.dim1, op.dim2);
    permute(a, &op.input, &axes, &op.out);
}

/// Reversal of indices along dimensions.
pub(super) fn flip(a: &mut Analysis, op: &FlipOpIr) {
    let mut value = a.value(&op.input);
    for &dim in &op.axes {
        if let Some(axis) = &mut value.axes[dim] {
            axis.labels.reverse();
            axis.value.reverse();
        }
    }
    a.set(&op.out, value.axes, value.data);
}

/// Broadcast: repeats dimensions of size 1 and adds dimensions in front.
pub(super) fn expand(a: &mut Analysis, op: &ShapeOpIr) {
    let value = a.value(&op.input);
    let shape = op.out.shape.to_vec();
    let front = shape.len() - value.shape.len();
    let mut axes = vec![None; front];
    for (dim, axis) in value.axes.iter().enumerate() {
        if value.shape[dim] == shape[front + dim] {
            axes.push(axis.clone());
        } else {
            if let Some(axis) = axis {
                a.protect(axis, "is repeated along a dimension by `expand`");
            }
            axes.push(None);
        }
    }
    a.set(&op.out, axes, value.data);
}

/// Repetition of a dimension, end to end.
pub(super) fn repeat(a: &mut Analysis, op: &RepeatDimOpIr) {
    let mut value = a.value(&op.tensor);
    let size = value.shape[op.dim];
    if let Some(axis) = value.axes[op.dim].take() {
        value.axes[op.dim] = axis.take((0..size * op.times).map(|i| i % size));
    }
    a.set(&op.out, value.axes, value.data);
}

/// Concatenation: labels follow one another along `dim` and are joined along the others.
pub(super) fn cat(a: &mut Analysis, op: &CatOpIr) -> Result<(), GraphError> {
    let values: Vec<Value> = op.tensors.iter().map(|tensor| a.value(tensor)).collect();
    let rank = op.out.shape.to_vec().len();
    if values.iter().any(|value| value.shape.len() != rank) {
        return Err(a.shape_error(&op.tensors.iter().collect::<Vec<_>>()));
    }
    let mut axes = Vec::with_capacity(rank);
    for dim in 0..rank {
        let parts: Vec<Option<&Axis>> = values.iter().map(|v| v.axes[dim].as_ref()).collect();
        axes.push(match dim == op.dim {
            true => chain(&parts, values.iter().map(|value| value.shape[dim])),
            false => along(a, &parts),
        });
    }
    let data = values.iter().any(|value| value.data);
    a.set(&op.out, axes, data);
    Ok(())
}

fn chain(parts: &[Option<&Axis>], sizes: impl Iterator<Item = usize>) -> Option<Axis> {
    let (mut labels, mut value) = (Vec::new(), Vec::new());
    for (part, size) in parts.iter().zip(sizes) {
        match part {
            Some(axis) => {
                labels.extend_from_slice(&axis.labels);
                value.extend_from_slice(&axis.value);
            }
            None => {
                labels.extend(vec![None; size]);
                value.extend(vec![None; size]);
            }
        }
    }
    let mut origins: Vec<_> = parts
        .iter()
        .flatten()
        .flat_map(|axis| axis.origins.iter().copied())
        .collect();
    origins.sort_unstable();
    origins.dedup();
    Axis::new(labels, value).map(|axis| Axis {
        origins,
        nonzero_since: parts.iter().flatten().find_map(|axis| axis.nonzero_since),
        ..axis
    })
}

fn along(a: &mut Analysis, parts: &[Option<&Axis>]) -> Option<Axis> {
    let first = *parts.iter().flatten().next()?;
    let mut joined = first.clone();
    for part in parts {
        a.join(
            Some(first),
            *part,
            "is combined with a size that cannot change in `cat`",
        );
        for (i, value) in joined.value.iter_mut().enumerate() {
            if part.and_then(|axis| axis.value[i]) != *value {
                *value = None;
            }
        }
        if let Some(axis) = part {
            joined.nonzero_since = joined.nonzero_since.or(axis.nonzero_since);
            joined.origins.extend(axis.origins.iter().copied());
        }
    }
    joined.origins.sort_unstable();
    joined.origins.dedup();
    Some(joined)
}

/// A reshape, followed through its factors.
///
/// Input and output dimensions are matched in runs of equal product, `[2, 8, 4, 4] -> [2, 128]`
/// as `2 -> 2` and `8, 4, 4 -> 128`. In a run the elements keep their order: merging repeats a
/// label, splitting finds the dimension that the labels depend on.
pub(super) fn reshape(a: &mut Analysis, op: &ShapeOpIr) {
    let value = a.value(&op.input);
    a.same_source(&op.input, &op.out);
    let shape = op.out.shape.to_vec();
    let mut axes = vec![None; shape.len()];
    for (inputs, outputs) in runs(&value.shape, &shape) {
        let labelled: Vec<usize> = inputs
            .clone()
            .filter(|&d| value.axes[d].is_some())
            .collect();
        let followed = match labelled.as_slice() {
            [] => continue,
            [dim] => {
                let axis = value.axes[*dim].as_ref();
                axis.and_then(|axis| {
                    let sizes = &value.shape[inputs.clone()];
                    regroup(axis, sizes, dim - inputs.start, &shape[outputs.clone()])
                })
            }
            _ => None,
        };
        match followed {
            Some((dim, axis)) => axes[outputs.start + dim] = Some(axis),
            None => {
                let why = format!("is taken apart by reshape {:?} -> {shape:?}", value.shape);
                for dim in labelled {
                    if let Some(axis) = &value.axes[dim] {
                        a.protect(axis, &why);
                    }
                }
            }
        }
    }
    a.set(&op.out, axes, value.data);
}

type Run = (std::ops::Range<usize>, std::ops::Range<usize>);

/// Runs of dimensions with equal products, in order.
fn runs(input: &[usize], output: &[usize]) -> Vec<Run> {
    let mut runs = Vec::new();
    let (mut i, mut o) = (0, 0);
    while i < input.len() && o < output.len() {
        let (first_i, first_o) = (i, o);
        let (mut left, mut right) = (input[i], output[o]);
        (i, o) = (i + 1, o + 1);
        while left != right {
            if left < right && i < input.len() {
                left *= input[i];
                i += 1;
            } else if right < left && o < output.len() {
                right *= output[o];
                o += 1;
            } else {
                // An empty tensor: one run of everything.
                return vec![(0..input.len(), 0..output.len())];
            }
        }
        runs.push((first_i..i, first_o..o));
    }
    // Sizes of 1 remain; they go with the last run.
    match runs.last_mut() {
        Some(last) => *last = (last.0.start..input.len(), last.1.start..output.len()),
        None => runs.push((0..input.len(), 0..output.len())),
    }
    runs
}

/// The labels of the one labelled dimension of a run, as labels of one dimension of its output.
fn regroup(
    axis: &Axis,
    input: &[usize],
    labelled: usize,
    output: &[usize],
) -> Option<(usize, Axis)> {
    let total: usize = input.iter().product();
    let inner: usize = input[labelled + 1..].iter().product();
    let size = input[labelled];
    let source = |i: usize| (i / inner) % size;
    if size <= 1 || total == 0 {
        return None;
    }
    for (dim, &n) in output.iter().enumerate() {
        let stride: usize = output[dim + 1..].iter().product();
        let coordinate = |i: usize| (i / stride) % n;
        // The first element with each coordinate stands for all others.
        let first: Vec<usize> = (0..n).map(|c| source(c * stride)).collect();
        let same = |i: usize| {
            let (x, y) = (source(i), first[coordinate(i)]);
            x == y || (axis.labels[x] == axis.labels[y] && axis.value[x] == axis.value[y])
        };
        if n > 1 && (0..total).all(same) {
            return Some((dim, axis.take(first.iter().copied())?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_equal_products() {
        assert_eq!(runs(&[2, 8, 4, 4], &[2, 128]), [(0..1, 0..1), (1..4, 1..2)]);
        assert_eq!(runs(&[2, 8, 1, 1], &[2, 8]), [(0..1, 0..1), (1..4, 1..2)]);
        assert_eq!(runs(&[6, 4], &[2, 12]), [(0..2, 0..2)]);
        assert_eq!(runs(&[1, 1, 4], &[4]), [(0..3, 0..1)]);
        assert_eq!(runs(&[8], &[1, 8, 1, 1]), [(0..1, 0..4)]);
    }

    fn axis(labels: &[usize]) -> Axis {
        let labels: Vec<_> = labels.iter().copied().map(Some).collect();
        let value = vec![Some(0.0); labels.len()];
        Axis::new(labels, value).unwrap()
    }

    fn labels(axis: &Axis) -> Vec<usize> {
        axis.labels.iter().flatten().copied().collect()
    }

    #[test]
    fn merging_repeats_and_splitting_finds_the_dimension_back() {
        let (dim, merged) = regroup(&axis(&[5, 6, 7]), &[3, 2], 0, &[6]).unwrap();
        assert_eq!((dim, labels(&merged)), (0, vec![5, 5, 6, 6, 7, 7]));
        let (dim, split) = regroup(&merged, &[6], 0, &[3, 2]).unwrap();
        assert_eq!((dim, labels(&split)), (0, vec![5, 6, 7]));
        let (dim, merged) = regroup(&axis(&[5, 6]), &[3, 2], 1, &[6]).unwrap();
        assert_eq!((dim, labels(&merged)), (0, vec![5, 6, 5, 6, 5, 6]));
        let (dim, split) = regroup(&merged, &[6], 0, &[3, 2]).unwrap();
        assert_eq!((dim, labels(&split)), (1, vec![5, 6]));
    }

    #[test]
    fn a_split_that_mixes_labels_is_not_followed() {
        assert!(regroup(&axis(&[1, 2, 3, 4]), &[4], 0, &[2, 2]).is_none());
        assert!(regroup(&axis(&[1, 2, 3]), &[3, 2], 0, &[2, 3]).is_none());
    }
}
