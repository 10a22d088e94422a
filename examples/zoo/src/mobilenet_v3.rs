//! MobileNetV3-Small: inverted residual blocks with squeeze and excitation and hard swish.
//!
//! A. Howard et al., *Searching for MobileNetV3*, 2019, arXiv:1905.02244, table 2.
//!
//! ```text
//! stem         conv 3x3 stride 2, norm, hard swish    [n, 3, 224, 224] -> [n, 16, 112, 112]
//! blocks       11 inverted bottlenecks                                 -> [n, 96, 7, 7]
//! last         conv 1x1, norm, hard swish                              -> [n, 576, 7, 7]
//! classifier   global average pool, linear, hard swish, linear         -> [n, 1000]
//! ```
//!
//! 2,542,856 parameters, names of torchvision. Deviation: no dropout.

use burn::config::Config;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::{hard_sigmoid, hard_swish, relu};
use burn::tensor::{Device, Tensor};
use burn_compress_core::Wrapper;

use crate::layers::{
    Bottleneck, ConvNorm, InvertedBottleneck, conv, global_average, linear, rounded,
};
use crate::model::images;
use crate::{Model, TorchNames};

/// Of all batch norms.
const EPSILON: f64 = 1e-3;

/// A row of table 2 of the paper.
struct Row {
    kernel: usize,
    hidden: usize,
    outputs: usize,
    squeezes: bool,
    hard_swish: bool,
    stride: usize,
}

const fn row(
    kernel: usize,
    hidden: usize,
    outputs: usize,
    squeezes: bool,
    hard_swish: bool,
    stride: usize,
) -> Row {
    Row {
        kernel,
        hidden,
        outputs,
        squeezes,
        hard_swish,
        stride,
    }
}

const SMALL: [Row; 11] = [
    row(3, 16, 16, true, false, 2),
    row(3, 72, 24, false, false, 2),
    row(3, 88, 24, false, false, 1),
    row(5, 96, 40, true, true, 2),
    row(5, 240, 40, true, true, 1),
    row(5, 240, 40, true, true, 1),
    row(5, 120, 48, true, true, 1),
    row(5, 144, 48, true, true, 1),
    row(5, 288, 96, true, true, 2),
    row(5, 576, 96, true, true, 1),
    row(5, 576, 96, true, true, 1),
];

/// Configuration of a [`MobileNetV3`].
#[derive(Config, Debug)]
pub struct MobileNetV3Config {
    /// Factor of all numbers of channels, which are then rounded to multiples of 8.
    #[config(default = 1.0)]
    pub width: f64,
    /// The most blocks; 11 are all.
    #[config(default = 11)]
    pub depth: usize,
    /// Features of the hidden linear layer.
    #[config(default = 1024)]
    pub hidden: usize,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl MobileNetV3Config {
    /// MobileNetV3-Small.
    pub fn small() -> Self {
        Self::new()
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> MobileNetV3 {
        let width = |channels: usize| rounded(channels as f64 * self.width, 8);
        let layer = |conv| ConvNorm::with_epsilon(conv, EPSILON, device);
        let mut channels = width(16);
        let stem = layer(conv([3, channels], 3).with_stride([2, 2]));
        let block = |row: &Row| {
            let hidden = width(row.hidden);
            let sizes = Bottleneck {
                channels,
                hidden,
                outputs: width(row.outputs),
                kernel: row.kernel,
                stride: row.stride,
                squeezed: row.squeezes.then(|| rounded(hidden as f64 / 4.0, 8)),
                epsilon: EPSILON,
            };
            channels = sizes.outputs;
            Block {
                block: InvertedBottleneck::new(&sizes, device),
                hard_swish: row.hard_swish,
            }
        };
        let blocks = SMALL.iter().take(self.depth).map(block).collect();
        let last = 6 * channels;
        MobileNetV3 {
            stem,
            blocks,
            last: layer(conv([channels, last], 1)),
            classifier: [
                linear(last, self.hidden, device),
                linear(self.hidden, self.classes, device),
            ],
        }
    }
}

/// A network of inverted bottlenecks.
#[derive(Module, Debug)]
pub struct MobileNetV3 {
    /// First convolution.
    pub stem: ConvNorm,
    /// Blocks.
    pub blocks: Vec<Block>,
    /// Last convolution.
    pub last: ConvNorm,
    /// Linear layers.
    pub classifier: [Wrapper<Linear>; 2],
}

impl MobileNetV3 {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = hard_swish(self.stem.forward(images));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let x = global_average(hard_swish(self.last.forward(x)));
        let [hidden, last] = &self.classifier;
        last.forward(hard_swish(hidden.forward(x)))
    }
}

impl Model for MobileNetV3 {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// Stem, blocks and last convolution are one list in torchvision, and so are the layers of a
    /// block.
    fn torch_names(&self) -> TorchNames {
        let mut names = TorchNames::new().with_conv_norm("stem", "features.0");
        for (index, block) in self.blocks.iter().enumerate() {
            let path = format!("blocks.{index}.block");
            let torch = format!("features.{}.block", index + 1);
            names = block.block.names(names, &path, &torch);
        }
        // Hard swish and dropout stand between the linear layers.
        names
            .with_conv_norm("last", &format!("features.{}", self.blocks.len() + 1))
            .with("classifier.1.", "classifier.3.")
    }
}

/// An inverted bottleneck with one of two activations.
#[derive(Module, Debug)]
pub struct Block {
    /// The layers.
    pub block: InvertedBottleneck,
    /// Whether the activation is hard swish and not ReLU.
    pub hard_swish: bool,
}

impl Block {
    /// As [`InvertedBottleneck::forward`].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let activation = if self.hard_swish { hard_swish } else { relu };
        let gate = |x| hard_sigmoid(x, 1.0 / 6.0, 0.5);
        self.block.forward(x, activation, relu, gate)
    }
}
