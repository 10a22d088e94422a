//! Constants: tensors that the forward pass makes of numbers, and tensors of one number.

use burn::tensor::{DType, TensorData};
use burn_ir::{TensorId, TensorIr};

use crate::graph::{Constant, Element, Values};
use crate::trace::Sizes;

use super::sizes::Part;
use super::{Lower, Lowering, Unsupported, element};

/// The values of a tensor as an initializer.
pub(super) fn of(data: &TensorData) -> Result<Constant, Unsupported> {
    let values = match element(data.dtype())? {
        Element::Float => Values::Float(data.iter::<f32>().collect()),
        Element::Int64 => Values::Int64(data.iter::<i64>().collect()),
        Element::Bool => Values::Bool(data.iter::<bool>().collect()),
    };
    Ok(Constant {
        dims: data.shape().to_vec(),
        values,
    })
}

/// A tensor whose values are known, in the size that the graph runs with.
///
/// | values along a dynamic dimension | what is written |
/// |---|---|
/// | the same everywhere | one entry, repeated |
/// | `0, 1, 2, ..` of a vector of integers | a range |
/// | those of a larger size begin with those of a smaller one | those of the largest, cut |
pub(super) fn lower(lower: &mut Lower, id: TensorId) -> Result<String, Unsupported> {
    let Some(all) = lower.trace.constants.get(&id) else {
        return Err(Unsupported::new("it reads a tensor that nothing makes"));
    };
    let constants = all.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    let dims = lower.trace.shapes[&id].clone();
    let dynamic: Vec<usize> = (0..dims.len())
        .filter(|&dim| dims[dim].fixed().is_none())
        .collect();
    let base = constants[0].clone();
    if dynamic.is_empty() {
        if constants.iter().any(|other| *other != base) {
            return Err(Unsupported::new(
                "it reads numbers that the forward pass makes from a dynamic size: compute them with \
                 operations on tensors, or export with fixed sizes",
            ));
        }
        return Ok(lower.constant("constant", base.dims, base.values));
    }
    if let [dim] = &dims[..]
        && constants.iter().all(is_range)
    {
        return range(lower, dim);
    }
    let repeated: Vec<usize> = dynamic
        .iter()
        .copied()
        .filter(|&dim| constants.iter().all(|constant| is_uniform(constant, dim)))
        .collect();
    // One entry stands for all along these dimensions.
    let reduced: Vec<Constant> = constants
        .iter()
        .map(|constant| {
            part(
                constant,
                |dim, size| if repeated.contains(&dim) { 1 } else { size },
            )
        })
        .collect();
    let cut: Vec<usize> = dynamic
        .into_iter()
        .filter(|dim| !repeated.contains(dim))
        .collect();
    let begins = |other: &Constant| {
        let fits = other.dims.iter().zip(&reduced[0].dims).all(|(x, y)| x <= y);
        fits && part(&reduced[0], |dim, _| other.dims[dim]) == *other
    };
    if !reduced.iter().all(begins) {
        return Err(Unsupported::new(
            "it reads numbers that the forward pass makes from a dynamic size and that do not begin \
             alike for all sizes: compute them with operations on tensors, or export with fixed sizes",
        ));
    }
    let base = reduced[0].clone();
    let mut name = lower.constant("constant", base.dims.clone(), base.values);
    let key = (name.clone(), dims.clone());
    if let Some(table) = lower.tables.get(&key) {
        return Ok(table.clone());
    }
    if !cut.is_empty() {
        name = cut_to(lower, name, &cut, &dims)?;
    }
    if !repeated.is_empty() {
        let parts = (0..dims.len()).map(|dim| match repeated.contains(&dim) {
            true => Part::Size(dims[dim].clone()),
            false => Part::Number(1),
        });
        let shape = lower.vector(parts.collect())?;
        name = lower.step("Expand", [name, shape], []);
    }
    lower.tables.insert(key, name.clone());
    Ok(name)
}

/// The entries of a table up to the sizes that the graph runs with.
fn cut_to(
    lower: &mut Lower,
    table: String,
    cut: &[usize],
    dims: &[Sizes],
) -> Result<String, Unsupported> {
    for &dim in cut {
        let (label, size) = (lower.size_label(&dims[dim]), dims[dim].first());
        let note = format!(
            "`{label}` is at most {size}: the forward pass makes a table of that size; export with a \
             larger dummy input for more"
        );
        if !lower.notes.contains(&note) {
            lower.notes.push(note);
        }
    }
    let starts = lower.ints(cut.iter().map(|_| 0));
    let ends = cut
        .iter()
        .map(|&dim| Part::Size(dims[dim].clone()))
        .collect();
    let ends = lower.vector(ends)?;
    let axes = lower.ints(cut.iter().map(|&dim| dim as i64));
    Ok(lower.step("Slice", [table, starts, ends, axes], []))
}

/// `0, 1, 2, ..` up to a size.
fn range(lower: &mut Lower, dim: &Sizes) -> Result<String, Unsupported> {
    let size = lower.size(dim)?;
    let scalar = lower.ints([]);
    let limit = lower.step("Reshape", [size, scalar], []);
    let zero = lower.number(0.0, DType::I64)?;
    let one = lower.number(1.0, DType::I64)?;
    Ok(lower.step("Range", [zero, limit, one], []))
}

fn is_range(constant: &Constant) -> bool {
    match &constant.values {
        Values::Int64(values) => values.iter().zip(0..).all(|(&x, at)| x == at),
        _ => false,
    }
}

fn is_uniform(constant: &Constant, dim: usize) -> bool {
    let one = part(constant, |d, size| if d == dim { 1 } else { size });
    let dims = &constant.dims;
    let inner: usize = dims[dim + 1..].iter().product();
    let source = |at: usize| at / (inner * dims[dim]) * inner + at % inner;
    let count: usize = dims.iter().product();
    take(constant, dims.clone(), 0..count) == take(&one, dims.clone(), (0..count).map(source))
}

/// The first entries along every dimension, as many as `size` gives.
fn part(constant: &Constant, size: impl Fn(usize, usize) -> usize) -> Constant {
    let dims = &constant.dims;
    let wanted: Vec<usize> = dims
        .iter()
        .enumerate()
        .map(|(dim, &n)| size(dim, n))
        .collect();
    let count: usize = wanted.iter().product();
    let source = |at: usize| {
        let (mut rest, mut from, mut stride) = (at, 0, 1);
        for (&to, &size) in wanted.iter().zip(dims).rev() {
            from += rest % to * stride;
            rest /= to;
            stride *= size;
        }
        from
    };
    take(constant, wanted.clone(), (0..count).map(source))
}

fn take(constant: &Constant, dims: Vec<usize>, at: impl Iterator<Item = usize>) -> Constant {
    let values = match &constant.values {
        Values::Float(values) => Values::Float(at.map(|at| values[at]).collect()),
        Values::Int64(values) => Values::Int64(at.map(|at| values[at]).collect()),
        Values::Bool(values) => Values::Bool(at.map(|at| values[at]).collect()),
        other => other.clone(),
    };
    Constant { dims, values }
}

/// A tensor of one number.
pub(super) fn full(lower: &mut Lower, number: f64, out: &TensorIr) -> Lowering {
    let dims = lower.sizes(out);
    let number = lower.number(number, out.dtype)?;
    let shape = lower.shape(&dims)?;
    lower.push("Expand", [number, shape], out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(dims: &[usize], values: &[i64]) -> Constant {
        Constant {
            dims: dims.to_vec(),
            values: Values::Int64(values.to_vec()),
        }
    }

    #[test]
    fn the_first_entries() {
        let table = constant(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(part(&table, |_, _| 2), constant(&[2, 2], &[1, 2, 4, 5]));
        assert_eq!(
            part(&table, |dim, size| if dim == 0 { 1 } else { size }),
            constant(&[1, 3], &[1, 2, 3])
        );
    }

    #[test]
    fn entries_that_are_the_same_everywhere() {
        let rows = constant(&[2, 3], &[1, 2, 3, 1, 2, 3]);
        assert!(is_uniform(&rows, 0) && !is_uniform(&rows, 1));
        let columns = constant(&[2, 2], &[1, 1, 2, 2]);
        assert!(is_uniform(&columns, 1) && !is_uniform(&columns, 0));
        assert!(is_range(&constant(&[3], &[0, 1, 2])) && !is_range(&constant(&[2], &[1, 2])));
    }
}
