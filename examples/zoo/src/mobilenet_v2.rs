//! MobileNetV2: inverted residual blocks around depthwise convolutions.
//!
//! M. Sandler, A. Howard, M. Zhu, A. Zhmoginov and L.-C. Chen, *MobileNetV2: Inverted Residuals and
//! Linear Bottlenecks*, 2018, arXiv:1801.04381.
//!
//! ```text
//! stem         conv 3x3 stride 2, norm, ReLU6       [n, 3, 224, 224] -> [n, 32, 112, 112]
//! blocks       17 inverted residuals                                 -> [n, 320, 7, 7]
//! last         conv 1x1, norm, ReLU6                                 -> [n, 1280, 7, 7]
//! classifier   global average pool, linear                           -> [n, 1000]
//! ```
//!
//! 3,504,872 parameters, names of torchvision. Deviation: no dropout.

use burn::config::Config;
use burn::module::Module;
use burn::nn::Linear;
use burn::nn::pool::AdaptiveAvgPool2d;
use burn::tensor::activation::relu6;
use burn::tensor::{Device, Tensor};
use burn_compress_core::{Add, Wrapper};

use crate::layers::{ConvNorm, conv, depthwise, global_pool, linear, rounded};
use crate::model::images;
use crate::{Model, TorchNames};

/// Expansion, channels, blocks and stride of the first block, for each stage (table 2 of the paper).
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// Configuration of a [`MobileNetV2`].
#[derive(Config, Debug)]
pub struct MobileNetV2Config {
    /// Factor of all numbers of channels, which are then rounded to multiples of 8.
    #[config(default = 1.0)]
    pub width: f64,
    /// The most blocks of a stage.
    #[config(default = 4)]
    pub depth: usize,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl MobileNetV2Config {
    /// A network with random weights.
    pub fn init(&self, device: &Device) -> MobileNetV2 {
        let width = |channels: usize| rounded(channels as f64 * self.width, 8);
        let mut channels = width(32);
        let stem = conv([3, channels], 3).with_stride([2, 2]);
        let mut blocks = Vec::new();
        for (expansion, outputs, depth, stride) in STAGES {
            for block in 0..depth.min(self.depth) {
                let stride = if block == 0 { stride } else { 1 };
                let outputs = width(outputs);
                blocks.push(InvertedResidual::new(
                    channels, expansion, outputs, stride, device,
                ));
                channels = outputs;
            }
        }
        // A narrow network keeps its last layer (section 4.1 of the paper).
        let last = rounded(1280.0 * self.width.max(1.0), 8);
        MobileNetV2 {
            stem: ConvNorm::new(stem, device),
            blocks,
            last: ConvNorm::new(conv([channels, last], 1), device),
            pool: global_pool(),
            classifier: linear(last, self.classes, device),
        }
    }
}

/// A network of inverted residuals.
#[derive(Module, Debug)]
pub struct MobileNetV2 {
    /// First convolution.
    pub stem: ConvNorm,
    /// Blocks of all stages.
    pub blocks: Vec<InvertedResidual>,
    /// Last convolution.
    pub last: ConvNorm,
    /// Global average pool.
    pub pool: Wrapper<AdaptiveAvgPool2d>,
    /// Classifier.
    pub classifier: Wrapper<Linear>,
}

impl MobileNetV2 {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu6(self.stem.forward(images));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let x = relu6(self.last.forward(x));
        self.classifier.forward(self.pool.forward(x).flatten(1, 3))
    }
}

impl Model for MobileNetV2 {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// Stem, blocks and last convolution are one list in torchvision.
    fn torch_names(&self) -> TorchNames {
        let mut names = TorchNames::new().with_conv_norm("stem", "features.0");
        for (index, block) in self.blocks.iter().enumerate() {
            let (path, torch) = (
                format!("blocks.{index}"),
                format!("features.{}.conv", index + 1),
            );
            let mut position = 0;
            if block.expand.is_some() {
                names = names.with_conv_norm(&format!("{path}.expand"), &format!("{torch}.0"));
                position = 1;
            }
            names = names
                .with_conv_norm(&format!("{path}.depthwise"), &format!("{torch}.{position}"))
                .with(
                    format!("{path}.project.conv."),
                    format!("{torch}.{}.", position + 1),
                )
                .with(
                    format!("{path}.project.norm."),
                    format!("{torch}.{}.", position + 2),
                );
        }
        let last = format!("features.{}", self.blocks.len() + 1);
        names
            .with_conv_norm("last", &last)
            .with("classifier.", "classifier.1.")
    }
}

/// A block that is wide inside and narrow outside.
///
/// ```text
/// project(relu6(depthwise(relu6(expand(x))))), plus x where the shapes agree
/// ```
#[derive(Module, Debug)]
pub struct InvertedResidual {
    /// 1x1 convolution to more channels; none with an expansion of 1.
    pub expand: Option<ConvNorm>,
    /// 3x3 convolution of each channel.
    pub depthwise: ConvNorm,
    /// 1x1 convolution to the channels outside.
    pub project: ConvNorm,
    /// Sum of the input and the last convolution.
    pub add: Wrapper<Add>,
    /// Whether the input is added.
    pub residual: bool,
}

impl InvertedResidual {
    fn new(
        channels: usize,
        expansion: usize,
        outputs: usize,
        stride: usize,
        device: &Device,
    ) -> Self {
        let hidden = channels * expansion;
        let expand = (expansion != 1).then(|| conv([channels, hidden], 1));
        let depthwise = depthwise(hidden, 3).with_stride([stride, stride]);
        Self {
            expand: expand.map(|conv| ConvNorm::new(conv, device)),
            depthwise: ConvNorm::new(depthwise, device),
            project: ConvNorm::new(conv([hidden, outputs], 1), device),
            add: Add::new().into(),
            residual: stride == 1 && channels == outputs,
        }
    }

    /// `[batch, channels, height, width]` to `[batch, outputs, height / stride, width / stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = match &self.expand {
            Some(expand) => relu6(expand.forward(x.clone())),
            None => x.clone(),
        };
        let inner = self.project.forward(relu6(self.depthwise.forward(inner)));
        match self.residual {
            true => self.add.forward((x, inner)),
            false => inner,
        }
    }
}
