//! Copies of quantizers on the other side of operators that only move values.
//!
//! What is quantized stays so when it is moved, and the largest of quantized values is one of them: a copy
//! changes nothing, but a runtime finds the quantizer where it looks for it.

use super::placement::{Place, Readers};
use super::target::OnnxTarget;
use crate::graph::{Node, OnnxGraph};

/// Whether an operator moves values and computes none, so that what is quantized stays so; the largest
/// of quantized values is one of them.
pub(crate) fn only_moves(operator: &str) -> bool {
    matches!(
        operator,
        "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" | "Slice" | "MaxPool"
    )
}

/// The quantizers with their copies on the other side of operators that only move values.
pub(crate) fn copied(graph: &OnnxGraph, mut places: Vec<Place>, target: OnnxTarget) -> Vec<Place> {
    if !matches!(target, OnnxTarget::OnnxRuntime | OnnxTarget::OnnxRuntimeX86) {
        return places;
    }
    let mut at = 0;
    while at < places.len() {
        let place = &places[at];
        let is_new = |tensor: &str| !places.iter().any(|place| place.tensor == tensor);
        let mut copies = Vec::new();
        if matches!(place.readers, Readers::All { .. }) {
            copies.extend(before(graph, &place.tensor));
            copies.extend(behind(graph, &place.tensor, target));
        }
        let copies: Vec<Place> = copies
            .into_iter()
            .filter(|tensor| is_new(tensor))
            .map(|tensor| Place {
                tensor,
                activation: place.activation,
                targets: Vec::new(),
                readers: Readers::All { outputs: true },
            })
            .collect();
        places.extend(copies);
        at += 1;
    }
    places
}

/// What the operator that makes a tensor moves, where nothing else reads it.
fn before(graph: &OnnxGraph, tensor: &str) -> Vec<String> {
    let Some(at) = graph.producer(tensor) else {
        return Vec::new();
    };
    let node = &graph.nodes[at];
    let moved = match node.operator.as_str() {
        "Concat" => &node.inputs[..],
        operator if only_moves(operator) => &node.inputs[..1],
        _ => &[],
    };
    let only_here =
        |name: &&String| graph.only_reader(name) == Some(at) && graph.producer(name).is_some();
    moved.iter().filter(only_here).cloned().collect()
}

/// What operators make that move a tensor to one that runs in integers.
fn behind(graph: &OnnxGraph, tensor: &str, target: OnnxTarget) -> Vec<String> {
    let readers = graph.readers(tensor).into_iter().map(|at| &graph.nodes[at]);
    let moves = |node: &&Node| only_moves(&node.operator) && node.input(0) == Some(tensor);
    let outputs = readers.filter(moves).map(|node| node.output().to_string());
    outputs
        .filter(|output| !graph.is_output(output) && leads_to_integers(graph, output, target))
        .collect()
}

fn leads_to_integers(graph: &OnnxGraph, tensor: &str, target: OnnxTarget) -> bool {
    let mut readers = graph.readers(tensor).into_iter().map(|at| &graph.nodes[at]);
    readers.any(|node| {
        target.executes(&node.operator)
            || (only_moves(&node.operator) && leads_to_integers(graph, node.output(), target))
    })
}
