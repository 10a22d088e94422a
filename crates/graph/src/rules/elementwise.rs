//! Operations on elements at the same place: arithmetic, comparisons, functions of one number.
//!
//! Indices of equal position share a label. Along a dimension, an operand of
//!
//! - size 1 is repeated and takes the labels of the others;
//! - full size with labels has its labels joined with those of the others;
//! - full size without labels cannot shrink: the channels that it is combined with must stay.

use burn_ir::{BinaryOpIr, MaskFillOpIr, MaskWhereOpIr, ScalarOpIr, TensorIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::labels::Axis;
use super::super::operation::number;
use super::super::split::Split;
use super::super::value::Value;
use super::meet::{self, Parts, Repeats};

/// Value of an operand's element once the channel is masked, where it is known.
pub(super) type Known = Option<f64>;

/// `f(x)` with a function whose values are known.
pub(super) fn unary(
    a: &mut Analysis,
    input: &TensorIr,
    out: &TensorIr,
    f: impl Fn(f64) -> f64,
) -> Result<(), GraphError> {
    map(a, input, out, |x| Some(f(x)))
}

/// `f(x)` with a function whose values may be unknown.
pub(super) fn map(
    a: &mut Analysis,
    input: &TensorIr,
    out: &TensorIr,
    f: impl Fn(f64) -> Known,
) -> Result<(), GraphError> {
    elementwise(a, &[input], out, |x| f(x[0]?))
}

/// `f(x, y)` of two tensors.
pub(super) fn binary(
    a: &mut Analysis,
    op: &BinaryOpIr,
    f: impl Fn(Known, Known) -> Known,
) -> Result<(), GraphError> {
    elementwise(a, &[&op.lhs, &op.rhs], &op.out, |x| f(x[0], x[1]))
}

/// `f(x, y)` of a tensor and a number.
pub(super) fn scalar(
    a: &mut Analysis,
    op: &ScalarOpIr,
    f: impl Fn(f64, f64) -> f64,
) -> Result<(), GraphError> {
    let y = number(op.rhs);
    unary(a, &op.lhs, &op.out, |x| f(x, y))
}

/// A comparison of two tensors; true is 1.
pub(super) fn compare(
    a: &mut Analysis,
    op: &BinaryOpIr,
    f: impl Fn(f64, f64) -> bool,
) -> Result<(), GraphError> {
    binary(a, op, |x, y| Some(f64::from(f(x?, y?))))
}

/// A comparison with a number; true is 1.
pub(super) fn compare_scalar(
    a: &mut Analysis,
    op: &ScalarOpIr,
    f: impl Fn(f64, f64) -> bool,
) -> Result<(), GraphError> {
    scalar(a, op, |x, y| f64::from(f(x, y)))
}

/// `where(mask, value, tensor)`.
pub(super) fn mask_where(a: &mut Analysis, op: &MaskWhereOpIr) -> Result<(), GraphError> {
    let inputs = [&op.tensor, &op.mask, &op.value];
    elementwise(a, &inputs, &op.out, |x| match x[1] {
        Some(mask) if mask != 0.0 => x[2],
        Some(_) => x[0],
        None if x[0] == x[2] => x[0],
        None => None,
    })
}

/// `where(mask, number, tensor)`.
pub(super) fn mask_fill(a: &mut Analysis, op: &MaskFillOpIr) -> Result<(), GraphError> {
    let fill = Some(number(op.value));
    elementwise(a, &[&op.tensor, &op.mask], &op.out, |x| match x[1] {
        Some(mask) if mask != 0.0 => fill,
        Some(_) => x[0],
        None if x[0] == fill => fill,
        None => None,
    })
}

/// Zero times anything is zero.
pub(super) fn product(x: Known, y: Known) -> Known {
    match (x, y) {
        (Some(x), Some(y)) => Some(x * y),
        (Some(0.0), None) | (None, Some(0.0)) => Some(0.0),
        _ => None,
    }
}

/// Zero divided by anything but zero is zero.
pub(super) fn quotient(x: Known, y: Known) -> Known {
    match (x, y) {
        (Some(x), Some(y)) => Some(x / y),
        (Some(0.0), None) => Some(0.0),
        // A masked divisor: infinite or undefined, whatever it divides.
        (None, Some(0.0)) => Some(f64::NAN),
        _ => None,
    }
}

/// The remainder of zero is zero.
pub(super) fn remainder(x: Known, y: Known) -> Known {
    match (x, y) {
        (Some(x), Some(y)) => Some(x.rem_euclid(y)),
        (Some(0.0), None) => Some(0.0),
        (None, Some(0.0)) => Some(f64::NAN),
        _ => None,
    }
}

/// Zero if either is zero.
pub(super) fn both(x: Known, y: Known) -> Known {
    (x == Some(0.0) || y == Some(0.0)).then_some(0.0)
}

/// Zero if both are zero.
pub(super) fn neither(x: Known, y: Known) -> Known {
    (x == Some(0.0) && y == Some(0.0)).then_some(0.0)
}

/// The elementwise rule for any number of operands.
pub(super) fn elementwise(
    a: &mut Analysis,
    inputs: &[&TensorIr],
    out: &TensorIr,
    f: impl Fn(&[Known]) -> Known,
) -> Result<(), GraphError> {
    let mut values: Vec<_> = inputs.iter().map(|tensor| a.split_value(tensor)).collect();
    for (value, tensor) in values.iter_mut().zip(inputs) {
        // A mask only chooses: it is not what keeps a channel from being zero.
        if tensor.dtype.is_bool() {
            let splits = value.splits.iter_mut().map(|split| &mut split.axis);
            let axes = value.axes.iter_mut().flatten();
            axes.chain(splits)
                .for_each(|axis| axis.nonzero_since = None);
        }
    }
    let data = values.iter().any(|value| value.data);
    let shape = out.shape.to_vec();
    for (dim, &size) in shape.iter().enumerate() {
        let fits = |value: &Value| {
            value.shape.len() == shape.len() && [1, size].contains(&value.shape[dim])
        };
        if !values.iter().all(fits) {
            return Err(a.shape_error(inputs));
        }
    }
    meet::align(a, &mut values, Repeats::Yes, Parts::Stay);
    let mut axes = Vec::with_capacity(shape.len());
    for (dim, &size) in shape.iter().enumerate() {
        let operands = values.iter().map(|value| Operand::new(value, dim, size));
        let operands: Vec<Operand> = operands.collect();
        axes.push(combine(a, &operands, size, &f));
    }
    let splits = combine_splits(a, &values, &f);
    a.set_split(out, axes, splits, data);
    Ok(())
}

/// The labels along several dimensions of aligned operands, read index by index.
pub(super) fn combine_splits(
    a: &mut Analysis,
    values: &[Value],
    f: &dyn Fn(&[Known]) -> Known,
) -> Vec<Split> {
    let mut found = Vec::new();
    for dims in meet::dims(values) {
        let of = |value: &Value| value.splits.iter().position(|split| split.dims == dims);
        let operands = values.iter().map(|value| match of(value) {
            Some(at) => Operand::Labelled(&value.splits[at].axis),
            None => Operand::Repeated(None),
        });
        let operands: Vec<Operand> = operands.collect();
        let sizes = values
            .iter()
            .find_map(|value| Some(value.splits[of(value)?].sizes.clone()));
        let sizes = sizes.unwrap_or_default();
        let axis = combine(a, &operands, sizes.iter().product(), f);
        found.extend(axis.map(|axis| Split { dims, sizes, axis }));
    }
    found
}

/// An operand along one dimension.
pub(super) enum Operand<'a> {
    /// Full size, with labels.
    Labelled(&'a Axis),
    /// Full size, without labels.
    Fixed,
    /// Size 1, repeated.
    Repeated(Option<&'a Axis>),
}

impl<'a> Operand<'a> {
    /// Dimension `dim` of a tensor, along a dimension of `size`.
    pub fn new(value: &'a Value, dim: usize, size: usize) -> Self {
        match (&value.axes[dim], value.shape[dim] == size) {
            (Some(axis), true) => Self::Labelled(axis),
            (Some(axis), false) => Self::Repeated(Some(axis)),
            (None, true) if size > 1 => Self::Fixed,
            (None, _) => Self::Repeated(None),
        }
    }
}

/// An axis of an output along which `operands` are read index by index.
pub(super) fn combine(
    a: &mut Analysis,
    operands: &[Operand],
    size: usize,
    f: &dyn Fn(&[Known]) -> Known,
) -> Option<Axis> {
    for operand in operands {
        if let Operand::Repeated(Some(axis)) = operand {
            let why = format!("is repeated along a dimension by `{}`", a.op_name());
            a.protect(axis, &why);
        }
    }
    let labelled: Vec<&Axis> = operands
        .iter()
        .filter_map(|operand| match operand {
            Operand::Labelled(axis) => Some(*axis),
            _ => None,
        })
        .collect();
    let first = *labelled.first()?;
    for other in &labelled[1..] {
        let why = format!(
            "is combined with a size that cannot change in `{}`",
            a.op_name()
        );
        a.join(Some(first), Some(other), &why);
    }
    if operands
        .iter()
        .any(|operand| matches!(operand, Operand::Fixed))
    {
        let why = format!(
            "is combined with a size that cannot change in `{}`",
            a.op_name()
        );
        for axis in &labelled {
            a.protect(axis, &why);
        }
    }
    let mut known = vec![None; operands.len()];
    let mut value = Vec::with_capacity(size);
    let mut labels = Vec::with_capacity(size);
    for i in 0..size {
        for (known, operand) in known.iter_mut().zip(operands) {
            *known = match operand {
                Operand::Labelled(axis) => axis.value[i],
                _ => None,
            };
        }
        let broken = known.iter().flatten().any(|x: &f64| !x.is_finite());
        value.push(if broken { Some(f64::NAN) } else { f(&known) });
        labels.push(labelled.iter().find_map(|axis| axis.labels[i]));
    }
    let mut origins: Vec<_> = labelled
        .iter()
        .flat_map(|axis| axis.origins.clone())
        .collect();
    origins.sort_unstable();
    origins.dedup();
    Some(Axis {
        labels,
        value,
        origins,
        nonzero_since: labelled.iter().find_map(|axis| axis.nonzero_since),
    })
}
