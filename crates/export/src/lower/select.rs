//! Parts of dimensions by range.

use std::ops::Range;

use burn_ir::{BaseOperationIr as Base, OperationIr as Op, SliceAssignOpIr, SliceOpIr, TensorIr};

use crate::graph::Attribute;
use crate::trace::Sizes;

use super::arithmetic::fixed;
use super::sizes::Part;
use super::{Lower, Lowering, Unsupported};

/// The range of one dimension in every capture.
struct Bounds {
    dim: usize,
    start: Sizes,
    end: Sizes,
    step: isize,
    /// The size of the dimension.
    size: Sizes,
}

impl Bounds {
    fn is_whole(&self) -> bool {
        self.start.fixed() == Some(0) && self.end == self.size && self.step == 1
    }

    /// A bound counted from the front where it is fixed, from the end where that is.
    fn bound(&self, bound: &Sizes) -> Part {
        let from_end = self.size.with(bound, |size, bound| size - bound);
        match (bound.fixed(), from_end.fixed()) {
            (Some(bound), _) => Part::Number(bound as i64),
            (None, Some(0)) => Part::Number(i64::MAX),
            (None, Some(from_end)) => Part::Number(-(from_end as i64)),
            (None, None) => Part::Size(bound.clone()),
        }
    }

    /// First element and the one behind the last, as ONNX's `Slice` takes them.
    fn parts(&self) -> Result<(Part, Part), Unsupported> {
        if self.step > 0 {
            return Ok((self.bound(&self.start), self.bound(&self.end)));
        }
        let last = match self.end == self.size {
            true => -1,
            false => fixed(&self.end, "the end of a reversed slice")? as i64 - 1,
        };
        let first = match fixed(&self.start, "the start of a reversed slice")? {
            0 => i64::MIN,
            start => start as i64 - 1,
        };
        Ok((Part::Number(last), Part::Number(first)))
    }
}

/// The ranges of the operation at hand.
fn bounds(l: &Lower, tensor: &TensorIr) -> Vec<Bounds> {
    let sizes = l.sizes(tensor);
    let all = l.in_all(|op| match op {
        Op::BaseFloat(base) | Op::BaseInt(base) | Op::BaseBool(base) => match base {
            Base::Slice(op) => Some((op.ranges.clone(), op.tensor.shape.to_vec())),
            Base::SliceAssign(op) => Some((op.ranges.clone(), op.tensor.shape.to_vec())),
            _ => None,
        },
        _ => None,
    });
    let range = |dim: usize| {
        let ranges = all.iter().map(|(ranges, shape)| match ranges.get(dim) {
            Some(slice) => slice.to_range_and_step(shape[dim]),
            None => (0..shape[dim], 1),
        });
        ranges.collect::<Vec<(Range<usize>, isize)>>()
    };
    let bounds = sizes.into_iter().enumerate().map(|(dim, size)| {
        let ranges = range(dim);
        Bounds {
            dim,
            start: Sizes::new(ranges.iter().map(|(range, _)| range.start).collect()),
            end: Sizes::new(ranges.iter().map(|(range, _)| range.end).collect()),
            step: ranges[0].1,
            size,
        }
    });
    bounds.filter(|bounds| !bounds.is_whole()).collect()
}

/// `tensor[ranges]`
pub(super) fn slice(l: &mut Lower, op: &SliceOpIr) -> Lowering {
    let x = l.input(&op.tensor)?;
    let bounds = bounds(l, &op.tensor);
    if bounds.is_empty() {
        l.alias(x, &op.out);
        return Ok(());
    }
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for bounds in &bounds {
        let (start, end) = bounds.parts()?;
        starts.push(start);
        ends.push(end);
    }
    let starts = l.vector(starts)?;
    let ends = l.vector(ends)?;
    let axes = l.ints(bounds.iter().map(|bounds| bounds.dim as i64));
    let mut inputs = vec![x, starts, ends, axes];
    if bounds.iter().any(|bounds| bounds.step != 1) {
        inputs.push(l.ints(bounds.iter().map(|bounds| bounds.step as i64)));
    }
    l.push("Slice", inputs, &op.out);
    Ok(())
}

/// `tensor[ranges] = value`, as what stands before, the value and what stands behind it.
pub(super) fn slice_assign(l: &mut Lower, op: &SliceAssignOpIr) -> Lowering {
    let bounds = bounds(l, &op.tensor);
    if let Some(bounds) = bounds.iter().find(|bounds| bounds.step != 1) {
        return Err(Unsupported::new(format!(
            "it assigns with a step of {}: use `scatter`",
            bounds.step
        )));
    }
    let (tensor, value) = (l.input(&op.tensor)?, l.input(&op.value)?);
    let name = assign(l, tensor, value, &bounds)?;
    l.alias(name, &op.out);
    Ok(())
}

fn assign(
    l: &mut Lower,
    tensor: String,
    value: String,
    bounds: &[Bounds],
) -> Result<String, Unsupported> {
    let Some((first, rest)) = bounds.split_first() else {
        return Ok(value);
    };
    let dim = first.dim;
    let whole = || (Part::Number(0), Part::Number(i64::MAX));
    let inner = match rest.is_empty() {
        true => value,
        false => {
            let within = part(
                l,
                &tensor,
                dim,
                first.bound(&first.start),
                first.bound(&first.end),
            )?;
            assign(l, within, value, rest)?
        }
    };
    let mut parts = Vec::new();
    if first.start.fixed() != Some(0) {
        parts.push(part(l, &tensor, dim, whole().0, first.bound(&first.start))?);
    }
    parts.push(inner);
    if first.end != first.size {
        parts.push(part(l, &tensor, dim, first.bound(&first.end), whole().1)?);
    }
    match &parts[..] {
        [part] => Ok(part.clone()),
        _ => Ok(l.step("Concat", parts, [("axis", Attribute::Int(dim as i64))])),
    }
}

/// A range of one dimension.
fn part(
    l: &mut Lower,
    tensor: &str,
    dim: usize,
    start: Part,
    end: Part,
) -> Result<String, Unsupported> {
    let start = l.vector(vec![start])?;
    let end = l.vector(vec![end])?;
    let axis = l.ints([dim as i64]);
    Ok(l.step("Slice", [tensor.to_string(), start, end, axis], []))
}
