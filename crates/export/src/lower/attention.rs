//! Scaled dot-product attention, as the operations that it stands for.
//!
//! ```text
//! softmax(cap(scale Q K^T) masked + bias) V,   cap(x) = c tanh(x / c)
//! ```
//!
//! A row that is masked as a whole gives zeros, as in Burn: the softmax is of the scores with the
//! smallest float in the place of minus infinity, and masked entries are set to zero behind it.

use burn_ir::AttentionOpIr;

use crate::graph::{Attribute, Values};

use super::{Lower, Lowering, arithmetic, ints, scalar_value};

pub(super) fn attention(l: &mut Lower, op: &AttentionOpIr) -> Lowering {
    let (query, key, value) = (l.input(&op.query)?, l.input(&op.key)?, l.input(&op.value)?);
    let dtype = op.query.dtype;
    let features = op.query.shape.to_vec()[3] as f64;
    let scale = op.options.scale.map_or(1.0 / features.sqrt(), scalar_value);
    let key = l.step("Transpose", [key], [("perm", ints([0, 1, 3, 2]))]);
    let product = l.step("MatMul", [query, key], []);
    let scale = l.number(scale, dtype)?;
    let mut scores = l.step("Mul", [product, scale], []);
    if let Some(cap) = op.options.softcap {
        let cap = l.scalar(cap, dtype)?;
        scores = l.step("Div", [scores, cap.clone()], []);
        scores = l.step("Tanh", [scores], []);
        scores = l.step("Mul", [scores, cap], []);
    }
    let mut masks = Vec::new();
    if let Some(mask) = &op.mask {
        masks.push(l.input(mask)?);
    }
    if op.options.is_causal {
        let (queries, keys) = (l.sizes(&op.query)[2].clone(), l.sizes(&op.key)[2].clone());
        let queries = arithmetic::fixed(&queries, "the number of queries of a causal attention")?;
        let keys = arithmetic::fixed(&keys, "the number of keys of a causal attention")?;
        let behind = (0..queries).flat_map(|row| (0..keys).map(move |column| column > row));
        let values = Values::Bool(behind.collect());
        masks.push(l.constant("causal_mask", vec![queries, keys], values));
    }
    let least = l.number(f64::from(f32::MIN), dtype)?;
    for mask in &masks {
        scores = l.step("Where", [mask.clone(), least.clone(), scores], []);
    }
    if let Some(bias) = &op.attn_bias {
        let bias = l.input(bias)?;
        scores = l.step("Add", [scores, bias], []);
    }
    let mut weights = l.step("Softmax", [scores], [("axis", Attribute::Int(-1))]);
    let zero = l.number(0.0, dtype)?;
    for mask in masks {
        weights = l.step("Where", [mask, zero.clone(), weights], []);
    }
    l.push("MatMul", [weights, value], &op.out);
    Ok(())
}
