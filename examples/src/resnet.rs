//! The network of the examples: a residual network small enough to train on a CPU in minutes.
//!
//! K. He, X. Zhang, S. Ren and J. Sun, *Deep Residual Learning for Image Recognition*, 2015,
//! arXiv:1512.03385, cut down to images of 8 x 8 pixels:
//!
//! ```text
//! stem     conv 3x3, batch norm, ReLU             [n,  1, 8, 8] -> [n,  32, 8, 8]
//! stage1   two blocks, stride 1                                 -> [n,  32, 8, 8]
//! stage2   two blocks, stride 2 in the first                    -> [n,  64, 4, 4]
//! stage3   two blocks, stride 2 in the first                    -> [n, 128, 2, 2]
//! head     global average pool, linear                          -> [n, 10]
//! ```
//!
//! Convolutions have no bias and Burn's default Kaiming-uniform initialisation, the same as
//! PyTorch's. 696,042 parameters, 6,573,312 multiply-accumulates an image.
//!
//! Deviations from the paper: three stages in place of four, a 3x3 stem that keeps the resolution,
//! no max pool after it.

use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress::{Add, Wrapper};

use crate::digits::{CLASSES, SIDE};

/// Blocks of every stage.
const DEPTH: usize = 2;

/// Configuration of a [`DigitsResNet`].
#[derive(Config, Debug, PartialEq)]
pub struct DigitsResNetConfig {
    /// Channels of the images.
    #[config(default = 1)]
    pub channels: usize,
    /// Channels of the three stages; the stem has those of the first.
    #[config(default = "[32, 64, 128]")]
    pub widths: [usize; 3],
    /// Number of classes.
    #[config(default = "CLASSES")]
    pub classes: usize,
}

impl DigitsResNetConfig {
    /// A network with random weights, drawn from the generator of `device`.
    ///
    /// # Panics
    ///
    /// If a number of channels or classes is zero.
    pub fn init(&self, device: &Device) -> DigitsResNet {
        let [first, second, third] = self.widths;
        let stage = |channels, width, stride| {
            (0..DEPTH)
                .map(|block| match block {
                    0 => BasicBlock::new(channels, width, stride, device),
                    _ => BasicBlock::new(width, width, 1, device),
                })
                .collect()
        };
        DigitsResNet {
            stem: conv(self.channels, first, 3, 1, device),
            stem_bn: BatchNormConfig::new(first).init(device).into(),
            stage1: stage(first, first, 1),
            stage2: stage(first, second, 2),
            stage3: stage(second, third, 2),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init().into(),
            head: LinearConfig::new(third, self.classes).init(device).into(),
        }
    }
}

/// A residual network for [`digits`](crate::digits).
#[derive(Module, Debug)]
pub struct DigitsResNet {
    /// First convolution.
    pub stem: Wrapper<Conv2d>,
    /// Batch norm of the stem.
    pub stem_bn: Wrapper<BatchNorm>,
    /// Blocks at full resolution.
    pub stage1: Vec<BasicBlock>,
    /// Blocks at half the resolution.
    pub stage2: Vec<BasicBlock>,
    /// Blocks at a quarter of the resolution.
    pub stage3: Vec<BasicBlock>,
    /// Global average pool.
    pub pool: Wrapper<AdaptiveAvgPool2d>,
    /// Classifier.
    pub head: Wrapper<Linear>,
}

impl DigitsResNet {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, channels, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.features(images))
    }

    /// What the classifier reads.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, channels, height, width]`
    /// - features: `[batch, channels of the last stage]`
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = relu(self.stem_bn.forward(self.stem.forward(images)));
        for block in self.blocks() {
            x = block.forward(x);
        }
        self.pool.forward(x).flatten(1, 3)
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.stem.weight.device()
    }

    /// Number of weights, biases and batch-norm scales and shifts; running statistics are none.
    pub fn parameters(&self) -> usize {
        self.cost().parameters
    }

    /// Multiply-accumulates of the convolutions and the linear layer for one image of 8 x 8 pixels.
    ///
    /// Read off the shapes of the weights, so that a network with channels removed counts less.
    pub fn macs(&self) -> usize {
        self.cost().macs
    }

    fn blocks(&self) -> impl Iterator<Item = &BasicBlock> {
        self.stage1.iter().chain(&self.stage2).chain(&self.stage3)
    }

    fn cost(&self) -> Cost {
        let mut cost = Cost::default();
        let mut side = SIDE;
        cost.conv_bn(&self.stem, &self.stem_bn, side);
        for block in self.blocks() {
            side = side.div_ceil(block.conv1.stride[0]);
            cost.conv_bn(&block.conv1, &block.bn1, side);
            cost.conv_bn(&block.conv2, &block.bn2, side);
            if let Some(shortcut) = &block.shortcut {
                cost.conv_bn(&shortcut.conv, &shortcut.bn, side);
            }
        }
        let weight = self.head.weight.shape().num_elements();
        let bias = self
            .head
            .bias
            .as_ref()
            .map_or(0, |b| b.shape().num_elements());
        cost.parameters += weight + bias;
        cost.macs += weight;
        cost
    }
}

/// Two convolutions and what is added to them.
///
/// ```text
/// relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))
/// ```
#[derive(Module, Debug)]
pub struct BasicBlock {
    /// First convolution, with the stride of the block.
    pub conv1: Wrapper<Conv2d>,
    /// Batch norm of `conv1`.
    pub bn1: Wrapper<BatchNorm>,
    /// Second convolution.
    pub conv2: Wrapper<Conv2d>,
    /// Batch norm of `conv2`.
    pub bn2: Wrapper<BatchNorm>,
    /// Sum of `bn2` and the shortcut.
    pub add: Wrapper<Add>,
    /// What the input passes where the block changes its shape; elsewhere it is added as it is.
    pub shortcut: Option<Shortcut>,
}

impl BasicBlock {
    fn new(channels: usize, width: usize, stride: usize, device: &Device) -> Self {
        Self {
            conv1: conv(channels, width, 3, stride, device),
            bn1: BatchNormConfig::new(width).init(device).into(),
            conv2: conv(width, width, 3, 1, device),
            bn2: BatchNormConfig::new(width).init(device).into(),
            add: Add::new().into(),
            shortcut: (stride != 1 || channels != width).then(|| Shortcut {
                conv: conv(channels, width, 1, stride, device),
                bn: BatchNormConfig::new(width).init(device).into(),
            }),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, width, height / stride, width / stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let identity = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x.clone()),
            None => x.clone(),
        };
        let x = relu(self.bn1.forward(self.conv1.forward(x)));
        let x = self.bn2.forward(self.conv2.forward(x));
        relu(self.add.forward((x, identity)))
    }
}

/// A 1x1 convolution and its batch norm, in parallel to the two convolutions of a block.
#[derive(Module, Debug)]
pub struct Shortcut {
    /// The convolution.
    pub conv: Wrapper<Conv2d>,
    /// Its batch norm.
    pub bn: Wrapper<BatchNorm>,
}

impl Shortcut {
    /// As [`BasicBlock::forward`].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.bn.forward(self.conv.forward(x))
    }
}

fn conv(
    channels: usize,
    width: usize,
    kernel: usize,
    stride: usize,
    device: &Device,
) -> Wrapper<Conv2d> {
    let pad = kernel / 2;
    Conv2dConfig::new([channels, width], [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .init(device)
        .into()
}

#[derive(Default)]
struct Cost {
    parameters: usize,
    macs: usize,
}

impl Cost {
    /// Adds a convolution whose output has `side * side` positions, and its batch norm.
    fn conv_bn(&mut self, conv: &Conv2d, bn: &BatchNorm, side: usize) {
        let weight = conv.weight.shape().num_elements();
        self.parameters += weight + bn.gamma.dims()[0] + bn.beta.dims()[0];
        self.macs += weight * side * side;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_the_documented_ones() {
        let model = DigitsResNetConfig::new().init(&Device::flex());
        assert_eq!(model.parameters(), 696_042);
        assert_eq!(model.macs(), 6_573_312);
    }

    #[test]
    fn parameters_are_all_but_the_running_statistics() {
        let model = DigitsResNetConfig::new().init(&Device::flex());
        // Two statistics a channel: stem, stage1 four, stage2 and stage3 four and a shortcut each.
        let statistics = 2 * (32 + 4 * 32 + 5 * 64 + 5 * 128);
        assert_eq!(Module::num_params(&model), model.parameters() + statistics);
    }

    #[test]
    fn narrow_network_counts_by_hand() {
        let model = DigitsResNetConfig::new()
            .with_widths([1, 1, 1])
            .with_classes(2)
            .init(&Device::flex());
        // Stem and twelve block convolutions of 9 weights, two shortcuts of 1, 15 batch norms of 2,
        // a linear layer of 1 x 2 and 2 biases.
        assert_eq!(model.parameters(), 13 * 9 + 2 + 15 * 2 + 4);
        assert_eq!(
            model.macs(),
            5 * 9 * 64 + (4 * 9 + 1) * 16 + (4 * 9 + 1) * 4 + 2
        );
    }

    #[test]
    fn stages_halve_the_resolution() {
        let device = Device::flex();
        let model = DigitsResNetConfig::new().init(&device);
        let x = Tensor::<4>::ones([3, 32, 8, 8], &device);
        let x = model.stage1[1].forward(model.stage1[0].forward(x));
        assert_eq!(x.dims(), [3, 32, 8, 8]);
        let x = model.stage2[1].forward(model.stage2[0].forward(x));
        assert_eq!(x.dims(), [3, 64, 4, 4]);
        let x = model.stage3[1].forward(model.stage3[0].forward(x));
        assert_eq!(x.dims(), [3, 128, 2, 2]);
        let logits = model.forward(Tensor::ones([3, 1, 8, 8], &device));
        assert_eq!(logits.dims(), [3, 10]);
    }

    #[test]
    fn only_blocks_that_change_the_shape_have_a_shortcut() {
        let model = DigitsResNetConfig::new().init(&Device::flex());
        let shortcuts: Vec<bool> = model.blocks().map(|b| b.shortcut.is_some()).collect();
        assert_eq!(shortcuts, [false, false, true, false, true, false]);
    }
}
