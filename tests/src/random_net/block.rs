//! Blocks of units: residual, side by side, gated.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::activation::Sigmoid;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::tensor::{Device, Tensor};
use burn_compress::Wrapper;

use super::unit::{Act, Cost, Shape, Unit, activate};
use super::{BlockSpec, Style};

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
    pub(crate) fn new(
        spec: BlockSpec,
        channels: usize,
        size: usize,
        device: &Device,
    ) -> (Self, usize, usize) {
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

    pub(crate) fn forward(&self, x: Tensor<4>, cost: &mut Cost) -> Tensor<4> {
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
