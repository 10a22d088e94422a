//! Contractions: matrix products, linear layers, embeddings, attention.

use burn_ir::{AttentionOpIr, EmbeddingOpIr, LinearOpIr, MatmulOpIr, TensorIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::facts::{Macs, Size};
use super::super::labels::Axis;
use super::super::split::Split;
use super::super::value::Value;
use super::elementwise::{self, Operand};
use super::meet::{self, Parts, Repeats};
use super::reduce;

/// Matrix product `lhs [.., m, k] @ rhs [.., k, n]`; leading dimensions of size 1 are repeated.
pub(super) fn matmul(a: &mut Analysis, op: &MatmulOpIr) -> Result<(), GraphError> {
    let (mut lhs, mut rhs) = (a.split_value(&op.lhs), a.split_value(&op.rhs));
    let rank = op.out.shape.to_vec().len();
    if rank < 2 || lhs.shape.len() != rank || rhs.shape.len() != rank {
        return Err(a.shape_error(&[&op.lhs, &op.rhs, &op.out]));
    }
    let (m, n) = (rank - 2, rank - 1);
    let layer = layer(a, &lhs, &rhs);
    let input = a.is_input(&op.lhs) || a.is_input(&op.rhs);
    let mut counted = None;
    if !lhs.splits.is_empty() || !rhs.splits.is_empty() {
        counted = contract_splits(a, &mut lhs, &mut rhs, &layer, input);
    }
    // What is contracted as a split has left no axis.
    if counted.is_none() {
        a.contract(lhs.axes[n].as_ref(), rhs.axes[m].as_ref(), &layer, input);
    }
    let data = lhs.data || rhs.data;
    if lhs.splits.is_empty() && rhs.splits.is_empty() {
        let mut axes = batch_axes(a, &lhs, &rhs, &op.out, m);
        axes.push(lhs.axes[m].as_ref().map(|axis| axis.map(reduce::zero)));
        axes.push(rhs.axes[n].as_ref().map(|axis| axis.map(reduce::zero)));
        a.set(&op.out, axes, data);
    } else {
        product(a, &lhs, &rhs, &op.out);
    }
    if data {
        let out = a.split_value(&op.out);
        // The last factor is the contracted dimension.
        let mut sizes: Vec<Size> = (0..rank).map(|dim| Size::of(&out, dim)).collect();
        sizes.push(Size::of(&lhs, n));
        let splits: Vec<Split> = counted.iter().chain(&out.splits).cloned().collect();
        a.macs.push(Macs {
            layer,
            sizes: together(sizes, &splits),
            divisor: 1,
        });
    }
    Ok(())
}

/// The contraction where a side has labels that depend on the contracted dimension and on others:
/// heads with their features, label by label. Returns the contracted labels, with the contracted
/// dimension as one behind the output's.
fn contract_splits(
    a: &mut Analysis,
    lhs: &mut Value,
    rhs: &mut Value,
    layer: &str,
    input: bool,
) -> Option<Split> {
    let rank = lhs.shape.len();
    let (m, n) = (rank - 2, rank - 1);
    let shared: Vec<bool> = (0..m).map(|dim| lhs.shape[dim] == rhs.shape[dim]).collect();
    // Every sum runs over the same labels: only leading dimensions of both sides may choose others. Rows
    // of a weight are what goes where parts lie along the sum: the channels of a pixel shuffle.
    let rows = |value: &Value, dim: usize| {
        let axis = value.axes[dim].as_ref();
        axis.is_some_and(|axis| !value.data && !axis.origins.is_empty() && a.is_free(axis))
    };
    let (left_rows, right_rows) = (rows(lhs, n), rows(rhs, m));
    let stays = |split: &Split, dim: usize, k: usize, rows: bool| {
        let ends = split.last() == k;
        split.place(k).is_none()
            || if ends {
                dim == k || dim < m && shared[dim]
            } else {
                (dim == k) == rows
            }
    };
    a.narrow(lhs, |split, dim| stays(split, dim, n, right_rows));
    a.narrow(rhs, |split, dim| stays(split, dim, m, left_rows));
    loop {
        let left = lhs.split_at(n).cloned();
        let right = rhs.split_at(m).cloned();
        let heads = |split: &Split| split.dims[..split.dims.len() - 1].to_vec();
        match (left, right) {
            (None, None) => return None,
            (Some(x), Some(y)) => {
                if heads(&x) == heads(&y) {
                    a.contract(Some(&x.axis), Some(&y.axis), layer, input);
                    lhs.splits.retain(|split| *split != x);
                    rhs.splits.retain(|split| *split != y);
                    let mut counted = x;
                    counted.dims = [heads(&counted), vec![rank]].concat();
                    return Some(counted);
                }
                let both = |dim: usize| heads(&x).contains(&dim) && heads(&y).contains(&dim);
                let order: Vec<usize> = heads(&x).into_iter().filter(|&dim| both(dim)).collect();
                a.narrow(lhs, |split, dim| {
                    split.place(n).is_none() || dim == n || both(dim)
                });
                a.narrow(rhs, |split, dim| {
                    split.place(m).is_none() || dim == m || both(dim)
                });
                for split in rhs
                    .splits
                    .iter_mut()
                    .filter(|split| split.place(m).is_some())
                {
                    if let Some(ordered) = split.ordered(&[order.clone(), vec![m]].concat()) {
                        *split = ordered;
                    }
                }
            }
            (Some(x), None) => one_side(a, (lhs, &x, n), (rhs, m), layer, input),
            (None, Some(y)) => one_side(a, (rhs, &y, m), (lhs, n), layer, input),
        }
    }
}

/// A contraction of labels of one side that depend on several dimensions with the other side, whose
/// labels do not.
fn one_side(
    a: &mut Analysis,
    (side, split, k): (&mut Value, &Split, usize),
    (other, other_k): (&Value, usize),
    layer: &str,
    input: bool,
) {
    let is_free = |dim: usize| other.axes[dim].as_ref().is_some_and(|axis| a.is_free(axis));
    let heads = split.dims.iter().any(|&dim| dim != k && is_free(dim));
    if other.axes[other_k].is_some() {
        a.narrow(side, |found, dim| found != split || dim == k);
    } else if heads {
        a.narrow(side, |found, dim| found != split || dim != k);
    } else {
        a.contract(Some(&split.axis), None, layer, input);
        side.splits.retain(|found| found != split);
    }
}

/// The output, once what is contracted is gone: rows of one side and columns of the other, zero where
/// either is.
fn product(a: &mut Analysis, lhs: &Value, rhs: &Value, out: &TensorIr) {
    let shape = out.shape.to_vec();
    let rank = shape.len();
    let without = |value: &Value, dim: usize| {
        let mut value = value.clone();
        value.shape[dim] = 1;
        value.axes[dim] = None;
        value
    };
    let mut values = [without(lhs, rank - 1), without(rhs, rank - 2)];
    meet::align(a, &mut values, Repeats::Yes, Parts::Join);
    let zero = |known: &[Option<f64>]| known.contains(&Some(0.0)).then_some(0.0);
    let mut axes = Vec::with_capacity(rank);
    for (dim, &size) in shape.iter().enumerate() {
        let operands: Vec<Operand> = values
            .iter()
            .map(|value| Operand::new(value, dim, size))
            .collect();
        axes.push(elementwise::combine(a, &operands, size, &zero));
    }
    let splits = elementwise::combine_splits(a, &values, &zero);
    a.set_split(out, axes, splits, lhs.data || rhs.data);
}

fn layer(a: &Analysis, lhs: &Value, rhs: &Value) -> String {
    let has_origin = |value: &Value| value.labelled().any(|x| !x.origins.is_empty());
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
    let last = op.x.shape.to_vec().len().saturating_sub(1);
    let (x, weight) = (a.value_at(&op.x, last), a.value(&op.weight));
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
    let [query, key, mut value] = [&op.query, &op.key, &op.value].map(|x| a.split_value(x));
    if [&query, &key, &value].iter().any(|v| v.shape.len() != 4) {
        return Err(a.shape_error(&[&op.query, &op.key, &op.value]));
    }
    let why = "is read by `attention`";
    let extra = [&op.mask, &op.attn_bias].into_iter().flatten();
    for extra in extra.map(|tensor| a.value(tensor)).collect::<Vec<_>>() {
        extra
            .axes
            .iter()
            .flatten()
            .for_each(|axis| a.protect(axis, why));
    }
    let (mut lhs, mut rhs) = (query.clone(), key.clone());
    for side in [&query, &key, &value] {
        side.axes[2].iter().for_each(|axis| a.protect(axis, why));
    }
    if op.options.scale.is_some() {
        // Scores are `query @ key^T`.
        rhs.shape.swap(2, 3);
        rhs.axes.swap(2, 3);
        for split in &mut rhs.splits {
            split
                .dims
                .iter_mut()
                .filter(|dim| **dim >= 2)
                .for_each(|dim| *dim = 5 - *dim);
        }
        if contract_splits(a, &mut lhs, &mut rhs, "attention", false).is_none() {
            a.contract(
                lhs.axes[3].as_ref(),
                rhs.axes[2].as_ref(),
                "attention",
                false,
            );
        }
    } else {
        for side in [&query, &key] {
            let splits = side.splits.iter().map(|split| &split.axis);
            side.axes[3]
                .iter()
                .chain(splits)
                .for_each(|axis| a.protect(axis, why));
        }
    }
    for dim in 0..2 {
        for side in [&lhs, &rhs] {
            if side.axes[dim].as_ref().is_some_and(|axis| a.is_free(axis)) {
                // A head that has a channel goes with all of its values.
                a.narrow(&mut value, |split, d| {
                    d == dim || split.place(dim).is_none()
                });
            }
        }
    }
    let mut axes = Vec::with_capacity(4);
    for dim in 0..2 {
        for side in [&lhs, &rhs] {
            let fixed = "is combined with a size that cannot change in `attention`";
            a.join(value.axes[dim].as_ref(), side.axes[dim].as_ref(), fixed);
        }
        axes.push(value.axes[dim].as_ref().map(|axis| axis.map(reduce::zero)));
    }
    axes.push(None);
    axes.push(value.axes[3].as_ref().map(|axis| axis.map(reduce::zero)));
    let mut splits = value.splits.clone();
    splits
        .iter_mut()
        .for_each(|split| split.axis = split.axis.map(reduce::zero));
    a.set_split(&op.out, axes, splits, true);
    // Queries by keys, then scores by values: heads, places of both and features.
    let heads = [&lhs, &rhs, &value]
        .into_iter()
        .find(|side| side.axes[1].is_some());
    for side in [&query, &value] {
        let sizes = vec![
            Size::of(&query, 0),
            Size::of(heads.unwrap_or(&query), 1),
            Size::of(&query, 2),
            Size::of(&key, 2),
            Size::of(side, 3),
        ];
        let mut splits = side.splits.clone();
        for split in &mut splits {
            split
                .dims
                .iter_mut()
                .filter(|dim| **dim == 3)
                .for_each(|dim| *dim = 4);
        }
        a.macs.push(Macs {
            layer: a.op_name(),
            sizes: together(sizes, &splits),
            divisor: 1,
        });
    }
    Ok(())
}

/// Factors of a count, those of the dimensions of a split as one.
fn together(sizes: Vec<Size>, splits: &[Split]) -> Vec<Size> {
    let mut sizes: Vec<Option<Size>> = sizes.into_iter().map(Some).collect();
    for split in splits {
        if split.dims.iter().all(|&dim| sizes[dim].is_some()) {
            split.dims.iter().for_each(|&dim| sizes[dim] = None);
            sizes.push(Some(Size::of_split(split)));
        }
    }
    sizes.into_iter().flatten().collect()
}
