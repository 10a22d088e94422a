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
    let value = a.value(input);
    let why = format!("`{}` runs over channels", a.op_name());
    let shape = out.shape.to_vec();
    let mut axes = vec![None; shape.len()];
    for (dim, axis) in value.axes.iter().enumerate() {
        let Some(axis) = axis else { continue };
        let followed = shape.len() == value.shape.len() && shape[dim] == value.shape[dim];
        if dims.contains(&dim) || !followed {
            a.protect(axis, &why);
        } else {
            axes[dim] = Some(axis.map(&f));
        }
    }
    a.set(out, axes, value.data);
}
