//! ShuffleNetV2: half of the channels pass a block as they are, and the halves are shuffled.
//!
//! N. Ma, X. Zhang, H.-T. Zheng and J. Sun, *ShuffleNet V2: Practical Guidelines for Efficient CNN
//! Architecture Design*, 2018, arXiv:1807.11164.
//!
//! ```text
//! conv1    conv 3x3 stride 2, norm, ReLU, max pool 3x3 stride 2    [n, 3, 224, 224] -> [n, 24, 56, 56]
//! stage2   4 units, the first of stride 2                                           -> [n, 116, 28, 28]
//! stage3   8 units                                                                  -> [n, 232, 14, 14]
//! stage4   4 units                                                                  -> [n, 464, 7, 7]
//! conv5    conv 1x1, norm, ReLU                                                     -> [n, 1024, 7, 7]
//! fc       global average pool, linear                                              -> [n, 1000]
//! ```
//!
//! The version of factor 1.0 has 2,278,604 parameters. Names are torchvision's.
//!
//! A cut halves what is inside of the units, the width of the last stage and of both ends. The widths of
//! stages 2 and 3 stay ([`FIXED`]): one half after the other is shuffled with the other, so that the
//! halves of the channels, their halves, and so on would have to lose the same share, down to parts of a
//! single channel. Other channels of `a` than of `b` would do as well, as long as each half of the
//! smaller stage holds what the same half of the whole one does; they lie in another order then, and the
//! layers behind would have to read them in that order.

use burn::config::Config;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress_core::Wrapper;

use crate::layers::{ConvNorm, conv, depthwise, global_average, linear, max_pool};
use crate::model::images;
use crate::{Model, TorchNames};

/// Paths of the layers that make the channels of stages 2 and 3 of [`ShuffleNetV2Config::x1_0`].
pub const FIXED: [&str; 16] = [
    "stage2.0.shortcut.project.conv",
    "stage2.0.project.conv",
    "stage2.1.project.conv",
    "stage2.2.project.conv",
    "stage2.3.project.conv",
    "stage3.0.shortcut.depthwise.conv",
    "stage3.0.shortcut.project.conv",
    "stage3.0.project.conv",
    "stage3.1.project.conv",
    "stage3.2.project.conv",
    "stage3.3.project.conv",
    "stage3.4.project.conv",
    "stage3.5.project.conv",
    "stage3.6.project.conv",
    "stage3.7.project.conv",
    "stage4.0.shortcut.depthwise.conv",
];

/// Configuration of a [`ShuffleNetV2`].
#[derive(Config, Debug, PartialEq)]
pub struct ShuffleNetV2Config {
    /// Units of the three stages.
    pub depths: [usize; 3],
    /// Channels of the first convolution, the three stages and the last convolution; those of the
    /// stages are even.
    pub widths: [usize; 5],
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl ShuffleNetV2Config {
    /// The version of factor 1.0.
    pub fn x1_0() -> Self {
        Self::new([4, 8, 4], [24, 116, 232, 464, 1024])
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> ShuffleNetV2 {
        let [first, .., inner, last] = self.widths;
        let stage = |stage: usize| {
            let [inputs, outputs] = [self.widths[stage], self.widths[stage + 1]];
            let unit = |unit: usize| match unit {
                0 => Unit::strided(inputs, outputs, device),
                _ => Unit::plain(outputs, device),
            };
            (0..self.depths[stage]).map(unit).collect()
        };
        ShuffleNetV2 {
            conv1: ConvNorm::new(conv([3, first], 3).with_stride([2, 2]), device),
            stage2: stage(0),
            stage3: stage(1),
            stage4: stage(2),
            conv5: ConvNorm::new(conv([inner, last], 1), device),
            fc: linear(last, self.classes, device),
        }
    }
}

/// A network of units whose halves are shuffled.
#[derive(Module, Debug)]
pub struct ShuffleNetV2 {
    /// First convolution.
    pub conv1: ConvNorm,
    /// Units at an eighth of the resolution.
    pub stage2: Vec<Unit>,
    /// Units at a 16th.
    pub stage3: Vec<Unit>,
    /// Units at a 32nd.
    pub stage4: Vec<Unit>,
    /// Last convolution.
    pub conv5: ConvNorm,
    /// Classifier.
    pub fc: Wrapper<Linear>,
}

impl ShuffleNetV2 {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = max_pool(relu(self.conv1.forward(images)), 3, 2, 1);
        for unit in self.stages().into_iter().flatten() {
            x = unit.forward(x);
        }
        self.fc.forward(global_average(relu(self.conv5.forward(x))))
    }

    fn stages(&self) -> [&Vec<Unit>; 3] {
        [&self.stage2, &self.stage3, &self.stage4]
    }
}

impl Model for ShuffleNetV2 {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// The layers of a branch are one list in torchvision, with its ReLUs.
    fn torch_names(&self) -> TorchNames {
        let mut names = TorchNames::new()
            .with_conv_norm("conv1", "conv1")
            .with_conv_norm("conv5", "conv5");
        for (stage, units) in self.stages().into_iter().enumerate() {
            for (index, unit) in units.iter().enumerate() {
                let path = format!("stage{}.{index}", stage + 2);
                let mut add = |layer: &str, torch: &str, position: usize| {
                    for (part, position) in [("conv", position), ("norm", position + 1)] {
                        names = std::mem::take(&mut names).with(
                            format!("{path}.{layer}.{part}."),
                            format!("{path}.{torch}.{position}."),
                        );
                    }
                };
                if unit.shortcut.is_some() {
                    add("shortcut.depthwise", "branch1", 0);
                    add("shortcut.project", "branch1", 2);
                }
                add("expand", "branch2", 0);
                add("depthwise", "branch2", 3);
                add("project", "branch2", 5);
            }
        }
        names
    }
}

/// A unit: one half of the channels as they are, or through a branch of their own, beside the other.
///
/// ```text
/// stride 1   a, b = halves of x;    shuffle(a, branch(b))
/// stride 2                          shuffle(shortcut(x), branch(x))
/// branch(x) = relu(project(depthwise(relu(expand(x)))))
/// ```
#[derive(Module, Debug)]
pub struct Unit {
    /// The other branch of a unit of stride 2.
    pub shortcut: Option<Shortcut>,
    /// 1x1 convolution.
    pub expand: ConvNorm,
    /// 3x3 convolution of each channel.
    pub depthwise: ConvNorm,
    /// 1x1 convolution.
    pub project: ConvNorm,
}

impl Unit {
    fn strided(inputs: usize, outputs: usize, device: &Device) -> Self {
        let shortcut = Shortcut::new(inputs, outputs / 2, device);
        Self::new(Some(shortcut), inputs, outputs / 2, device)
    }

    fn plain(channels: usize, device: &Device) -> Self {
        Self::new(None, channels / 2, channels / 2, device)
    }

    fn new(shortcut: Option<Shortcut>, inputs: usize, half: usize, device: &Device) -> Self {
        let stride = if shortcut.is_some() { 2 } else { 1 };
        let depthwise = depthwise(half, 3).with_stride([stride, stride]);
        Self {
            shortcut,
            expand: ConvNorm::new(conv([inputs, half], 1), device),
            depthwise: ConvNorm::new(depthwise, device),
            project: ConvNorm::new(conv([half, half], 1), device),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, outputs, height / stride, width / stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (kept, x) = match &self.shortcut {
            Some(shortcut) => (shortcut.forward(x.clone()), x),
            None => {
                let half = x.dims()[1] / 2;
                (x.clone().narrow(1, 0, half), x.narrow(1, half, half))
            }
        };
        let x = self.depthwise.forward(relu(self.expand.forward(x)));
        let x = relu(self.project.forward(x));
        shuffle(Tensor::cat(vec![kept, x], 1))
    }
}

/// A convolution of each channel at half the resolution, and a 1x1 convolution.
#[derive(Module, Debug)]
pub struct Shortcut {
    /// 3x3 convolution of each channel.
    pub depthwise: ConvNorm,
    /// 1x1 convolution.
    pub project: ConvNorm,
}

impl Shortcut {
    fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            depthwise: ConvNorm::new(depthwise(inputs, 3).with_stride([2, 2]), device),
            project: ConvNorm::new(conv([inputs, outputs], 1), device),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, outputs, height / 2, width / 2]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        relu(self.project.forward(self.depthwise.forward(x)))
    }
}

/// The channels of both halves in turns: `a0 a1 .. b0 b1 ..` becomes `a0 b0 a1 b1 ..`.
fn shuffle(x: Tensor<4>) -> Tensor<4> {
    let [batch, _, height, width] = x.dims().map(|size| size as i64);
    let halves: Tensor<5> = x.reshape([batch, 2, -1, height, width]);
    halves.swap_dims(1, 2).reshape([batch, -1, height, width])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_shuffled() {
        let x = Tensor::<1>::from_floats([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &Device::flex());
        let shuffled = shuffle(x.reshape([1, 6, 1, 1])).into_data();
        let values = shuffled.try_to_vec::<f32>().unwrap();
        assert_eq!(values, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }
}
