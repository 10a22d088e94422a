//! Contractions: matrix products, linear layers, embeddings, attention.

use burn_ir::{AttentionOpIr, EmbeddingOpIr, LinearOpIr, MatmulOpIr, TensorIr};

use super::super::GraphError;
use super::super::analysis::{Analysis, Macs, Size};
use super::super::labels::{Axis, Value};
use super::reduce;

/// Matrix product `lhs [.., m, k] @ rhs [.., k, n]`; leading dimensions of size 1 are repeated.
pub(super) fn matmul(a: &mut Analysis, op: &MatmulOpIr) -> Result<(), GraphError> {
    let (lhs, rhs) = (a.value(&op.lhs), a.value(&op.rhs));
    let rank = op.out.shape.to_vec().len();
    if rank < 2 || lhs.shape.len() != rank || rhs.shape.len() != rank {
        return Err(a.shape_error(&[&op.lhs, &op.rhs, &op.out]));
    }
    let (m, n) = (rank - 2, rank - 1);
    let layer = layer(a, &lhs, &rhs);
    let input = a.is_input(&op.lhs) || a.is_input(&op.rhs);
    a.contract(lhs.axes[n].as_ref(), rhs.axes[m].as_ref(), &layer, input);
    let mut axes = batch_axes(a, &lhs, &rhs, &op.out, m);
    axes.push(lhs.axes[m].as_ref().map(|axis| axis.map(reduce::zero)));
    axes.push(rhs.axes[n].as_ref().map(|axis| axis.map(reduce::zero)));
    let data = lhs.data || rhs.data;
    a.set(&op.out, axes, data);
    if data {
        let out = a.value(&op.out);
        let mut sizes: Vec<Size> = (0..rank).map(|dim| Size::of(&out, dim)).collect();
        sizes.push(Size::of(&lhs, n));
        a.macs.push(Macs {
            layer,
            sizes,
            divisor: 1,
        });
    }
    Ok(())
}

fn layer(a: &Analysis, lhs: &Value, rhs: &Value) -> String {
    let has_origin = |value: &Value| value.axes.iter().flatten().any(|x| !x.origins.is_empty());
    match has_origin(rhs) {
        true => a.layer(rhs),
        false => a.layer(lhs),
    }
}

/// Leading dimensions of a product: joined where both have labels, zero where either is zero.
fn batch_axes(
    a: &mut Analysis,
    lhs: &Value,
    rhs: &Value,
    out: &TensorIr,
    dims: usize,
) -> Vec<Option<Axis>> {
    let shape = out.shape.to_vec();
    (0..dims)
        .map(|dim| {
            let side = |value: &Value| match value.shape[dim] == shape[dim] {
                true => value.axes[dim].clone(),
                false => None,
            };
            let (x, y) = (side(lhs), side(rhs));
            if shape[dim] > 1 && lhs.shape[dim] == rhs.shape[dim] {
                let why = "is combined with a size that cannot change in `matmul`";
                a.join(x.as_ref(), y.as_ref(), why);
            }
            let axis = x.as_ref().or(y.as_ref())?;
            let zero = |axis: &Option<Axis>, i: usize| {
                axis.as_ref().is_some_and(|axis| axis.value[i] == Some(0.0))
            };
            Some(Axis {
                value: (0..axis.labels.len())
                    .map(|i| (zero(&x, i) || zero(&y, i)).then_some(0.0))
                    .collect(),
                origins: [&x, &y]
                    .into_iter()
                    .flatten()
                    .flat_map(|axis| axis.origins.clone())
                    .collect(),
                ..axis.clone()
            })
        })
        .collect()
}

/// Linear layer `x [.., k] @ weight [k, n] + bias [n]` as one operation.
pub(super) fn linear(a: &mut Analysis, op: &LinearOpIr) -> Result<(), GraphError> {
    let (x, weight) = (a.value(&op.x), a.value(&op.weight));
    let last = x.shape.len().saturating_sub(1);
    if x.shape.is_empty() || weight.shape.len() != 2 || weight.shape[0] != x.shape[last] {
        return Err(a.shape_error(&[&op.x, &op.weight]));
    }
    let layer = a.layer(&weight);
    let input = a.is_input(&op.x);
    a.contract(
        x.axes[last].as_ref(),
        weight.axes[0].as_ref(),
        &layer,
        input,
    );
    let bias = op.bias.as_ref().map(|bias| a.value(bias));
    let channels = biased(a, weight.axes[1].as_ref(), bias.as_ref(), &layer);
    let mut axes = x.axes.clone();
    for axis in axes.iter_mut().flatten() {
        *axis = match op.bias {
            Some(_) => axis.map(reduce::lost),
            None => axis.map(reduce::zero),
        };
    }
    axes[last] = channels;
    a.set(&op.out, axes, true);
    let out = a.value(&op.out);
    let mut sizes: Vec<Size> = (0..=last).map(|dim| Size::of(&out, dim)).collect();
    sizes.push(Size::of(&x, last));
    a.macs.push(Macs {
        layer,
        sizes,
        divisor: 1,
    });
    Ok(())
}

/// Output channels of a layer: those of the weight joined with those of the bias, zero if both are
/// masked.
pub(super) fn biased(
    a: &mut Analysis,
    weight: Option<&Axis>,
    bias: Option<&Value>,
    layer: &str,
) -> Option<Axis> {
    let Some(bias) = bias else {
        return weight.cloned();
    };
    let bias = bias.axes.first().and_then(Option::as_ref);
    let why = format!("has a constant weight or bias in `{layer}`");
    a.join(weight, bias, &why);
    let axis = weight.or(bias)?;
    let zero = |axis: Option<&Axis>, i: usize| axis.is_some_and(|a| a.value[i] == Some(0.0));
    Some(Axis {
        value: (0..axis.labels.len())
            .map(|i| (zero(weight, i) && zero(bias, i)).then_some(0.0))
            .collect(),
        origins: [weight, bias]
            .into_iter()
            .flatten()
            .flat_map(|axis| axis.origins.clone())
            .collect(),
        ..axis.clone()
    })
}

/// Embedding, rows of a table `[n, d]` by index: the `d` features are channels, the rows are not.
pub(super) fn embedding(a: &mut Analysis, op: &EmbeddingOpIr) -> Result<(), GraphError> {
    let (weights, indices) = (a.value(&op.weights), a.value(&op.indices));
    let out = op.out.shape.to_vec();
    if weights.shape.len() != 2 || out.len() != indices.shape.len() + 1 {
        return Err(a.shape_error(&[&op.weights, &op.indices, &op.out]));
    }
    if let Some(rows) = &weights.axes[0] {
        a.hide(rows, "is a row of an embedding");
    }
    for axis in indices.axes.iter().flatten() {
        a.protect(axis, "is an index into an embedding");
    }
    let mut axes = vec![None; indices.shape.len()];
    axes.push(weights.axes[1].clone());
    a.set(&op.out, axes, true);
    Ok(())
}

/// Attention `softmax(query @ key^T * scale) @ value`, each `[batch, heads, length, features]`.
///
/// Without a scale, features of the query must stay: the default scale depends on their number.
pub(super) fn attention(a: &mut Analysis, op: &AttentionOpIr) -> Result<(), GraphError> {
    let [query, key, value] = [&op.query, &op.key, &op.value].map(|tensor| a.value(tensor));
    if [&query, &key, &value].iter().any(|v| v.shape.len() != 4) {
        return Err(a.shape_error(&[&op.query, &op.key, &op.value]));
    }
    let extra = [&op.mask, &op.attn_bias].into_iter().flatten();
    let extra: Vec<Value> = extra.map(|tensor| a.value(tensor)).collect();
    let features = [&query, &key].into_iter().map(|v| &v.axes[3]);
    let lengths = [&query, &key, &value].into_iter().map(|v| &v.axes[2]);
    let others = extra.iter().flat_map(|v| &v.axes);
    let fixed: Vec<Axis> = features
        .chain(lengths)
        .chain(others)
        .flatten()
        .cloned()
        .collect();
    for axis in &fixed {
        a.protect(axis, "is read by `attention`");
    }
    let mut axes = Vec::with_capacity(4);
    for dim in 0..2 {
        for side in [&query, &key] {
            let why = "is combined with a size that cannot change in `attention`";
            a.join(value.axes[dim].as_ref(), side.axes[dim].as_ref(), why);
        }
        // The forward pass splits into a fixed number of heads.
        if let Some(axis) = &value.axes[dim] {
            a.protect(axis, "is a head of `attention`");
        }
        axes.push(value.axes[dim].as_ref().map(|axis| axis.map(reduce::zero)));
    }
    axes.push(None);
    axes.push(value.axes[3].as_ref().map(|axis| axis.map(reduce::zero)));
    a.set(&op.out, axes, true);
    let common = [
        Size::of(&query, 0),
        Size::of(&query, 1),
        Size::of(&query, 2),
        Size::of(&key, 2),
    ];
    for last in [Size::of(&query, 3), Size::of(&value, 3)] {
        let mut sizes: Vec<Size> = common
            .iter()
            .map(|s| Size::fixed(s.size as usize))
            .collect();
        sizes.push(last);
        a.macs.push(Macs {
            layer: a.op_name(),
            sizes,
            divisor: 1,
        });
    }
    Ok(())
}
