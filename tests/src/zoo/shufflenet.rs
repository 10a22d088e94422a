use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

/// The branch of a unit: pointwise, depthwise and pointwise convolutions.
#[derive(Module, Debug)]
pub struct Branch {
    conv1: Conv2d,
    norm1: BatchNorm,
    depthwise: Conv2d,
    norm2: BatchNorm,
    conv2: Conv2d,
    norm3: BatchNorm,
}

/// A network that splits channels in halves and shuffles them.
///
/// Ma et al., 2018, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design".
#[derive(Module, Debug)]
pub struct ShuffleNet {
    stem: Conv2d,
    norm: BatchNorm,
    units: Vec<Branch>,
    last: Conv2d,
    last_norm: BatchNorm,
    head: Linear,
}

fn conv(channels: [usize; 2], kernel: usize, groups: usize, device: &Device) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_groups(groups)
        .with_bias(false)
        .init(device)
}

/// Interleaves the two halves of the channels.
fn shuffle(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    x.reshape([batch, 2, channels / 2, height, width])
        .swap_dims(1, 2)
        .reshape([batch, channels, height, width])
}

impl Branch {
    fn new(width: usize, device: &Device) -> Self {
        let norm = || BatchNormConfig::new(width).init(device);
        Self {
            conv1: conv([width, width], 1, 1, device),
            norm1: norm(),
            depthwise: conv([width, width], 3, width, device),
            norm2: norm(),
            conv2: conv([width, width], 1, 1, device),
            norm3: norm(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = relu(self.norm1.forward(self.conv1.forward(x)));
        let x = self.norm2.forward(self.depthwise.forward(x));
        relu(self.norm3.forward(self.conv2.forward(x)))
    }
}

impl ShuffleNet {
    /// Two units of 8 channels.
    pub fn new(device: &Device) -> Self {
        Self {
            stem: conv([1, 8], 3, 1, device),
            norm: BatchNormConfig::new(8).init(device),
            units: (0..2).map(|_| Branch::new(4, device)).collect(),
            last: conv([8, 12], 1, 1, device),
            last_norm: BatchNormConfig::new(12).init(device),
            head: LinearConfig::new(12, 3).init(device),
        }
    }

    /// Logits `[batch, 3]` of images `[batch, 1, height, width]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = relu(self.norm.forward(self.stem.forward(images)));
        for unit in &self.units {
            let halves = x.chunk(2, 1);
            let mixed = unit.forward(halves[1].clone());
            x = shuffle(Tensor::cat(vec![halves[0].clone(), mixed], 1));
        }
        let x = relu(self.last_norm.forward(self.last.forward(x)));
        let x: Tensor<2> = x.mean_dim(3).mean_dim(2).flatten(1, 3);
        self.head.forward(x)
    }
}
