use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

/// A bottleneck whose output is concatenated to its input.
#[derive(Module, Debug)]
pub struct Dense {
    norm1: BatchNorm,
    conv1: Conv2d,
    norm2: BatchNorm,
    conv2: Conv2d,
}

/// Halves the channels and the size of the image.
#[derive(Module, Debug)]
pub struct Transition {
    norm: BatchNorm,
    conv: Conv2d,
    pool: AvgPool2d,
}

/// A network in which every layer reads all layers before it.
///
/// Huang et al., 2016, "Densely Connected Convolutional Networks".
#[derive(Module, Debug)]
pub struct DenseNet {
    stem: Conv2d,
    norm: BatchNorm,
    blocks: Vec<Vec<Dense>>,
    transitions: Vec<Transition>,
    last_norm: BatchNorm,
    head: Linear,
}

fn conv(channels: [usize; 2], kernel: usize, device: &Device) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .init(device)
}

fn norm(channels: usize, device: &Device) -> BatchNorm {
    BatchNormConfig::new(channels).init(device)
}

impl Dense {
    fn new(channels: usize, growth: usize, device: &Device) -> Self {
        Self {
            norm1: norm(channels, device),
            conv1: conv([channels, 4 * growth], 1, device),
            norm2: norm(4 * growth, device),
            conv2: conv([4 * growth, growth], 3, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let new = self.conv1.forward(relu(self.norm1.forward(x.clone())));
        let new = self.conv2.forward(relu(self.norm2.forward(new)));
        Tensor::cat(vec![x, new], 1)
    }
}

impl DenseNet {
    /// Blocks of `layers` bottlenecks with `growth` channels each, after a stem of twice as many.
    pub fn new(layers: &[usize], growth: usize, device: &Device) -> Self {
        let (stem, mut channels) = (2 * growth, 2 * growth);
        let (mut blocks, mut transitions) = (Vec::new(), Vec::new());
        for (at, &count) in layers.iter().enumerate() {
            let dense =
                (0..count).map(|layer| Dense::new(channels + layer * growth, growth, device));
            blocks.push(dense.collect());
            channels += count * growth;
            if at + 1 < layers.len() {
                transitions.push(Transition {
                    norm: norm(channels, device),
                    conv: conv([channels, channels / 2], 1, device),
                    pool: AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
                });
                channels /= 2;
            }
        }
        Self {
            stem: conv([1, stem], 3, device),
            norm: norm(stem, device),
            blocks,
            transitions,
            last_norm: norm(channels, device),
            head: LinearConfig::new(channels, 3).init(device),
        }
    }

    /// Logits `[batch, 3]` of images `[batch, 1, height, width]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = relu(self.norm.forward(self.stem.forward(images)));
        for (at, block) in self.blocks.iter().enumerate() {
            for layer in block {
                x = layer.forward(x);
            }
            if let Some(transition) = self.transitions.get(at) {
                x = transition.conv.forward(relu(transition.norm.forward(x)));
                x = transition.pool.forward(x);
            }
        }
        let x = relu(self.last_norm.forward(x));
        let x: Tensor<2> = x.mean_dim(3).mean_dim(2).flatten(1, 3);
        self.head.forward(x)
    }
}
