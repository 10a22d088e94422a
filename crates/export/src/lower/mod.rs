//! From captured operations to ONNX operators: one rule an operation, one kind of operation a file.
//!
//! A rule reads the names of its inputs, appends operators and names its output. What it cannot express
//! it returns as [`Unsupported`]; the others are lowered all the same, so that one error lists all.

mod activation;
mod arithmetic;
mod attention;
mod boundary;
mod constant;
mod conv;
mod index;
mod linear;
mod norm;
mod numbers;
mod pool;
mod recurrent;
mod reduce;
mod rules;
mod select;
mod shape;
mod sizes;
mod spatial;

use std::collections::{HashMap, HashSet};

use burn::module::ParamId;
use burn::tensor::{DType, TensorData};
use burn_compress_core::TargetId;
use burn_compress_core::graph::operation_name;
use burn_ir::{OperationIr, ScalarIr, TensorId, TensorIr};
use indexmap::IndexMap;

use crate::error::UnsupportedOperation;
use crate::graph::{Attribute, Element, Node, OnnxGraph};
use crate::trace::{Sizes, Trace};
use crate::{ExportError, OnnxConfig};

/// A lowered forward pass.
pub(crate) struct Lowered {
    pub graph: OnnxGraph,
    /// The tensors at inputs and outputs of wrapped layers, by name, in the order of the calls.
    pub ports: IndexMap<TargetId, Vec<String>>,
    /// What a user of the file should know.
    pub notes: Vec<String>,
}

/// Reason why an operation cannot be lowered.
#[derive(Debug)]
struct Unsupported(String);

impl Unsupported {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    fn no_operator() -> Self {
        Self::new("ONNX has no operator that computes it")
    }
}

type Lowering = Result<(), Unsupported>;

/// Lowers all operations.
///
/// `values` are those of the parameters, by path.
pub(crate) fn lower(
    trace: &Trace,
    values: &HashMap<String, TensorData>,
    config: &OnnxConfig,
) -> Result<Lowered, ExportError> {
    let mut lower = Lower::new(trace, values);
    lower.name_inputs(config)?;
    lower.name_outputs(config)?;
    let mut unsupported: Vec<UnsupportedOperation> = Vec::new();
    for (at, op) in trace.operations.iter().enumerate() {
        lower.begin(at, op);
        let found = lower
            .check_types(op)
            .and_then(|()| rules::apply(&mut lower, op));
        if let Err(Unsupported(reason)) = found {
            let found = UnsupportedOperation {
                operation: operation_name(op),
                layer: lower.layer.clone(),
                reason,
            };
            if !unsupported.contains(&found) {
                unsupported.push(found);
            }
        }
        lower.end(op);
    }
    if !unsupported.is_empty() {
        return Err(ExportError::Unsupported { unsupported });
    }
    lower.finish()
}

/// The state of a lowering.
struct Lower<'a> {
    trace: &'a Trace,
    values: &'a HashMap<String, TensorData>,
    graph: OnnxGraph,
    /// The name of every tensor so far, and of the outputs from the beginning.
    names: HashMap<TensorId, String>,
    used: HashSet<String>,
    /// Tensors with a name that no operator has written.
    pending: HashSet<TensorId>,
    /// Initializers of shared parameters.
    shared: HashMap<ParamId, String>,
    /// The layer of every tensor: the last one on its way.
    layers: HashMap<TensorId, String>,
    /// Number of the operation at hand, its layer and the name that its tensors begin with.
    at: usize,
    layer: String,
    stem: String,
    /// The operations that read a tensor.
    readers: HashMap<TensorId, Vec<usize>>,
    /// Averages over one side of an image that are taken together with the other side.
    half_pooled: HashMap<TensorId, TensorIr>,
    /// Dynamic dimensions of tensors that are named.
    known: Vec<(Sizes, String, usize)>,
    /// Names of sizes that are computed in the graph.
    computed: HashMap<Sizes, String>,
    /// Constants that are no parameters, by their hash.
    constants: HashMap<u64, Vec<String>>,
    /// Tables that are cut to the sizes that the graph runs with, by their constant.
    tables: HashMap<(String, Vec<Sizes>), String>,
    notes: Vec<String>,
    recurrent: HashMap<Vec<u64>, [String; 3]>,
}

impl<'a> Lower<'a> {
    fn new(trace: &'a Trace, values: &'a HashMap<String, TensorData>) -> Self {
        let mut readers: HashMap<TensorId, Vec<usize>> = HashMap::new();
        for (at, op) in trace.operations.iter().enumerate() {
            for input in op.inputs() {
                readers.entry(input.id).or_default().push(at);
            }
        }
        Self {
            trace,
            values,
            graph: OnnxGraph::default(),
            names: HashMap::new(),
            used: HashSet::new(),
            pending: HashSet::new(),
            shared: HashMap::new(),
            layers: HashMap::new(),
            at: 0,
            layer: String::new(),
            stem: String::new(),
            readers,
            half_pooled: HashMap::new(),
            known: Vec::new(),
            computed: HashMap::new(),
            constants: HashMap::new(),
            tables: HashMap::new(),
            notes: trace.notes.clone(),
            recurrent: HashMap::new(),
        }
    }

    fn begin(&mut self, at: usize, op: &OperationIr) {
        self.at = at;
        let own = op.inputs().find_map(|input| {
            let (path, _) = self.trace.parameters.get(&input.id)?;
            Some(
                path.rsplit_once('.')
                    .map_or("", |(layer, _)| layer)
                    .to_string(),
            )
        });
        let before = || op.inputs().find_map(|input| self.layers.get(&input.id));
        self.layer = match &own {
            Some(layer) => layer.clone(),
            None => before().cloned().unwrap_or_default(),
        };
        let name = operation_name(op);
        self.stem = match own {
            Some(layer) if !layer.is_empty() => format!("{layer}.{name}"),
            _ => name,
        };
    }

    fn end(&mut self, op: &OperationIr) {
        for out in op.outputs() {
            self.layers.insert(out.id, self.layer.clone());
            if self.half_pooled.contains_key(&out.id) {
                continue;
            }
            let name = self.output(out);
            let dims = self.trace.shapes[&out.id].clone();
            self.note_dims(&name, &dims);
        }
    }

    /// Checks that all tensors of an operation have types that are exported.
    fn check_types(&self, op: &OperationIr) -> Lowering {
        op.nodes()
            .iter()
            .try_for_each(|tensor| element(tensor.dtype).map(drop))
    }

    /// The name of a tensor that an operation reads.
    fn input(&mut self, tensor: &TensorIr) -> Result<String, Unsupported> {
        self.read(tensor.id)
    }

    fn read(&mut self, id: TensorId) -> Result<String, Unsupported> {
        if let Some(name) = self.names.get(&id) {
            return Ok(name.clone());
        }
        let name = match self.trace.parameters.get(&id) {
            Some((path, param)) => self.parameter(path, *param)?,
            None => constant::lower(self, id)?,
        };
        self.names.insert(id, name.clone());
        Ok(name)
    }

    fn parameter(&mut self, path: &str, id: ParamId) -> Result<String, Unsupported> {
        let missing = || Unsupported::new(format!("the parameter `{path}` has no value"));
        let data = self.values.get(path).ok_or_else(missing)?;
        let constant = constant::of(data)?;
        if let Some(shared) = self.shared.get(&id)
            && self.graph.initializers[shared] == constant
        {
            return Ok(shared.clone());
        }
        let name = self.unique(path);
        self.graph.initializers.insert(name.clone(), constant);
        self.shared.entry(id).or_insert_with(|| name.clone());
        Ok(name)
    }

    /// The name of a tensor that the operation at hand makes.
    fn output(&mut self, tensor: &TensorIr) -> String {
        if let Some(name) = self.names.get(&tensor.id) {
            return name.clone();
        }
        let stem = self.stem.clone();
        let name = self.unique(&stem);
        self.names.insert(tensor.id, name.clone());
        name
    }

    /// A name that begins with `wish` and that no tensor has.
    fn unique(&mut self, wish: &str) -> String {
        let mut name = wish.to_string();
        let mut number = 1;
        while !self.used.insert(name.clone()) {
            number += 1;
            name = format!("{wish}_{number}");
        }
        name
    }

    /// Appends an operator that makes `out`.
    fn push<S: Into<String>>(
        &mut self,
        operator: &str,
        inputs: impl IntoIterator<Item = S>,
        out: &TensorIr,
    ) -> &mut Node {
        let name = self.output(out);
        self.pending.remove(&out.id);
        self.append(Node::new(operator, inputs, [name]))
    }

    /// Appends an operator whose output no operation of the capture makes, and gives its name.
    fn step<S: Into<String>>(
        &mut self,
        operator: &str,
        inputs: impl IntoIterator<Item = S>,
        attributes: impl IntoIterator<Item = (&'static str, Attribute)>,
    ) -> String {
        let wish = format!("{}.{}", self.stem, operator.to_lowercase());
        let name = self.unique(&wish);
        let mut node = Node::new(operator, inputs, [name.clone()]);
        for (attribute, value) in attributes {
            node.attributes.insert(attribute.to_string(), value);
        }
        self.append(node);
        name
    }

    fn append(&mut self, node: Node) -> &mut Node {
        self.graph.nodes.push(node);
        let last = self.graph.nodes.len() - 1;
        &mut self.graph.nodes[last]
    }

    /// Gives `out` the elements of the tensor `name`, without an operator where possible.
    fn alias(&mut self, name: String, out: &TensorIr) {
        if self.pending.contains(&out.id) {
            self.push("Identity", [name], out);
        } else {
            self.names.insert(out.id, name);
        }
    }

    /// The sizes of a tensor.
    fn sizes(&self, tensor: &TensorIr) -> Vec<Sizes> {
        self.trace.shapes[&tensor.id].clone()
    }

    /// What `read` finds in the operation at hand, in every capture.
    fn in_all<T>(&self, read: impl Fn(&OperationIr) -> Option<T>) -> Vec<T> {
        let ops = std::iter::once(&self.trace.operations[self.at]);
        let ops = ops.chain(self.trace.others.iter().map(|ops| &ops[self.at]));
        ops.filter_map(read).collect()
    }
}

/// The type of the elements of an exported tensor.
fn element(dtype: DType) -> Result<Element, Unsupported> {
    match dtype {
        DType::F32 => Ok(Element::Float),
        DType::Bool(_) => Ok(Element::Bool),
        dtype if dtype.is_int() || dtype.is_uint() => Ok(Element::Int64),
        dtype => Err(Unsupported::new(format!(
            "it computes with {dtype:?}, and floats are exported as F32: cast the model"
        ))),
    }
}

/// A scalar as a number.
fn scalar_value(scalar: ScalarIr) -> f64 {
    match scalar {
        ScalarIr::Float(x) => x,
        ScalarIr::Int(x) => x as f64,
        ScalarIr::UInt(x) => x as f64,
        ScalarIr::Bool(x) => f64::from(x),
    }
}

/// Attributes of an operator, in the order in which they are written.
fn ints(values: impl IntoIterator<Item = usize>) -> Attribute {
    Attribute::Ints(values.into_iter().map(|value| value as i64).collect())
}

impl Node {
    /// Adds an attribute to an operator of the graph.
    fn set(&mut self, name: &str, attribute: Attribute) -> &mut Self {
        self.attributes.insert(name.to_string(), attribute);
        self
    }
}
