//! ConvNeXt-Tiny: a convolutional network with the blocks of a transformer.
//!
//! Z. Liu, H. Mao, C.-Y. Wu, C. Feichtenhofer, T. Darrell and S. Xie, *A ConvNet for the 2020s*, 2022,
//! arXiv:2201.03545.
//!
//! ```text
//! stem         conv 4x4 stride 4, layer norm         [n, 3, 224, 224] -> [n,  96, 56, 56]
//! stages       3 blocks                                               -> [n,  96, 56, 56]
//!              layer norm, conv 2x2 stride 2, 3 blocks                -> [n, 192, 28, 28]
//!              the same, 9 blocks                                     -> [n, 384, 14, 14]
//!              the same, 3 blocks                                     -> [n, 768,  7,  7]
//! classifier   global average pool, layer norm, linear                -> [n, 1000]
//! ```
//!
//! 28,589,128 parameters, names of torchvision. Norms are over channels. Deviation: no stochastic
//! depth.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Tensor};
use burn_compress_core::Wrapper;

use crate::layers::{depthwise, linear};
use crate::model::images;
use crate::{Model, TorchNames};

/// Configuration of a [`ConvNeXt`].
#[derive(Config, Debug, PartialEq)]
pub struct ConvNeXtConfig {
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Channels of the first stage; each one behind has twice as many.
    #[config(default = 96)]
    pub width: usize,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl ConvNeXtConfig {
    /// ConvNeXt-Tiny.
    pub fn tiny() -> Self {
        Self::new(vec![3, 3, 9, 3])
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> ConvNeXt {
        let width = |stage: usize| self.width << stage;
        let stage = |(index, &depth): (usize, &usize)| Stage {
            downsample: (index > 0).then(|| {
                let conv = patches([width(index - 1), width(index)], 2, device);
                (layer_norm(width(index - 1), device), conv)
            }),
            blocks: (0..depth)
                .map(|_| Block::new(width(index), device))
                .collect(),
        };
        let last = width(self.depths.len().saturating_sub(1));
        ConvNeXt {
            stem: (
                patches([3, self.width], 4, device),
                layer_norm(self.width, device),
            ),
            stages: self.depths.iter().enumerate().map(stage).collect(),
            classifier: (layer_norm(last, device), linear(last, self.classes, device)),
        }
    }
}

/// A convolution over patches that do not overlap.
fn patches(channels: [usize; 2], size: usize, device: &Device) -> Wrapper<Conv2d> {
    let conv = Conv2dConfig::new(channels, [size, size]);
    conv.with_stride([size, size]).init(device).into()
}

fn layer_norm(channels: usize, device: &Device) -> Wrapper<LayerNorm> {
    let norm = LayerNormConfig::new(channels).with_epsilon(1e-6);
    norm.init(device).into()
}

/// A convolutional network of blocks with layer norms.
#[derive(Module, Debug)]
pub struct ConvNeXt {
    /// Convolution over patches and its norm.
    pub stem: (Wrapper<Conv2d>, Wrapper<LayerNorm>),
    /// Stages.
    pub stages: Vec<Stage>,
    /// Norm of the pooled channels, and classifier.
    pub classifier: (Wrapper<LayerNorm>, Wrapper<Linear>),
}

impl ConvNeXt {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let (conv, norm) = &self.stem;
        let x = over_channels(norm, conv.forward(images));
        let x = self.stages.iter().fold(x, |x, stage| stage.forward(x));
        let (norm, linear) = &self.classifier;
        let x = over_channels(norm, adaptive_avg_pool2d(x, [1, 1]));
        linear.forward(x.flatten(1, 3))
    }
}

impl Model for ConvNeXt {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// Stem, stages and what is between them are one list in torchvision, and a block is a list with
    /// its permutations and its activation.
    fn torch_names(&self) -> TorchNames {
        let mut names = TorchNames::new().with("stem.", "features.0.");
        for (index, stage) in self.stages.iter().enumerate() {
            let (path, torch) = (
                format!("stages.{index}"),
                format!("features.{}", 2 * index + 1),
            );
            if stage.downsample.is_some() {
                let between = format!("features.{}.", 2 * index);
                names = names.with(format!("{path}.downsample."), between);
            }
            for block in 0..stage.blocks.len() {
                let (path, torch) = (format!("{path}.blocks.{block}"), format!("{torch}.{block}"));
                let layers = [("conv", 0), ("norm", 2), ("expand", 3), ("project", 5)];
                for (layer, position) in layers {
                    names = names.with(
                        format!("{path}.{layer}."),
                        format!("{torch}.block.{position}."),
                    );
                }
                names = names.with(format!("{path}."), format!("{torch}."));
            }
        }
        // What flattens the pooled channels stands between norm and linear layer.
        names.with("classifier.1.", "classifier.2.")
    }
}

/// Blocks of one resolution.
#[derive(Module, Debug)]
pub struct Stage {
    /// Norm, and convolution over patches of 2 x 2 pixels, of all stages but the first.
    pub downsample: Option<(Wrapper<LayerNorm>, Wrapper<Conv2d>)>,
    /// Blocks.
    pub blocks: Vec<Block>,
}

impl Stage {
    /// `[batch, channels, height, width]` to `[batch, 2 channels, height / 2, width / 2]`, or to the
    /// same shape in the first stage.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.downsample {
            Some((norm, conv)) => conv.forward(over_channels(norm, x)),
            None => x,
        };
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

/// A large depthwise convolution and a perceptron at each pixel.
///
/// ```text
/// x + layer_scale * project(gelu(expand(norm(conv(x)))))
/// ```
#[derive(Module, Debug)]
pub struct Block {
    /// 7x7 convolution of each channel.
    pub conv: Wrapper<Conv2d>,
    /// Norm over the channels.
    pub norm: Wrapper<LayerNorm>,
    /// To four times as many channels.
    pub expand: Wrapper<Linear>,
    /// And back.
    pub project: Wrapper<Linear>,
    /// Scale of what is added, `[channels, 1, 1]`.
    pub layer_scale: Param<Tensor<3>>,
}

impl Block {
    fn new(channels: usize, device: &Device) -> Self {
        let conv = depthwise(channels, 7).with_bias(true);
        let scale = Initializer::Constant { value: 1e-6 };
        Self {
            conv: conv.init(device).into(),
            norm: layer_norm(channels, device),
            expand: linear(channels, 4 * channels, device),
            project: linear(4 * channels, channels, device),
            layer_scale: scale.init([channels, 1, 1], device),
        }
    }

    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = self.conv.forward(x.clone()).permute([0, 2, 3, 1]);
        let inner = self.expand.forward(self.norm.forward(inner));
        let inner = self.project.forward(gelu(inner)).permute([0, 3, 1, 2]);
        x + inner * self.layer_scale.val().unsqueeze()
    }
}

/// Applies a norm to the channels of an image.
fn over_channels(norm: &Wrapper<LayerNorm>, x: Tensor<4>) -> Tensor<4> {
    norm.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
}
