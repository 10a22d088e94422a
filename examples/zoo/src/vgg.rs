//! VGG16 with batch norms: a plain chain of 3x3 convolutions.
//!
//! K. Simonyan and A. Zisserman, *Very Deep Convolutional Networks for Large-Scale Image
//! Recognition*, 2014, arXiv:1409.1556, configuration D; batch norms as in torchvision.
//!
//! ```text
//! features     2, 2, 3, 3, 3 times conv 3x3, norm, ReLU; max pool 2x2 after each group
//!              [n, 3, 224, 224] -> [n, 512, 7, 7]
//! classifier   average pool to 7x7; linear 4096, ReLU; linear 4096, ReLU; linear 1000
//! ```
//!
//! 138,365,992 parameters, 123,642,856 of them in the classifier. Names are torchvision's.
//! Deviation: no dropout.

use burn::config::Config;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Tensor};
use burn_compress_core::Wrapper;

use crate::layers::{ConvNorm, conv, linear, max_pool};
use crate::model::images;
use crate::{Model, TorchNames};

/// Configuration of a [`Vgg`].
#[derive(Config, Debug, PartialEq)]
pub struct VggConfig {
    /// Convolutions of the five groups.
    pub depths: [usize; 5],
    /// Channels of the first group; the others have two, four, eight and eight times as many.
    #[config(default = 64)]
    pub width: usize,
    /// Features of the two hidden linear layers.
    #[config(default = 4096)]
    pub hidden: usize,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl VggConfig {
    /// VGG16.
    pub fn vgg16() -> Self {
        Self::new([2, 2, 3, 3, 3])
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> Vgg {
        let mut channels = 3;
        let mut group = |index: usize| {
            let width = self.width << index.min(3);
            let convs = (0..self.depths[index]).map(|_| {
                let layer = ConvNorm::new(conv([channels, width], 3).with_bias(true), device);
                channels = width;
                layer
            });
            convs.collect()
        };
        let features = (0..5).map(&mut group).collect();
        Vgg {
            features,
            classifier: [
                linear(8 * self.width * POOLED * POOLED, self.hidden, device),
                linear(self.hidden, self.hidden, device),
                linear(self.hidden, self.classes, device),
            ],
        }
    }
}

/// Side of what the classifier sees.
const POOLED: usize = 7;

/// A chain of convolutions.
#[derive(Module, Debug)]
pub struct Vgg {
    /// Groups of convolutions, with a pool after each.
    pub features: Vec<Vec<ConvNorm>>,
    /// Linear layers.
    pub classifier: [Wrapper<Linear>; 3],
}

impl Vgg {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = images;
        for group in &self.features {
            x = group.iter().fold(x, |x, layer| relu(layer.forward(x)));
            x = max_pool(x, 2, 2, 0);
        }
        let x = adaptive_avg_pool2d(x, [POOLED, POOLED]).flatten::<2>(1, 3);
        let [first, second, last] = &self.classifier;
        last.forward(relu(second.forward(relu(first.forward(x)))))
    }
}

impl Model for Vgg {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// One list in torchvision: a convolution, its norm and its ReLU count three, a pool one.
    fn torch_names(&self) -> TorchNames {
        let (mut names, mut position) = (TorchNames::new(), 0);
        for (group, layers) in self.features.iter().enumerate() {
            for layer in 0..layers.len() {
                let path = format!("features.{group}.{layer}");
                names = names
                    .with(format!("{path}.conv."), format!("features.{position}."))
                    .with(
                        format!("{path}.norm."),
                        format!("features.{}.", position + 1),
                    );
                position += 3;
            }
            position += 1;
        }
        // ReLU and dropout stand between the linear layers.
        names
            .with("classifier.2.", "classifier.6.")
            .with("classifier.1.", "classifier.3.")
    }
}
