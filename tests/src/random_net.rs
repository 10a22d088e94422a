//! Random convolutional networks: a description that can be printed and drawn at random, and the
//! module that is built from it.
//!
//! All values come from the seed of the description, so that a description that fails a test is all
//! that is needed to repeat it. No value is zero or one by accident: batch norms have statistics,
//! scales and offsets of their own.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::activation::{Gelu, LeakyRelu, LeakyReluConfig, Relu, SiLU, Sigmoid, Tanh};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::{DummyInput, Wrapper};
use serde::{Deserialize, Serialize};

/// Height and width of the images.
pub const SIZE: usize = 8;

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    /// Where all values come from.
    pub seed: u64,
    /// Channels of the images.
    pub inputs: usize,
    /// The blocks in order.
    pub blocks: Vec<BlockSpec>,
    /// What follows them.
    pub head: HeadSpec,
}

/// What the convolutions of a block share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Style {
    /// Whether they have a bias.
    pub bias: bool,
    /// Whether a batch norm follows each.
    pub norm: bool,
    /// What follows then.
    pub act: ActSpec,
}

/// An activation function with `f(0) = 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActSpec {
    /// None at all.
    None,
    /// ReLU.
    Relu,
    /// GELU.
    Gelu,
    /// SiLU.
    Silu,
    /// Leaky ReLU.
    LeakyRelu,
    /// Hyperbolic tangent.
    Tanh,
}

/// A part of a network, `[batch, channels, height, width]` to the same with other sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BlockSpec {
    /// A convolution.
    Conv {
        /// Its output channels.
        width: usize,
        /// Its kernel, 1 or 3.
        kernel: usize,
        /// Its stride, 1 or 2.
        stride: usize,
        /// Its surroundings.
        style: Style,
    },
    /// `act(x + f(x))` with two convolutions in `f`.
    Residual {
        /// Channels between the convolutions.
        hidden: usize,
        /// Surroundings of the convolutions.
        style: Style,
    },
    /// `act(g(x) + f(x))` with two convolutions in `f` and one in `g`.
    Projected {
        /// Channels between the convolutions of `f`.
        hidden: usize,
        /// Output channels.
        width: usize,
        /// Stride of the block.
        stride: usize,
        /// Surroundings of the convolutions.
        style: Style,
    },
    /// `cat(f(x), g(x))` with one convolution each.
    Concat {
        /// Channels of the first branch.
        left: usize,
        /// Channels of the second branch, 0 for `x` itself.
        right: usize,
        /// Surroundings of the convolutions.
        style: Style,
    },
    /// A depthwise convolution and a pointwise one.
    Separable {
        /// Output channels.
        width: usize,
        /// Surroundings of the convolutions.
        style: Style,
    },
    /// A grouped convolution, with the largest number of groups up to `groups` that fits.
    Grouped {
        /// Largest number of groups.
        groups: usize,
        /// Output channels of a group.
        per_group: usize,
        /// Its surroundings.
        style: Style,
    },
    /// A pooling with stride 2.
    Pool {
        /// Whether it takes the maximum, not the mean.
        max: bool,
        /// Whether its windows are 3 wide and reach over the border, not 2.
        overlap: bool,
    },
    /// Squeeze and excitation: `x * sigmoid(f(mean(x)))`.
    Gate {
        /// Channels inside of `f`.
        hidden: usize,
        /// Surroundings of its first convolution.
        style: Style,
    },
}

/// From feature maps to logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSpec {
    /// Whether the feature maps are flattened, not averaged.
    pub flatten: bool,
    /// Features of a hidden linear layer, 0 for none.
    pub hidden: usize,
    /// What follows the hidden layer.
    pub act: ActSpec,
    /// Whether the linear layers have a bias.
    pub bias: bool,
    /// Number of logits.
    pub classes: usize,
}

/// What a network costs, counted while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Elements of weights, biases, gammas and betas.
    pub params: u64,
    /// Multiply-accumulates of convolutions and linear layers for one image.
    pub macs: u64,
}

impl Cost {
    fn add(&mut self, dims: &[usize], places: usize) {
        let elements = dims.iter().product::<usize>() as u64;
        self.params += elements;
        self.macs += elements * places as u64;
    }
}

/// An activation function.
#[derive(Module, Debug)]
pub enum Act {
    /// ReLU.
    Relu(Wrapper<Relu>),
    /// GELU.
    Gelu(Wrapper<Gelu>),
    /// SiLU.
    Silu(Wrapper<SiLU>),
    /// Leaky ReLU.
    LeakyRelu(Wrapper<LeakyRelu>),
    /// Hyperbolic tangent.
    Tanh(Wrapper<Tanh>),
}

impl Act {
    fn new(spec: ActSpec) -> Option<Self> {
        Some(match spec {
            ActSpec::None => return None,
            ActSpec::Relu => Self::Relu(Relu::new().into()),
            ActSpec::Gelu => Self::Gelu(Gelu::new().into()),
            ActSpec::Silu => Self::Silu(SiLU::new().into()),
            ActSpec::LeakyRelu => Self::LeakyRelu(LeakyReluConfig::new().init().into()),
            ActSpec::Tanh => Self::Tanh(Tanh::new().into()),
        })
    }

    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu(act) => act.forward(x),
            Self::Gelu(act) => act.forward(x),
            Self::Silu(act) => act.forward(x),
            Self::LeakyRelu(act) => act.forward(x),
            Self::Tanh(act) => act.forward(x),
        }
    }
}

fn activate<const D: usize>(act: &Option<Act>, x: Tensor<D>) -> Tensor<D> {
    match act {
        Some(act) => act.forward(x),
        None => x,
    }
}

/// A convolution with what follows it.
#[derive(Module, Debug)]
pub struct Unit {
    /// The convolution.
    pub conv: Wrapper<Conv2d>,
    /// Its batch norm.
    pub norm: Option<Wrapper<BatchNorm>>,
    /// Its activation function.
    pub act: Option<Act>,
}

/// Sizes of a convolution.
#[derive(Clone, Copy)]
struct Shape {
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    groups: usize,
}

impl Shape {
    fn new(channels: [usize; 2], kernel: usize) -> Self {
        Self {
            channels,
            kernel,
            stride: 1,
            groups: 1,
        }
    }
}

impl Unit {
    fn new(shape: Shape, style: Style, device: &Device) -> Self {
        let pad = shape.kernel / 2;
        let conv = Conv2dConfig::new(shape.channels, [shape.kernel, shape.kernel])
            .with_stride([shape.stride, shape.stride])
            .with_groups(shape.groups)
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(style.bias)
            .init(device);
        let norm = style
            .norm
            .then(|| BatchNormConfig::new(shape.channels[1]).init(device).into());
        Self {
            conv: conv.into(),
            norm,
            act: Act::new(style.act),
        }
    }

    fn linear(shape: Shape, style: Style, device: &Device) -> Self {
        Self::new(
            shape,
            Style {
                act: ActSpec::None,
                ..style
            },
            device,
        )
    }

    fn forward(&self, x: Tensor<4>, cost: &mut Cost) -> Tensor<4> {
        let mut x = self.conv.forward(x);
        let [.., height, width] = x.dims();
        cost.add(&self.conv.weight.dims(), height * width);
        if let Some(bias) = &self.conv.bias {
            cost.add(&bias.dims(), 0);
        }
        if let Some(norm) = &self.norm {
            cost.add(&norm.gamma.dims(), 0);
            cost.add(&norm.beta.dims(), 0);
            x = norm.forward(x);
        }
        activate(&self.act, x)
    }
}

/// Two convolutions and a way around them.
#[derive(Module, Debug)]
pub struct Residual {
    /// The first convolution.
    pub first: Unit,
    /// The second convolution.
    pub second: Unit,
    /// The convolution on the way around.
    pub projection: Option<Unit>,
    /// What follows the sum.
    pub act: Option<Act>,
}

/// Two branches side by side.
#[derive(Module, Debug)]
pub struct Concat {
    /// The first branch.
    pub left: Unit,
    /// The second branch; nothing passes the input on.
    pub right: Option<Unit>,
}

/// Two convolutions in a row.
#[derive(Module, Debug)]
pub struct Separable {
    /// The depthwise convolution.
    pub depthwise: Unit,
    /// The pointwise convolution.
    pub pointwise: Unit,
}

/// A pooling.
#[derive(Module, Debug)]
pub enum Pool {
    /// The maximum.
    Max(Wrapper<MaxPool2d>),
    /// The mean.
    Avg(Wrapper<AvgPool2d>),
}

/// Squeeze and excitation.
#[derive(Module, Debug)]
pub struct Gate {
    /// From the channels to a few.
    pub reduce: Unit,
    /// And back.
    pub expand: Unit,
    /// The gate's range.
    pub sigmoid: Wrapper<Sigmoid>,
}

/// A part of a network.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // Networks are a few blocks.
pub enum Block {
    /// A plain or grouped convolution.
    Conv(Unit),
    /// A residual block.
    Residual(Residual),
    /// A concatenation.
    Concat(Concat),
    /// A depthwise separable convolution.
    Separable(Separable),
    /// A pooling.
    Pool(Pool),
    /// Squeeze and excitation.
    Gate(Gate),
}

impl Block {
    /// The block for `channels` at `size` places a side, with what comes out of it.
    fn new(spec: BlockSpec, channels: usize, size: usize, device: &Device) -> (Self, usize, usize) {
        let halved = |stride: usize| (size - 1) / stride + 1;
        match spec {
            BlockSpec::Conv {
                width,
                kernel,
                stride,
                style,
            } => {
                let shape = Shape {
                    stride,
                    ..Shape::new([channels, width], kernel)
                };
                (
                    Self::Conv(Unit::new(shape, style, device)),
                    width,
                    halved(stride),
                )
            }
            BlockSpec::Residual { hidden, style } => {
                let block = Residual {
                    first: Unit::new(Shape::new([channels, hidden], 3), style, device),
                    second: Unit::linear(Shape::new([hidden, channels], 3), style, device),
                    projection: None,
                    act: Act::new(style.act),
                };
                (Self::Residual(block), channels, size)
            }
            BlockSpec::Projected {
                hidden,
                width,
                stride,
                style,
            } => {
                let first = Shape {
                    stride,
                    ..Shape::new([channels, hidden], 3)
                };
                let around = Shape {
                    stride,
                    ..Shape::new([channels, width], 1)
                };
                let block = Residual {
                    first: Unit::new(first, style, device),
                    second: Unit::linear(Shape::new([hidden, width], 3), style, device),
                    projection: Some(Unit::linear(around, style, device)),
                    act: Act::new(style.act),
                };
                (Self::Residual(block), width, halved(stride))
            }
            BlockSpec::Concat { left, right, style } => {
                let unit =
                    |width, kernel| Unit::new(Shape::new([channels, width], kernel), style, device);
                let block = Concat {
                    left: unit(left, 3),
                    right: (right > 0).then(|| unit(right, 1)),
                };
                let width = left + if right > 0 { right } else { channels };
                (Self::Concat(block), width, size)
            }
            BlockSpec::Separable { width, style } => {
                let depthwise = Shape {
                    groups: channels,
                    ..Shape::new([channels, channels], 3)
                };
                let block = Separable {
                    depthwise: Unit::new(depthwise, style, device),
                    pointwise: Unit::new(Shape::new([channels, width], 1), style, device),
                };
                (Self::Separable(block), width, size)
            }
            BlockSpec::Grouped {
                groups,
                per_group,
                style,
            } => {
                let groups = (1..=groups)
                    .rev()
                    .find(|g| channels.is_multiple_of(*g))
                    .unwrap_or(1);
                let width = groups * per_group;
                let shape = Shape {
                    groups,
                    ..Shape::new([channels, width], 3)
                };
                (Self::Conv(Unit::new(shape, style, device)), width, size)
            }
            BlockSpec::Pool { max, overlap } => {
                let overlap = overlap || size < 2;
                let (kernel, pad) = if overlap { ([3, 3], 1) } else { ([2, 2], 0) };
                let padding = PaddingConfig2d::Explicit(pad, pad, pad, pad);
                let pool = if max {
                    let pool = MaxPool2dConfig::new(kernel).with_strides([2, 2]);
                    Pool::Max(pool.with_padding(padding).init().into())
                } else {
                    let pool = AvgPool2dConfig::new(kernel).with_strides([2, 2]);
                    Pool::Avg(pool.with_padding(padding).init().into())
                };
                (
                    Self::Pool(pool),
                    channels,
                    if overlap { halved(2) } else { size / 2 },
                )
            }
            BlockSpec::Gate { hidden, style } => {
                let plain = Style {
                    norm: false,
                    ..style
                };
                let gate = Gate {
                    reduce: Unit::new(Shape::new([channels, hidden], 1), style, device),
                    expand: Unit::linear(Shape::new([hidden, channels], 1), plain, device),
                    sigmoid: Sigmoid::new().into(),
                };
                (Self::Gate(gate), channels, size)
            }
        }
    }

    fn forward(&self, x: Tensor<4>, cost: &mut Cost) -> Tensor<4> {
        match self {
            Self::Conv(unit) => unit.forward(x, cost),
            Self::Residual(block) => {
                let hidden = block.first.forward(x.clone(), cost);
                let around = match &block.projection {
                    Some(projection) => projection.forward(x, cost),
                    None => x,
                };
                activate(&block.act, block.second.forward(hidden, cost) + around)
            }
            Self::Concat(block) => {
                let left = block.left.forward(x.clone(), cost);
                let right = match &block.right {
                    Some(right) => right.forward(x, cost),
                    None => x,
                };
                Tensor::cat(vec![left, right], 1)
            }
            Self::Separable(block) => block
                .pointwise
                .forward(block.depthwise.forward(x, cost), cost),
            Self::Pool(Pool::Max(pool)) => pool.forward(x),
            Self::Pool(Pool::Avg(pool)) => pool.forward(x),
            Self::Gate(gate) => {
                let mean = x.clone().mean_dim(3).mean_dim(2);
                let logits = gate.expand.forward(gate.reduce.forward(mean, cost), cost);
                x * gate.sigmoid.forward(logits)
            }
        }
    }
}

/// The network of a description.
#[derive(Module, Debug)]
pub struct Net {
    /// The blocks.
    pub blocks: Vec<Block>,
    /// The hidden linear layer.
    pub hidden: Option<Wrapper<Linear>>,
    /// What follows it.
    pub act: Option<Act>,
    /// From features to logits.
    pub classifier: Wrapper<Linear>,
    #[module(skip)]
    flatten: bool,
}

impl NetSpec {
    /// Builds the network with values that depend on the seed alone.
    pub fn build(&self, device: &Device) -> Net {
        let (mut channels, mut size) = (self.inputs, SIZE);
        let mut blocks = Vec::new();
        for &spec in &self.blocks {
            let (block, width, places) = Block::new(spec, channels, size, device);
            (channels, size) = (width, places);
            blocks.push(block);
        }
        let head = &self.head;
        let mut features = if head.flatten {
            channels * size * size
        } else {
            channels
        };
        let linear = |from: usize, to: usize| {
            LinearConfig::new(from, to)
                .with_bias(head.bias)
                .init(device)
                .into()
        };
        let hidden = (head.hidden > 0).then(|| linear(features, head.hidden));
        if hidden.is_some() {
            features = head.hidden;
        }
        let net = Net {
            blocks,
            act: hidden.as_ref().and_then(|_| Act::new(head.act)),
            hidden,
            classifier: linear(features, head.classes),
            flatten: head.flatten,
        };
        net.map(&mut Fill {
            path: Vec::new(),
            random: Random::new(self.seed),
        })
    }

    /// Images of this network, `[count, inputs, 8, 8]`; other images for another `stream`.
    pub fn images(&self, stream: u64, count: usize, device: &Device) -> Tensor<4> {
        let shape = [count, self.inputs, SIZE, SIZE];
        let mut random = Random::new(self.seed ^ stream.wrapping_mul(0xA076_1D64_78BD_642F));
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| random.signed(0.0, 1.7))
            .collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Three images as dummy input.
    pub fn dummy_input(&self, device: &Device) -> DummyInput<Net> {
        DummyInput::new(self.images(0, 3, device), |net: &Net, x| net.forward(x))
    }
}

impl Net {
    /// Logits `[batch, classes]` of images `[batch, inputs, 8, 8]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.count(images, &mut Cost::default())
    }

    /// What the network costs, counted from the shapes of its parameters while `images` run.
    pub fn cost(&self, images: Tensor<4>) -> Cost {
        let mut cost = Cost::default();
        self.count(images, &mut cost);
        cost
    }

    fn count(&self, images: Tensor<4>, cost: &mut Cost) -> Tensor<2> {
        let x = self
            .blocks
            .iter()
            .fold(images, |x, block| block.forward(x, cost));
        let mut x: Tensor<2> = match self.flatten {
            true => x.flatten(1, 3),
            false => x.mean_dim(3).mean_dim(2).flatten(1, 3),
        };
        let mut linear = |layer: &Wrapper<Linear>, x| {
            cost.add(&layer.weight.dims(), 1);
            if let Some(bias) = &layer.bias {
                cost.add(&bias.dims(), 0);
            }
            layer.forward(x)
        };
        if let Some(hidden) = &self.hidden {
            x = activate(&self.act, linear(hidden, x));
        }
        linear(&self.classifier, x)
    }
}

/// SplitMix64, so that values do not depend on the state of a device.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1u64 << 24) as f32;
        low + (high - low) * unit
    }

    /// A magnitude between the bounds with either sign.
    fn signed(&mut self, low: f32, high: f32) -> f32 {
        let sign = if self.next() >> 63 == 0 { 1.0 } else { -1.0 };
        sign * self.between(low, high)
    }
}

/// Draws every parameter and running statistic.
struct Fill {
    path: Vec<String>,
    random: Random,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dims = param.dims();
        let inputs: usize = if D == 2 {
            dims[0]
        } else {
            dims[1..].iter().product()
        };
        let random = &mut self.random;
        let mut draw = || match self.path.last().map(String::as_str) {
            Some("weight") => random.signed(0.05, 1.0) * (3.0 / inputs as f32).sqrt(),
            Some("gamma") => random.signed(0.5, 1.5),
            Some("running_var") => random.between(0.5, 1.5),
            _ => random.signed(0.05, 0.5),
        };
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| draw()).collect();
        param.map(|tensor| Tensor::from_data(TensorData::new(values, dims), &tensor.device()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_and_values_follow_from_the_description() {
        let style = Style {
            bias: true,
            norm: true,
            act: ActSpec::Relu,
        };
        let spec = NetSpec {
            seed: 7,
            inputs: 2,
            blocks: vec![
                BlockSpec::Conv {
                    width: 4,
                    kernel: 3,
                    stride: 2,
                    style,
                },
                BlockSpec::Pool {
                    max: true,
                    overlap: false,
                },
            ],
            head: HeadSpec {
                flatten: true,
                hidden: 0,
                act: ActSpec::None,
                bias: false,
                classes: 3,
            },
        };
        let device = Device::flex();
        let net = spec.build(&device);
        // 4 x 4 places after the convolution, 2 x 2 after the pooling.
        let (conv, linear) = (4 * 2 * 9, 4 * 4 * 3);
        let cost = Cost {
            params: conv + 3 * 4 + linear,
            macs: 16 * conv + linear,
        };
        assert_eq!(net.cost(spec.images(1, 2, &device)), cost);
        let run = || {
            spec.build(&device)
                .forward(spec.images(1, 2, &device))
                .into_data()
        };
        run().assert_eq(&run(), true);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<NetSpec>(&json).unwrap(), spec);
    }
}
