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
//! A quantizer behind an operator that only moves values is copied before it, and the other way round:
//! nothing changes, but a runtime finds it where it looks for it.

use burn_compress_core::{Target, TargetId};

use super::Compression;
use super::activation::{Activation, Storage};
use super::refusal::Refusal;
use super::report::{QuantizationReport, TensorQuantizer};
use super::target::OnnxTarget;
use crate::graph::{Constant, Node, OnnxGraph, Values};

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

/// Puts the quantizers into the graph.
pub(crate) fn insert(
    graph: &mut OnnxGraph,
    compression: &Compression<'_>,
    places: Vec<Place>,
    report: &mut QuantizationReport,
) {
    let quantized: Vec<String> = places.iter().map(|place| place.tensor.clone()).collect();
    let also: Vec<Vec<String>> = places
        .iter()
        .map(|place| strangers(graph, compression, place))
        .collect();
    for (place, also_read_by) in places.into_iter().zip(also) {
        let Activation {
            storage,
            scale,
            zero,
            ..
        } = place.activation;
        report.quantizers.push(TensorQuantizer {
            tensor: place.tensor.clone(),
            targets: place.targets.iter().map(ToString::to_string).collect(),
            storage: storage.name().to_string(),
            scale,
            zero_point: zero,
            also_read_by,
        });
        let source = absorbed(graph, &place, &quantized);
        serve(graph, &place.tensor, &place.readers, |graph| {
            pair(graph, &place)
        });
        if let Some(source) = source {
            graph.bypass(&place.tensor, &source);
            report.absorbed_activations.push(place.tensor);
        }
    }
}

/// The readers of the quantizer of inputs that none of the inputs is.
fn strangers(graph: &OnnxGraph, compression: &Compression<'_>, place: &Place) -> Vec<String> {
    if place.readers != (Readers::All { outputs: false }) {
        return Vec::new();
    }
    let mut own = Vec::new();
    for target in &place.targets {
        own.extend(own_readers(
            graph,
            compression,
            &target.layer,
            &place.tensor,
        ));
    }
    let readers = graph
        .readers(&place.tensor)
        .into_iter()
        .map(|at| &graph.nodes[at]);
    let others = readers.filter(|node| !only_moves(&node.operator) && node.operator != "Shape");
    let others = others.map(|node| node.output().to_string());
    others.filter(|output| !own.contains(output)).collect()
}

/// `QuantizeLinear` and `DequantizeLinear`, with a clip before them where the range is narrow.
fn pair(graph: &mut OnnxGraph, place: &Place) -> Vec<Node> {
    let (name, activation) = (&place.tensor, &place.activation);
    let scale = graph.constant(&format!("{name}_scale"), Constant::scalar(activation.scale));
    let zero = zero_points(activation.storage, activation.zero, Vec::new());
    let zero = graph.constant(&format!("{name}_zero_point"), zero);
    let mut nodes = Vec::new();
    let mut source = name.clone();
    if let Some((low, high)) = activation.clip() {
        let low = graph.constant(&format!("{name}_lowest"), Constant::scalar(low));
        let high = graph.constant(&format!("{name}_highest"), Constant::scalar(high));
        let clipped = graph.fresh(&format!("{name}_clipped"));
        nodes.push(Node::new("Clip", [source, low, high], [clipped.clone()]));
        source = clipped;
    }
    let quantized = graph.fresh(&format!("{name}_quantized"));
    let made = graph.fresh(&format!("{name}_dequantized"));
    nodes.push(Node::new(
        "QuantizeLinear",
        [&source, &scale, &zero],
        [&quantized],
    ));
    nodes.push(Node::new(
        "DequantizeLinear",
        [&quantized, &scale, &zero],
        [&made],
    ));
    nodes
}

/// Zero points of a type, a scalar or one for each channel.
pub(crate) fn zero_points(storage: Storage, zero: i32, dims: Vec<usize>) -> Constant {
    let count = dims.iter().product();
    let values = match storage {
        Storage::Int8 => Values::Int8(vec![zero as i8; count]),
        Storage::Uint8 => Values::Uint8(vec![zero as u8; count]),
    };
    Constant { dims, values }
}

/// Lets operators between a tensor and its readers; `make` gets the graph that names are new in.
///
/// Where an output of the graph is a reader, it becomes what the last of the operators makes.
pub(crate) fn serve(
    graph: &mut OnnxGraph,
    tensor: &str,
    readers: &Readers,
    make: impl FnOnce(&mut OnnxGraph) -> Vec<Node>,
) {
    let mut served = graph.readers(tensor);
    if let Readers::Only(outputs) = readers {
        served.retain(|&at| outputs.iter().any(|name| name == graph.nodes[at].output()));
    }
    let nodes = make(graph);
    let Some(made) = nodes.last().map(|node| node.output().to_string()) else {
        return;
    };
    for at in served {
        graph.nodes[at].replace_input(tensor, &made);
    }
    if *readers == (Readers::All { outputs: true }) {
        for output in graph
            .outputs
            .iter_mut()
            .filter(|output| output.name == tensor)
        {
            output.name.clone_from(&made);
        }
    }
    graph.nodes.extend(nodes);
}

fn dequantized_by(graph: &OnnxGraph, tensor: &str) -> Option<usize> {
    let made_by = graph.producer(tensor)?;
    (graph.nodes[made_by].operator == "DequantizeLinear").then_some(made_by)
}

/// The input of the ReLU or clip that makes a tensor, if the range of its quantizer does the same.
///
/// Every integer below that of the lower bound is saturated to it if it is the lowest of the type, and so
/// at the upper bound. `quantized` are the tensors that have a quantizer: behind one, the ReLU stays, as two
/// in a row would be replaced by one.
fn absorbed(graph: &OnnxGraph, place: &Place, quantized: &[String]) -> Option<String> {
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
        && dequantized_by(graph, source).is_none();
    free.then(|| source.to_string())
}
