//! Blocks over images.

use burn::module::Module;
use burn::nn::activation::Sigmoid;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm, LayerNormConfig,
    Linear, LinearConfig, PaddingConfig2d, PixelShuffle, PixelShuffleConfig, PixelUnshuffle,
    PixelUnshuffleConfig,
};
use burn::tensor::{Device, Tensor};
use burn_compress::Wrapper;

use super::{ImageNorm, ImageSpec};
use crate::random_net::{Act, Block, BlockSpec, Cost, Style, Unit, activate};

/// A block over images.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // Networks are a few blocks.
pub enum ImageBlock {
    /// A convolutional block.
    Block(Block),
    /// A channel shuffle.
    Shuffle(Shuffle),
    /// A pixel shuffle.
    Enlarge(Enlarge),
    /// A pixel unshuffle.
    Shrink(Shrink),
    /// A norm over channels.
    Normalized(Normalized),
    /// Squeeze and excitation.
    Excite(Excite),
    /// Two parts.
    Parts(Parts),
}

/// A convolution whose channels change places across groups.
#[derive(Module, Debug)]
pub struct Shuffle {
    unit: Unit,
    #[module(skip)]
    groups: usize,
}

/// A convolution and a pixel shuffle.
#[derive(Module, Debug)]
pub struct Enlarge {
    unit: Unit,
    shuffle: Wrapper<PixelShuffle>,
}

/// A pixel unshuffle and a convolution.
#[derive(Module, Debug)]
pub struct Shrink {
    unshuffle: Wrapper<PixelUnshuffle>,
    unit: Unit,
}

/// A convolution and a norm over channels.
#[derive(Module, Debug)]
pub struct Normalized {
    conv: Wrapper<Conv2d>,
    norm: Norm,
    act: Option<Act>,
}

/// A norm over channels.
#[derive(Module, Debug)]
pub enum Norm {
    /// Over groups.
    Group(Wrapper<GroupNorm>),
    /// Over places.
    Instance(Wrapper<InstanceNorm>),
    /// Over channels.
    Layer(Wrapper<LayerNorm>),
}

/// Squeeze and excitation by linear layers.
#[derive(Module, Debug)]
pub struct Excite {
    reduce: Wrapper<Linear>,
    expand: Wrapper<Linear>,
    sigmoid: Wrapper<Sigmoid>,
}

/// Two convolutions over parts of the channels.
#[derive(Module, Debug)]
pub struct Parts {
    first: Unit,
    second: Unit,
}

impl ImageBlock {
    /// The block for `channels` at `size` places a side, with what comes out of it.
    pub(super) fn new(
        spec: ImageSpec,
        channels: usize,
        size: usize,
        device: &Device,
    ) -> (Self, usize, usize) {
        let conv = |from: usize, width: usize, style: Style| {
            Unit::convolution([from, width], 3, style, device)
        };
        match spec {
            ImageSpec::Block(spec) => {
                let (block, width, size) = Block::new(spec, channels, size, device);
                (Self::Block(block), width, size)
            }
            ImageSpec::Shuffle {
                groups,
                per_group,
                style,
            } => {
                let unit = conv(channels, groups * per_group, style);
                (
                    Self::Shuffle(Shuffle { unit, groups }),
                    groups * per_group,
                    size,
                )
            }
            // Small images stay small, so that networks stay cheap.
            ImageSpec::Enlarge { width, style } if size <= 4 => {
                let block = Enlarge {
                    unit: conv(channels, 4 * width, style),
                    shuffle: PixelShuffleConfig::new(2).init().into(),
                };
                (Self::Enlarge(block), width, 2 * size)
            }
            ImageSpec::Shrink { width, style } if size.is_multiple_of(2) => {
                let block = Shrink {
                    unshuffle: PixelUnshuffleConfig::new(2).init().into(),
                    unit: conv(4 * channels, width, style),
                };
                (Self::Shrink(block), width, size / 2)
            }
            ImageSpec::Normalized {
                norm,
                groups,
                per_group,
                act,
            } => {
                let width = groups * per_group;
                let conv = Conv2dConfig::new([channels, width], [1, 1])
                    .with_padding(PaddingConfig2d::Valid)
                    .init(device);
                let norm = match norm {
                    ImageNorm::Group => {
                        Norm::Group(GroupNormConfig::new(groups, width).init(device).into())
                    }
                    ImageNorm::Instance => {
                        Norm::Instance(InstanceNormConfig::new(width).init(device).into())
                    }
                    ImageNorm::Layer => {
                        Norm::Layer(LayerNormConfig::new(width).init(device).into())
                    }
                };
                let block = Normalized {
                    conv: conv.into(),
                    norm,
                    act: Act::new(act),
                };
                (Self::Normalized(block), width, size)
            }
            ImageSpec::Excite { hidden } => {
                let linear = |from, to| LinearConfig::new(from, to).init(device).into();
                let block = Excite {
                    reduce: linear(channels, hidden),
                    expand: linear(hidden, channels),
                    sigmoid: Sigmoid::new().into(),
                };
                (Self::Excite(block), channels, size)
            }
            // Of two channels each part would have the only one, which nobody can remove.
            ImageSpec::Parts { widths, style } if channels > 2 => {
                let split = (channels / 3).max(1);
                let block = Parts {
                    first: conv(split, widths[0], style),
                    second: conv(channels - split, widths[1], style),
                };
                (Self::Parts(block), widths[0] + widths[1], size)
            }
            ImageSpec::Enlarge { width, style }
            | ImageSpec::Shrink { width, style }
            | ImageSpec::Parts {
                widths: [width, _],
                style,
            } => {
                let spec = BlockSpec::Conv {
                    width,
                    kernel: 3,
                    stride: 1,
                    style,
                };
                Self::new(ImageSpec::Block(spec), channels, size, device)
            }
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let cost = &mut Cost::default();
        match self {
            Self::Block(block) => block.forward(x, cost),
            Self::Shuffle(block) => {
                let x = block.unit.forward(x, cost);
                let [batch, channels, height, width] = x.dims();
                let per_group = channels / block.groups;
                x.reshape([batch, block.groups, per_group, height, width])
                    .swap_dims(1, 2)
                    .reshape([batch, channels, height, width])
            }
            Self::Enlarge(block) => block.shuffle.forward(block.unit.forward(x, cost)),
            Self::Shrink(block) => block.unit.forward(block.unshuffle.forward(x), cost),
            Self::Normalized(block) => {
                let x = block.conv.forward(x);
                let x = match &block.norm {
                    Norm::Group(norm) => norm.forward(x),
                    Norm::Instance(norm) => norm.forward(x),
                    Norm::Layer(norm) => {
                        norm.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
                    }
                };
                activate(&block.act, x)
            }
            Self::Excite(block) => {
                let mean: Tensor<2> = x.clone().mean_dim(3).mean_dim(2).flatten(1, 3);
                let hidden = burn::tensor::activation::relu(block.reduce.forward(mean));
                let gate = block.sigmoid.forward(block.expand.forward(hidden));
                let [batch, channels] = gate.dims();
                x * gate.reshape([batch, channels, 1, 1])
            }
            Self::Parts(block) => {
                let channels = x.dims()[1];
                let split = block.first.conv.weight.dims()[1];
                let first = x.clone().narrow(1, 0, split);
                let second = x.narrow(1, split, channels - split);
                let first = block.first.forward(first, cost);
                Tensor::cat(vec![first, block.second.forward(second, cost)], 1)
            }
        }
    }
}
