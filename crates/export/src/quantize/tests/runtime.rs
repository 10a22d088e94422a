//! onnxruntime, where the environment names a Python that has it.

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions};

use super::evaluator::Array;
use crate::encode::encode;
use crate::graph::OnnxGraph;

/// What a session made, and its operators.
pub struct Run {
    /// The first output.
    pub output: Vec<f64>,
    pub operators: BTreeMap<String, usize>,
}

/// Checks and runs a graph of one input; `None`, with a line on the screen, without a Python.
pub fn run(graph: &OnnxGraph, input: &Array, optimized: bool) -> Option<Run> {
    let runtime = OnnxRuntime::find()?;
    let values: Vec<f32> = input.values.iter().map(|&x| x as f32).collect();
    let data = TensorData::new(values, input.dims.clone());
    let options = RunOptions {
        unoptimized: !optimized,
        ..RunOptions::default()
    };
    let run = runtime
        .run(&encode(graph).unwrap(), &[vec![data]], &options)
        .unwrap();
    Some(Run {
        output: run.outputs[0][0].iter::<f64>().collect(),
        operators: run.operators,
    })
}
