//! Linear layers in a capture, found again.
//!
//! Burn computes a linear layer as a product and a sum, for rows or for all batches, whichever is faster
//! for the sizes at hand:
//!
//! ```text
//! add(matmul(x, reshape(weight)), reshape(bias))
//! reshape(add(matmul(reshape(x), weight), reshape(bias)))
//! ```
//!
//! Both are one operation here, so that captures with different sizes agree.

use std::collections::HashMap;

use burn_ir::{
    BaseOperationIr as Base, FloatOperationIr as Float, LinearOpIr, ModuleOperationIr as Module,
    NumericOperationIr as Numeric, OperationIr as Op, ShapeOpIr, TensorId, TensorIr,
};

/// The operations with every linear layer as one.
pub(super) fn joined(operations: Vec<Op>, outputs: &[TensorId]) -> Vec<Op> {
    let uses = Uses::of(&operations, outputs);
    let mut replaced: HashMap<usize, Option<Op>> = HashMap::new();
    for at in 0..operations.len() {
        if let Some((parts, linear)) = uses.linear(&operations, at) {
            let last = parts.iter().copied().max().unwrap_or(at);
            replaced.extend(parts.into_iter().map(|part| (part, None)));
            replaced.insert(last, Some(Op::Module(Module::Linear(linear))));
        }
    }
    let ops = operations.into_iter().enumerate();
    ops.filter_map(|(at, op)| replaced.remove(&at).unwrap_or(Some(op)))
        .collect()
}

/// The operations that make and read every tensor.
struct Uses<'a> {
    makers: HashMap<TensorId, usize>,
    readers: HashMap<TensorId, Vec<usize>>,
    outputs: &'a [TensorId],
}

impl<'a> Uses<'a> {
    fn of(operations: &[Op], outputs: &'a [TensorId]) -> Self {
        let (mut makers, mut readers) = (HashMap::new(), HashMap::new());
        for (at, op) in operations.iter().enumerate() {
            makers.extend(op.outputs().map(|out| (out.id, at)));
            for input in op.inputs() {
                let readers: &mut Vec<usize> = readers.entry(input.id).or_default();
                readers.push(at);
            }
        }
        Self {
            makers,
            readers,
            outputs,
        }
    }

    /// The only operation that reads a tensor which is no output.
    fn reader(&self, id: TensorId) -> Option<usize> {
        match self.readers.get(&id)?.as_slice() {
            [reader] if !self.outputs.contains(&id) => Some(*reader),
            _ => None,
        }
    }

    /// The reshape that makes a tensor.
    fn reshaped<'b>(&self, operations: &'b [Op], id: TensorId) -> Option<&'b ShapeOpIr> {
        reshape(&operations[*self.makers.get(&id)?])
    }

    /// A tensor of rank `rank` before dimensions of size 1 were added in front.
    fn without_ones(&self, operations: &[Op], tensor: &TensorIr, rank: usize) -> Option<TensorIr> {
        let dims = tensor.shape.to_vec();
        if dims.len() == rank {
            return Some(tensor.clone());
        }
        let inner = &self.reshaped(operations, tensor.id)?.input;
        let given = inner.shape.to_vec();
        let ones = dims.len().checked_sub(rank)?;
        let fits =
            given.len() == rank && dims[ones..] == given && dims[..ones].iter().all(|&n| n == 1);
        fits.then(|| inner.clone())
    }

    /// The linear layer whose product is the operation `at`, and the operations that it replaces.
    fn linear(&self, operations: &[Op], at: usize) -> Option<(Vec<usize>, LinearOpIr)> {
        let Op::Float(_, Float::Matmul(product)) = &operations[at] else {
            return None;
        };
        let weight = self.without_ones(operations, &product.rhs, 2)?;
        let width = weight.shape.to_vec()[1];
        let (mut parts, mut x, mut out) = (vec![at], product.lhs.clone(), product.out.clone());
        let mut bias = None;
        if let Some(next) = self.reader(out.id)
            && let Op::NumericFloat(_, Numeric::Add(sum)) = &operations[next]
            && sum.lhs.id == out.id
            && sum.out.shape == out.shape
            && let Some(found) = self.without_ones(operations, &sum.rhs, 1)
            && found.shape.to_vec() == [width]
        {
            bias = Some(found);
            out = sum.out.clone();
            parts.push(next);
        }
        if let Some((rows, next, whole)) = self.merged(operations, &x, &out) {
            x = rows;
            out = whole;
            parts.push(next);
        }
        let linear = LinearOpIr {
            x,
            weight,
            bias,
            out,
        };
        Some((parts, linear))
    }

    /// The input of more dimensions than two whose rows are `rows`, the reshape behind the layer and its
    /// output.
    fn merged(
        &self,
        operations: &[Op],
        rows: &TensorIr,
        out: &TensorIr,
    ) -> Option<(TensorIr, usize, TensorIr)> {
        let x = &self.reshaped(operations, rows.id)?.input;
        let next = self.reader(out.id)?;
        let back = reshape(&operations[next])?;
        let (mut dims, whole) = (x.shape.to_vec(), back.out.shape.to_vec());
        let (features, width) = (rows.shape.to_vec(), out.shape.to_vec());
        if dims.len() <= 2 || features.len() != 2 || dims.last() != features.last() {
            return None;
        }
        *dims.last_mut()? = *width.last()?;
        (dims == whole).then(|| (x.clone(), next, back.out.clone()))
    }
}

fn reshape(op: &Op) -> Option<&ShapeOpIr> {
    match op {
        Op::BaseFloat(Base::Reshape(op)) => Some(op),
        _ => None,
    }
}
