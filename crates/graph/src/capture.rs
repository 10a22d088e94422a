//! Capture of a model's forward pass as operations on tensors, with every parameter tied to its
//! path.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use burn_capture::TensorId;
use burn_ir::{GraphIr, OperationIr};

use super::custom::Rules;
use super::ports::{self, Detail, Recording};
use super::{DummyInput, GraphError, SlicePlan};
use crate::target::TargetId;

/// A captured forward pass.
#[derive(Debug, Clone)]
pub struct Captured {
    pub(super) graph: GraphIr,
    pub(super) params: Vec<CapturedParam>,
    pub(super) inputs: Vec<TensorId>,
    pub(super) outputs: Vec<TensorId>,
    pub(super) ports: Vec<(TargetId, TensorId)>,
    values: Arc<BTreeMap<TensorId, TensorData>>,
    pub(super) batch: u64,
    pub(super) rules: Rules,
}

/// A parameter or running statistic of a captured model.
#[derive(Debug, Clone)]
pub(super) struct CapturedParam {
    pub path: String,
    pub param_id: ParamId,
    pub tensor: TensorId,
    pub shape: Vec<usize>,
    /// The types of the modules that it is in, the layer that it belongs to first.
    pub kinds: Vec<String>,
    /// The recurrent layer that it is a part of: its path and type.
    pub recurrent: Option<(String, String)>,
    /// The path of the module that the layer is a field of.
    pub holder_path: String,
    /// The type of the layer that panics unless its input is as wide as this parameter's.
    pub checked_by: Option<&'static str>,
}

impl Captured {
    /// The captured operations.
    pub fn graph(&self) -> &GraphIr {
        &self.graph
    }

    /// Batch size of the dummy input: the first dimension of the first input, or of the first
    /// output if the inputs are made inside the forward pass.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// The input tensors, in the order of the dummy input.
    pub fn inputs(&self) -> &[TensorId] {
        &self.inputs
    }

    /// The output tensors, in the order of the forward pass.
    pub fn outputs(&self) -> &[TensorId] {
        &self.outputs
    }

    /// The float parameters and running statistics: path, identity and tensor.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, ParamId, TensorId)> {
        let params = self.params.iter();
        params.map(|param| (param.path.as_str(), param.param_id, param.tensor))
    }

    /// The tensors that pass through inputs and outputs of wrapped layers, in the order of the calls.
    pub fn ports(&self) -> &[(TargetId, TensorId)] {
        &self.ports
    }

    /// The values of the tensors that no operation makes: the inputs, and constants of the forward
    /// pass. Float parameters have none.
    pub fn values(&self) -> &BTreeMap<TensorId, TensorData> {
        &self.values
    }

    /// The operations of the forward pass.
    pub(super) fn forward_operations(&self) -> &[OperationIr] {
        &self.graph.operations
    }

    /// Leaves out the operations that make the parameters.
    fn drop_parameters(&mut self) {
        let params: BTreeSet<TensorId> = self.params.iter().map(|param| param.tensor).collect();
        let makes_param = |op: &OperationIr| op.outputs().any(|out| params.contains(&out.id));
        self.graph.operations.retain(|op| !makes_param(op));
    }

    /// The shape of every tensor.
    pub(super) fn shapes(&self) -> HashMap<TensorId, Vec<usize>> {
        let tensors = self.graph.operations.iter().flat_map(|op| op.nodes());
        tensors
            .map(|tensor| (tensor.id, tensor.shape.to_vec()))
            .collect()
    }

    /// The shapes of the outputs.
    pub(super) fn output_shapes(&self) -> Vec<Vec<usize>> {
        let shapes = self.shapes();
        let shape = |id| shapes.get(id).cloned().unwrap_or_default();
        self.outputs.iter().map(shape).collect()
    }

    /// The tensors that an operation reads or that are put out.
    pub(super) fn read(&self) -> BTreeSet<TensorId> {
        let operations = self.graph.operations.iter();
        let inputs = operations.flat_map(|op| op.inputs().map(|tensor| tensor.id));
        inputs.chain(self.outputs.iter().copied()).collect()
    }

    /// The parameters and running statistics that an operation reads or that are put out.
    pub(super) fn used(&self) -> BTreeSet<String> {
        let read = self.read();
        let used = self.params.iter().filter(|p| read.contains(&p.tensor));
        used.map(|param| param.path.clone()).collect()
    }

    /// The shapes of the inputs and outputs of wrapped layers, one for each call.
    pub fn port_shapes(&self) -> Vec<(&TargetId, Vec<usize>)> {
        let shapes = self.shapes();
        let ports = self.ports.iter();
        ports
            .filter_map(|(target, id)| Some((target, shapes.get(id)?.clone())))
            .collect()
    }
}

/// Captures the forward pass of `model`; nothing is computed.
///
/// The model has to be plain: without simulations attached to its parameters and not on an
/// autodiff device. It is not changed.
///
/// # Errors
///
/// When the forward pass panics on the capture device (shapes that do not fit, a tensor made on
/// another device, an operation that reads values), with the panic's message.
pub fn capture<M: Module>(model: &M, dummy: &DummyInput<M>) -> Result<Captured, GraphError> {
    captured(model, dummy, Detail::Layers)
}

/// Captures the forward pass of `model` as [`capture`] does, with wrapped layers as the operations that
/// they compute.
///
/// For programs that carry the operations out: [`ChannelGraph`](crate::ChannelGraph) needs the capture
/// with the layers. A recurrent layer of the usual functions stays one operation, see
/// [`builtin`](crate::builtin).
///
/// # Errors
///
/// Those of [`capture`].
pub fn capture_operations<M: Module>(
    model: &M,
    dummy: &DummyInput<M>,
) -> Result<Captured, GraphError> {
    captured(model, dummy, Detail::Operations)
}

fn captured<M: Module>(
    model: &M,
    dummy: &DummyInput<M>,
    detail: Detail,
) -> Result<Captured, GraphError> {
    let whole = SlicePlan::default();
    let recorded = record(dummy, detail, |device| {
        // A clone shares its running statistics with the original, `valid` copies them. No value of a
        // parameter is read, so none is moved to the device.
        let hollow = model.valid().map(&mut Shrink::new(&whole, device));
        hollow.to_device(device)
    })?;
    match recorded.panic {
        None => Ok(recorded.captured),
        Some(message) => Err(GraphError::Forward { message }),
    }
}

/// A forward pass as far as it went.
pub(super) struct Recorded {
    pub captured: Captured,
    /// The message of the panic that ended it.
    pub panic: Option<String>,
}

/// Records the forward pass of the model that `prepare` brings to the capture device.
pub(super) fn record<M: Module>(
    dummy: &DummyInput<M>,
    detail: Detail,
    prepare: impl FnOnce(&Device) -> M,
) -> Result<Recorded, GraphError> {
    let device = Device::capture();
    let recording = Recording::start(detail);
    let mut passed = None;
    let captured = device.capture_scope(|scope| {
        passed = Some(catch_unwind(AssertUnwindSafe(|| {
            let model = prepare(&device);
            let mut params = Params::default();
            model.visit(&mut params);
            let traced = dummy.trace(&model, &device);
            (params.found, traced)
        })));
        scope.complete([], [])
    });
    let captured = captured.map_err(|error| GraphError::Capture {
        message: error.to_string(),
    })?;
    let ports = recording.finish();
    let (params, inputs, outputs, panic) = match passed {
        Some(Ok((params, traced))) => (params, traced.inputs, traced.outputs.ids(), None),
        Some(Err(panic)) => (Vec::new(), Vec::new(), Vec::new(), Some(message(panic))),
        None => (Vec::new(), Vec::new(), Vec::new(), None),
    };
    let outputs: Vec<TensorId> = outputs
        .into_iter()
        .enumerate()
        .map(|(index, id)| id.ok_or(GraphError::OutputDevice { index }))
        .collect::<Result<_, _>>()?;
    // Nothing that is computed of it could be compared.
    for (index, (_, shape)) in inputs.iter().enumerate() {
        if shape.contains(&0) {
            let shape = shape.clone();
            return Err(GraphError::EmptyInput { index, shape });
        }
    }
    let first_output = || {
        let mut tensors = captured.graph.operations.iter().flat_map(|op| op.nodes());
        tensors.find(|tensor| Some(&tensor.id) == outputs.first())
    };
    let batch = match inputs.first() {
        Some((_, shape)) => shape.first().copied(),
        None => first_output().and_then(|tensor| tensor.shape.to_vec().first().copied()),
    };
    let mut captured = Captured {
        params,
        inputs: inputs.into_iter().filter_map(|(id, _)| id).collect(),
        outputs,
        ports,
        values: Arc::new(captured.values),
        batch: batch.unwrap_or(1).max(1) as u64,
        graph: captured.graph,
        rules: dummy.rules.clone(),
    };
    captured.drop_parameters();
    Ok(Recorded { captured, panic })
}

fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => match panic.downcast::<&str>() {
            Ok(text) => text.to_string(),
            Err(_) => "a panic without message".to_string(),
        },
    }
}

/// Layers of Burn that compare the width of their input with a number of their own, and the parts of
/// them that read that input. What is compared leaves no trace in the operations.
const CHECKED: [(&str, [&str; 3]); 1] = [("MultiHeadAttention", ["query", "key", "value"])];

/// Recurrent layers of Burn, which hold the size of their hidden state as a constant.
const RECURRENT: [&str; 4] = ["Lstm", "Gru", "BiLstm", "BiGru"];

/// Place of a field that is to be wrapped: types of Burn cannot be changed.
pub(super) fn place(kind: Option<&String>) -> String {
    match kind.map(String::as_str) {
        Some(kind @ ("TransformerEncoderLayer" | "TransformerDecoderLayer")) => {
            format!(" in a type of your own in place of Burn's `{kind}`")
        }
        _ => String::new(),
    }
}

/// Collects the parameters of a model on the capture device.
#[derive(Default)]
struct Params {
    /// The names on the way to a parameter, each with the type that it is a field of.
    path: Vec<(String, String)>,
    found: Vec<CapturedParam>,
}

impl Params {
    fn path(&self) -> String {
        let names: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        names.join(".")
    }

    /// The types on the way, the innermost first.
    fn kinds(&self) -> Vec<String> {
        let kinds = self.path.iter().rev().map(|(_, kind)| kind);
        let kinds = kinds.map(|kind| kind.strip_prefix("Struct:").unwrap_or(kind));
        kinds.map(str::to_string).collect()
    }

    fn holder_path(&self) -> String {
        let names = self.path.iter().map(|(name, _)| name.as_str());
        let names: Vec<&str> = names.take(self.path.len().saturating_sub(2)).collect();
        names.join(".")
    }

    /// The outermost recurrent layer on the way.
    fn recurrent(&self) -> Option<(String, String)> {
        (1..self.path.len()).find_map(|depth| {
            let kind = self.path[depth].1.strip_prefix("Struct:")?;
            let names: Vec<&str> = self.path[..depth].iter().map(|(name, _)| &**name).collect();
            RECURRENT
                .contains(&kind)
                .then(|| (names.join("."), kind.to_string()))
        })
    }

    /// The layer that checks the width of what the parameter at hand multiplies.
    fn checked_by(&self) -> Option<&'static str> {
        let [.., (part, layer), (name, _)] = &self.path[..] else {
            return None;
        };
        let layer = layer.strip_prefix("Struct:")?;
        let checks = |(kind, parts): &(&str, [&str; 3])| {
            *kind == layer && parts.contains(&part.as_str()) && name == "weight"
        };
        let found = CHECKED.iter().find(|&checked| checks(checked));
        found.map(|&(kind, _)| kind)
    }
}

impl ModuleVisitor for Params {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path
            .push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let base = param.base();
        if let Some(tensor) = ports::tensor_id(&base) {
            self.found.push(CapturedParam {
                path: self.path(),
                param_id: param.id,
                tensor,
                shape: base.dims().to_vec(),
                kinds: self.kinds(),
                holder_path: self.holder_path(),
                recurrent: self.recurrent(),
                checked_by: self.checked_by(),
            });
        }
    }
}

/// Puts a tensor without values in the place of every parameter, as large as a plan leaves it.
pub(super) struct Shrink<'a> {
    path: Vec<String>,
    plan: &'a SlicePlan,
    device: &'a Device,
}

impl<'a> Shrink<'a> {
    pub fn new(plan: &'a SlicePlan, device: &'a Device) -> Self {
        let path = Vec::new();
        Self { path, plan, device }
    }
}

impl ModuleMapper for Shrink<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let slice = self.plan.params.get(&self.path.join("."));
        param.map(|tensor| {
            let mut dims = tensor.dims();
            if let Some(slice) = slice {
                dims.copy_from_slice(&slice.shape);
            }
            Tensor::empty(dims, (self.device, tensor.dtype()))
        })
    }
}
