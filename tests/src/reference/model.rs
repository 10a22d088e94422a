//! The network of a case as a Burn module.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param, ParamId,
};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig,
    PaddingConfig2d, Relu,
};
use burn::tensor::{Device, Tensor, activation};
use indexmap::IndexMap;

use super::adapter::core::Layer;
use super::adapter::{Wrapped, wrap};
use super::case::{Array, CaseError, LayerSpec, ModelSpec, OpSpec, Result};
use super::expression;
use super::layout;

/// A value that flows between the operations of a network.
#[derive(Debug, Clone)]
pub enum Activation {
    /// Rows of features, `[batch, features]`.
    Rank2(Tensor<2>),
    /// Sequences, `[batch, length, features]`.
    Rank3(Tensor<3>),
    /// Feature maps, `[batch, channels, height, width]`.
    Rank4(Tensor<4>),
}

/// Runs an expression on the tensor of an activation whatever its rank.
macro_rules! each_rank {
    ($activation:expr, $tensor:ident => $body:expr) => {
        match $activation {
            Activation::Rank2($tensor) => Activation::Rank2($body),
            Activation::Rank3($tensor) => Activation::Rank3($body),
            Activation::Rank4($tensor) => Activation::Rank4($body),
        }
    };
}

impl Activation {
    /// The values of an array as an activation.
    ///
    /// # Errors
    ///
    /// When the rank is not 2, 3 or 4.
    pub fn from_array(array: &Array, device: &Device) -> Result<Self> {
        match array.shape.len() {
            2 => Ok(Self::Rank2(array.tensor(device)?)),
            3 => Ok(Self::Rank3(array.tensor(device)?)),
            4 => Ok(Self::Rank4(array.tensor(device)?)),
            rank => Err(CaseError::Failed(format!("no layer takes a tensor of rank {rank}"))),
        }
    }

    /// The values.
    pub fn array(&self) -> Array {
        match self.clone() {
            Self::Rank2(tensor) => Array::from_tensor(tensor),
            Self::Rank3(tensor) => Array::from_tensor(tensor),
            Self::Rank4(tensor) => Array::from_tensor(tensor),
        }
    }

    /// The same activation as a leaf that collects a gradient.
    pub fn require_grad(self) -> Self {
        each_rank!(self, tensor => tensor.require_grad())
    }

    /// The gradient of a leaf, absent where nothing depends on it.
    pub fn gradient(&self, gradients: &burn::tensor::Gradients) -> Option<Array> {
        match self {
            Self::Rank2(tensor) => tensor.grad(gradients).map(Array::from_tensor),
            Self::Rank3(tensor) => tensor.grad(gradients).map(Array::from_tensor),
            Self::Rank4(tensor) => tensor.grad(gradients).map(Array::from_tensor),
        }
    }

    /// `sum(self * weights)`: the loss whose gradient with respect to `self` is `weights`.
    ///
    /// # Errors
    ///
    /// When the shapes differ.
    pub fn weighted_sum(&self, weights: &Array) -> Result<Tensor<1>> {
        match self.clone() {
            Self::Rank2(tensor) => weighted_sum(tensor, weights),
            Self::Rank3(tensor) => weighted_sum(tensor, weights),
            Self::Rank4(tensor) => weighted_sum(tensor, weights),
        }
    }

    /// The rows of features.
    ///
    /// # Panics
    ///
    /// When the activation has another rank.
    pub fn rows(self) -> Tensor<2> {
        match self {
            Self::Rank2(tensor) => tensor,
            other => panic!("expected rows of features, found the shape {:?}", other.array().shape),
        }
    }

    fn feature_maps(self) -> Tensor<4> {
        match self {
            Self::Rank4(tensor) => tensor,
            other => panic!("expected feature maps, found the shape {:?}", other.array().shape),
        }
    }
}

fn weighted_sum<const D: usize>(tensor: Tensor<D>, weights: &Array) -> Result<Tensor<1>> {
    if tensor.dims().as_slice() != weights.shape.as_slice() {
        return Err(CaseError::Failed(format!(
            "the output has the shape {:?}, its gradient {:?}",
            tensor.dims(),
            weights.shape
        )));
    }
    let weights = weights.tensor::<D>(&tensor.device())?;
    Ok((tensor * weights).sum())
}

/// One layer of a network.
#[derive(Debug, Clone)]
pub enum RefLayer {
    /// Convolution.
    Conv2d(Wrapped<Conv2d>),
    /// Linear layer.
    Linear(Wrapped<Linear>),
    /// Batch normalization.
    BatchNorm(Wrapped<BatchNorm>),
    /// Embedding table; the networks of the cases hold it for its parameter only.
    Embedding(Wrapped<Embedding>),
    /// Max pooling.
    MaxPool2d(Wrapped<MaxPool2d>),
    /// Rectifier.
    Relu(Wrapped<Relu>),
    /// A given hidden state of rank 2.
    State2(Wrapped<State<2>>),
    /// A given hidden state of rank 3.
    State3(Wrapped<State<3>>),
    /// A given hidden state of rank 4.
    State4(Wrapped<State<4>>),
}

/// A layer that returns its parameter whatever its input.
#[derive(Module, Debug)]
pub struct State<const D: usize> {
    value: Param<Tensor<D>>,
}

impl<const D: usize> Layer<Tensor<D>> for State<D> {
    type Output = Tensor<D>;

    fn forward(&self, _input: Tensor<D>) -> Tensor<D> {
        self.value.val()
    }
}

/// Runs an expression on the module of a layer.
macro_rules! each_layer {
    ($layer:expr, $module:ident => $body:expr) => {
        match $layer {
            RefLayer::Conv2d($module) => $body,
            RefLayer::Linear($module) => $body,
            RefLayer::BatchNorm($module) => $body,
            RefLayer::Embedding($module) => $body,
            RefLayer::MaxPool2d($module) => $body,
            RefLayer::Relu($module) => $body,
            RefLayer::State2($module) => $body,
            RefLayer::State3($module) => $body,
            RefLayer::State4($module) => $body,
        }
    };
}

/// Rebuilds a layer from its transformed module.
macro_rules! map_layer {
    ($layer:expr, $module:ident => $body:expr) => {
        match $layer {
            RefLayer::Conv2d($module) => RefLayer::Conv2d($body),
            RefLayer::Linear($module) => RefLayer::Linear($body),
            RefLayer::BatchNorm($module) => RefLayer::BatchNorm($body),
            RefLayer::Embedding($module) => RefLayer::Embedding($body),
            RefLayer::MaxPool2d($module) => RefLayer::MaxPool2d($body),
            RefLayer::Relu($module) => RefLayer::Relu($body),
            RefLayer::State2($module) => RefLayer::State2($body),
            RefLayer::State3($module) => RefLayer::State3($body),
            RefLayer::State4($module) => RefLayer::State4($body),
        }
    };
}

impl RefLayer {
    /// Builds a layer with zeros for parameters.
    ///
    /// # Errors
    ///
    /// When the class is unknown or a size is missing.
    pub fn build(spec: &LayerSpec, device: &Device) -> Result<Self> {
        Ok(match layout::burn_kind(&spec.kind) {
            "Conv2d" => {
                let kernel = spec.size("kernel")?;
                let stride = spec.size_or("stride", 1)?;
                let padding = spec.size_or("padding", 0)?;
                let config = Conv2dConfig::new(
                    [spec.size("in")?, spec.size("out")?],
                    [kernel, kernel],
                )
                .with_stride([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
                .with_groups(spec.size_or("groups", 1)?)
                .with_bias(spec.bias())
                .with_initializer(Initializer::Zeros);
                Self::Conv2d(wrap(config.init(device)))
            }
            "Linear" => {
                let config = LinearConfig::new(spec.size("in")?, spec.size("out")?)
                    .with_bias(spec.bias())
                    .with_initializer(Initializer::Zeros);
                Self::Linear(wrap(config.init(device)))
            }
            "BatchNorm" => {
                Self::BatchNorm(wrap(BatchNormConfig::new(spec.size("features")?).init(device)))
            }
            "Embedding" => {
                let config = EmbeddingConfig::new(spec.size("num")?, spec.size("dim")?)
                    .with_initializer(Initializer::Zeros);
                Self::Embedding(wrap(config.init(device)))
            }
            "MaxPool2d" => {
                let kernel = spec.size("kernel")?;
                let stride = spec.size_or("stride", kernel)?;
                let config = MaxPool2dConfig::new([kernel, kernel]).with_strides([stride, stride]);
                Self::MaxPool2d(wrap(config.init()))
            }
            "Relu" => Self::Relu(wrap(Relu::new())),
            other => {
                return Err(CaseError::Failed(format!("layer `{}`: unknown class {other}", spec.name)));
            }
        })
    }

    /// A layer that returns a given hidden state, as its parameter `value`.
    ///
    /// # Errors
    ///
    /// When the rank is not 2, 3 or 4.
    pub fn state(array: &Array, device: &Device) -> Result<Self> {
        Ok(match Activation::from_array(array, device)? {
            Activation::Rank2(value) => {
                Self::State2(wrap(State { value: Param::from_tensor(value) }))
            }
            Activation::Rank3(value) => {
                Self::State3(wrap(State { value: Param::from_tensor(value) }))
            }
            Activation::Rank4(value) => {
                Self::State4(wrap(State { value: Param::from_tensor(value) }))
            }
        })
    }

    /// Runs the layer.
    ///
    /// # Panics
    ///
    /// When the activation has a rank that the layer does not take.
    pub fn forward(&self, x: Activation) -> Activation {
        match self {
            Self::Conv2d(layer) => Activation::Rank4(layer.forward(x.feature_maps())),
            Self::Linear(layer) => each_rank!(x, tensor => layer.forward(tensor)),
            Self::BatchNorm(layer) => each_rank!(x, tensor => layer.forward(tensor)),
            Self::MaxPool2d(layer) => Activation::Rank4(layer.forward(x.feature_maps())),
            Self::Relu(layer) => each_rank!(x, tensor => layer.forward(tensor)),
            Self::Embedding(_) => panic!("the networks of the cases never run an embedding"),
            Self::State2(_) | Self::State3(_) | Self::State4(_) => self.output(),
        }
    }

    /// What a layer with a given hidden state returns.
    ///
    /// # Panics
    ///
    /// When the layer needs an input.
    pub fn output(&self) -> Activation {
        match self {
            Self::State2(layer) => Activation::Rank2(layer.forward(layer.value.val())),
            Self::State3(layer) => Activation::Rank3(layer.forward(layer.value.val())),
            Self::State4(layer) => Activation::Rank4(layer.forward(layer.value.val())),
            other => panic!("a {} needs an input", other.kind()),
        }
    }

    /// A parameter as the layer uses it: with whatever is simulated on it.
    pub fn simulated(&self, param: &str) -> Option<Array> {
        let vector = |param: &Param<Tensor<1>>| Array::from_tensor(param.val());
        match (self, param) {
            (Self::Conv2d(layer), "weight") => Some(Array::from_tensor(layer.weight.val())),
            (Self::Conv2d(layer), "bias") => layer.bias.as_ref().map(vector),
            (Self::Linear(layer), "weight") => Some(Array::from_tensor(layer.weight.val())),
            (Self::Linear(layer), "bias") => layer.bias.as_ref().map(vector),
            (Self::BatchNorm(layer), "gamma") => Some(vector(&layer.gamma)),
            (Self::BatchNorm(layer), "beta") => Some(vector(&layer.beta)),
            _ => None,
        }
    }

    /// Numbers of input and output channels, absent for layers without parameters.
    pub fn channels(&self) -> Option<(usize, usize)> {
        match self {
            Self::Conv2d(layer) => {
                let [output, input, ..] = layer.weight.dims();
                Some((input * layer.groups, output))
            }
            Self::Linear(layer) => {
                let [input, output] = layer.weight.dims();
                Some((input, output))
            }
            Self::BatchNorm(layer) => {
                let [features] = layer.gamma.dims();
                Some((features, features))
            }
            _ => None,
        }
    }

    /// Burn's name of the class.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conv2d(_) => "Conv2d",
            Self::Linear(_) => "Linear",
            Self::BatchNorm(_) => "BatchNorm",
            Self::Embedding(_) => "Embedding",
            Self::MaxPool2d(_) => "MaxPool2d",
            Self::Relu(_) => "Relu",
            Self::State2(_) | Self::State3(_) | Self::State4(_) => "State",
        }
    }
}

impl Module for RefLayer {
    fn collect_devices(&self, devices: Devices) -> Devices {
        each_layer!(self, module => module.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        map_layer!(self, module => module.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        map_layer!(self, module => module.to_device(device))
    }

    fn train(self) -> Self {
        map_layer!(self, module => module.train())
    }

    fn valid(&self) -> Self {
        map_layer!(self, module => module.valid())
    }

    fn materialize(self) -> Self {
        map_layer!(self, module => module.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        each_layer!(self, module => module.visit(visitor))
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        map_layer!(self, module => module.map(mapper))
    }
}

/// A network read from a case. Its parameter paths are `LAYER.PARAMETER` with the layer names of
/// the case.
#[derive(Debug, Clone)]
pub struct RefModel {
    layers: IndexMap<String, RefLayer>,
    ops: Arc<Vec<OpSpec>>,
}

/// Name under which the module announces itself to visitors.
const CONTAINER: &str = "Struct:RefModel";

impl RefModel {
    /// Builds the network with zeros for parameters.
    ///
    /// The data flow is the list of operations, or the expression, or the only layer. Without any
    /// of these the model holds parameters and cannot be run.
    ///
    /// # Errors
    ///
    /// When a layer is unknown or the data flow names a layer or value that does not exist.
    pub fn build(spec: &ModelSpec, device: &Device) -> Result<Self> {
        let mut layers = IndexMap::new();
        for layer in &spec.layers {
            layers.insert(layer.name.clone(), RefLayer::build(layer, device)?);
        }
        let ops = match (&spec.ops, &spec.forward, spec.layers.as_slice()) {
            (Some(ops), _, _) => ops.clone(),
            (None, Some(forward), _) => expression::parse(forward).unwrap_or_default(),
            (None, None, [only]) => vec![OpSpec {
                op: "layer".to_owned(),
                layer: Some(only.name.clone()),
                inputs: vec!["x".to_owned()],
                output: "y".to_owned(),
            }],
            (None, None, _) => Vec::new(),
        };
        for op in &ops {
            if let Some(layer) = &op.layer
                && !layers.contains_key(layer)
            {
                return Err(CaseError::Failed(format!("the data flow names an unknown layer `{layer}`")));
            }
        }
        Ok(Self { layers, ops: Arc::new(ops) })
    }

    /// Layers without data flow.
    pub fn from_layers(layers: IndexMap<String, RefLayer>) -> Self {
        Self { layers, ops: Arc::default() }
    }

    /// Runs the network.
    ///
    /// # Panics
    ///
    /// When the data flow does not fit the shapes.
    pub fn forward(&self, x: Activation) -> Activation {
        let mut values = BTreeMap::from([("x", x)]);
        for op in self.ops.iter() {
            let mut inputs = op.inputs.iter().map(|name| {
                values.get(name.as_str()).cloned().unwrap_or_else(|| panic!("no value `{name}`"))
            });
            let first = inputs.next().expect("an operation reads at least one value");
            let result = match op.op.as_str() {
                "layer" => self.layers[op.layer.as_deref().unwrap_or_default()].forward(first),
                "relu" => each_rank!(first, tensor => activation::relu(tensor)),
                "add" => inputs.fold(first, add),
                "cat" => {
                    let maps = std::iter::once(first).chain(inputs).map(Activation::feature_maps);
                    Activation::Rank4(Tensor::cat(maps.collect(), 1))
                }
                "mean_hw" => {
                    let mean = first.feature_maps().mean_dim(2).mean_dim(3);
                    Activation::Rank2(mean.flatten(1, 3))
                }
                "flatten" => Activation::Rank2(first.feature_maps().flatten(1, 3)),
                other => panic!("unknown operation `{other}`"),
            };
            values.insert(op.output.as_str(), result);
        }
        values.remove("y").expect("the data flow writes `y`")
    }

    /// The layers by name.
    pub fn layers(&self) -> &IndexMap<String, RefLayer> {
        &self.layers
    }

    /// Burn's class of a layer, empty for an unknown one.
    pub fn kind(&self, layer: &str) -> &'static str {
        self.layers.get(layer).map(RefLayer::kind).unwrap_or_default()
    }

    /// Replaces the parameters and running statistics for which `lookup` knows a value, given the
    /// layer and PyTorch's name and in PyTorch's layout. Parameter ids stay.
    ///
    /// # Errors
    ///
    /// When a value has another shape than the parameter.
    pub fn load(self, lookup: impl Fn(&str, &str) -> Option<Array>) -> Result<Self> {
        let kinds = self.layers.iter().map(|(name, layer)| (name.clone(), layer.kind()));
        let mut loader =
            Loader { path: Vec::new(), kinds: kinds.collect(), lookup, error: None };
        let model = self.map(&mut loader);
        match loader.error {
            Some(error) => Err(error),
            None => Ok(model),
        }
    }

    /// The stored parameters and running statistics by `LAYER.NAME`, in PyTorch's names and layout.
    ///
    /// Of a simulated parameter this is the raw value.
    pub fn parameters(&self) -> IndexMap<String, Array> {
        let mut reader =
            Reader { path: Vec::new(), model: self, arrays: IndexMap::new(), ids: IndexMap::new() };
        self.visit(&mut reader);
        reader.arrays
    }

    /// Identities of the parameters and running statistics by `LAYER.NAME`, in PyTorch's names.
    pub fn parameter_ids(&self) -> IndexMap<String, ParamId> {
        let mut reader =
            Reader { path: Vec::new(), model: self, arrays: IndexMap::new(), ids: IndexMap::new() };
        self.visit(&mut reader);
        reader.ids
    }
}

fn add(left: Activation, right: Activation) -> Activation {
    match (left, right) {
        (Activation::Rank2(left), Activation::Rank2(right)) => Activation::Rank2(left + right),
        (Activation::Rank3(left), Activation::Rank3(right)) => Activation::Rank3(left + right),
        (Activation::Rank4(left), Activation::Rank4(right)) => Activation::Rank4(left + right),
        _ => panic!("values of different ranks are added"),
    }
}

impl Module for RefModel {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.layers.values().fold(devices, |devices, layer| layer.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.each(|_, layer| layer.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(|_, layer| layer.to_device(device))
    }

    fn train(self) -> Self {
        self.each(|_, layer| layer.train())
    }

    fn valid(&self) -> Self {
        let layers = self.layers.iter().map(|(name, layer)| (name.clone(), layer.valid()));
        Self { layers: layers.collect(), ops: self.ops.clone() }
    }

    fn materialize(self) -> Self {
        self.each(|_, layer| layer.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (name, layer) in &self.layers {
            visitor.enter_module(name, CONTAINER);
            layer.visit(visitor);
            visitor.exit_module(name, CONTAINER);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        self.each(|name, layer| {
            mapper.enter_module(name, CONTAINER);
            let layer = layer.map(mapper);
            mapper.exit_module(name, CONTAINER);
            layer
        })
    }
}

impl RefModel {
    fn each(self, mut change: impl FnMut(&str, RefLayer) -> RefLayer) -> Self {
        let layers = self.layers.into_iter().map(|(name, layer)| {
            let layer = change(&name, layer);
            (name, layer)
        });
        Self { layers: layers.collect(), ops: self.ops }
    }
}

impl ModuleDisplayDefault for RefLayer {
    fn content(&self, content: Content) -> Option<Content> {
        each_layer!(self, module => module.content(content))
    }
}

impl ModuleDisplay for RefLayer {}

impl ModuleDisplayDefault for RefModel {
    fn content(&self, content: Content) -> Option<Content> {
        let content =
            self.layers.iter().fold(content, |content, (name, layer)| content.add(name, layer));
        content.optional()
    }
}

impl ModuleDisplay for RefModel {}

struct Loader<F> {
    path: Vec<String>,
    kinds: IndexMap<String, &'static str>,
    lookup: F,
    error: Option<CaseError>,
}

impl<F: Fn(&str, &str) -> Option<Array>> ModuleMapper for Loader<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let [layer, name] = self.path.as_slice() else {
            return param;
        };
        let kind = self.kinds.get(layer).copied().unwrap_or_default();
        let torch = layout::torch_target(kind, name);
        let Some(array) = (self.lookup)(layer, torch) else {
            return param;
        };
        let array = layout::convert(kind, torch, &array);
        if param.lazy_shape().as_slice() != array.shape.as_slice() {
            self.error = Some(CaseError::Failed(format!(
                "`{layer}.{name}` has the shape {:?}, the value {:?}",
                param.lazy_shape(),
                array.shape
            )));
            return param;
        }
        param.map(|old| {
            let value = array.tensor::<D>(&old.device()).expect("the shapes were compared");
            value.set_require_grad(old.is_require_grad())
        })
    }
}

struct Reader<'a> {
    path: Vec<String>,
    model: &'a RefModel,
    arrays: IndexMap<String, Array>,
    ids: IndexMap<String, ParamId>,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let [layer, name] = self.path.as_slice() else {
            return;
        };
        let kind = self.model.kind(layer);
        let torch = layout::torch_target(kind, name);
        let array = layout::convert(kind, torch, &Array::from_tensor(param.base()));
        self.arrays.insert(format!("{layer}.{torch}"), array);
        self.ids.insert(format!("{layer}.{torch}"), param.id);
    }
}
