//! Layers of products, found in a graph: convolutions and linear layers with constant weights.
//!
//! | operators                  | weight           | output channels |
//! |----------------------------|------------------|-----------------|
//! | `Conv`                     | `[out, in / groups, ..]` | dimension 0 |
//! | `Gemm`                     | `[in, out]`, with `transB` `[out, in]` | 1, with `transB` 0 |
//! | `MatMul`, `MatMul` and `Add` | `[in, out]`    | dimension 1     |

use burn_compress_core::{Calibration, TargetId};

use super::refusal::Refusal;
use super::weight::{Weight, channels};
use crate::graph::{Node, OnnxGraph};

/// A convolution or linear layer.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    /// The tensor that it makes; of `MatMul` the one before the bias.
    pub output: String,
    /// The `Add` that adds the bias of a `MatMul`, by the tensor that it makes.
    pub bias_output: Option<String>,
    /// The path of its weight.
    pub path: String,
    pub dims: Vec<usize>,
    /// Dimension of the output channels.
    pub axis: usize,
    /// The weight in floating point.
    pub values: Vec<f32>,
    /// The weight in integers, where it is quantized.
    pub integers: Option<Weight>,
    /// One for each output channel.
    pub bias: Option<Vec<f64>>,
    /// Whether the simulation has rounded the bias to 32 bits.
    pub rounds_bias: bool,
}

impl Product {
    /// The layer of the operator at `at`, `None` where it is none.
    ///
    /// # Errors
    ///
    /// A weight that cannot be executed.
    pub fn find(
        graph: &OnnxGraph,
        at: usize,
        calibration: &Calibration,
    ) -> Result<Option<Self>, Vec<Refusal>> {
        let node = &graph.nodes[at];
        let weight = node.input(1).and_then(|name| {
            let constant = graph.initializers.get(name)?;
            Some((name, constant, constant.floats()?))
        });
        let Some((path, constant, values)) = weight else {
            return Ok(None);
        };
        let rank = constant.dims.len();
        let axis = match node.operator.as_str() {
            "Conv" if rank > 2 => 0,
            "Gemm" if rank == 2 && is_plain(node) => usize::from(node.int("transB") != Some(1)),
            "MatMul" if rank == 2 => 1,
            _ => return Ok(None),
        };
        let size = constant.dims[axis];
        let (bias, bias_output) = match node.operator.as_str() {
            "MatMul" => bias_behind(graph, node.output(), size),
            _ => (node.input(2).map(|name| (name, graph.floats(name))), None),
        };
        let bias_name = bias.map(|(name, _)| name);
        let bias = match bias {
            None => None,
            // A bias that is computed or broadcast is none of a layer.
            Some((_, Some(bias))) if bias.len() == size => {
                Some(bias.iter().map(|&b| f64::from(b)).collect())
            }
            Some(_) => return Ok(None),
        };
        let entry = path
            .parse()
            .ok()
            .and_then(|target: TargetId| calibration.get(&target));
        let integers = match entry {
            Some(entry) => Weight::new(path, &constant.dims, values, axis, entry)?,
            None => None,
        };
        Ok(Some(Self {
            output: node.output().to_string(),
            bias_output,
            path: path.to_string(),
            dims: constant.dims.clone(),
            axis,
            values: match &integers {
                Some(weight) => weight.floats(),
                None => values.to_vec(),
            },
            integers,
            rounds_bias: bias_name.is_some_and(|name| is_rounded(calibration, name)),
            bias,
        }))
    }

    /// The path of the layer.
    pub fn layer(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(layer, _)| layer)
    }

    /// The path of a parameter of the layer.
    pub fn parameter(&self, name: &str) -> String {
        match self.layer() {
            "" => name.to_string(),
            layer => format!("{layer}.{name}"),
        }
    }

    /// The tensor that it makes, with its bias.
    pub fn result(&self) -> &str {
        self.bias_output.as_deref().unwrap_or(&self.output)
    }

    /// Multiplies each output channel by `factors` and adds `shift`.
    pub fn fold(&mut self, factors: &[f64], shift: &[f64]) {
        if let Some(weight) = &mut self.integers {
            weight.fold(factors);
            self.values = weight.floats();
        } else {
            for (channel, w) in channels(&self.dims, self.axis).zip(&mut self.values) {
                *w = (f64::from(*w) * factors[channel]) as f32;
            }
        }
        let bias = self.bias.take().unwrap_or_else(|| vec![0.0; factors.len()]);
        let folded = bias.iter().zip(factors).zip(shift);
        self.bias = Some(
            folded
                .map(|((b, factor), shift)| b * factor + shift)
                .collect(),
        );
    }
}

/// Whether the simulation rounds a bias, or the one that a norm with this `beta` leaves, to 32 bits.
pub(crate) fn is_rounded(calibration: &Calibration, path: &str) -> bool {
    let target: Option<TargetId> = path.parse().ok();
    let entry = target.and_then(|target| calibration.get(&target));
    entry.is_some_and(|entry| entry.enabled && entry.dtype.to_string() == "int32")
}

/// Whether a `Gemm` is `x w + b` and nothing else.
fn is_plain(node: &Node) -> bool {
    let is_one = |name| node.float(name).is_none_or(|factor| factor == 1.0);
    is_one("alpha") && is_one("beta") && node.int("transA").unwrap_or(0) == 0
}

type Bias<'a> = Option<(&'a str, Option<&'a [f32]>)>;

/// The bias that an `Add` adds to the tensor, and the tensor with it.
fn bias_behind<'a>(graph: &'a OnnxGraph, tensor: &str, size: usize) -> (Bias<'a>, Option<String>) {
    let add = graph.only_reader(tensor).map(|at| &graph.nodes[at]);
    let Some(add) = add.filter(|add| add.operator == "Add") else {
        return (None, None);
    };
    let other = add.inputs.iter().find(|input| *input != tensor);
    let constant = other.and_then(|name| Some((name, graph.initializers.get(name)?)));
    match constant {
        Some((name, constant)) if constant.dims == [size] => {
            let bias = Some((name.as_str(), constant.floats()));
            (bias, Some(add.output().to_string()))
        }
        _ => (None, None),
    }
}
