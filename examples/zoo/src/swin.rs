//! Swin-T: a transformer whose attention is within windows, every other time shifted ones.
//!
//! Z. Liu et al., *Swin Transformer: Hierarchical Vision Transformer using Shifted Windows*, 2021,
//! arXiv:2103.14030.
//!
//! ```text
//! patches   conv 4x4 stride 4, layer norm             [n, 3, 224, 224] -> [n, 56, 56,  96]
//! stages    2 blocks                                                   -> [n, 56, 56,  96]
//!           4 pixels merged into one, 2 blocks                         -> [n, 28, 28, 192]
//!           the same, 6 blocks                                         -> [n, 14, 14, 384]
//!           the same, 2 blocks                                         -> [n,  7,  7, 768]
//! head      layer norm, mean of all pixels, linear                     -> [n, 1000]
//! ```
//!
//! 28,288,354 parameters, names of torchvision. Deviation: no stochastic depth and no padding. The
//! sides of an image are multiples of those of a window in every stage.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData, s};
use burn_compress_core::Wrapper;

use crate::attention::{merge_heads, scores, split_heads};
use crate::layers::linear;
use crate::model::images;
use crate::{Model, TorchNames};

/// What is added to the score of two tokens that are no neighbours in the image.
const APART: f32 = -100.0;

/// Configuration of a [`SwinTransformer`].
#[derive(Config, Debug, PartialEq)]
pub struct SwinTransformerConfig {
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Heads of the first stage; each one behind has twice as many.
    #[config(default = 3)]
    pub heads: usize,
    /// Features of a head.
    #[config(default = 32)]
    pub head_size: usize,
    /// Pixels a side of a window.
    #[config(default = 7)]
    pub window: usize,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl SwinTransformerConfig {
    /// Swin-T.
    pub fn tiny() -> Self {
        Self::new(vec![2, 2, 6, 2])
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> SwinTransformer {
        let features = |stage: usize| (self.heads * self.head_size) << stage;
        let stage = |(index, &depth): (usize, &usize)| Stage {
            merging: (index > 0).then(|| PatchMerging::new(features(index - 1), device)),
            blocks: (0..depth)
                .map(|block| Block::new(self, self.heads << index, block % 2 == 1, device))
                .collect(),
        };
        let last = features(self.depths.len().saturating_sub(1));
        let conv = Conv2dConfig::new([3, features(0)], [4, 4]).with_stride([4, 4]);
        SwinTransformer {
            patches: (conv.init(device).into(), layer_norm(features(0), device)),
            stages: self.depths.iter().enumerate().map(stage).collect(),
            norm: layer_norm(last, device),
            head: linear(last, self.classes, device),
        }
    }
}

fn layer_norm(features: usize, device: &Device) -> Wrapper<LayerNorm> {
    LayerNormConfig::new(features).init(device).into()
}

/// A transformer over windows.
#[derive(Module, Debug)]
pub struct SwinTransformer {
    /// Convolution over the patches and its norm.
    pub patches: (Wrapper<Conv2d>, Wrapper<LayerNorm>),
    /// Stages.
    pub stages: Vec<Stage>,
    /// Last norm.
    pub norm: Wrapper<LayerNorm>,
    /// Classifier.
    pub head: Wrapper<Linear>,
}

impl SwinTransformer {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let (conv, norm) = &self.patches;
        let x = norm.forward(conv.forward(images).permute([0, 2, 3, 1]));
        let x = self.stages.iter().fold(x, |x, stage| stage.forward(x));
        let pixels: Tensor<3> = self.norm.forward(x).flatten(1, 2);
        self.head.forward(pixels.mean_dim(1).squeeze_dim(1))
    }
}

impl Model for SwinTransformer {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// Patches, stages and mergings are one list in torchvision, where lists count permutations,
    /// activations and dropouts.
    fn torch_names(&self) -> TorchNames {
        let mut names = TorchNames::new().with("patches.1.", "features.0.2.");
        names = names.with("patches.0.", "features.0.0.");
        for (index, stage) in self.stages.iter().enumerate() {
            let (path, torch) = (format!("stages.{index}"), 2 * index + 1);
            if index > 0 {
                let merging = format!("features.{}.", torch - 1);
                names = names.with(format!("{path}.merging."), merging);
            }
            for block in 0..stage.blocks.len() {
                let (path, torch) = (
                    format!("{path}.blocks.{block}"),
                    format!("features.{torch}.{block}"),
                );
                names = names
                    .with(format!("{path}.mlp.1."), format!("{torch}.mlp.3."))
                    .with(format!("{path}."), format!("{torch}."));
            }
        }
        names
    }
}

/// Blocks of one resolution.
#[derive(Module, Debug)]
pub struct Stage {
    /// What comes before all stages but the first.
    pub merging: Option<PatchMerging>,
    /// Blocks.
    pub blocks: Vec<Block>,
}

impl Stage {
    /// `[batch, height, width, features]` to `[batch, height / 2, width / 2, 2 features]`, or to the
    /// same shape in the first stage.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.merging {
            Some(merging) => merging.forward(x),
            None => x,
        };
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

/// Four pixels beside each other become one of twice the features.
#[derive(Module, Debug)]
pub struct PatchMerging {
    /// Norm of the four.
    pub norm: Wrapper<LayerNorm>,
    /// To half as many features.
    pub reduction: Wrapper<Linear>,
}

impl PatchMerging {
    fn new(features: usize, device: &Device) -> Self {
        let reduction = LinearConfig::new(4 * features, 2 * features).with_bias(false);
        Self {
            norm: layer_norm(4 * features, device),
            reduction: reduction.init(device).into(),
        }
    }

    /// `[batch, height, width, features]` to `[batch, height / 2, width / 2, 2 features]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let pixels = vec![
            x.clone().slice(s![.., 0..;2, 0..;2, ..]),
            x.clone().slice(s![.., 1..;2, 0..;2, ..]),
            x.clone().slice(s![.., 0..;2, 1..;2, ..]),
            x.slice(s![.., 1..;2, 1..;2, ..]),
        ];
        self.reduction
            .forward(self.norm.forward(Tensor::cat(pixels, 3)))
    }
}

/// Attention within windows and a perceptron, each added to its input.
///
/// ```text
/// x = x + attn(norm1(x))
/// x + mlp(norm2(x))
/// ```
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before the attention.
    pub norm1: Wrapper<LayerNorm>,
    /// Attention.
    pub attn: WindowAttention,
    /// Norm before the perceptron.
    pub norm2: Wrapper<LayerNorm>,
    /// Perceptron, with GELU between its layers.
    pub mlp: (Wrapper<Linear>, Wrapper<Linear>),
}

impl Block {
    fn new(config: &SwinTransformerConfig, heads: usize, shifts: bool, device: &Device) -> Self {
        let features = heads * config.head_size;
        Self {
            norm1: layer_norm(features, device),
            attn: WindowAttention::new(config, heads, shifts, device),
            norm2: layer_norm(features, device),
            mlp: (
                linear(features, 4 * features, device),
                linear(4 * features, features, device),
            ),
        }
    }

    /// Keeps the shape, `[batch, height, width, features]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x));
        let (expand, project) = &self.mlp;
        let inner = project.forward(gelu(expand.forward(self.norm2.forward(x.clone()))));
        x + inner
    }
}

/// Attention within windows, with a bias for every distance of two pixels.
#[derive(Module, Debug)]
pub struct WindowAttention {
    /// Bias of every distance and head, `[(2 window - 1)^2, heads]`.
    pub relative_position_bias_table: Param<Tensor<2>>,
    /// To queries, keys and values beside each other.
    pub qkv: Wrapper<Linear>,
    /// From the heads to the features.
    pub proj: Wrapper<Linear>,
    /// Features of a head.
    pub head_size: usize,
    /// Pixels a side of a window.
    pub window: usize,
    /// Whether the windows are shifted by half of their side, where there are several.
    pub shifts: bool,
}

impl WindowAttention {
    fn new(config: &SwinTransformerConfig, heads: usize, shifts: bool, device: &Device) -> Self {
        let features = heads * config.head_size;
        let random = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        let distances = (2 * config.window - 1).pow(2);
        Self {
            relative_position_bias_table: random.init([distances, heads], device),
            qkv: linear(features, 3 * features, device),
            proj: linear(features, features, device),
            head_size: config.head_size,
            window: config.window,
            shifts,
        }
    }

    /// Keeps the shape, `[batch, height, width, features]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, height, width, _] = x.dims();
        let (device, window) = (x.device(), self.window);
        // A single window would be shifted into itself.
        let by = |side: usize| {
            if self.shifts && side > window {
                window / 2
            } else {
                0
            }
        };
        let shift = [by(height), by(width)];
        let x = rolled(x, shift.map(|by| -(by as i64)));
        let windows = self.windows(x);
        let parts = self.qkv.forward(windows).chunk(3, 2).into_iter();
        let heads: Vec<_> = parts
            .map(|part| split_heads(part, self.head_size))
            .collect();
        let mut scores = scores(heads[0].clone(), heads[1].clone()) + self.bias(&device);
        if shift != [0, 0] {
            scores = apart(scores, [height, width], window, shift);
        }
        let attended = merge_heads(softmax(scores, 3).matmul(heads[2].clone()));
        let x = self.image(self.proj.forward(attended), height, width);
        rolled(x, shift.map(|by| by as i64))
    }

    /// `[batch, height, width, features]` to `[batch * windows, pixels, features]`.
    fn windows(&self, x: Tensor<4>) -> Tensor<3> {
        let [batch, height, width, _] = x.dims();
        let (down, across) = (height / self.window, width / self.window);
        let side = self.window as i64;
        let split = [batch as i64, down as i64, side, across as i64, side, -1];
        let windows: Tensor<6> = x.reshape(split);
        let all = (batch * down * across) as i64;
        windows
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([all, side * side, -1])
    }

    /// The inverse of [`Self::windows`].
    fn image(&self, windows: Tensor<3>, height: usize, width: usize) -> Tensor<4> {
        let (down, across) = (height / self.window, width / self.window);
        let batch = (windows.dims()[0] / (down * across)) as i64;
        let side = self.window as i64;
        let split = [batch, down as i64, across as i64, side, side, -1];
        let windows: Tensor<6> = windows.reshape(split);
        let image = windows.permute([0, 1, 3, 2, 4, 5]);
        image.reshape([batch, height as i64, width as i64, -1])
    }

    /// The bias of each head and pair of pixels in a window, `[1, heads, pixels, pixels]`.
    fn bias(&self, device: &Device) -> Tensor<4> {
        let pixels = (self.window * self.window) as i64;
        let distances = TensorData::from(&distances(self.window)[..]);
        let distances = Tensor::<1, Int>::from_data(distances, device);
        let bias = self.relative_position_bias_table.val().select(0, distances);
        let bias: Tensor<3> = bias.reshape([pixels, pixels, -1]);
        bias.permute([2, 0, 1]).unsqueeze()
    }
}

/// The row in the table of biases of each pair of pixels in a window.
fn distances(window: usize) -> Vec<i64> {
    let pixels = (0..window).flat_map(|y| (0..window).map(move |x| (y, x)));
    let pixels: Vec<_> = pixels.collect();
    let distance = |a: usize, b: usize| a + window - 1 - b;
    let row = |a: (usize, usize), b: (usize, usize)| {
        distance(a.0, b.0) * (2 * window - 1) + distance(a.1, b.1)
    };
    let pairs = pixels
        .iter()
        .flat_map(|&a| pixels.iter().map(move |&b| (a, b)));
    pairs.map(|(a, b)| row(a, b) as i64).collect()
}

/// The image rolled down and to the right.
fn rolled(x: Tensor<4>, by: [i64; 2]) -> Tensor<4> {
    match by {
        [0, 0] => x,
        by => x.roll(&by, &[1, 2]),
    }
}

/// Lowers the scores of pixels that share a window only because the image was rolled.
///
/// `scores` is `[batch * windows, heads, pixels, pixels]`.
fn apart(
    scores: Tensor<4>,
    [height, width]: [usize; 2],
    window: usize,
    by: [usize; 2],
) -> Tensor<4> {
    let (down, across) = (height / window, width / window);
    // The part of the image that a row or column comes from.
    let part = |at: usize, side: usize, by: usize| {
        usize::from(by > 0 && at >= side - window) + usize::from(by > 0 && at >= side - by)
    };
    let region = |at: usize, pixel: usize| {
        let y = (at / across) * window + pixel / window;
        let x = (at % across) * window + pixel % window;
        (part(y, height, by[0]), part(x, width, by[1]))
    };
    let (windows, pixels) = (down * across, window * window);
    let mut mask = Vec::with_capacity(windows * pixels * pixels);
    for at in 0..windows {
        for a in 0..pixels {
            let differ = (0..pixels).map(|b| region(at, a) != region(at, b));
            mask.extend(differ.map(|differ| if differ { APART } else { 0.0 }));
        }
    }
    let shape = [1, windows, 1, pixels, pixels];
    let mask = Tensor::<5>::from_data(TensorData::new(mask, shape), &scores.device());
    let [all, _, pixels, _] = scores.dims().map(|size| size as i64);
    let windows = windows as i64;
    let grouped: Tensor<5> = scores.reshape([all / windows, windows, -1, pixels, pixels]);
    (grouped + mask).reshape([all, -1, pixels, pixels])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_from_the_farthest_above() {
        // Two by two pixels: differences of -1 to 1 both ways, (0, 0) is row 1 * 3 + 1.
        let rows = distances(2);
        assert_eq!(rows[..4], [4, 3, 1, 0]);
        assert_eq!(rows[12..], [8, 7, 5, 4]);
    }

    #[test]
    fn windows_are_put_together_again() {
        let device = Device::flex();
        let config = SwinTransformerConfig::new(vec![1])
            .with_window(2)
            .with_head_size(2);
        let attention = WindowAttention::new(&config, 1, false, &device);
        let values: Vec<f32> = (0..32).map(|value| value as f32).collect();
        let x = Tensor::<1>::from_floats(&values[..], &device).reshape([1, 4, 4, 2]);
        let windows = attention.windows(x.clone());
        assert_eq!(windows.dims(), [4, 4, 2]);
        // The second window begins at the third pixel.
        let first = windows
            .clone()
            .slice([1..2, 0..1, 0..1])
            .into_scalar::<f32>();
        assert_eq!(first, 4.0);
        attention
            .image(windows, 4, 4)
            .into_data()
            .assert_eq(&x.into_data(), true);
    }

    #[test]
    fn pixels_from_the_other_side_are_apart() {
        let device = Device::flex();
        let scores = Tensor::<4>::zeros([4, 1, 4, 4], &device);
        let lowered = apart(scores, [4, 4], 2, [1, 1]).into_data();
        let values = lowered.try_to_vec::<f32>().unwrap();
        // Nothing in the first window, halves in the second, all others in the last.
        assert!(values[..16].iter().all(|&value| value == 0.0));
        assert_eq!(values[16..20], [0.0, APART, 0.0, APART]);
        assert_eq!(values[48..52], [0.0, APART, APART, APART]);
    }
}
