//! Norms that are one operation of Burn; the others are captured as arithmetic.

use burn_ir::{BatchNormOpIr, LayerNormOpIr};

use crate::graph::Attribute;

use super::{Lower, Lowering, scalar_value};

pub(super) fn batch_norm(l: &mut Lower, op: &BatchNormOpIr) -> Lowering {
    let inputs = [&op.x, &op.gamma, &op.beta, &op.mean, &op.variance];
    let inputs = inputs.map(|tensor| l.input(tensor));
    let inputs = inputs.into_iter().collect::<Result<Vec<_>, _>>()?;
    let epsilon = Attribute::Float(scalar_value(op.epsilon) as f32);
    l.push("BatchNormalization", inputs, &op.out)
        .set("epsilon", epsilon);
    Ok(())
}

pub(super) fn layer_norm(l: &mut Lower, op: &LayerNormOpIr) -> Lowering {
    let mut inputs = vec![l.input(&op.input)?, l.input(&op.gamma)?];
    if let Some(beta) = &op.beta {
        inputs.push(l.input(beta)?);
    }
    l.push("LayerNormalization", inputs, &op.out)
        .set("axis", Attribute::Int(-1))
        .set("epsilon", Attribute::Float(scalar_value(op.epsilon) as f32));
    Ok(())
}
