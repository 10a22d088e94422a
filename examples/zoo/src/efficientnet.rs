//! EfficientNet-B0: inverted bottlenecks with squeeze and excitation and SiLU.
//!
//! M. Tan and Q. Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*, 2019,
//! arXiv:1905.11946, table 1.
//!
//! ```text
//! stem         conv 3x3 stride 2, norm, SiLU      [n, 3, 224, 224] -> [n, 32, 112, 112]
//! stages       16 inverted bottlenecks in 7 stages                 -> [n, 320, 7, 7]
//! last         conv 1x1, norm, SiLU                                -> [n, 1280, 7, 7]
//! classifier   global average pool, linear                         -> [n, 1000]
//! ```
//!
//! 5,288,548 parameters, names of torchvision. Deviation: no dropout and no stochastic depth.

use burn::config::Config;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::{sigmoid, silu};
use burn::tensor::{Device, Tensor};
use burn_compress_core::Wrapper;

use crate::layers::{
    Bottleneck, ConvNorm, InvertedBottleneck, conv, global_average, linear, rounded,
};
use crate::model::images;
use crate::{Model, TorchNames};

/// Expansion, kernel, stride of the first block, channels and blocks, for each stage.
const B0: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
];

/// Of all batch norms.
const EPSILON: f64 = 1e-5;

/// Configuration of an [`EfficientNet`].
#[derive(Config, Debug)]
pub struct EfficientNetConfig {
    /// Factor of all numbers of channels, which are then rounded to multiples of 8.
    #[config(default = 1.0)]
    pub width: f64,
    /// Factor of the numbers of blocks, which are then rounded up.
    #[config(default = 1.0)]
    pub depth: f64,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl EfficientNetConfig {
    /// EfficientNet-B0.
    pub fn b0() -> Self {
        Self::new()
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> EfficientNet {
        let width = |channels: usize| rounded(channels as f64 * self.width, 8);
        let mut channels = width(32);
        let stem = ConvNorm::new(conv([3, channels], 3).with_stride([2, 2]), device);
        let stage = |&(expansion, kernel, stride, outputs, depth)| {
            let depth = (depth as f64 * self.depth).ceil() as usize;
            let block = |block| {
                let sizes = Bottleneck {
                    channels,
                    hidden: channels * expansion,
                    outputs: width(outputs),
                    kernel,
                    stride: if block == 0 { stride } else { 1 },
                    squeezed: Some((channels / 4).max(1)),
                    epsilon: EPSILON,
                };
                channels = sizes.outputs;
                InvertedBottleneck::new(&sizes, device)
            };
            (0..depth).map(block).collect()
        };
        let stages = B0.iter().map(stage).collect();
        let last = 4 * channels;
        EfficientNet {
            stem,
            stages,
            last: ConvNorm::new(conv([channels, last], 1), device),
            classifier: linear(last, self.classes, device),
        }
    }
}

/// A network of inverted bottlenecks.
#[derive(Module, Debug)]
pub struct EfficientNet {
    /// First convolution.
    pub stem: ConvNorm,
    /// Blocks of each stage.
    pub stages: Vec<Vec<InvertedBottleneck>>,
    /// Last convolution.
    pub last: ConvNorm,
    /// Classifier.
    pub classifier: Wrapper<Linear>,
}

impl EfficientNet {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = silu(self.stem.forward(images));
        for block in self.stages.iter().flatten() {
            x = block.forward(x, silu, silu, sigmoid);
        }
        let x = silu(self.last.forward(x));
        self.classifier.forward(global_average(x))
    }
}

impl Model for EfficientNet {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// Stem, stages and last convolution are one list in torchvision, and so are the layers of a
    /// block.
    fn torch_names(&self) -> TorchNames {
        let mut names = TorchNames::new().with_conv_norm("stem", "features.0");
        for (stage, blocks) in self.stages.iter().enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                let path = format!("stages.{stage}.{index}");
                let torch = format!("features.{}.{index}.block", stage + 1);
                names = block.names(names, &path, &torch);
            }
        }
        names
            .with_conv_norm("last", &format!("features.{}", self.stages.len() + 1))
            .with("classifier.", "classifier.1.")
    }
}
