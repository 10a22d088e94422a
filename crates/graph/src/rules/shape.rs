//! Operations that move elements and change none: reshape, permutation, repetition, concatenation.

use burn_ir::{CatOpIr, FlipOpIr, RepeatDimOpIr, ShapeOpIr, SwapDimsOpIr, TensorIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::labels::{Axis, Label, Whole};
use super::super::split::{self, Factor, Split};
use super::super::value::Value;
use super::meet::{self, Parts, Repeats};

/// Permutation of dimensions: `out[i] = input[axes[i]]`.
pub(super) fn permute(a: &mut Analysis, input: &TensorIr, axes: &[usize], out: &TensorIr) {
    let value = a.split_value(input);
    a.same_source(input, out);
    let moved = axes.iter().map(|&dim| value.axes[dim].clone()).collect();
    let to = |dim: usize| axes.iter().position(|&from| from == dim).unwrap_or(dim);
    a.set_split(out, moved, moved_splits(&value, to), value.data);
}

/// The splits of a value with every dimension at another place.
fn moved_splits(value: &Value, to: impl Fn(usize) -> usize) -> Vec<Split> {
    let mut splits = value.splits.clone();
    for split in &mut splits {
        split.dims.iter_mut().for_each(|dim| *dim = to(*dim));
    }
    splits
}

/// Exchange of two dimensions.
pub(super) fn swap_dims(a: &mut Analysis, op: &SwapDimsOpIr) {
    let mut axes: Vec<usize> = (0..op.out.shape.to_vec().len()).collect();
    axes.swap(op.dim1, op.dim2);
    permute(a, &op.input, &axes, &op.out);
}

/// Reversal of indices along dimensions.
pub(super) fn flip(a: &mut Analysis, op: &FlipOpIr) {
    let mut value = a.split_value(&op.input);
    for &dim in &op.axes {
        if let Some(axis) = &mut value.axes[dim] {
            axis.labels.reverse();
            axis.value.reverse();
        }
        let backwards: Vec<usize> = (0..value.shape[dim]).rev().collect();
        pick(&mut value, dim, &backwards);
    }
    a.set_split(&op.out, value.axes, value.splits, value.data);
}

/// Takes the indices `keep` of the labels that depend on `dim` and on others.
fn pick(value: &mut Value, dim: usize, keep: &[usize]) {
    for split in std::mem::take(&mut value.splits) {
        match split.place(dim) {
            Some(place) => value.splits.extend(split.take(place, keep)),
            None => value.splits.push(split),
        }
    }
}

/// Broadcast: repeats dimensions of size 1 and adds dimensions in front.
pub(super) fn expand(a: &mut Analysis, op: &ShapeOpIr) {
    let value = a.split_value(&op.input);
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
    let splits = moved_splits(&value, |dim| front + dim);
    a.set_split(&op.out, axes, splits, value.data);
}

/// Repetition of a dimension, end to end.
pub(super) fn repeat(a: &mut Analysis, op: &RepeatDimOpIr) {
    let mut value = a.split_value(&op.tensor);
    let size = value.shape[op.dim];
    let times: Vec<usize> = (0..size * op.times).map(|i| i % size).collect();
    if let Some(axis) = value.axes[op.dim].take() {
        value.axes[op.dim] = axis.take(times.iter().copied());
    }
    pick(&mut value, op.dim, &times);
    a.set_split(&op.out, value.axes, value.splits, value.data);
}

/// Concatenation: labels follow one another along `dim` and are joined along the others.
pub(super) fn cat(a: &mut Analysis, op: &CatOpIr) -> Result<(), GraphError> {
    let mut values: Vec<Value> = (op.tensors.iter())
        .map(|tensor| a.split_value(tensor))
        .collect();
    let rank = op.out.shape.to_vec().len();
    if values.iter().any(|value| value.shape.len() != rank) {
        return Err(a.shape_error(&op.tensors.iter().collect::<Vec<_>>()));
    }
    meet::align(a, &mut values, Repeats::No, Parts::Stay);
    let mut axes = Vec::with_capacity(rank);
    for dim in 0..rank {
        let parts: Vec<Option<&Axis>> = values.iter().map(|v| v.axes[dim].as_ref()).collect();
        axes.push(match dim == op.dim {
            true => chain(&parts, values.iter().map(|value| value.shape[dim])),
            false => along(a, &parts),
        });
    }
    let splits = meet::dims(&values);
    let splits = splits
        .iter()
        .filter_map(|dims| cat_split(a, &values, dims, op.dim));
    let splits = splits.collect();
    let data = values.iter().any(|value| value.data);
    a.set_split(&op.out, axes, splits, data);
    Ok(())
}

/// Labels along several dimensions of which `dim` may be one.
fn cat_split(a: &mut Analysis, values: &[Value], dims: &[usize], dim: usize) -> Option<Split> {
    let found = |value: &Value| {
        value
            .splits
            .iter()
            .find(|split| split.dims == dims)
            .cloned()
    };
    let parts: Vec<Option<Split>> = values.iter().map(found).collect();
    let first = parts.iter().flatten().next()?.clone();
    let Some(place) = first.place(dim) else {
        let parts: Vec<Option<&Axis>> = parts.iter().map(|p| p.as_ref().map(|s| &s.axis)).collect();
        let axis = along(a, &parts)?;
        return Some(Split { axis, ..first });
    };
    // Bring `dim` to the front, where the labels simply follow one another.
    let mut order = dims.to_vec();
    order.remove(place);
    order.insert(0, dim);
    let parts = parts.iter().zip(values).map(|(part, value)| {
        let ordered = part.as_ref().and_then(|split| split.ordered(&order));
        let size: usize = dims.iter().map(|&dim| value.shape[dim]).product();
        (ordered, size)
    });
    let (parts, lengths): (Vec<Option<Split>>, Vec<usize>) = parts.unzip();
    let axes: Vec<Option<&Axis>> = parts.iter().map(|p| p.as_ref().map(|s| &s.axis)).collect();
    let axis = chain(&axes, lengths.into_iter())?;
    let mut sizes = first.ordered(&order)?.sizes;
    sizes[0] = values.iter().map(|value| value.shape[dim]).sum();
    let split = Split {
        dims: order,
        sizes,
        axis,
    };
    let split = split.ordered(dims)?;
    if place + 1 < dims.len() {
        a.keep_equal(
            &split,
            format!("is laid beside others by `cat` along dimension {dim}"),
        );
    }
    Some(split)
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
/// label, splitting finds the dimensions that the labels depend on.
pub(super) fn reshape(a: &mut Analysis, op: &ShapeOpIr) {
    let value = a.split_value(&op.input);
    a.same_source(&op.input, &op.out);
    let shape = op.out.shape.to_vec();
    let runs = runs(&value.shape, &shape);
    let mut axes = vec![None; shape.len()];
    let mut splits = value.splits.clone();
    let mut apart = false;
    for (inputs, outputs) in &runs {
        let labelled: Vec<usize> = inputs
            .clone()
            .filter(|&d| value.axes[d].is_some())
            .collect();
        let alone = inputs.clone().all(|dim| value.split_at(dim).is_none());
        let followed = match labelled.as_slice() {
            [dim] if alone => {
                let axis = value.axes[*dim].as_ref();
                axis.and_then(|axis| {
                    let sizes = &value.shape[inputs.clone()];
                    regroup(axis, sizes, dim - inputs.start, &shape[outputs.clone()])
                })
            }
            _ => None,
        };
        match (followed, labelled.as_slice()) {
            (Some((dim, axis)), &[from]) => {
                // Its labels are repeated, in parts that are whole already.
                if value.shape[from] > axis.labels.len() {
                    note_whole(a, &axis);
                    apart = true;
                }
                axes[outputs.start + dim] = Some(axis);
            }
            _ => splits.extend(labelled.iter().filter_map(|&dim| {
                let axis = value.axes[dim].clone()?;
                Some(Split::plain(dim, axis))
            })),
        }
    }
    let why = format!("is taken apart by reshape {:?} -> {shape:?}", value.shape);
    let mut found = Vec::new();
    for split in splits {
        match resplit(a, &split, &runs, &value.shape, &shape, &why) {
            Some(split) => found.push(split),
            None => a.protect(&split.axis, &why),
        }
    }
    if apart || !found.is_empty() {
        a.taken_apart.push(op.out.id);
    }
    a.set_split(&op.out, axes, found, value.data);
}

/// Notes that channels that were to be whole parts are.
fn note_whole(a: &mut Analysis, axis: &Axis) {
    for &atom in axis.labels.iter().flatten() {
        if a.labels.whole(atom).is_some() {
            a.labels.set_whole(atom);
        }
    }
}

/// The labels of a split, or of one dimension, after a reshape.
///
/// Every dimension of a run is a product of factors that input and output share. Labels depend on the
/// factors of their own dimensions. The innermost of these is what becomes smaller in a cut; the
/// output keeps its order only if nothing else that the labels depend on lies further inside of the
/// same dimension, along which they are joined therefore: channels that are shuffled go together in
/// all groups. Where it lies within places of a picture, the parts themselves are what goes: the
/// channels of a pixel shuffle.
fn resplit(
    a: &mut Analysis,
    split: &Split,
    runs: &[Run],
    input: &[usize],
    output: &[usize],
    why: &str,
) -> Option<Split> {
    let mut factors = Vec::new();
    for (inputs, outputs) in runs {
        if !inputs.clone().any(|dim| split.dims.contains(&dim)) {
            continue;
        }
        let found = split::factors(&input[inputs.clone()], &output[outputs.clone()])?;
        factors.extend(found.into_iter().map(|factor| Factor {
            size: factor.size,
            input: inputs.start + factor.input,
            output: outputs.start + factor.output,
        }));
    }
    // The factors of the labelled dimensions, as dimensions of their own, by position.
    let factors = &factors;
    let of = |&dim: &usize| (0..factors.len()).filter(move |&at| factors[at].input == dim);
    let dims: Vec<usize> = split.dims.iter().flat_map(of).collect();
    // A dimension of size 1 that goes has no place in the output.
    if dims.is_empty() {
        return None;
    }
    let apart = dims.len() > split.dims.len();
    let mut split = Split {
        sizes: dims.iter().map(|&at| factors[at].size).collect(),
        dims,
        axis: split.axis.clone(),
    }
    .simplified(&a.labels);
    let reason = a.labels.reason(why.to_string());
    if apart {
        let wanted =
            |label: &Label| label.is_some_and(|x| a.labels.whole(x) == Some(Whole::Wanted));
        if split.dims.len() > 1 && split.axis.labels.iter().any(wanted) {
            let last = split.dims.len() - 1;
            split = split.join_along(&mut a.labels, last, reason);
            note_whole(a, &split.axis);
            split = split.simplified(&a.labels);
        } else if split.dims.len() == 1 {
            note_whole(a, &split.axis);
        }
    }
    let inside = |split: &Split| {
        let (last, to) = (split.last(), factors[split.last()].output);
        let inner = |&at: &usize| split.dims[at] > last && factors[split.dims[at]].output == to;
        (0..split.dims.len()).find(inner)
    };
    while let Some(place) = inside(&split) {
        split = split.join_along(&mut a.labels, place, reason);
        split = split.simplified(&a.labels);
    }
    // Pixels are no channels: without some of them a picture would be smaller.
    let among_places = |split: &Split| {
        let to = factors[split.last()].output;
        let places = |at: usize| factors[at].output == to && factors[at].size > 1;
        (0..split.last()).any(|at| places(at) && !split.dims.contains(&at))
    };
    while split.dims.len() > 1 && among_places(&split) {
        let last = split.dims.len() - 1;
        split = split.join_along(&mut a.labels, last, reason);
        split = split.simplified(&a.labels);
    }
    if apart && split.dims.len() > 1 {
        a.keep_equal(&split, why.to_string());
        if let Some(rule) = a.blocks.last_mut() {
            rule.taken_apart = true;
        }
    }
    let last = factors[split.last()].output;
    let mut dims: Vec<usize> = split.dims.iter().map(|&at| factors[at].output).collect();
    dims.sort_unstable();
    dims.dedup();
    dims.retain(|&dim| dim != last);
    dims.push(last);
    let sizes: Vec<usize> = dims.iter().map(|&dim| output[dim]).collect();
    let count: usize = sizes.iter().product();
    // Of each labelled factor: how far its neighbours are apart in the output, its size, and how far
    // they are apart in the split.
    let steps: Vec<(usize, usize, usize)> = split
        .dims
        .iter()
        .enumerate()
        .map(|(place, &at)| {
            let Factor { size, output, .. } = factors[at];
            let position = dims.iter().position(|&dim| dim == output).unwrap_or(0);
            let further: usize = sizes[position + 1..].iter().product();
            let inner = factors[at + 1..].iter().filter(|f| f.output == output);
            let inner: usize = inner.map(|factor| factor.size).product();
            let stride: usize = split.sizes[place + 1..].iter().product();
            (further * inner, size, stride)
        })
        .collect();
    let source = |index: usize| -> usize {
        let steps = steps.iter();
        steps
            .map(|&(below, size, stride)| index / below % size * stride)
            .sum()
    };
    let axis = split.axis.take((0..count).map(source))?;
    Some(Split { dims, sizes, axis })
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
