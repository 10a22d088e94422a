//! Pooling.
//!
//! Burn rounds the number of windows down or up (`ceil_mode`). Runtimes disagree on the second, so that a
//! window that reaches beyond the padding is written as more padding at the end, which neither a maximum
//! nor an average that leaves padding out notices. An average that counts padding counts the given one
//! alone, which is then an operator of its own.

use burn_ir::{
    AvgPool1dOpIr, AvgPool2dOpIr, MaxPool1dOpIr, MaxPool1dWithIndicesOpIr, MaxPool2dOpIr,
    MaxPool2dWithIndicesOpIr, TensorIr,
};

use crate::graph::{Attribute, Node, Values};
use crate::trace::Sizes;

use super::arithmetic::fixed;
use super::{Lower, Lowering, Unsupported, ints};

/// A pooling of one or two dimensions.
pub(super) struct Pool<'a> {
    x: &'a TensorIr,
    out: &'a TensorIr,
    kernel: Vec<usize>,
    stride: Vec<usize>,
    padding: Vec<usize>,
    dilation: Vec<usize>,
    ceil: bool,
}

macro_rules! from_op {
    ($($op:ident: |$from:ident| $vec:expr, $dilation:expr;)+) => {$(
        impl<'a> From<&'a $op> for Pool<'a> {
            fn from($from: &'a $op) -> Self {
                let vec = $vec;
                Self {
                    x: &$from.x,
                    out: &$from.out,
                    kernel: vec(&$from.kernel_size),
                    stride: vec(&$from.stride),
                    padding: vec(&$from.padding),
                    dilation: $dilation,
                    ceil: $from.ceil_mode,
                }
            }
        }
    )+};
}

from_op! {
    AvgPool1dOpIr: |op| |x: &usize| vec![*x], vec![1];
    AvgPool2dOpIr: |op| |x: &[usize; 2]| x.to_vec(), vec![1, 1];
    MaxPool1dOpIr: |op| |x: &usize| vec![*x], vec![op.dilation];
    MaxPool2dOpIr: |op| |x: &[usize; 2]| x.to_vec(), op.dilation.to_vec();
    MaxPool1dWithIndicesOpIr: |op| |x: &usize| vec![*x], vec![op.dilation];
    MaxPool2dWithIndicesOpIr: |op| |x: &[usize; 2]| x.to_vec(), op.dilation.to_vec();
}

impl Pool<'_> {
    /// Padding that the last window reaches into beyond the given one, along each dimension.
    fn beyond(&self, l: &Lower) -> Result<Vec<usize>, Unsupported> {
        if !self.ceil {
            return Ok(vec![0; self.kernel.len()]);
        }
        let (from, to) = (l.sizes(self.x), l.sizes(self.out));
        (0..self.kernel.len())
            .map(|dim| {
                let what = "a dimension that is pooled with `ceil_mode`";
                let size = fixed(&from[dim + 2], what)?;
                let windows = fixed(&to[dim + 2], what)?;
                let reach = (self.kernel[dim] - 1) * self.dilation[dim] + 1;
                let needed = windows.saturating_sub(1) * self.stride[dim] + reach;
                Ok(needed.saturating_sub(size + 2 * self.padding[dim]))
            })
            .collect()
    }

    fn describe(&self, node: &mut Node, padding: &[usize], beyond: &[usize]) {
        let after = padding
            .iter()
            .zip(beyond)
            .map(|(padding, beyond)| padding + beyond);
        node.set("kernel_shape", ints(self.kernel.iter().copied()))
            .set("strides", ints(self.stride.iter().copied()))
            .set("pads", ints(padding.iter().copied().chain(after)));
    }
}

/// A maximum; positions are those within one image, `indices` where they are read.
pub(super) fn max(l: &mut Lower, op: &Pool, indices: Option<&TensorIr>) -> Lowering {
    let x = l.input(op.x)?;
    let beyond = op.beyond(l)?;
    let read = indices.filter(|tensor| l.is_read(tensor));
    let node = l.push("MaxPool", [x], op.out);
    op.describe(node, &op.padding, &beyond);
    node.set("dilations", ints(op.dilation.iter().copied()));
    let Some(indices) = read else { return Ok(()) };
    // ONNX counts positions through the whole tensor.
    let positions = format!("{}_positions", node.outputs[0]);
    node.outputs.push(positions.clone());
    let sizes = l.sizes(op.x);
    let mut image = 1;
    for size in &sizes[2..] {
        image *= fixed(size, "a dimension whose positions of the maximum are read")?;
    }
    let image = l.number(image as f64, indices.dtype)?;
    l.push("Mod", [positions, image], indices);
    Ok(())
}

pub(super) fn average(l: &mut Lower, op: &Pool, count_include_pad: bool) -> Lowering {
    let mut x = l.input(op.x)?;
    let beyond = op.beyond(l)?;
    let mut padding = op.padding.clone();
    let counted = count_include_pad && padding.iter().any(|&padding| padding > 0);
    if counted && beyond.iter().any(|&beyond| beyond > 0) {
        let sides = [0, 0].into_iter().chain(padding.iter().copied());
        let sides: Vec<i64> = sides.map(|padding| padding as i64).collect();
        let pads = l.ints(sides.iter().chain(&sides).copied());
        let zero = l.number(0.0, op.x.dtype)?;
        x = l.step("Pad", [x, pads, zero], []);
        padding.fill(0);
    }
    let counted = counted && padding.iter().any(|&padding| padding > 0);
    let node = l.push("AveragePool", [x], op.out);
    op.describe(node, &padding, &beyond);
    node.set("count_include_pad", Attribute::Int(i64::from(counted)));
    Ok(())
}

/// Averages over equal or unequal parts, as many as the output has places.
pub(super) fn adaptive(l: &mut Lower, x: &TensorIr, out: &TensorIr) -> Lowering {
    let (from, to) = (l.sizes(x), l.sizes(out));
    let name = l.input(x)?;
    if from == to {
        l.alias(name, out);
        return Ok(());
    }
    if to[2..].iter().all(|size| size.fixed() == Some(1)) {
        l.push("GlobalAveragePool", [name], out);
        return Ok(());
    }
    let what = "a dimension of an adaptive pooling to more than one place";
    let fix = |sizes: &[Sizes]| -> Result<Vec<usize>, Unsupported> {
        sizes[2..].iter().map(|size| fixed(size, what)).collect()
    };
    let (from, to) = (fix(&from)?, fix(&to)?);
    if from
        .iter()
        .zip(&to)
        .all(|(from, to)| from.is_multiple_of(*to))
    {
        let kernel: Vec<usize> = from.iter().zip(&to).map(|(from, to)| from / to).collect();
        l.push("AveragePool", [name], out)
            .set("kernel_shape", ints(kernel.iter().copied()))
            .set("strides", ints(kernel.iter().copied()));
        return Ok(());
    }
    let rank = from.len() + 2;
    let mut pooled = name;
    for (dim, (&from, &to)) in from.iter().zip(&to).enumerate() {
        pooled = averaged(l, pooled, (rank, dim + 2), from, to);
    }
    l.alias(pooled, out);
    Ok(())
}

/// Averages over parts of unequal size along one dimension, as a product with a matrix.
fn averaged(
    l: &mut Lower,
    x: String,
    (rank, dim): (usize, usize),
    from: usize,
    to: usize,
) -> String {
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(dim, rank - 1);
    let turned = |l: &mut Lower, x: String| match dim + 1 == rank {
        true => x,
        false => l.step("Transpose", [x], [("perm", ints(order.iter().copied()))]),
    };
    let values = Values::Float(averages(from, to));
    let matrix = l.constant("averages", vec![from, to], values);
    let x = turned(l, x);
    let x = l.step("MatMul", [x, matrix], []);
    turned(l, x)
}

/// Matrix `[from, to]` whose column `i` averages the places from `floor(i from / to)` to
/// `ceil((i + 1) from / to)`.
fn averages(from: usize, to: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; from * to];
    for column in 0..to {
        let (start, end) = (column * from / to, ((column + 1) * from).div_ceil(to));
        for row in start..end {
            matrix[row * to + column] = 1.0 / (end - start) as f32;
        }
    }
    matrix
}

impl Lower<'_> {
    /// Whether an operation reads a tensor, or it is an output.
    fn is_read(&self, tensor: &TensorIr) -> bool {
        self.readers.contains_key(&tensor.id) || self.trace.outputs.contains(&tensor.id)
    }
}

#[cfg(test)]
mod tests {
    use super::averages;

    #[test]
    fn parts_of_unequal_size_overlap() {
        // 3 places in 2 parts: 0..2 and 1..3.
        assert_eq!(averages(3, 2), [0.5, 0.0, 0.5, 0.5, 0.0, 0.5]);
        assert_eq!(averages(2, 2), [1.0, 0.0, 0.0, 1.0]);
    }
}
