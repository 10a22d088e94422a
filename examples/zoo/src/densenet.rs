//! DenseNet: every layer reads what all layers of its block before it have made.
//!
//! G. Huang, Z. Liu, L. van der Maaten and K. Weinberger, *Densely Connected Convolutional Networks*,
//! 2016, arXiv:1608.06993.
//!
//! ```text
//! conv0         conv 7x7 stride 2, norm, ReLU, max pool 3x3 stride 2
//!                                                     [n, 3, 224, 224] -> [n,   64, 56, 56]
//! denseblocks   6 layers, transition                                   -> [n,  128, 28, 28]
//!               12 layers, transition                                  -> [n,  256, 14, 14]
//!               24 layers, transition                                  -> [n,  512,  7,  7]
//!               16 layers                                              -> [n, 1024,  7,  7]
//! classifier    norm, ReLU, global average pool, linear                -> [n, 1000]
//! ```
//!
//! DenseNet-121 has 7,978,856 parameters. Names are torchvision's.

use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, Linear};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress_core::Wrapper;

use crate::layers::{average_pool, batch_norm, conv, global_average, linear, max_pool};
use crate::model::images;
use crate::{Model, TorchNames};

/// Configuration of a [`DenseNet`].
#[derive(Config, Debug, PartialEq)]
pub struct DenseNetConfig {
    /// Layers of the four blocks.
    pub depths: [usize; 4],
    /// Channels that a layer adds; the first convolution has twice as many.
    #[config(default = 32)]
    pub growth: usize,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl DenseNetConfig {
    /// DenseNet-121.
    pub fn densenet121() -> Self {
        Self::new([6, 12, 24, 16])
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> DenseNet {
        let growth = self.growth;
        let mut channels = 2 * growth;
        let (mut blocks, mut transitions) = (Vec::new(), Vec::new());
        for (index, &depth) in self.depths.iter().enumerate() {
            let layer = |layer: usize| DenseLayer::new(channels + layer * growth, growth, device);
            blocks.push((0..depth).map(layer).collect());
            channels += depth * growth;
            if index + 1 < self.depths.len() {
                transitions.push(Transition::new(channels, device));
                channels /= 2;
            }
        }
        let stem = conv([3, 2 * growth], 7).with_stride([2, 2]);
        DenseNet {
            features: Features {
                conv0: stem.init(device).into(),
                norm0: batch_norm(2 * growth, device),
                blocks,
                transitions,
                norm5: batch_norm(channels, device),
            },
            classifier: linear(channels, self.classes, device),
        }
    }
}

/// A network of dense blocks.
#[derive(Module, Debug)]
pub struct DenseNet {
    /// All but the classifier.
    pub features: Features,
    /// Classifier.
    pub classifier: Wrapper<Linear>,
}

impl DenseNet {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.features.forward(images));
        self.classifier.forward(global_average(x))
    }
}

impl Model for DenseNet {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// Blocks, their layers and transitions are fields with numbers in torchvision, from 1.
    fn torch_names(&self) -> TorchNames {
        let mut names = TorchNames::new();
        for (block, layers) in self.features.blocks.iter().enumerate() {
            for layer in 0..layers.len() {
                names = names.with(
                    format!("features.blocks.{block}.{layer}."),
                    format!("features.denseblock{}.denselayer{}.", block + 1, layer + 1),
                );
            }
        }
        for transition in 0..self.features.transitions.len() {
            names = names.with(
                format!("features.transitions.{transition}."),
                format!("features.transition{}.", transition + 1),
            );
        }
        names
    }
}

/// All of a [`DenseNet`] but the classifier.
#[derive(Module, Debug)]
pub struct Features {
    /// First convolution.
    pub conv0: Wrapper<Conv2d>,
    /// Its norm.
    pub norm0: Wrapper<BatchNorm>,
    /// Layers of the dense blocks.
    pub blocks: Vec<Vec<DenseLayer>>,
    /// What stands between two blocks.
    pub transitions: Vec<Transition>,
    /// Last norm.
    pub norm5: Wrapper<BatchNorm>,
}

impl Features {
    /// `[batch, 3, height, width]` to `[batch, channels, height / 32, width / 32]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let x = relu(self.norm0.forward(self.conv0.forward(images)));
        let mut x = max_pool(x, 3, 2, 1);
        for (index, layers) in self.blocks.iter().enumerate() {
            let mut made = vec![x];
            for layer in layers {
                let next = layer.forward(Tensor::cat(made.clone(), 1));
                made.push(next);
            }
            x = Tensor::cat(made, 1);
            if let Some(transition) = self.transitions.get(index) {
                x = transition.forward(x);
            }
        }
        self.norm5.forward(x)
    }
}

/// A layer that makes some more channels: `conv2(relu(norm2(conv1(relu(norm1(x))))))`.
#[derive(Module, Debug)]
pub struct DenseLayer {
    /// Norm of all channels so far.
    pub norm1: Wrapper<BatchNorm>,
    /// 1x1 convolution to four times the growth.
    pub conv1: Wrapper<Conv2d>,
    /// Its norm.
    pub norm2: Wrapper<BatchNorm>,
    /// 3x3 convolution to the growth.
    pub conv2: Wrapper<Conv2d>,
}

impl DenseLayer {
    fn new(channels: usize, growth: usize, device: &Device) -> Self {
        Self {
            norm1: batch_norm(channels, device),
            conv1: conv([channels, 4 * growth], 1).init(device).into(),
            norm2: batch_norm(4 * growth, device),
            conv2: conv([4 * growth, growth], 3).init(device).into(),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, growth, height, width]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv1.forward(relu(self.norm1.forward(x)));
        self.conv2.forward(relu(self.norm2.forward(x)))
    }
}

/// A norm and a convolution that halve the channels, and a pool that halves the resolution.
#[derive(Module, Debug)]
pub struct Transition {
    /// Norm of all channels of the block before.
    pub norm: Wrapper<BatchNorm>,
    /// 1x1 convolution to half of them.
    pub conv: Wrapper<Conv2d>,
}

impl Transition {
    fn new(channels: usize, device: &Device) -> Self {
        Self {
            norm: batch_norm(channels, device),
            conv: conv([channels, channels / 2], 1).init(device).into(),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, channels / 2, height / 2, width / 2]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        average_pool(self.conv.forward(relu(self.norm.forward(x))), 2)
    }
}
