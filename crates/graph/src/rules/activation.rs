//! Activation functions that are single operations of Burn.

use burn_ir::{ActivationOperationIr as Activation, DimOpIr, OperationIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::operation::number;
use super::{custom, elementwise, reduce};

pub(super) fn apply(
    a: &mut Analysis,
    op: &OperationIr,
    activation: &Activation,
) -> Result<(), GraphError> {
    match activation {
        Activation::Relu(op) => elementwise::unary(a, &op.input, &op.out, |x| x.max(0.0)),
        Activation::LeakyRelu(op) => {
            elementwise::scalar(a, op, |x, slope| if x < 0.0 { slope * x } else { x })
        }
        // Whatever the slope is, zero stays zero.
        Activation::PRelu(op) => elementwise::binary(a, op, |x, _| x.filter(|x| *x >= 0.0)),
        Activation::Gelu(op) => elementwise::map(a, &op.input, &op.out, reduce::zero),
        Activation::Sigmoid(op) => {
            elementwise::unary(a, &op.input, &op.out, |x| 1.0 / (1.0 + (-x).exp()))
        }
        Activation::LogSigmoid(op) => {
            elementwise::unary(a, &op.input, &op.out, |x| -(-x).exp().ln_1p())
        }
        Activation::HardSigmoid(op) => {
            let (alpha, beta) = (number(op.alpha), number(op.beta));
            elementwise::unary(a, &op.tensor, &op.out, |x| {
                (alpha * x + beta).clamp(0.0, 1.0)
            })
        }
        Activation::Softmax(op) | Activation::LogSoftmax(op) | Activation::Softmin(op) => {
            normalize(a, op);
            Ok(())
        }
        Activation::ReluBackward(_)
        | Activation::GeluBackward(_)
        | Activation::SigmoidBackward(_)
        | Activation::LogSigmoidBackward(_) => custom::apply(a, op),
    }
}

/// Normalization along `axis`: its channels must stay, since each changes all others.
fn normalize(a: &mut Analysis, op: &DimOpIr) {
    reduce::dims(a, &op.input, &[op.axis], &op.out, reduce::lost);
}
