//! A graph of ONNX operators in memory: what the lowering makes, the quantization rewrites and the
//! encoder writes.

use indexmap::IndexMap;

/// Operators, constants, inputs and outputs, in an order in which the operators can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OnnxGraph {
    pub nodes: Vec<Node>,
    /// Constants by name: parameters by their path, others by the tensor they are.
    pub initializers: IndexMap<String, Constant>,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
}

/// One operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub name: String,
    /// The operator's name in ONNX, such as `Conv`.
    pub operator: String,
    /// Names of the tensors that it reads, empty where an optional one is absent.
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: IndexMap<String, Attribute>,
}

impl Node {
    /// An operator without attributes, named after its first output.
    pub fn new<I: Into<String>, O: Into<String>>(
        operator: &str,
        inputs: impl IntoIterator<Item = I>,
        outputs: impl IntoIterator<Item = O>,
    ) -> Self {
        let outputs: Vec<String> = outputs.into_iter().map(Into::into).collect();
        Self {
            name: outputs.first().cloned().unwrap_or_default(),
            operator: operator.to_string(),
            inputs: inputs.into_iter().map(Into::into).collect(),
            outputs,
            attributes: IndexMap::new(),
        }
    }

    /// Adds an attribute.
    pub fn with(mut self, name: &str, attribute: Attribute) -> Self {
        self.attributes.insert(name.to_string(), attribute);
        self
    }
}

/// An attribute of an operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Text(String),
}

/// A constant tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constant {
    pub dims: Vec<usize>,
    pub values: Values,
}

/// The elements of a constant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    Float(Vec<f32>),
    Int64(Vec<i64>),
    Int32(Vec<i32>),
    Int8(Vec<i8>),
    Uint8(Vec<u8>),
    /// Four bits each, -8 to 7; two are packed in a byte of the file.
    Int4(Vec<i8>),
    Bool(Vec<bool>),
}

/// An input or output of the graph.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub name: String,
    pub element: Element,
    pub dims: Vec<Size>,
}

/// The type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Float,
    Int64,
    Bool,
}

/// The size of a dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Fixed(usize),
    /// Any size, the same wherever the name is the same.
    Named(String),
}
