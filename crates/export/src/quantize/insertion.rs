//! Quantizers and masks put between a tensor and its readers.

use super::Compression;
use super::absorb::absorbed;
use super::activation::{Activation, Storage};
use super::copies::only_moves;
use super::placement::{Place, Readers, own_readers};
use super::report::{QuantizationReport, TensorQuantizer};
use crate::graph::{Constant, Node, OnnxGraph, Values};

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
