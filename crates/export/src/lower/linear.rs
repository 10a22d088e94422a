//! Products of matrices, linear layers and tables.

use burn_ir::{EmbeddingOpIr, LinearOpIr, MatmulOpIr};

use crate::graph::Attribute;

use super::{Lower, Lowering};

pub(super) fn matmul(l: &mut Lower, op: &MatmulOpIr) -> Lowering {
    let inputs = [l.input(&op.lhs)?, l.input(&op.rhs)?];
    l.push("MatMul", inputs, &op.out);
    Ok(())
}

/// `x weight + bias` with a weight `[in, out]`, as `Gemm` for rows: runtimes execute it in integers,
/// where they would fuse a product and a sum to one in floating point.
pub(super) fn linear(l: &mut Lower, op: &LinearOpIr) -> Lowering {
    let (x, weight) = (l.input(&op.x)?, l.input(&op.weight)?);
    let bias = match &op.bias {
        Some(bias) => Some(l.input(bias)?),
        None => None,
    };
    if op.x.shape.to_vec().len() == 2 {
        let inputs = [Some(x), Some(weight), bias].into_iter().flatten();
        l.push("Gemm", inputs, &op.out);
        return Ok(());
    }
    match bias {
        None => {
            l.push("MatMul", [x, weight], &op.out);
        }
        Some(bias) => {
            let product = l.step("MatMul", [x, weight], []);
            l.push("Add", [product, bias], &op.out);
        }
    }
    Ok(())
}

pub(super) fn embedding(l: &mut Lower, op: &EmbeddingOpIr) -> Lowering {
    let inputs = [l.input(&op.weights)?, l.input(&op.indices)?];
    l.push("Gather", inputs, &op.out)
        .set("axis", Attribute::Int(0));
    Ok(())
}
