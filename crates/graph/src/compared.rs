//! What two forward passes of a model are compared by.
//!
//! Burn chooses some operations by the sizes of their inputs, which differ where channels have been
//! removed. They move no element, so that they are left out:
//!
//! - reshapes, as a linear layer merges the leading dimensions of its input or keeps them, whichever is
//!   faster;
//! - the exchanges around a product `[.., b, 1, k] @ [.., 1, k, n]`, which make rows of the batch: of a
//!   single place once one head is left.

use std::hash::{DefaultHasher, Hash, Hasher};

use burn::tensor::Slice;
use burn_capture::TensorId;
use burn_ir::{
    BaseOperationIr as Base, FloatOperationIr as Float, IrVisitorMut, ModuleOperationIr as Op,
    OperationIr, TensorIr, TensorStatus,
};

use super::builtin;
use super::size_check::is_reshape;

/// The positions of the operations that count.
pub(super) fn compared(operations: &[OperationIr]) -> Vec<usize> {
    let mut left_out = vec![false; operations.len()];
    for (at, window) in operations.windows(3).enumerate() {
        if is_product_of_one_row(window) {
            (left_out[at], left_out[at + 2]) = (true, true);
        }
    }
    let counts = |&at: &usize| !left_out[at] && !is_reshape(&operations[at]);
    (0..operations.len()).filter(counts).collect()
}

/// Whether a matrix product stands between two exchanges that make rows of its batch.
fn is_product_of_one_row(operations: &[OperationIr]) -> bool {
    let [
        OperationIr::BaseFloat(Base::SwapDims(before)),
        OperationIr::Float(_, Float::Matmul(product)),
        OperationIr::BaseFloat(Base::SwapDims(after)),
    ] = operations
    else {
        return false;
    };
    let (input, right) = (before.input.shape.to_vec(), product.rhs.shape.to_vec());
    let Some(batch) = input.len().checked_sub(3) else {
        return false;
    };
    before.out.id == product.lhs.id
        && product.out.id == after.input.id
        && [before, after]
            .iter()
            .all(|op| (op.dim1, op.dim2) == (batch, batch + 1))
        && input[batch + 1] == 1
        && right.len() == input.len()
        && right[batch] == 1
}

/// Identity of an operation, without the identifiers and sizes of its tensors.
///
/// Ranges of slices and the number of groups of a convolution may follow a cut; the shapes that
/// come of them are compared by the operations that read them.
pub(super) fn fingerprint(op: &OperationIr) -> u64 {
    struct Blank;

    impl IrVisitorMut for Blank {
        fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
            tensor.id = TensorId::new(0);
            tensor.shape = [0usize; 0].into();
            tensor.status = TensorStatus::ReadOnly;
        }

        fn visit_range_mut(&mut self, range: &mut Slice) {
            *range = Slice::new(0, None, range.step);
        }
    }

    let mut op = op.clone();
    op.visit_mut(&mut Blank);
    if let OperationIr::Custom(op) = &mut op
        && builtin::is_known(&op.id)
    {
        op.scalars.clear();
    }
    if let OperationIr::Module(module) = &mut op {
        match module {
            Op::Conv1d(op) => op.options.groups = 0,
            Op::Conv2d(op) => op.options.groups = 0,
            Op::Conv3d(op) => op.options.groups = 0,
            Op::ConvTranspose1d(op) => op.options.groups = 0,
            Op::ConvTranspose2d(op) => op.options.groups = 0,
            Op::ConvTranspose3d(op) => op.options.groups = 0,
            _ => {}
        }
    }
    let mut hasher = DefaultHasher::new();
    op.hash(&mut hasher);
    hasher.finish()
}
