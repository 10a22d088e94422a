use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

/// Depthwise convolution, norm and inverted bottleneck over channels that come last.
#[derive(Module, Debug)]
pub struct Block {
    depthwise: Conv2d,
    norm: LayerNorm,
    fc1: Linear,
    gelu: Gelu,
    fc2: Linear,
    gamma: Param<Tensor<1>>,
}

/// A convolutional network with the blocks of a transformer.
///
/// Liu et al., 2022, "A ConvNet for the 2020s".
#[derive(Module, Debug)]
pub struct ConvNext {
    stem: Conv2d,
    stem_norm: LayerNorm,
    stage1: Vec<Block>,
    down_norm: LayerNorm,
    down: Conv2d,
    stage2: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

/// A norm over the channels of `[batch, channels, height, width]`.
fn channels_first(norm: &LayerNorm, x: Tensor<4>) -> Tensor<4> {
    norm.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
}

impl Block {
    fn new(width: usize, device: &Device) -> Self {
        Self {
            depthwise: Conv2dConfig::new([width, width], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_groups(width)
                .init(device),
            norm: LayerNormConfig::new(width).init(device),
            fc1: LinearConfig::new(width, 4 * width).init(device),
            gelu: Gelu::new(),
            fc2: LinearConfig::new(4 * width, width).init(device),
            gamma: Param::from_tensor(Tensor::full([width], 0.5, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = self.depthwise.forward(x.clone()).permute([0, 2, 3, 1]);
        let inner = self
            .gelu
            .forward(self.fc1.forward(self.norm.forward(inner)));
        let inner = self.fc2.forward(inner) * self.gamma.val().unsqueeze();
        x + inner.permute([0, 3, 1, 2])
    }
}

impl ConvNext {
    /// Two stages of 4 and 8 channels.
    pub fn new(device: &Device) -> Self {
        let patches = |channels: [usize; 2]| {
            Conv2dConfig::new(channels, [2, 2])
                .with_stride([2, 2])
                .init(device)
        };
        let norm = |width| LayerNormConfig::new(width).init(device);
        let blocks = |width| (0..2).map(|_| Block::new(width, device)).collect();
        Self {
            stem: patches([1, 4]),
            stem_norm: norm(4),
            stage1: blocks(4),
            down_norm: norm(4),
            down: patches([4, 8]),
            stage2: blocks(8),
            norm: norm(8),
            head: LinearConfig::new(8, 3).init(device),
        }
    }

    /// Logits `[batch, 3]` of images `[batch, 1, 8, 8]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = channels_first(&self.stem_norm, self.stem.forward(images));
        for block in &self.stage1 {
            x = block.forward(x);
        }
        x = self.down.forward(channels_first(&self.down_norm, x));
        for block in &self.stage2 {
            x = block.forward(x);
        }
        let x: Tensor<2> = x.mean_dim(3).mean_dim(2).flatten(1, 3);
        self.head.forward(self.norm.forward(x))
    }
}
