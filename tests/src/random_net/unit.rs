//! Convolutions with what follows them: the part that all blocks consist of.

use burn::module::Module;
use burn::nn::activation::{Gelu, LeakyRelu, LeakyReluConfig, Relu, SiLU, Tanh};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use burn_compress::Wrapper;

use super::{ActSpec, Style};

/// What a network costs, counted while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Elements of weights, biases, gammas and betas.
    pub params: u64,
    /// Multiply-accumulates of convolutions and linear layers for one image.
    pub macs: u64,
}

impl Cost {
    pub(super) fn add(&mut self, dims: &[usize], places: usize) {
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
    pub(crate) fn new(spec: ActSpec) -> Option<Self> {
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

pub(crate) fn activate<const D: usize>(act: &Option<Act>, x: Tensor<D>) -> Tensor<D> {
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
pub(super) struct Shape {
    pub(super) channels: [usize; 2],
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) groups: usize,
}

impl Shape {
    pub(super) fn new(channels: [usize; 2], kernel: usize) -> Self {
        Self {
            channels,
            kernel,
            stride: 1,
            groups: 1,
        }
    }
}

impl Unit {
    pub(super) fn new(shape: Shape, style: Style, device: &Device) -> Self {
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

    /// A convolution of one stride and one group.
    pub(crate) fn convolution(
        channels: [usize; 2],
        kernel: usize,
        style: Style,
        device: &Device,
    ) -> Self {
        Self::new(Shape::new(channels, kernel), style, device)
    }

    /// Without an activation function.
    pub(super) fn linear(shape: Shape, style: Style, device: &Device) -> Self {
        Self::new(
            shape,
            Style {
                act: ActSpec::None,
                ..style
            },
            device,
        )
    }

    pub(crate) fn forward(&self, x: Tensor<4>, cost: &mut Cost) -> Tensor<4> {
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
