//! Layers that several networks are made of.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::module::{adaptive_avg_pool2d, avg_pool2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor};
use burn_compress_core::Wrapper;

use crate::TorchNames;

/// A convolution that keeps the size of the image, without a bias.
///
/// Its weights are drawn as torchvision draws them, so that a deep network with random weights has an
/// output that depends on its input.
pub(crate) fn conv(channels: [usize; 2], kernel: usize) -> Conv2dConfig {
    let pad = kernel / 2;
    let initializer = Initializer::KaimingNormal {
        gain: std::f64::consts::SQRT_2,
        fan_out_only: true,
    };
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_initializer(initializer)
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
}

/// A convolution of each channel by itself that keeps the size of the image, without a bias.
pub(crate) fn depthwise(channels: usize, kernel: usize) -> Conv2dConfig {
    conv([channels, channels], kernel).with_groups(channels)
}

/// A linear layer in a wrapper.
pub(crate) fn linear(inputs: usize, outputs: usize, device: &Device) -> Wrapper<Linear> {
    LinearConfig::new(inputs, outputs).init(device).into()
}

/// A batch norm in a wrapper.
pub(crate) fn batch_norm(channels: usize, device: &Device) -> Wrapper<BatchNorm> {
    BatchNormConfig::new(channels).init(device).into()
}

/// Maximum over windows.
pub(crate) fn max_pool(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    let options = MaxPoolOptions::new([kernel; 2])
        .with_stride([stride; 2])
        .with_padding([padding; 2]);
    max_pool2d(x, options)
}

/// Mean over windows beside each other.
pub(crate) fn average_pool(x: Tensor<4>, kernel: usize) -> Tensor<4> {
    avg_pool2d(x, AvgPoolOptions::new([kernel; 2]))
}

/// The layer of a mean of each channel, whose input can be quantized.
pub(crate) fn global_pool() -> Wrapper<AdaptiveAvgPool2d> {
    AdaptiveAvgPool2dConfig::new([1, 1]).init().into()
}

/// Mean of each channel: `[batch, channels, height, width]` to `[batch, channels]`.
pub(crate) fn global_average(x: Tensor<4>) -> Tensor<2> {
    adaptive_avg_pool2d(x, [1, 1]).flatten(1, 3)
}

/// The multiple of `divisor` next to `value`, not below 90 % of it: widths of MobileNets.
pub(crate) fn rounded(value: f64, divisor: usize) -> usize {
    let divisor = divisor as f64;
    let nearest = ((value / divisor + 0.5).floor() * divisor).max(divisor);
    let widened = if nearest < 0.9 * value {
        nearest + divisor
    } else {
        nearest
    };
    widened as usize
}

/// A convolution and its batch norm, `Conv2dNormActivation` of torchvision without the activation.
#[derive(Module, Debug)]
pub struct ConvNorm {
    /// The convolution.
    pub conv: Wrapper<Conv2d>,
    /// Its batch norm.
    pub norm: Wrapper<BatchNorm>,
}

impl ConvNorm {
    pub(crate) fn new(conv: Conv2dConfig, device: &Device) -> Self {
        Self::with_epsilon(conv, 1e-5, device)
    }

    pub(crate) fn with_epsilon(conv: Conv2dConfig, epsilon: f64, device: &Device) -> Self {
        let norm = BatchNormConfig::new(conv.channels[1]).with_epsilon(epsilon);
        Self {
            conv: conv.init(device).into(),
            norm: norm.init(device).into(),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, width, height / stride, width / stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

/// Squeeze and excitation: channels weighted by a function of the means of all of them.
///
/// ```text
/// y = x * gate(fc2(activation(fc1(mean(x)))))
/// ```
///
/// J. Hu, L. Shen and G. Sun, *Squeeze-and-Excitation Networks*, 2018, arXiv:1709.01507.
#[derive(Module, Debug)]
pub struct SqueezeExcitation {
    /// From the channels to fewer, a 1x1 convolution with a bias.
    pub fc1: Wrapper<Conv2d>,
    /// And back.
    pub fc2: Wrapper<Conv2d>,
}

impl SqueezeExcitation {
    pub(crate) fn new(channels: usize, squeezed: usize, device: &Device) -> Self {
        let fc = |channels| conv(channels, 1).with_bias(true).init(device).into();
        Self {
            fc1: fc([channels, squeezed]),
            fc2: fc([squeezed, channels]),
        }
    }

    /// Keeps the shape.
    pub fn forward(
        &self,
        x: Tensor<4>,
        activation: fn(Tensor<4>) -> Tensor<4>,
        gate: fn(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let means = adaptive_avg_pool2d(x.clone(), [1, 1]);
        let weights = self.fc2.forward(activation(self.fc1.forward(means)));
        x * gate(weights)
    }
}

/// A block that is wide inside and narrow outside, with squeeze and excitation: that of MobileNetV3
/// and of EfficientNet.
///
/// ```text
/// project(squeeze(a(depthwise(a(expand(x)))))), plus x where the shapes agree; a is the activation
/// ```
#[derive(Module, Debug)]
pub struct InvertedBottleneck {
    /// 1x1 convolution to more channels; none where there are no more.
    pub expand: Option<ConvNorm>,
    /// Convolution of each channel.
    pub depthwise: ConvNorm,
    /// Weights of the channels.
    pub squeeze: Option<SqueezeExcitation>,
    /// 1x1 convolution to the channels outside.
    pub project: ConvNorm,
    /// Whether the input is added.
    pub residual: bool,
}

/// Sizes of an [`InvertedBottleneck`].
pub(crate) struct Bottleneck {
    pub channels: usize,
    pub hidden: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Channels between the two layers of squeeze and excitation.
    pub squeezed: Option<usize>,
    /// Of the batch norms.
    pub epsilon: f64,
}

impl InvertedBottleneck {
    pub(crate) fn new(sizes: &Bottleneck, device: &Device) -> Self {
        let Bottleneck {
            channels,
            hidden,
            outputs,
            ..
        } = *sizes;
        let layer = |conv| ConvNorm::with_epsilon(conv, sizes.epsilon, device);
        let expand = (hidden != channels).then(|| layer(conv([channels, hidden], 1)));
        let depthwise = depthwise(hidden, sizes.kernel).with_stride([sizes.stride; 2]);
        Self {
            expand,
            depthwise: layer(depthwise),
            squeeze: sizes
                .squeezed
                .map(|squeezed| SqueezeExcitation::new(hidden, squeezed, device)),
            project: layer(conv([hidden, outputs], 1)),
            residual: sizes.stride == 1 && channels == outputs,
        }
    }

    /// `[batch, channels, height, width]` to `[batch, outputs, height / stride, width / stride]`.
    ///
    /// The last two functions are those of [`SqueezeExcitation::forward`].
    pub fn forward(
        &self,
        x: Tensor<4>,
        activation: fn(Tensor<4>) -> Tensor<4>,
        squeeze: fn(Tensor<4>) -> Tensor<4>,
        gate: fn(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let mut inner = x.clone();
        if let Some(expand) = &self.expand {
            inner = activation(expand.forward(inner));
        }
        inner = activation(self.depthwise.forward(inner));
        if let Some(excitation) = &self.squeeze {
            inner = excitation.forward(inner, squeeze, gate);
        }
        let inner = self.project.forward(inner);
        if self.residual { x + inner } else { inner }
    }

    /// Adds the names of the block at `path`, a list called `torch` in torchvision.
    pub(crate) fn names(&self, mut names: TorchNames, path: &str, torch: &str) -> TorchNames {
        let mut position = 0;
        let mut next = || {
            position += 1;
            format!("{torch}.{}", position - 1)
        };
        if self.expand.is_some() {
            names = names.with_conv_norm(&format!("{path}.expand"), &next());
        }
        names = names.with_conv_norm(&format!("{path}.depthwise"), &next());
        if self.squeeze.is_some() {
            names = names.with(format!("{path}.squeeze."), format!("{}.", next()));
        }
        names.with_conv_norm(&format!("{path}.project"), &next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_multiples_that_are_not_much_narrower() {
        assert_eq!(rounded(16.0, 8), 16);
        assert_eq!(rounded(20.0, 8), 24);
        // 8 is less than 90 % of 11.
        assert_eq!(rounded(11.0, 8), 16);
        assert_eq!(rounded(1.0, 8), 8);
    }
}
