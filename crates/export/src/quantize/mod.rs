//! A graph in floating point and a calibration, rewritten for a runtime that computes in integers.
//!
//! ```text
//! masks of inputs and outputs ─► norms folded ─► Q/D at the quantized tensors ─► weights and biases
//!                                                                                in integers ─► report
//! ```
//!
//! The file has the form that ONNX calls QDQ: operators in floating point between `DequantizeLinear` and
//! `QuantizeLinear`. A runtime fuses them into operators in integers where it knows how, and otherwise
//! computes in floating point, so the file means the same everywhere. What it costs is in the report,
//! since a runtime falls back without a word.
//!
//! # Deviations from the simulation
//!
//! - A quantized tensor is quantized for all its readers: the operands of an addition have to be
//!   integers too. Readers that were not simulated so are in the report.
//! - Biases are int32 of the scale of the products, `s_x s_w`.
//! - `int8` of an activation ends at -128; a simulation that ends at -127 differs below `-127.5 s`.
//! - A quantized weight of a layer that is not executed in integers has its values in floating point:
//!   a runtime would turn them into floats in every run.

mod absorb;
mod activation;
mod copies;
mod decision;
mod emit;
mod fold;
mod insertion;
mod masks;
mod placement;
mod product;
mod refusal;
mod report;
mod target;
#[cfg(test)]
mod tests;
mod weight;
mod wiring;

use burn_compress_core::{Calibration, Masks, TargetId};
use indexmap::IndexMap;

pub use refusal::Refusal;
pub(crate) use refusal::lines;
pub use report::{
    ConstantBytes, Difference, FloatNode, FoldedNorm, IntegerNode, LargestBias, QuantizationReport,
    TensorQuantizer,
};
pub use target::OnnxTarget;

use crate::graph::OnnxGraph;
use decision::Decision;
use product::Product;
use weight::Weight;

/// The compression of a model whose graph is rewritten.
pub(crate) struct Compression<'a> {
    /// The tensors of inputs and outputs of layers, one for each call.
    pub ports: &'a IndexMap<TargetId, Vec<String>>,
    /// Scales and zero points.
    pub calibration: &'a Calibration,
    /// Masks that are still simulated; those of parameters are in the constants.
    pub masks: &'a Masks,
    /// Whether weights of at most four bits of linear layers whose input is not quantized are stored
    /// in four bits.
    pub packs_weights: bool,
}

impl Compression<'_> {
    /// The tensors of an input or output; none if its layer is not called.
    fn tensors(&self, target: &TargetId) -> &[String] {
        self.ports.get(target).map_or(&[], Vec::as_slice)
    }
}

/// Rewrites `graph`, whose constants have the values that are simulated, for `target`.
///
/// # Errors
///
/// Everything that the target cannot execute.
pub(crate) fn quantize(
    mut graph: OnnxGraph,
    compression: &Compression<'_>,
    target: OnnxTarget,
) -> Result<(OnnxGraph, QuantizationReport), Vec<Refusal>> {
    let outputs: Vec<String> = graph
        .outputs
        .iter()
        .map(|output| output.name.clone())
        .collect();
    let mut report = QuantizationReport::new(target);
    let mut refusals = Vec::new();
    let mut products = find_products(&graph, compression, target, &mut refusals);
    let mut places = match placement::places(&graph, compression, target, &mut report) {
        Ok(places) => places,
        Err(found) => {
            refusals.extend(found);
            Vec::new()
        }
    };
    let mut masked = masks::of_ports(&graph, compression, &places, &mut refusals);
    if !refusals.is_empty() {
        return Err(refusals);
    }

    if target.is_integer() {
        masks::fold(&mut masked, &mut products);
        let is_held = |tensor: &str| {
            let masked = masked.iter().any(|mask| mask.tensor == tensor);
            masked || places.iter().any(|place| place.tensor == tensor)
        };
        fold::norms(
            &mut graph,
            &mut products,
            compression.calibration,
            is_held,
            &mut report,
        );
        masks::fold(&mut masked, &mut products);
    }
    masks::insert(&mut graph, masked, &mut places);
    let places = copies::copied(&graph, places, target);
    insertion::insert(&mut graph, compression, places, &mut report);
    graph.sort();

    leave_out_values(compression, &products, &mut report);
    for product in &products {
        let decision = match decision::of_product(&graph, product, target) {
            Decision::Float(_) if is_packed(&graph, product, compression, target) => {
                Decision::Packed
            }
            decision => decision,
        };
        refusals.extend(emit::product(
            &mut graph,
            product,
            decision,
            target,
            &mut report,
        ));
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    decision::others(&graph, &products, compression, target, &mut report);
    graph.name_outputs(&outputs);
    graph.sort();
    graph.drop_unused_constants();
    report.bytes = emit::constant_bytes(&graph);
    Ok((graph, report))
}

/// Reports quantized parameters that are no weight of a layer of products, such as tables.
fn leave_out_values(
    compression: &Compression<'_>,
    products: &[Product],
    report: &mut QuantizationReport,
) {
    for (target, entry) in compression.calibration {
        let path = target.to_string();
        let acts = target.target.is_param() && entry.enabled && entry.scale.is_some();
        let is_bias = product::is_rounded(compression.calibration, &path);
        if acts && !is_bias && !products.iter().any(|product| product.path == path) {
            report.leaves_out(
                path,
                "its integers; the file has their values in floating point",
            );
        }
    }
}

/// Whether the weight of a layer in floating point is stored in four bits.
fn is_packed(
    graph: &OnnxGraph,
    product: &Product,
    compression: &Compression<'_>,
    target: OnnxTarget,
) -> bool {
    let operator = graph
        .producer(&product.output)
        .map(|at| graph.nodes[at].operator.as_str());
    compression.packs_weights
        && target.unpacks_weights()
        && matches!(operator, Some("Gemm" | "MatMul"))
        && product
            .integers
            .as_ref()
            .is_some_and(Weight::fits_four_bits)
}

fn find_products(
    graph: &OnnxGraph,
    compression: &Compression<'_>,
    target: OnnxTarget,
    refusals: &mut Vec<Refusal>,
) -> Vec<Product> {
    let none = Calibration::new();
    let calibration = match target.is_integer() {
        true => compression.calibration,
        false => &none,
    };
    let mut products = Vec::new();
    for at in 0..graph.nodes.len() {
        match Product::find(graph, at, calibration) {
            Ok(found) => products.extend(found),
            Err(found) => {
                let new = found
                    .into_iter()
                    .filter(|refusal| !refusals.contains(refusal));
                let new: Vec<Refusal> = new.collect();
                refusals.extend(new);
            }
        }
    }
    products
}
