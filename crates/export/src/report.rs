//! Content of an ONNX file, as a table and as data.

use std::fmt;

use burn_compress_core::write_table;
use indexmap::IndexMap;
use serde::Serialize;

use crate::QuantizationReport;
use crate::graph::{Element, OnnxGraph, Size, Value};

/// What an ONNX file holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OnnxReport {
    /// Size of the file.
    pub bytes: u64,
    /// Version of the operator set.
    pub opset: i64,
    /// The inputs.
    pub inputs: Vec<OnnxValue>,
    /// The outputs.
    pub outputs: Vec<OnnxValue>,
    /// Elements of all constants: parameters, statistics and tables.
    pub constants: u64,
    /// Number of operators of each kind, in the order in which they first appear.
    pub operators: IndexMap<String, usize>,
    /// What a user of the file should know, such as the largest size of a dynamic dimension.
    pub notes: Vec<String>,
    /// What is computed in integers and what is not; none of a model that is not quantized.
    pub quantization: Option<QuantizationReport>,
}

/// An input or output of an ONNX file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnnxValue {
    /// Name.
    pub name: String,
    /// Type of the elements: `float`, `int64` or `bool`.
    pub element: &'static str,
    /// Sizes, and names of dynamic ones.
    pub dims: Vec<String>,
}

impl OnnxReport {
    pub(crate) fn of(graph: &OnnxGraph, bytes: usize, opset: i64, notes: Vec<String>) -> Self {
        let mut operators = IndexMap::new();
        for node in &graph.nodes {
            *operators.entry(node.operator.clone()).or_insert(0) += 1;
        }
        let elements = |dims: &[usize]| dims.iter().product::<usize>() as u64;
        Self {
            bytes: bytes as u64,
            opset,
            inputs: graph.inputs.iter().map(OnnxValue::of).collect(),
            outputs: graph.outputs.iter().map(OnnxValue::of).collect(),
            constants: graph.initializers.values().map(|c| elements(&c.dims)).sum(),
            operators,
            notes,
            quantization: None,
        }
    }
}

impl OnnxValue {
    fn of(value: &Value) -> Self {
        let dim = |size: &Size| match size {
            Size::Fixed(size) => size.to_string(),
            Size::Named(name) => name.clone(),
        };
        Self {
            name: value.name.clone(),
            element: match value.element {
                Element::Float => "float",
                Element::Int64 => "int64",
                Element::Bool => "bool",
            },
            dims: value.dims.iter().map(dim).collect(),
        }
    }
}

impl fmt::Display for OnnxValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}[{}]",
            self.name,
            self.element,
            self.dims.join(", ")
        )
    }
}

impl fmt::Display for OnnxReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Vec::new();
        let mut row = |what: &str, value: String| rows.push(vec![what.to_string(), value]);
        row("bytes", self.bytes.to_string());
        row("operator set", self.opset.to_string());
        row("constants", format!("{} elements", self.constants));
        for input in &self.inputs {
            row("input", input.to_string());
        }
        for output in &self.outputs {
            row("output", output.to_string());
        }
        for (operator, count) in &self.operators {
            row(operator, count.to_string());
        }
        for note in &self.notes {
            row("note", note.clone());
        }
        write_table(f, &rows)?;
        match &self.quantization {
            Some(quantization) => write!(f, "\n{quantization}"),
            None => Ok(()),
        }
    }
}
