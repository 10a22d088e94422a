//! Batch norms folded into the layers before them.
//!
//! `y = gamma (x - mean) / sqrt(var + eps) + beta` with the running statistics is `f x + (beta - f mean)`
//! with `f = gamma / sqrt(var + eps)`. It is folded where `x` is what a convolution or a `Gemm` makes and
//! nothing else reads it: no other operator, no quantizer, no output of the graph.

use burn_compress_core::Calibration;

use super::product::{Product, is_rounded};
use super::report::{FoldedNorm, QuantizationReport};
use crate::graph::OnnxGraph;

/// ONNX's default.
const EPSILON: f32 = 1e-5;

/// Folds every norm that can be; `is_quantized` tells the tensors that a quantizer or a mask is on.
pub(crate) fn norms(
    graph: &mut OnnxGraph,
    products: &mut [Product],
    calibration: &Calibration,
    is_quantized: impl Fn(&str) -> bool,
    report: &mut QuantizationReport,
) {
    for product in products.iter_mut() {
        while let Some((norm, factors, shift)) = norm_behind(graph, product, &is_quantized) {
            product.fold(&factors, &shift);
            let node = graph.nodes.remove(norm);
            let beta = node.input(2).unwrap_or_default();
            product.rounds_bias = is_rounded(calibration, beta);
            report.folded_norms.push(FoldedNorm {
                layer: product.layer().to_string(),
                norm: node.input(1).unwrap_or_default().to_string(),
            });
            let made = graph.producer(&product.output);
            let output = node.output().to_string();
            if let Some(at) = made {
                graph.nodes[at].outputs[0].clone_from(&output);
            }
            product.output = output;
        }
    }
}

/// The norm that alone reads what a layer makes: its position, factors and shifts.
fn norm_behind(
    graph: &OnnxGraph,
    product: &Product,
    is_quantized: impl Fn(&str) -> bool,
) -> Option<(usize, Vec<f64>, Vec<f64>)> {
    let at = graph.producer(&product.output)?;
    // The channels of a `MatMul` of sequences are not in the dimension of the norm's.
    if graph.nodes[at].operator == "MatMul" || is_quantized(&product.output) {
        return None;
    }
    let reader = graph.only_reader(&product.output)?;
    let node = &graph.nodes[reader];
    let is_norm = node.operator == "BatchNormalization"
        && node.input(0) == Some(&product.output)
        && node.int("training_mode").unwrap_or(0) == 0;
    if !is_norm {
        return None;
    }
    let parameter = |at: usize| graph.floats(node.input(at)?);
    let (gamma, beta) = (parameter(1)?, parameter(2)?);
    let (mean, var) = (parameter(3)?, parameter(4)?);
    let epsilon = f64::from(node.float("epsilon").unwrap_or(EPSILON));
    let factors: Vec<f64> = gamma
        .iter()
        .zip(var)
        .map(|(&gamma, &var)| f64::from(gamma) / (f64::from(var) + epsilon).sqrt())
        .collect();
    let shift = beta.iter().zip(mean).zip(&factors);
    let shift = shift.map(|((&beta, &mean), f)| f64::from(beta) - f64::from(mean) * f);
    let shift: Vec<f64> = shift.collect();
    let channels = product.dims.get(product.axis).copied();
    (channels == Some(factors.len()) && shift.len() == factors.len())
        .then_some((reader, factors, shift))
}
