//! ResNet: residual networks of two or three convolutions a block.
//!
//! K. He, X. Zhang, S. Ren and J. Sun, *Deep Residual Learning for Image Recognition*, 2015,
//! arXiv:1512.03385. ResNet-50 with group norms in place of batch norms is that of Y. Wu and K. He,
//! *Group Normalization*, 2018, arXiv:1803.08494.
//!
//! ```text
//! conv1    conv 7x7 stride 2, norm, ReLU, max pool 3x3 stride 2    [n, 3, 224, 224] -> [n, 64, 56, 56]
//! layer1   blocks of width 64, stride 1         [n,  64, 56, 56], with bottlenecks [n,  256, 56, 56]
//! layer2   blocks of width 128, stride 2        [n, 128, 28, 28]                   [n,  512, 28, 28]
//! layer3   blocks of width 256, stride 2        [n, 256, 14, 14]                   [n, 1024, 14, 14]
//! layer4   blocks of width 512, stride 2        [n, 512,  7,  7]                   [n, 2048,  7,  7]
//! fc       global average pool, linear          [n, 1000]
//! ```
//!
//! ResNet-18 has 11,689,512 parameters, ResNet-50 25,557,032 with either norm. Names are
//! torchvision's. As there, the stride of a bottleneck is in its 3x3 convolution, where the paper has
//! it in the first.

use burn::config::Config;
use burn::module::{Module, ModuleDisplay};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::AdaptiveAvgPool2d;
use burn::nn::{BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, Linear};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress_core::{Add, Layer, Wrapper};

use crate::Model;
use crate::layers::{conv, global_pool, linear, max_pool};
use crate::model::images;

/// Configuration of a [`ResNet`].
#[derive(Config, Debug, PartialEq)]
pub struct ResNetConfig {
    /// Blocks of the four stages.
    pub depths: [usize; 4],
    /// Whether a block has three convolutions, the last four times as wide as the others.
    pub bottleneck: bool,
    /// Channels of the first stage; the others have two, four and eight times as many.
    #[config(default = 64)]
    pub width: usize,
    /// Groups of every group norm.
    #[config(default = 32)]
    pub groups: usize,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl ResNetConfig {
    /// ResNet-18.
    pub fn resnet18() -> Self {
        Self::new([2, 2, 2, 2], false)
    }

    /// ResNet-50.
    pub fn resnet50() -> Self {
        Self::new([3, 4, 6, 3], true)
    }

    /// A network with batch norms and random weights.
    pub fn init(&self, device: &Device) -> ResNet<BatchNorm> {
        self.build(device)
    }

    /// A network with group norms and random weights.
    ///
    /// # Panics
    ///
    /// If the width is no multiple of the groups.
    pub fn init_with_group_norm(&self, device: &Device) -> ResNet<GroupNorm> {
        self.build(device)
    }

    fn build<N: ChannelNorm>(&self, device: &Device) -> ResNet<N> {
        let mut channels = self.width;
        let mut stage = |index: usize| {
            let width = self.width << index;
            let block = |block: usize| {
                let stride = if index > 0 && block == 0 { 2 } else { 1 };
                let block = Block::new(self, channels, width, stride, device);
                channels = self.outputs(width);
                block
            };
            (0..self.depths[index]).map(block).collect()
        };
        ResNet {
            conv1: strided([3, self.width], 7, 2).init(device).into(),
            bn1: self.norm(self.width, device),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            pool: global_pool(),
            fc: linear(self.outputs(8 * self.width), self.classes, device),
        }
    }

    /// Channels that come out of a block of this width.
    fn outputs(&self, width: usize) -> usize {
        if self.bottleneck { 4 * width } else { width }
    }

    fn norm<N: ChannelNorm>(&self, channels: usize, device: &Device) -> Wrapper<N> {
        N::new(channels, self.groups, device).into()
    }
}

/// A norm that a [`ResNet`] can be built with.
pub trait ChannelNorm: Layer<Tensor<4>, Output = Tensor<4>> + ModuleDisplay + 'static {
    /// A norm of `channels`, in `groups` if it has groups.
    fn new(channels: usize, groups: usize, device: &Device) -> Self;
}

impl ChannelNorm for BatchNorm {
    fn new(channels: usize, _groups: usize, device: &Device) -> Self {
        BatchNormConfig::new(channels).init(device)
    }
}

impl ChannelNorm for GroupNorm {
    fn new(channels: usize, groups: usize, device: &Device) -> Self {
        GroupNormConfig::new(groups, channels).init(device)
    }
}

/// A residual network.
#[derive(Module, Debug)]
pub struct ResNet<N: Module + 'static> {
    /// First convolution.
    pub conv1: Wrapper<Conv2d>,
    /// Its norm.
    pub bn1: Wrapper<N>,
    /// Blocks at a quarter of the resolution.
    pub layer1: Vec<Block<N>>,
    /// Blocks at an eighth.
    pub layer2: Vec<Block<N>>,
    /// Blocks at a 16th.
    pub layer3: Vec<Block<N>>,
    /// Blocks at a 32nd.
    pub layer4: Vec<Block<N>>,
    /// Global average pool.
    pub pool: Wrapper<AdaptiveAvgPool2d>,
    /// Classifier.
    pub fc: Wrapper<Linear>,
}

impl<N: ChannelNorm> ResNet<N> {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.bn1.forward(self.conv1.forward(images)));
        let mut x = max_pool(x, 3, 2, 1);
        for block in [&self.layer1, &self.layer2, &self.layer3, &self.layer4] {
            x = block.iter().fold(x, |x, block| block.forward(x));
        }
        self.fc.forward(self.pool.forward(x).flatten(1, 3))
    }
}

impl<N: ChannelNorm> Model for ResNet<N> {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }
}

/// A residual block.
///
/// ```text
/// relu(bn2(conv2(relu(bn1(conv1(x))))) + downsample(x))                        two convolutions
/// relu(bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))) + downsample(x))      a bottleneck
/// ```
#[derive(Module, Debug)]
pub struct Block<N: Module + 'static> {
    /// First convolution.
    pub conv1: Wrapper<Conv2d>,
    /// Its norm.
    pub bn1: Wrapper<N>,
    /// Second convolution.
    pub conv2: Wrapper<Conv2d>,
    /// Its norm.
    pub bn2: Wrapper<N>,
    /// Third convolution of a bottleneck.
    pub conv3: Option<Wrapper<Conv2d>>,
    /// Its norm.
    pub bn3: Option<Wrapper<N>>,
    /// Sum of the last norm and the shortcut.
    pub add: Wrapper<Add>,
    /// Convolution and norm of the shortcut where the block changes the shape.
    pub downsample: Option<(Wrapper<Conv2d>, Wrapper<N>)>,
}

impl<N: ChannelNorm> Block<N> {
    fn new(
        config: &ResNetConfig,
        channels: usize,
        width: usize,
        stride: usize,
        device: &Device,
    ) -> Self {
        let outputs = config.outputs(width);
        // The kernel of the first convolution, and the strides of the first two.
        let (kernel, first, second) = match config.bottleneck {
            true => (1, 1, stride),
            false => (3, stride, 1),
        };
        let third = config.bottleneck.then(|| conv([width, outputs], 1));
        let shortcut = (stride != 1 || channels != outputs).then(|| {
            let conv = strided([channels, outputs], 1, stride);
            (conv.init(device).into(), config.norm(outputs, device))
        });
        Self {
            conv1: strided([channels, width], kernel, first)
                .init(device)
                .into(),
            bn1: config.norm(width, device),
            conv2: strided([width, width], 3, second).init(device).into(),
            bn2: config.norm(width, device),
            bn3: third.as_ref().map(|_| config.norm(outputs, device)),
            conv3: third.map(|conv| conv.init(device).into()),
            add: Add::new().into(),
            downsample: shortcut,
        }
    }

    /// `[batch, channels, height, width]` to `[batch, outputs, height / stride, width / stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let identity = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(x.clone())),
            None => x.clone(),
        };
        let x = relu(self.bn1.forward(self.conv1.forward(x)));
        let mut x = self.bn2.forward(self.conv2.forward(x));
        if let (Some(conv3), Some(bn3)) = (&self.conv3, &self.bn3) {
            x = bn3.forward(conv3.forward(relu(x)));
        }
        relu(self.add.forward((x, identity)))
    }
}

fn strided(channels: [usize; 2], kernel: usize, stride: usize) -> Conv2dConfig {
    conv(channels, kernel).with_stride([stride, stride])
}
