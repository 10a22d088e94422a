//! Reductions, cumulative operations and sorting: channels along the reduced dimensions must stay,
//! those along the others pass.

use burn_ir::{ReduceOpIr, TensorIr};

use super::super::analysis::Analysis;

/// Constant of a removed channel, passed on as it is.
pub(super) fn keep(x: f64) -> Option<f64> {
    Some(x)
}

/// Constant of a removed channel where it is zero, otherwise unknown.
pub(super) fn zero(x: f64) -> Option<f64> {
    (x == 0.0).then_some(0.0)
}

/// Unknown constant.
pub(super) fn lost(_: f64) -> Option<f64> {
    None
}

/// Reduction over every dimension.
pub(super) fn all(a: &mut Analysis, op: &ReduceOpIr) {
    a.opaque([&op.input], [&op.out]);
}

/// Reduction over `dims`; `f` maps the constant of a removed channel along the other dimensions.
pub(super) fn dims(
    a: &mut Analysis,
    input: &TensorIr,
    dims: &[usize],
    out: &TensorIr,
    f: impl Fn(f64) -> Option<f64>,
) {
    let mut value = a.split_value(input);
    let why = format!("`{}` runs over channels", a.op_name());
    let shape = out.shape.to_vec();
    let before = value.shape.clone();
    let passes = |dim: usize| {
        !dims.contains(&dim) && shape.len() == before.len() && shape[dim] == before[dim]
    };
    // What depends on other dimensions as well goes together along those that the operation runs
    // over.
    a.narrow(&mut value, |_, dim| passes(dim));
    let mut axes = vec![None; shape.len()];
    for (dim, axis) in value.axes.iter().enumerate() {
        let Some(axis) = axis else { continue };
        if passes(dim) {
            axes[dim] = Some(axis.map(&f));
        } else {
            a.protect(axis, &why);
        }
    }
    let mut splits = value.splits;
    splits
        .iter_mut()
        .for_each(|split| split.axis = split.axis.map(&f));
    a.set_split(out, axes, splits, value.data);
}
