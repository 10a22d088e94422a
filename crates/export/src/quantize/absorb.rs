//! ReLUs and clips that the range of a quantizer does in their place.
//!
//! Every integer below that of the lower bound is saturated to it if it is the lowest of the type, and so
//! at the upper bound:
//!
//! ```text
//! saturate(round(max(x, 0) / s) + z) = saturate(round(x / s) + z)      if z is the lowest integer
//! ```

use super::placement::{Place, Readers};
use crate::graph::OnnxGraph;

fn is_dequantized(graph: &OnnxGraph, tensor: &str) -> bool {
    let producer = graph.producer(tensor);
    producer.is_some_and(|at| graph.nodes[at].operator == "DequantizeLinear")
}

/// The input of the ReLU or clip that makes a tensor, if the range of its quantizer does the same.
///
/// `quantized` are the tensors that have a quantizer: behind one, the ReLU stays, as two
/// in a row would be replaced by one.
pub(crate) fn absorbed(graph: &OnnxGraph, place: &Place, quantized: &[String]) -> Option<String> {
    let node = &graph.nodes[graph.producer(&place.tensor)?];
    let bound = |at: usize| match node.input(at) {
        None => Some(None),
        Some(name) => graph.floats(name).and_then(|values| match values {
            [value] => Some(Some(*value)),
            _ => None,
        }),
    };
    let (low, high) = match node.operator.as_str() {
        "Relu" => (Some(0.0), None),
        "Clip" => (bound(1)?, bound(2)?),
        _ => return None,
    };
    let (activation, storage) = (&place.activation, place.activation.storage);
    let saturates = low.is_none_or(|low| activation.quantize(low) == storage.lowest())
        && high.is_none_or(|high| activation.quantize(high) == storage.highest());
    let source = node.input(0)?;
    let reaches_all = matches!(place.readers, Readers::All { outputs } if outputs || !graph.is_output(&place.tensor));
    let free = saturates
        && activation.clip().is_none()
        && reaches_all
        && graph.only_reader(source).is_some()
        && !quantized.iter().any(|tensor| tensor == source)
        && !is_dequantized(graph, source);
    free.then(|| source.to_string())
}
