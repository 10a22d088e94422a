//! U-Net: an encoder, and a decoder that reads what the encoder had at the same resolution.
//!
//! O. Ronneberger, P. Fischer and T. Brox, *U-Net: Convolutional Networks for Biomedical Image
//! Segmentation*, 2015, arXiv:1505.04597; with batch norms, padded convolutions and 32 channels in the
//! first level, as the network of PyTorch Hub for brain segmentation, whose names it has.
//!
//! ```text
//! encoder1..4   two times conv 3x3, norm, ReLU; max pool 2x2     [n,   3, 256, 256] -> [n, 256, 16, 16]
//! bottleneck    the same, without a pool                                            -> [n, 512, 16, 16]
//! decoder4..1   transposed conv 2x2 stride 2, beside the encoder's, two convolutions
//!                                                                                   -> [n, 32, 256, 256]
//! conv          conv 1x1, sigmoid                                                   -> [n,  1, 256, 256]
//! ```
//!
//! 7,763,041 parameters.

use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, ConvTranspose2d, ConvTranspose2dConfig};
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Tensor};
use burn_compress_core::Wrapper;

use crate::layers::{ConvNorm, conv, max_pool};
use crate::model::images;
use crate::{Model, TorchNames};

/// Configuration of a [`UNet`].
#[derive(Config, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the first level; each one below has twice as many.
    #[config(default = 32)]
    pub width: usize,
    /// Levels above the bottleneck.
    #[config(default = 4)]
    pub depth: usize,
    /// Channels of the output.
    #[config(default = 1)]
    pub outputs: usize,
}

impl UNetConfig {
    /// A network with random weights.
    pub fn init(&self, device: &Device) -> UNet {
        let width = |level: usize| self.width << level;
        let inputs = |level: usize| if level == 0 { 3 } else { width(level - 1) };
        let encoder = |level| DoubleConv::new(inputs(level), width(level), device);
        let decoder = |level| {
            let up = ConvTranspose2dConfig::new([width(level + 1), width(level)], [2, 2]);
            Decoder {
                up: up.with_stride([2, 2]).init(device).into(),
                convs: DoubleConv::new(2 * width(level), width(level), device),
            }
        };
        UNet {
            encoders: (0..self.depth).map(encoder).collect(),
            bottleneck: encoder(self.depth),
            decoders: (0..self.depth).rev().map(decoder).collect(),
            conv: conv([self.width, self.outputs], 1)
                .with_bias(true)
                .init(device)
                .into(),
        }
    }
}

/// A network for segmentation.
#[derive(Module, Debug)]
pub struct UNet {
    /// Levels from the highest resolution to the lowest.
    pub encoders: Vec<DoubleConv>,
    /// The lowest resolution.
    pub bottleneck: DoubleConv,
    /// Levels from the lowest resolution to the highest.
    pub decoders: Vec<Decoder>,
    /// Last convolution.
    pub conv: Wrapper<Conv2d>,
}

impl UNet {
    /// Probabilities of the pixels of a batch of images, whose sides are multiples of two to the
    /// number of levels.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - probabilities: `[batch, outputs, height, width]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let (mut x, mut levels) = (images, Vec::new());
        for encoder in &self.encoders {
            let level = encoder.forward(x);
            x = max_pool(level.clone(), 2, 2, 0);
            levels.push(level);
        }
        x = self.bottleneck.forward(x);
        for (decoder, level) in self.decoders.iter().zip(levels.into_iter().rev()) {
            x = decoder.forward(x, level);
        }
        sigmoid(self.conv.forward(x))
    }
}

impl Model for UNet {
    type Input = Tensor<4>;
    type Output = Tensor<4>;

    fn run(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// Levels are numbered fields in the reference, and their name is in that of their layers.
    fn torch_names(&self) -> TorchNames {
        let block = |mut names: TorchNames, path: &str, torch: &str, short: &str| {
            for (index, layer) in ["first", "second"].into_iter().enumerate() {
                for (part, tensor) in [("conv", "conv"), ("norm", "norm")] {
                    names = names.with(
                        format!("{path}.{layer}.{part}."),
                        format!("{torch}.{short}{tensor}{}.", index + 1),
                    );
                }
            }
            names
        };
        let mut names = block(TorchNames::new(), "bottleneck", "bottleneck", "bottleneck");
        for index in 0..self.encoders.len() {
            let level = index + 1;
            let (path, torch) = (format!("encoders.{index}"), format!("encoder{level}"));
            names = block(names, &path, &torch, &format!("enc{level}"));
        }
        for index in 0..self.decoders.len() {
            let level = self.decoders.len() - index;
            let (path, torch) = (format!("decoders.{index}"), format!("decoder{level}"));
            names = names.with(format!("{path}.up."), format!("upconv{level}."));
            names = block(
                names,
                &format!("{path}.convs"),
                &torch,
                &format!("dec{level}"),
            );
        }
        names
    }
}

/// Two convolutions, each with a norm and a ReLU.
#[derive(Module, Debug)]
pub struct DoubleConv {
    /// First convolution.
    pub first: ConvNorm,
    /// Second convolution.
    pub second: ConvNorm,
}

impl DoubleConv {
    fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            first: ConvNorm::new(conv([inputs, outputs], 3), device),
            second: ConvNorm::new(conv([outputs, outputs], 3), device),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, outputs, height, width]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        relu(self.second.forward(relu(self.first.forward(x))))
    }
}

/// A level of the decoder.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Transposed convolution to twice the resolution.
    pub up: Wrapper<ConvTranspose2d>,
    /// Convolutions over its output and the encoder's.
    pub convs: DoubleConv,
}

impl Decoder {
    /// `[batch, channels, height, width]` and the encoder's `[batch, outputs, 2 height, 2 width]` to
    /// the shape of the latter.
    pub fn forward(&self, x: Tensor<4>, level: Tensor<4>) -> Tensor<4> {
        self.convs
            .forward(Tensor::cat(vec![self.up.forward(x), level], 1))
    }
}
