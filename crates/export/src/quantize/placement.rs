//! Where quantizers stand: on tensors, for their readers.
//!
//! Each quantized input or output of a layer names a tensor. Those of one tensor are merged if they
//! round alike. Then:
//!
//! - The quantizer of an output is everybody's.
//! - The quantizer of inputs becomes everybody's as well, because an operator runs in integers only if all
//!   its operands are.
//! - Quantizers of inputs that differ serve the operators of their layer, and what makes the tensor
//!   stays in floating point.
//! - An output and an input that quantize one tensor differently are refused: runtimes replace two
//!   quantizers in a row by one, and so change the values.
//!
use burn_compress_core::{Target, TargetId};

use super::Compression;
use super::activation::Activation;
use super::refusal::Refusal;
use super::report::QuantizationReport;
use super::target::OnnxTarget;
use crate::graph::OnnxGraph;

/// Who reads what a quantizer makes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Readers {
    /// Every operator, and the output of the graph if it is one and `outputs`.
    All { outputs: bool },
    /// The operators that make these tensors.
    Only(Vec<String>),
}

/// A quantizer on a tensor.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub tensor: String,
    pub activation: Activation,
    /// The targets that it stands for.
    pub targets: Vec<TargetId>,
    pub readers: Readers,
}

/// The quantizers of all tensors, merged.
///
/// # Errors
///
/// Everything that the target cannot execute.
pub(crate) fn places(
    graph: &OnnxGraph,
    compression: &Compression<'_>,
    target: OnnxTarget,
    report: &mut QuantizationReport,
) -> Result<Vec<Place>, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut by_tensor: indexmap::IndexMap<String, Vec<(TargetId, Activation)>> =
        indexmap::IndexMap::new();
    let ports = compression.calibration.iter();
    for (path, entry) in ports.filter(|(path, _)| !path.target.is_param()) {
        if !target.is_integer() {
            if entry.enabled && entry.scale.is_some() {
                report.leaves_out(path, "its quantization");
            }
            continue;
        }
        match Activation::new(path, entry, target) {
            Err(found) => refusals.extend(found),
            Ok(None) => report.leaves_out(path, "its quantization, which did not act"),
            Ok(Some(activation)) => {
                let tensors = compression.tensors(path);
                if tensors.is_empty() {
                    report.leaves_out(path, "its quantization, as the layer is not called");
                }
                for tensor in tensors {
                    let places = by_tensor.entry(tensor.clone()).or_default();
                    places.push((path.clone(), activation));
                }
                if activation.leaves_lowest_out() {
                    let what = "values below -127.5 scales become -128, in the simulation -127";
                    report.differs(path, what);
                }
            }
        }
    }
    let mut places = Vec::new();
    for (tensor, found) in by_tensor {
        match of_tensor(graph, compression, &tensor, found) {
            Ok(found) => places.extend(found),
            Err(refusal) => refusals.push(refusal),
        }
    }
    match refusals.is_empty() {
        true => Ok(places),
        false => Err(refusals),
    }
}

/// The quantizers of one tensor.
fn of_tensor(
    graph: &OnnxGraph,
    compression: &Compression<'_>,
    tensor: &str,
    found: Vec<(TargetId, Activation)>,
) -> Result<Vec<Place>, Refusal> {
    let mut groups: Vec<(Activation, Vec<TargetId>)> = Vec::new();
    for (path, activation) in found {
        match groups.iter_mut().find(|(known, _)| *known == activation) {
            Some((_, paths)) => paths.push(path),
            None => groups.push((activation, vec![path])),
        }
    }
    let makes = |path: &TargetId| is_made_by(compression, path, tensor);
    let place = |(activation, targets): (Activation, Vec<TargetId>), readers| Place {
        tensor: tensor.to_string(),
        activation,
        targets,
        readers,
    };
    if groups.len() == 1 {
        let outputs = groups.iter().any(|(_, paths)| paths.iter().any(makes));
        let all = Readers::All { outputs };
        return Ok(groups
            .into_iter()
            .map(|group| place(group, all.clone()))
            .collect());
    }
    let differ = |first: &(Activation, Vec<TargetId>), second: &(Activation, Vec<TargetId>)| {
        let [a, b] =
            [first, second].map(|(a, _)| format!("{} {:e}, {}", a.storage.name(), a.scale, a.zero));
        format!(
            "it is quantized with {a}, and `{}`, the same tensor, with {b}",
            second.1[0]
        )
    };
    if let Some(at) = groups.iter().position(|(_, paths)| paths.iter().any(makes)) {
        let other = usize::from(at == 0);
        return Err(Refusal::new(
            &groups[at].1[0],
            differ(&groups[at], &groups[other]),
            "quantize only one of the two",
        ));
    }
    let mut places = Vec::new();
    for at in 0..groups.len() {
        let mut own = Vec::new();
        for path in &groups[at].1 {
            own.extend(own_readers(graph, compression, &path.layer, tensor));
        }
        if own.is_empty() {
            let other = usize::from(at == 0);
            return Err(Refusal::new(
                &groups[at].1[0],
                differ(&groups[at], &groups[other]),
                "quantize the output of the layer that makes the tensor instead",
            ));
        }
        places.push(place(groups[at].clone(), Readers::Only(own)));
    }
    Ok(places)
}

/// Whether the layer of an output makes the tensor, rather than pass on what it reads.
fn is_made_by(compression: &Compression<'_>, path: &TargetId, tensor: &str) -> bool {
    let mut ports = compression.ports.iter();
    matches!(path.target, Target::Output(_))
        && !ports.any(|(port, tensors)| {
            port.layer == path.layer
                && matches!(port.target, Target::Input(_))
                && tensors.iter().any(|name| name == tensor)
        })
}

/// The operators of a layer that read a tensor, by what they make: those that read a parameter of the
/// layer too, or make its output.
pub(crate) fn own_readers(
    graph: &OnnxGraph,
    compression: &Compression<'_>,
    layer: &str,
    tensor: &str,
) -> Vec<String> {
    let is_own_parameter = |name: &String| match layer {
        "" => graph.initializers.contains_key(name),
        _ => name
            .strip_prefix(layer)
            .is_some_and(|rest| rest.starts_with('.')),
    };
    let is_own_output = |output: &str| {
        compression.ports.iter().any(|(port, tensors)| {
            port.layer == layer
                && matches!(port.target, Target::Output(_))
                && tensors.iter().any(|name| name == output)
        })
    };
    let readers = graph.readers(tensor).into_iter().map(|at| &graph.nodes[at]);
    readers
        .filter(|node| node.inputs.iter().any(is_own_parameter) || is_own_output(node.output()))
        .map(|node| node.output().to_string())
        .collect()
}
