//! Masks of inputs and outputs, multiplied into the layer before them or by an operator of their own.
//!
//! A mask of whole channels on what a layer makes is exact in its weight and bias, `m (w x + b) = (m w) x +
//! m b`. It commutes with the quantizer of the same tensor, since 0 is one of its values.

use burn_compress_core::{Mask, MaskMethod, Target, TargetId};

use super::Compression;
use super::insertion::serve;
use super::placement::{Place, Readers, own_readers};
use super::product::Product;
use super::refusal::Refusal;
use crate::graph::{Constant, Node, OnnxGraph};

/// A mask on a tensor.
pub(crate) struct TensorMask {
    pub tensor: String,
    pub mask: Mask,
    readers: Readers,
}

/// The masks of inputs and outputs that remove something.
pub(crate) fn of_ports(
    graph: &OnnxGraph,
    compression: &Compression<'_>,
    places: &[Place],
    refusals: &mut Vec<Refusal>,
) -> Vec<TensorMask> {
    let mut found = Vec::new();
    let masks = compression.masks.iter();
    let ports = masks.filter(|(target, mask)| !target.target.is_param() && mask.removed() > 0);
    for (target, mask) in ports {
        for tensor in compression.tensors(target) {
            let quantized = places.iter().any(|place| place.tensor == *tensor);
            if mask.method() == MaskMethod::Add && quantized {
                refusals.push(Refusal::new(
                    target,
                    "its mask is added, and the tensor is quantized",
                    "do not quantize what is masked for a softmax",
                ));
            }
            let is_output = matches!(target.target, Target::Output(_));
            if !is_output && !is_read_only_by(graph, compression, target, tensor) {
                refusals.push(Refusal::new(
                    target,
                    "its mask is that of one layer, but other operators read the tensor too",
                    "mask the output of the layer before, or wrap an `Identity` before the layer",
                ));
            }
            found.push(TensorMask {
                tensor: tensor.clone(),
                mask: mask.clone(),
                readers: Readers::All { outputs: is_output },
            });
        }
    }
    found
}

fn is_read_only_by(
    graph: &OnnxGraph,
    compression: &Compression<'_>,
    target: &TargetId,
    tensor: &str,
) -> bool {
    let own = own_readers(graph, compression, &target.layer, tensor).len();
    let all = graph.readers(tensor).len();
    !graph.is_output(tensor) && (own == all || all == 1)
}

/// Multiplies masks of whole channels into the layers that make them.
pub(crate) fn fold(masks: &mut Vec<TensorMask>, products: &mut [Product]) {
    masks.retain(|mask| {
        let mut makers = products.iter_mut().filter(|p| p.output == mask.tensor);
        let Some(product) = makers.next().filter(|p| p.bias_output.is_none()) else {
            return true;
        };
        let Some(kept) = channels(&mask.mask, product.dims[product.axis]) else {
            return true;
        };
        product.fold(&kept, &vec![0.0; kept.len()]);
        false
    });
}

/// The mask of each channel in dimension 1, if the mask distinguishes nothing else.
fn channels(mask: &Mask, count: usize) -> Option<Vec<f64>> {
    let shape = mask.shape();
    let others = shape
        .iter()
        .enumerate()
        .all(|(dim, &size)| dim == 1 || size == 1);
    let fits = mask.method() == MaskMethod::Mul && others && shape.get(1) == Some(&count);
    fits.then(|| mask.values().iter().map(|&kept| f64::from(kept)).collect())
}

/// Applies what is left by an operator each, before the quantizers of the tensors.
pub(crate) fn insert(graph: &mut OnnxGraph, masks: Vec<TensorMask>, places: &mut [Place]) {
    for TensorMask {
        tensor,
        mask,
        readers,
    } in masks
    {
        let (operator, values) = match mask.method() {
            MaskMethod::Mul => ("Mul", mask.values().to_vec()),
            MaskMethod::Add => (
                "Add",
                mask.values().iter().map(|m| (m - 1.0) * 1000.0).collect(),
            ),
        };
        let mut constant = Constant::vector(values);
        constant.dims = mask.shape().to_vec();
        let constant = graph.constant(&format!("{tensor}_mask"), constant);
        let made = graph.fresh(&format!("{tensor}_masked"));
        serve(graph, &tensor, &readers, |_| {
            vec![Node::new(operator, [&tensor, &constant], [&made])]
        });
        for place in places.iter_mut().filter(|place| place.tensor == tensor) {
            place.tensor.clone_from(&made);
        }
    }
}
