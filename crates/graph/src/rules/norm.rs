//! Normalizations that Burn has as operations of their own.

use burn_ir::{BatchNormOpIr, LayerNormOpIr, TensorIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::labels::Axis;
use super::reduce;

/// `(x - mean) / sqrt(variance + eps) * gamma + beta` per channel, in inference form.
///
/// Gamma and beta of a removed channel are masked with it, so that the output is zero there
/// whatever the running statistics are.
pub(super) fn batch_norm(a: &mut Analysis, op: &BatchNormOpIr) -> Result<(), GraphError> {
    let x = a.value_at(&op.x, 1);
    let vectors = [&op.gamma, &op.beta, &op.mean, &op.variance];
    let fits = |tensor: &TensorIr| tensor.shape.to_vec() == [x.shape[1]];
    if x.shape.len() < 2 || !vectors.iter().all(|tensor| fits(tensor)) {
        return Err(a.shape_error(&[&op.x, &op.gamma, &op.beta, &op.mean, &op.variance]));
    }
    let [gamma, beta, mean, variance] = vectors.map(|tensor| a.value(tensor).axes.swap_remove(0));
    for axis in [&mean, &variance].into_iter().flatten() {
        a.statistics
            .extend(axis.origins.iter().map(|origin| origin.0));
    }
    let why = format!("is normalized with a constant by `{}`", a.op_name());
    for other in [&beta, &mean, &variance] {
        a.join(gamma.as_ref(), other.as_ref(), &why);
    }
    // A batch norm over the model's input or another fixed size keeps all its channels.
    a.join(x.axes[1].as_ref(), gamma.as_ref(), &a.fixed_by(&op.x));
    let channels = gamma.as_ref().map(|gamma| Axis {
        value: (0..gamma.labels.len())
            .map(|i| {
                let beta = beta.as_ref().and_then(|beta| beta.value[i]);
                let masked = gamma.value[i] == Some(0.0) && beta == Some(0.0);
                masked.then_some(0.0)
            })
            .collect(),
        origins: [Some(gamma), beta.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(|axis| axis.origins.clone())
            .collect(),
        ..gamma.clone()
    });
    let mut axes: Vec<Option<Axis>> = x.axes;
    for axis in axes.iter_mut().flatten() {
        *axis = axis.map(reduce::lost);
    }
    axes[1] = channels.or(axes[1].take());
    a.set(&op.out, axes, true);
    Ok(())
}

/// Mean and variance run over the last dimension, so that its channels must stay.
pub(super) fn layer_norm(a: &mut Analysis, op: &LayerNormOpIr) -> Result<(), GraphError> {
    let x = a.value(&op.input);
    let last = x.shape.len().saturating_sub(1);
    let gamma = a.value(&op.gamma);
    if x.shape.is_empty() || gamma.shape.as_slice() != &x.shape[last..] {
        return Err(a.shape_error(&[&op.input, &op.gamma]));
    }
    let beta = op.beta.as_ref().map(|beta| a.value(beta));
    let beta = beta.and_then(|beta| beta.axes.into_iter().next().flatten());
    let why = "layer normalization runs over channels";
    let mut axes = x.axes;
    for axis in [&gamma.axes[0], &beta].into_iter().flatten() {
        a.join(axes[last].as_ref(), Some(axis), why);
        a.protect(axis, why);
    }
    if let Some(axis) = &axes[last] {
        a.protect(axis, why);
    }
    for axis in axes[..last].iter_mut().flatten() {
        *axis = match op.beta {
            Some(_) => axis.map(reduce::lost),
            None => axis.map(reduce::zero),
        };
    }
    let origins: Vec<_> = [&gamma.axes[0], &beta]
        .into_iter()
        .flatten()
        .flat_map(|axis| axis.origins.clone())
        .collect();
    axes[last] = gamma.axes[0]
        .as_ref()
        .or(axes[last].as_ref())
        .map(|axis| Axis {
            origins,
            ..axis.map(reduce::lost)
        });
    a.set(&op.out, axes, true);
    Ok(())
}
