//! Weights and biases written into the graph.

use super::activation::{Storage, is_scale};
use super::decision::Decision;
use super::insertion::zero_points;
use super::product::Product;
use super::refusal::Refusal;
use super::report::{ConstantBytes, IntegerNode, LargestBias, QuantizationReport};
use super::target::OnnxTarget;
use super::weight::Weight;
use crate::graph::{Attribute, Constant, Node, OnnxGraph, Values};

/// Integer that the bias of a channel without weights is about: large enough to be exact, and no
/// more than an `f32` counts.
const FREE_BIAS: f64 = 8_388_608.0;

/// Writes the parameters of a layer as they are executed; returns what cannot be.
pub(crate) fn product(
    graph: &mut OnnxGraph,
    product: &Product,
    decision: Decision,
    target: OnnxTarget,
    report: &mut QuantizationReport,
) -> Vec<Refusal> {
    let operator = graph
        .producer(&product.output)
        .map(|at| graph.nodes[at].operator.clone());
    let operator = operator.unwrap_or_default();
    let layer = product.layer().to_string();
    match (decision, &product.integers) {
        (Decision::Integers { scale, reach }, Some(weight)) => {
            let refusals = in_integers(
                graph,
                product,
                weight.clone(),
                (scale, reach),
                target,
                report,
            );
            report.integer_nodes.push(IntegerNode {
                name: layer,
                operator,
            });
            refusals
        }
        (Decision::Float(reason), _) => {
            in_floats(graph, product);
            report.stays_float(layer, &operator, reason);
            Vec::new()
        }
        (Decision::Packed, Some(weight)) => {
            packed(graph, product, weight);
            report.stays_float(
                layer,
                &operator,
                "its input is not quantized; its weight has 4 bits",
            );
            report.differs(
                &product.path,
                "onnxruntime rounds the input of a product with 4 bits to 8 bits, unless its session has the \
                 entry `session.qdq_matmulnbits_accuracy_level` = 1",
            );
            Vec::new()
        }
        (Decision::Integers { .. } | Decision::Packed, None) => Vec::new(),
    }
}

fn in_integers(
    graph: &mut OnnxGraph,
    product: &Product,
    mut weight: Weight,
    (input_scale, reach): (f32, i64),
    target: OnnxTarget,
    report: &mut QuantizationReport,
) -> Vec<Refusal> {
    let bias = product.bias.clone();
    if let Err(refusal) = settle_scales(product, &mut weight, input_scale, target) {
        return vec![refusal];
    }
    let (constant, zero) = match weight.store(target) {
        Ok(stored) => stored,
        Err(refusal) => {
            let path = product.path.clone();
            return vec![Refusal { path, ..refusal }];
        }
    };
    let storage = match constant.values {
        Values::Uint8(_) => Storage::Uint8,
        _ => Storage::Int8,
    };
    let scales: Vec<f32> = weight.scales.iter().map(|&scale| scale as f32).collect();
    let channels = scales.len();
    let path = &product.path;
    let integers = graph.constant(&format!("{path}_quantized"), constant);
    let scale = graph.constant(&format!("{path}_scale"), Constant::vector(scales.clone()));
    let zero = zero_points(storage, zero, vec![channels]);
    let zero = graph.constant(&format!("{path}_zero_point"), zero);
    let weight_name = graph.fresh(&format!("{path}_dequantized"));
    graph.nodes.push(
        Node::new(
            "DequantizeLinear",
            [&integers, &scale, &zero],
            [&weight_name],
        )
        .with("axis", Attribute::Int(weight.axis as i64)),
    );
    let bias_name = match bias {
        None => None,
        Some(bias) if target.has_integer_bias() => {
            match integer_bias(graph, product, &weight, &bias, (input_scale, reach), report) {
                Ok(name) => Some(name),
                Err(refusals) => return refusals,
            }
        }
        Some(bias) => Some(float_bias(graph, product, &bias)),
    };
    connect(graph, product, &weight_name, bias_name.as_deref());
    Vec::new()
}

/// Gives channels whose integers are all 0 a scale that suits their bias, and checks all others.
fn settle_scales(
    product: &Product,
    weight: &mut Weight,
    input_scale: f32,
    target: OnnxTarget,
) -> Result<(), Refusal> {
    let magnitudes = weight.magnitudes();
    for (channel, scale) in weight.scales.iter_mut().enumerate() {
        let bias = product
            .bias
            .as_ref()
            .map_or(0.0, |bias| bias[channel].abs());
        let suits = |scale: f64| {
            let products = input_scale * scale as f32;
            let fits = bias / f64::from(products) <= 2.0 * FREE_BIAS;
            is_scale(scale as f32) && is_scale(products) && (fits || !target.has_integer_bias())
        };
        if magnitudes[channel] == 0 && !suits(*scale) {
            let smallest = f64::from(f32::MIN_POSITIVE) * (1.0 / f64::from(input_scale)).max(1.0);
            *scale = match bias {
                0.0 => 1.0,
                bias => (bias / (f64::from(input_scale) * FREE_BIAS)).max(2.0 * smallest),
            };
        }
        let products = input_scale * *scale as f32;
        if !is_scale(*scale as f32) || !is_scale(products) {
            return Err(Refusal::new(
                &product.path,
                format!(
                    "the scale of channel {channel} is {scale:e} with its norm, {products:e} with its input's; \
                     one is not a positive normal f32"
                ),
                "prune the channel, or do not quantize the weight",
            ));
        }
    }
    Ok(())
}

/// The tensor of a bias in int32, of the scale of the products.
fn integer_bias(
    graph: &mut OnnxGraph,
    product: &Product,
    weight: &Weight,
    bias: &[f64],
    (input_scale, reach): (f32, i64),
    report: &mut QuantizationReport,
) -> Result<String, Vec<Refusal>> {
    let scales: Vec<f32> = weight
        .scales
        .iter()
        .map(|&scale| input_scale * scale as f32)
        .collect();
    let mut integers = Vec::with_capacity(bias.len());
    let mut refusals = Vec::new();
    let path = product.parameter("bias");
    for (channel, magnitude) in weight.magnitudes().into_iter().enumerate() {
        let integer = (bias[channel] / f64::from(scales[channel])).round_ties_even();
        // The sum of bias and products has to fit as well.
        let limit = i64::from(i32::MAX) - magnitude.saturating_mul(reach);
        if integer.abs() > limit as f64 || limit < 0 {
            refusals.push(Refusal::new(
                &path,
                format!(
                    "with its norm the bias of channel {channel} is {}, the integer {integer} of scale {:e}; \
                     with its products it may reach {limit}",
                    bias[channel], scales[channel]
                ),
                format!(
                    "prune the channel, whose weights are next to nothing beside it, or do not quantize `{}`",
                    product.path
                ),
            ));
        }
        integers.push(integer as i32);
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let largest = integers
        .iter()
        .map(|&q| i64::from(q).abs())
        .max()
        .unwrap_or(0);
    if report
        .largest_bias
        .as_ref()
        .is_none_or(|known| known.value < largest)
    {
        report.largest_bias = Some(LargestBias {
            layer: product.layer().to_string(),
            value: largest,
        });
    }
    report.integer_biases += 1;
    if !product.rounds_bias {
        report.differs(&path, "the bias is rounded to int32");
    }
    let values = Constant {
        dims: vec![integers.len()],
        values: Values::Int32(integers),
    };
    let values = graph.constant(&format!("{path}_quantized"), values);
    let scale = graph.constant(&format!("{path}_scale"), Constant::vector(scales));
    let name = graph.fresh(&format!("{path}_dequantized"));
    graph.nodes.push(
        Node::new("DequantizeLinear", [&values, &scale], [&name]).with("axis", Attribute::Int(0)),
    );
    Ok(name)
}

fn float_bias(graph: &mut OnnxGraph, product: &Product, bias: &[f64]) -> String {
    let bias = Constant::vector(bias.iter().map(|&b| b as f32).collect());
    own_constant(graph, product, &product.parameter("bias"), bias)
}

fn in_floats(graph: &mut OnnxGraph, product: &Product) {
    let weight = Constant {
        dims: product.dims.clone(),
        values: Values::Float(product.values.clone()),
    };
    let weight = own_constant(graph, product, &product.path, weight);
    let bias = product
        .bias
        .as_deref()
        .map(|bias| float_bias(graph, product, bias));
    connect(graph, product, &weight, bias.as_deref());
}

/// Stores the weight in four bits.
fn packed(graph: &mut OnnxGraph, product: &Product, weight: &Weight) {
    let path = &product.path;
    let integers = Constant {
        dims: weight.dims.clone(),
        values: Values::Int4(weight.integers.iter().map(|&k| k as i8).collect()),
    };
    let integers = graph.constant(&format!("{path}_quantized"), integers);
    let scales: Vec<f32> = weight.scales.iter().map(|&scale| scale as f32).collect();
    let zero = Constant {
        dims: vec![scales.len()],
        values: Values::Int4(vec![0; scales.len()]),
    };
    let scale = graph.constant(&format!("{path}_scale"), Constant::vector(scales));
    let zero = graph.constant(&format!("{path}_zero_point"), zero);
    let name = graph.fresh(&format!("{path}_dequantized"));
    graph.nodes.push(
        Node::new("DequantizeLinear", [&integers, &scale, &zero], [&name])
            .with("axis", Attribute::Int(weight.axis as i64)),
    );
    let bias = product
        .bias
        .as_deref()
        .map(|bias| float_bias(graph, product, bias));
    connect(graph, product, &name, bias.as_deref());
}

/// A constant of a layer: in the place of the one with this name, unless others read that.
fn own_constant(
    graph: &mut OnnxGraph,
    product: &Product,
    name: &str,
    constant: Constant,
) -> String {
    let made = [product.output.as_str(), product.result()];
    let is_own = |&at: &usize| made.contains(&graph.nodes[at].output());
    let shared = !graph.readers(name).iter().all(is_own);
    if !shared {
        graph.initializers.insert(name.to_string(), constant);
        return name.to_string();
    }
    graph.constant(name, constant)
}

/// Lets the operators of a layer read these parameters.
fn connect(graph: &mut OnnxGraph, product: &Product, weight: &str, bias: Option<&str>) {
    let Some(at) = graph.producer(&product.output) else {
        return;
    };
    graph.nodes[at].inputs[1] = weight.to_string();
    let Some(bias) = bias else {
        return;
    };
    match graph.nodes[at].operator.as_str() {
        "MatMul" => {
            let add = graph
                .producer(product.result())
                .map(|at| &mut graph.nodes[at]);
            let old = |input: &&mut String| **input != product.output;
            if let Some(input) = add.and_then(|add| add.inputs.iter_mut().find(old)) {
                *input = bias.to_string();
            }
        }
        _ => {
            graph.nodes[at].inputs.truncate(2);
            graph.nodes[at].inputs.push(bias.to_string());
        }
    }
}

/// Size of the constants.
pub(crate) fn constant_bytes(graph: &OnnxGraph) -> ConstantBytes {
    let mut bytes = ConstantBytes::default();
    for constant in graph.initializers.values() {
        match &constant.values {
            Values::Float(values) => bytes.floats += 4 * values.len() as u64,
            Values::Int64(values) => bytes.integers += 8 * values.len() as u64,
            Values::Int32(values) => bytes.integers += 4 * values.len() as u64,
            Values::Int8(values) => bytes.integers += values.len() as u64,
            Values::Uint8(values) => bytes.integers += values.len() as u64,
            Values::Int4(values) => bytes.integers += values.len().div_ceil(2) as u64,
            Values::Bool(values) => bytes.integers += values.len() as u64,
        }
    }
    bytes
}
