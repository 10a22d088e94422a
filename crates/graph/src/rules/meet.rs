//! Operands whose labels depend on several dimensions, brought to the same dimensions.

use super::super::analysis::Analysis;
use super::super::split::Split;
use super::super::value::Value;

/// What a size of 1 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// A dimension that is repeated.
    Yes,
    /// A size as any other.
    No,
}

/// What becomes of channels that lie along the parts of a split: one a head, for example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    /// They stay, as the number of parts does.
    Stay,
    /// Each goes with the whole part.
    Join,
}

/// Brings splits of operands, which have the same rank, to the same dimensions.
///
/// Labels of one operand that depend on a dimension of which those of another are independent are
/// joined along it. What has no labels where a split becomes smaller makes its channels stay.
pub(super) fn align(a: &mut Analysis, values: &mut [Value], repeats: Repeats, parts: Parts) {
    while align_once(a, values, repeats, parts) {}
}

/// Whether something has changed.
fn align_once(a: &mut Analysis, values: &mut [Value], repeats: Repeats, parts: Parts) -> bool {
    for i in 0..values.len() {
        for split in values[i].splits.clone() {
            for j in (0..values.len()).filter(|&j| j != i) {
                let overlaps = |other: &&Split| other.dims.iter().any(|d| split.dims.contains(d));
                if let Some(other) = values[j].splits.iter().find(overlaps).cloned() {
                    if other.dims != split.dims {
                        align_pair(a, values, (i, &split), (j, &other));
                        return true;
                    }
                    continue;
                }
                if meet_plain(a, values, (i, &split), j, repeats, parts) {
                    return true;
                }
            }
        }
    }
    false
}

/// Two splits that share some dimensions.
fn align_pair(
    a: &mut Analysis,
    values: &mut [Value],
    (i, split): (usize, &Split),
    (j, other): (usize, &Split),
) {
    let both = |dim: &usize| split.dims.contains(dim) && other.dims.contains(dim);
    let last = split.last();
    let same = split.dims.len() == other.dims.len() && split.dims.iter().all(both);
    if same && other.last() == last {
        for found in values[j]
            .splits
            .iter_mut()
            .filter(|found| found.dims == other.dims)
        {
            if let Some(ordered) = found.ordered(&split.dims) {
                *found = ordered;
            }
        }
        return;
    }
    for (at, of) in [(i, split), (j, other)] {
        a.narrow(&mut values[at], |found, dim| {
            found.dims != of.dims || if same { dim == last } else { both(&dim) }
        });
    }
}

/// A split of one operand and the single dimensions of another; whether something has changed.
fn meet_plain(
    a: &mut Analysis,
    values: &mut [Value],
    (i, split): (usize, &Split),
    j: usize,
    repeats: Repeats,
    parts: Parts,
) -> bool {
    let shape = values[i].shape.clone();
    let why = format!(
        "is combined with a size that cannot change in `{}` at {shape:?}",
        a.op_name()
    );
    for &dim in &split.dims {
        if repeats == Repeats::Yes && values[j].shape[dim] == 1 {
            continue;
        }
        let is_last = dim == split.last();
        match values[j].axes[dim].clone() {
            Some(axis) if !is_last && (parts == Parts::Stay || !a.is_free(&axis)) => {
                a.protect(&axis, &why);
                values[j].axes[dim] = None;
            }
            Some(_) => {
                a.narrow(&mut values[i], |found, d| {
                    found.dims != split.dims || d == dim
                });
                return true;
            }
            None if is_last => a.protect(&split.axis, &why),
            None => {}
        }
    }
    false
}

/// The dimensions of the splits of aligned operands.
pub(super) fn dims(values: &[Value]) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = Vec::new();
    for split in values.iter().flat_map(|value| &value.splits) {
        if !found.contains(&split.dims) {
            found.push(split.dims.clone());
        }
    }
    found
}
