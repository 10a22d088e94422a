//! onnxruntime, where the environment names a Python that has it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::evaluator::Array;
use crate::encode::encode;
use crate::graph::OnnxGraph;

const PYTHON: &str = "BURN_COMPRESS_PYTHON";

#[derive(Serialize)]
struct Input<'a> {
    dims: &'a [usize],
    values: &'a [f64],
}

/// What a session made, and its operators.
#[derive(Deserialize)]
pub struct Run {
    pub outputs: IndexMap<String, Vec<f64>>,
    pub nodes: IndexMap<String, usize>,
}

/// Checks and runs a graph; `None`, with a line on the screen, without a Python.
pub fn run(graph: &OnnxGraph, inputs: &[(&str, &Array)], optimize: bool) -> Option<Run> {
    let Ok(python) = std::env::var(PYTHON) else {
        println!("onnxruntime is left out: {PYTHON} names no Python with onnx and onnxruntime");
        return None;
    };
    let inputs: IndexMap<&str, Input<'_>> = inputs
        .iter()
        .map(|&(name, Array { dims, values, .. })| (name, Input { dims, values }))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph.onnx");
    std::fs::write(&path, encode(graph).unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run_onnx.py");
    let mut child = Command::new(python)
        .arg(script)
        .arg(&path)
        .args(optimize.then_some("--optimize"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let json = serde_json::to_string(&inputs).unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(json.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "onnxruntime refused the graph");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
