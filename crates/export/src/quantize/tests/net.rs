//! Small graphs with their calibration.

use burn_compress_core::{
    Calibration, CalibrationEntry, Grid, Mask, Masks, QuantScheme, Quantization, TargetId,
};
use indexmap::IndexMap;

use super::evaluator::{Array, evaluate};
use super::runtime;
use crate::graph::{Attribute, Constant, Element, Node, OnnxGraph, Size, Value, Values};
use crate::quantize::{Compression, OnnxTarget, QuantizationReport, Refusal, quantize};

pub const UINT8: (&str, f32, f32) = ("uint8", 0.0, 255.0);
pub const INT8: (&str, f32, f32) = ("int8", -128.0, 127.0);
/// The range of symmetric weights.
pub const SYMMETRIC: (&str, f32, f32) = ("int8", -127.0, 127.0);

/// A graph under construction, with the input `x`.
pub struct Net {
    pub graph: OnnxGraph,
    pub ports: IndexMap<TargetId, Vec<String>>,
    pub calibration: Calibration,
    pub masks: Masks,
    pub packs_weights: bool,
}

pub fn entry(
    (dtype, qmin, qmax): (&str, f32, f32),
    grid: &[usize],
    scale: &[f32],
    zero: f32,
) -> CalibrationEntry {
    let state = Quantization::new(dtype, QuantScheme::Affine, qmin, qmax);
    CalibrationEntry {
        scale: Some(scale.to_vec()),
        zero_point: Some(vec![zero; scale.len()]),
        enabled: true,
        ..state.with_grid(Grid::new(grid)).to_calibration().unwrap()
    }
}

impl Net {
    pub fn new(dims: &[usize]) -> Self {
        let input = value("x", dims);
        let graph = OnnxGraph {
            inputs: vec![input],
            ..OnnxGraph::default()
        };
        let (ports, calibration, masks) = (IndexMap::new(), Calibration::new(), Masks::new());
        Self {
            graph,
            ports,
            calibration,
            masks,
            packs_weights: false,
        }
    }

    pub fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) -> &mut Self {
        let values = Values::Float(values.to_vec());
        let dims = dims.to_vec();
        self.graph
            .initializers
            .insert(name.to_string(), Constant { dims, values });
        self
    }

    pub fn node(&mut self, operator: &str, inputs: &[&str], output: &str) -> &mut Self {
        let inputs = inputs.iter().copied();
        self.graph.nodes.push(Node::new(operator, inputs, [output]));
        self
    }

    pub fn with(&mut self, name: &str, attribute: Attribute) -> &mut Self {
        let node = self.graph.nodes.last_mut().unwrap();
        node.attributes.insert(name.to_string(), attribute);
        self
    }

    /// A 1x1 convolution `layer` with weights `[out, in]` and its ports.
    pub fn conv(
        &mut self,
        layer: &str,
        input: &str,
        weight: &[&[f32]],
        bias: Option<&[f32]>,
    ) -> &mut Self {
        let dims = [weight.len(), weight[0].len(), 1, 1];
        let name = format!("{layer}.weight");
        self.constant(&name, &dims, &weight.concat());
        let (output, bias_name) = (format!("{layer}_out"), format!("{layer}.bias"));
        let mut inputs = vec![input, &name];
        if let Some(bias) = bias {
            self.constant(&bias_name, &[bias.len()], bias);
            inputs.push(&bias_name);
        }
        self.node("Conv", &inputs, &output);
        self.port(&format!("{layer}._input_0"), input);
        self.port(&format!("{layer}._output_0"), &output)
    }

    /// A norm with variance 1 and no epsilon: `gamma (x - mean) + beta`.
    pub fn norm(
        &mut self,
        layer: &str,
        input: &str,
        gamma: &[f32],
        beta: &[f32],
        mean: &[f32],
    ) -> &mut Self {
        let names = ["gamma", "beta", "mean", "var"].map(|name| format!("{layer}.{name}"));
        let ones = vec![1.0; gamma.len()];
        for (name, values) in names.iter().zip([gamma, beta, mean, &ones]) {
            self.constant(name, &[gamma.len()], values);
        }
        let [gamma, beta, mean, var] = &names;
        let output = format!("{layer}_out");
        self.node(
            "BatchNormalization",
            &[input, gamma, beta, mean, var],
            &output,
        );
        self.with("epsilon", Attribute::Float(0.0));
        self.port(&format!("{layer}._input_0"), input);
        self.port(&format!("{layer}._output_0"), &output)
    }

    pub fn port(&mut self, target: &str, tensor: &str) -> &mut Self {
        let tensors = self.ports.entry(target.parse().unwrap()).or_default();
        tensors.push(tensor.to_string());
        self
    }

    pub fn output(&mut self, name: &str, dims: &[usize]) -> &mut Self {
        self.graph.outputs.push(value(name, dims));
        self
    }

    /// Quantizes an input or output.
    pub fn quant(
        &mut self,
        target: &str,
        range: (&str, f32, f32),
        scale: f32,
        zero: f32,
    ) -> &mut Self {
        let entry = entry(range, &[1], &[scale], zero);
        self.calibration.insert(target.parse().unwrap(), entry);
        self
    }

    /// Leaves an input or output as it is.
    pub fn without(&mut self, target: &str) -> &mut Self {
        let target: TargetId = target.parse().unwrap();
        self.calibration.shift_remove(&target);
        self
    }

    /// Quantizes a weight with one scale for each index of dimension `axis`.
    pub fn quant_weight(&mut self, target: &str, axis: usize, scale: &[f32]) -> &mut Self {
        let mut grid = vec![1; self.graph.initializers[target].dims.len()];
        grid[axis] = scale.len();
        let entry = entry(SYMMETRIC, &grid, scale, 0.0);
        self.calibration.insert(target.parse().unwrap(), entry);
        self
    }

    pub fn mask(&mut self, target: &str, shape: &[usize], values: &[f32]) -> &mut Self {
        let mask = Mask::new(values.to_vec(), shape).unwrap();
        self.masks.insert(target.parse().unwrap(), mask);
        self
    }

    pub fn quantize(&self, target: OnnxTarget) -> Result<Quantized, Vec<Refusal>> {
        let compression = Compression {
            ports: &self.ports,
            calibration: &self.calibration,
            masks: &self.masks,
            packs_weights: self.packs_weights,
        };
        let (graph, report) = quantize(self.graph.clone(), &compression, target)?;
        Ok(Quantized { graph, report })
    }

    /// The messages of what the target refuses.
    pub fn refusals(&self, target: OnnxTarget) -> Vec<String> {
        let refused = self.quantize(target).map(|found| found.report);
        refused
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

fn value(name: &str, dims: &[usize]) -> Value {
    Value {
        name: name.to_string(),
        element: Element::Float,
        dims: dims.iter().map(|&size| Size::Fixed(size)).collect(),
    }
}

#[derive(Debug)]
pub struct Quantized {
    pub graph: OnnxGraph,
    pub report: QuantizationReport,
}

impl Quantized {
    /// The first output for an input, by the evaluator of the tests and, where there is one, by
    /// onnxruntime, optimized and not; all have to agree exactly.
    pub fn run(&self, dims: &[usize], x: &[f64]) -> Vec<f64> {
        self.run_as(dims, x, &[false, true])
    }

    /// As [`run`](Self::run), in onnxruntime without optimizations only.
    pub fn run_unoptimized(&self, dims: &[usize], x: &[f64]) -> Vec<f64> {
        self.run_as(dims, x, &[false])
    }

    fn run_as(&self, dims: &[usize], x: &[f64], optimize: &[bool]) -> Vec<f64> {
        let input = Array::new(dims, x);
        let outputs = evaluate(&self.graph, &[("x", input.clone())]);
        let expected = outputs[0].values.clone();
        for &optimize in optimize {
            if let Some(run) = runtime::run(&self.graph, &input, optimize) {
                assert_eq!(run.output, expected, "optimize: {optimize}");
            }
        }
        expected
    }

    /// How often onnxruntime executes an operator after its optimizations, `None` without it.
    pub fn executed(&self, dims: &[usize], operator: &str) -> Option<usize> {
        let count = dims.iter().product();
        let input = Array::new(dims, &vec![0.5; count]);
        let run = runtime::run(&self.graph, &input, true)?;
        Some(run.operators.get(operator).copied().unwrap_or(0))
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        match &self.graph.initializers[name].values {
            Values::Int8(values) => values.iter().map(|&q| q.into()).collect(),
            Values::Uint8(values) => values.iter().map(|&q| q.into()).collect(),
            Values::Int32(values) => values.iter().map(|&q| q.into()).collect(),
            values => panic!("{values:?} are no integers"),
        }
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.graph.floats(name).unwrap().to_vec()
    }

    pub fn count(&self, operator: &str) -> usize {
        self.graph
            .nodes
            .iter()
            .filter(|node| node.operator == operator)
            .count()
    }

    /// Why a layer stays in floating point.
    pub fn reason(&self, name: &str) -> &str {
        let mut nodes = self.report.float_nodes.iter();
        let node = nodes.find(|node| node.name == name);
        &node
            .unwrap_or_else(|| panic!("{name}: {:?}", self.report))
            .reason
    }

    /// Layers and operators in integers.
    pub fn in_integers(&self) -> Vec<&str> {
        self.report
            .integer_nodes
            .iter()
            .map(|node| node.name.as_str())
            .collect()
    }
}
