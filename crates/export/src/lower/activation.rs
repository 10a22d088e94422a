//! Activation functions that ONNX spells in another way than Burn.

use std::f64::consts::SQRT_2;

use burn_ir::{DimOpIr, HardSigmoidOpIr, ScalarOpIr, UnaryOpIr};

use crate::graph::Attribute;

use super::{Lower, Lowering, scalar_value};

pub(super) fn leaky_relu(l: &mut Lower, op: &ScalarOpIr) -> Lowering {
    let x = l.input(&op.lhs)?;
    let slope = Attribute::Float(scalar_value(op.rhs) as f32);
    l.push("LeakyRelu", [x], &op.out).set("alpha", slope);
    Ok(())
}

/// `x (1 + erf(x / sqrt 2)) / 2`, in the form that runtimes fuse; `Gelu` is an operator from set 20 on.
pub(super) fn gelu(l: &mut Lower, op: &UnaryOpIr) -> Lowering {
    let x = l.input(&op.input)?;
    let root = l.number(SQRT_2, op.input.dtype)?;
    let one = l.number(1.0, op.input.dtype)?;
    let half = l.number(0.5, op.input.dtype)?;
    let scaled = l.step("Div", [x.clone(), root], []);
    let erf = l.step("Erf", [scaled], []);
    let sum = l.step("Add", [erf, one], []);
    let product = l.step("Mul", [x, sum], []);
    l.push("Mul", [product, half], &op.out);
    Ok(())
}

pub(super) fn hard_sigmoid(l: &mut Lower, op: &HardSigmoidOpIr) -> Lowering {
    let x = l.input(&op.tensor)?;
    l.push("HardSigmoid", [x], &op.out)
        .set("alpha", Attribute::Float(scalar_value(op.alpha) as f32))
        .set("beta", Attribute::Float(scalar_value(op.beta) as f32));
    Ok(())
}

/// `-softplus(-x)`
pub(super) fn log_sigmoid(l: &mut Lower, op: &UnaryOpIr) -> Lowering {
    let x = l.input(&op.input)?;
    let x = l.step("Neg", [x], []);
    let softplus = l.step("Softplus", [x], []);
    l.push("Neg", [softplus], &op.out);
    Ok(())
}

/// An operator along one dimension.
pub(super) fn along(l: &mut Lower, operator: &str, op: &DimOpIr) -> Lowering {
    let x = l.input(&op.input)?;
    let axis = Attribute::Int(op.axis as i64);
    l.push(operator, [x], &op.out).set("axis", axis);
    Ok(())
}

/// `softmax(-x)`
pub(super) fn softmin(l: &mut Lower, op: &DimOpIr) -> Lowering {
    let x = l.input(&op.input)?;
    let x = l.step("Neg", [x], []);
    let axis = Attribute::Int(op.axis as i64);
    l.push("Softmax", [x], &op.out).set("axis", axis);
    Ok(())
}
