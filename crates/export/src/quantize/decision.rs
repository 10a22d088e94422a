//! Which operators a target executes in integers, and why it does not execute the others so.

use std::collections::BTreeSet;

use burn_compress_core::Target;

use super::Compression;
use super::copies::only_moves;
use super::product::Product;
use super::report::{IntegerNode, QuantizationReport};
use super::target::OnnxTarget;
use crate::graph::{Element, Node, OnnxGraph, Values};

/// How a layer is executed.
pub(crate) enum Decision {
    /// In integers, with this scale of its input and this largest distance of an integer of the
    /// input from its zero point.
    Integers { scale: f32, reach: i64 },
    /// In floating point, the weight in four bits.
    Packed,
    /// In floating point, and why.
    Float(String),
}

/// How a layer of the graph, with its quantizers in place, is executed.
pub(crate) fn of_product(graph: &OnnxGraph, product: &Product, target: OnnxTarget) -> Decision {
    let Some(node) = graph.producer(&product.output).map(|at| &graph.nodes[at]) else {
        return Decision::Float("it is not in the graph".to_string());
    };
    if !target.is_integer() {
        return Decision::Float("the target computes in floating point".to_string());
    }
    if product.integers.is_none() {
        return Decision::Float("its weight is not quantized".to_string());
    }
    let Some((scale, reach)) = node.input(0).and_then(|input| dequantized(graph, input)) else {
        return Decision::Float("its input is not quantized".to_string());
    };
    if target.needs_quantized_output(&node.operator)
        && let Err(reason) = quantized_behind(graph, product.result())
    {
        return Decision::Float(reason);
    }
    Decision::Integers { scale, reach }
}

/// Scale of the `DequantizeLinear` that makes a tensor, and the largest distance from its zero point.
fn dequantized(graph: &OnnxGraph, tensor: &str) -> Option<(f32, i64)> {
    let node = &graph.nodes[graph.producer(tensor)?];
    if node.operator != "DequantizeLinear" {
        return None;
    }
    let [scale] = graph.floats(node.input(1)?)? else {
        return None;
    };
    let reach = match &graph.initializers.get(node.input(2)?)?.values {
        Values::Uint8(zero) => {
            let zero = i64::from(*zero.first()?);
            zero.max(255 - zero)
        }
        Values::Int8(zero) => {
            let zero = i64::from(*zero.first()?);
            (zero + 128).max(127 - zero)
        }
        _ => return None,
    };
    Some((*scale, reach))
}

/// Whether one quantizer and nothing else reads a tensor; why not, in words.
fn quantized_behind(graph: &OnnxGraph, tensor: &str) -> Result<(), String> {
    if graph.is_output(tensor) {
        return Err("it makes an output of the model, which is not quantized".to_string());
    }
    let readers: Vec<&Node> = graph
        .readers(tensor)
        .into_iter()
        .map(|at| &graph.nodes[at])
        .collect();
    match readers[..] {
        [reader] if reader.operator == "QuantizeLinear" => Ok(()),
        [reader] if matches!(reader.operator.as_str(), "Relu" | "Clip") => {
            let behind = graph
                .only_reader(reader.output())
                .map(|at| &graph.nodes[at]);
            let name = &reader.operator;
            Err(match behind {
                Some(node) if node.operator == "QuantizeLinear" => format!(
                    "the {name} behind it stays: the range of the quantizer of `{}` does not begin and end \
                     with it",
                    reader.output()
                ),
                _ => format!("the {name} behind it makes a tensor that is not quantized"),
            })
        }
        [reader] => Err(format!(
            "its output is not quantized, {} `{}` reads it",
            reader.operator, reader.name
        )),
        _ => {
            let quantizers = readers
                .iter()
                .filter(|node| node.operator == "QuantizeLinear");
            let (all, quantizers) = (readers.len(), quantizers.count());
            Err(match quantizers {
                0 => "its output is not quantized".to_string(),
                _ if quantizers == all => {
                    format!("{quantizers} different quantizers read its output")
                }
                _ => "its output is read by a quantizer and without one".to_string(),
            })
        }
    }
}

/// Reports all operators but the layers.
pub(crate) fn others(
    graph: &OnnxGraph,
    products: &[Product],
    compression: &Compression<'_>,
    target: OnnxTarget,
    report: &mut QuantizationReport,
) {
    let whole_numbers = whole_numbers(graph);
    let of_products: BTreeSet<&str> = products
        .iter()
        .flat_map(|product| [product.output.as_str(), product.result()])
        .collect();
    for node in &graph.nodes {
        let output = node.output();
        let operator = node.operator.as_str();
        let is_silent = matches!(
            operator,
            "QuantizeLinear" | "DequantizeLinear" | "Shape" | "Constant" | "Identity" | "Cast"
        ) || (only_moves(operator) && operator != "MaxPool");
        if is_silent || of_products.contains(output) || whole_numbers.contains(output) {
            continue;
        }
        let name = layer_of(compression, node);
        match of_other(graph, node, &whole_numbers, target) {
            Ok(()) => report.integer_nodes.push(IntegerNode {
                name,
                operator: operator.to_string(),
            }),
            Err(reason) => report.stays_float(name, operator, reason),
        }
    }
}

fn of_other(
    graph: &OnnxGraph,
    node: &Node,
    whole_numbers: &BTreeSet<&str>,
    target: OnnxTarget,
) -> Result<(), String> {
    if !target.is_integer() {
        return Err("the target computes in floating point".to_string());
    }
    let fuses = target.fuses_behind_convolutions(&node.operator);
    let is_fused = |name: &str| {
        let producer = graph.producer(name).filter(|_| fuses);
        producer.is_some_and(|at| graph.nodes[at].operator == "Conv")
    };
    let is_activation = matches!(node.operator.as_str(), "Relu" | "Clip");
    if is_activation && node.input(0).is_some_and(is_fused) {
        return Ok(());
    }
    if !target.executes(&node.operator) {
        return Err(match node.operator.as_str() {
            "Relu" | "Clip" => {
                "no quantizer behind it does the same with the ends of its range".to_string()
            }
            operator => format!("{target} has no {operator} in integers"),
        });
    }
    let inputs = node
        .inputs
        .iter()
        .filter(|name| !whole_numbers.contains(name.as_str()));
    for input in inputs {
        if dequantized(graph, input).is_none() && !is_fused(input) {
            return Err(match graph.initializers.contains_key(input) {
                true => format!("its operand `{input}` is a constant in floating point"),
                false => format!("its operand `{input}` is not quantized"),
            });
        }
    }
    match target.needs_quantized_output(&node.operator) {
        true => quantized_behind(graph, node.output()),
        false => Ok(()),
    }
}

/// The layer that an operator makes the output of, or the operator's own name.
fn layer_of(compression: &Compression<'_>, node: &Node) -> String {
    let is_made = |tensors: &[String]| tensors.iter().any(|name| name == node.output());
    let mut ports = compression.ports.iter();
    let port =
        ports.find(|(port, tensors)| matches!(port.target, Target::Output(_)) && is_made(tensors));
    port.map_or_else(|| node.name.clone(), |(port, _)| port.layer.clone())
}

/// Tensors of integers: shapes, indices and what is computed of them.
fn whole_numbers(graph: &OnnxGraph) -> BTreeSet<&str> {
    let constants = graph.initializers.iter().filter_map(|(name, constant)| {
        let whole = matches!(constant.values, Values::Int64(_) | Values::Bool(_));
        whole.then_some(name.as_str())
    });
    let inputs = graph
        .inputs
        .iter()
        .filter(|input| input.element != Element::Float);
    let mut found: BTreeSet<&str> = constants
        .chain(inputs.map(|input| input.name.as_str()))
        .collect();
    for node in &graph.nodes {
        let of_whole = || {
            let mut inputs = node.inputs.iter().filter(|name| !name.is_empty());
            inputs.all(|name| found.contains(name.as_str()))
        };
        let operator = node.operator.as_str();
        let makes_whole = matches!(operator, "Shape" | "ArgMax" | "ArgMin" | "NonZero")
            || (operator != "Cast" && !node.inputs.is_empty() && of_whole());
        if makes_whole {
            found.extend(node.outputs.iter().map(String::as_str));
        }
    }
    found
}
