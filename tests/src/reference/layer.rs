//! The layers of a network as Burn modules.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param,
};
use burn::nn::activation::{Hardtanh, HardtanhConfig};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig,
    PaddingConfig2d, Relu,
};
use burn::tensor::{Device, Tensor};
use burn_compress::{Layer, Wrapper};

use super::activation::{Activation, each_rank};
use super::array::Array;
use super::case::{CaseError, LayerSpec, Result};
use super::layout;

/// One layer of a network.
#[derive(Debug, Clone)]
pub enum RefLayer {
    /// Convolution.
    Conv2d(Wrapper<Conv2d>),
    /// Linear layer.
    Linear(Wrapper<Linear>),
    /// Batch normalization.
    BatchNorm(Wrapper<BatchNorm>),
    /// Embedding table; the networks of the cases hold it for its parameter only.
    Embedding(Wrapper<Embedding>),
    /// Max pooling.
    MaxPool2d(Wrapper<MaxPool2d>),
    /// Rectifier.
    Relu(Wrapper<Relu>),
    /// Identity between -1 and 1, constant outside.
    Hardtanh(Wrapper<Hardtanh>),
    /// A given hidden state of rank 2.
    State2(Wrapper<State<2>>),
    /// A given hidden state of rank 3.
    State3(Wrapper<State<3>>),
    /// A given hidden state of rank 4.
    State4(Wrapper<State<4>>),
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
            RefLayer::Hardtanh($module) => $body,
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
            RefLayer::Hardtanh($module) => RefLayer::Hardtanh($body),
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
                let config =
                    Conv2dConfig::new([spec.size("in")?, spec.size("out")?], [kernel, kernel])
                        .with_stride([stride, stride])
                        .with_padding(PaddingConfig2d::Explicit(
                            padding, padding, padding, padding,
                        ))
                        .with_groups(spec.size_or("groups", 1)?)
                        .with_bias(spec.bias())
                        .with_initializer(Initializer::Zeros);
                Self::Conv2d(Wrapper::new(config.init(device)))
            }
            "Linear" => {
                let config = LinearConfig::new(spec.size("in")?, spec.size("out")?)
                    .with_bias(spec.bias())
                    .with_initializer(Initializer::Zeros);
                Self::Linear(Wrapper::new(config.init(device)))
            }
            "BatchNorm" => {
                let config = BatchNormConfig::new(spec.size("features")?);
                let epsilon = spec.number_or("eps", config.epsilon)?;
                let momentum = spec.number_or("momentum", config.momentum)?;
                let config = config.with_epsilon(epsilon).with_momentum(momentum);
                Self::BatchNorm(Wrapper::new(config.init(device)))
            }
            "Embedding" => {
                let config = EmbeddingConfig::new(spec.size("num")?, spec.size("dim")?)
                    .with_initializer(Initializer::Zeros);
                Self::Embedding(Wrapper::new(config.init(device)))
            }
            "MaxPool2d" => {
                let kernel = spec.size("kernel")?;
                let stride = spec.size_or("stride", kernel)?;
                let config = MaxPool2dConfig::new([kernel, kernel]).with_strides([stride, stride]);
                Self::MaxPool2d(Wrapper::new(config.init()))
            }
            "Relu" => Self::Relu(Wrapper::new(Relu::new())),
            "Hardtanh" => Self::Hardtanh(Wrapper::new(HardtanhConfig::new().init())),
            other => {
                return Err(CaseError::Failed(format!(
                    "layer `{}`: unknown class {other}",
                    spec.name
                )));
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
            Activation::Rank2(value) => Self::State2(Wrapper::new(State {
                value: Param::from_tensor(value),
            })),
            Activation::Rank3(value) => Self::State3(Wrapper::new(State {
                value: Param::from_tensor(value),
            })),
            Activation::Rank4(value) => Self::State4(Wrapper::new(State {
                value: Param::from_tensor(value),
            })),
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
            Self::Hardtanh(layer) => each_rank!(x, tensor => layer.forward(tensor)),
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
            Self::Hardtanh(_) => "Hardtanh",
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

impl ModuleDisplayDefault for RefLayer {
    fn content(&self, content: Content) -> Option<Content> {
        each_layer!(self, module => module.content(content))
    }
}

impl ModuleDisplay for RefLayer {}
