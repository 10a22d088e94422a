//! YOLOX-nano: an object detector without anchors.
//!
//! Z. Ge, S. Liu, F. Wang, Z. Li and J. Sun, *YOLOX: Exceeding YOLO Series in 2021*, 2021,
//! arXiv:2107.08430; depthwise convolutions, a third of the depth and a quarter of the width.
//!
//! ```text
//! stem              focus: 4 pixels in one, conv 3x3      [n, 3, 416, 416] -> [n,  16, 208, 208]
//! dark2             conv stride 2, block                                   -> [n,  32, 104, 104]
//! dark3             the same                                               -> [n,  64,  52,  52]
//! dark4             the same                                               -> [n, 128,  26,  26]
//! dark5             conv stride 2, pyramid of pools, block                 -> [n, 256,  13,  13]
//! neck              dark5 up to dark3 and down again, beside each other
//! head              for each of the three: stem, two branches    [n, 85, 52, 52], .., [n, 85, 13, 13]
//! ```
//!
//! 912,159 parameters (0.91 million in the paper); names are those of the authors' implementation.

use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::activation::{sigmoid, silu};
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor, s};
use burn_compress_core::Wrapper;

use crate::layers::{conv, max_pool};
use crate::model::images;
use crate::{Model, TorchNames};

/// Configuration of a [`YoloX`].
#[derive(Config, Debug, PartialEq)]
pub struct YoloXConfig {
    /// Channels of the stem; those of dark5 are 16 times as many.
    #[config(default = 16)]
    pub width: usize,
    /// Bottlenecks of a small block; dark3 and dark4 have three times as many.
    #[config(default = 1)]
    pub depth: usize,
    /// Number of classes.
    #[config(default = 80)]
    pub classes: usize,
}

impl YoloXConfig {
    /// YOLOX-nano.
    pub fn nano() -> Self {
        Self::new()
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> YoloX {
        let (width, depth) = (self.width, self.depth);
        let [w2, w3, w4, w5] = [2, 4, 8, 16].map(|times| times * width);
        let down = |inputs, outputs| DepthwiseConv::new(inputs, outputs, 2, device);
        let csp = |inputs, outputs, depth, residual| {
            CspLayer::new(inputs, outputs, depth, residual, device)
        };
        let dark = CspDarknet {
            stem: Focus {
                conv: BaseConv::new(conv([12, width], 3), device),
            },
            dark2: (down(width, w2), csp(w2, w2, depth, true)),
            dark3: (down(w2, w3), csp(w3, w3, 3 * depth, true)),
            dark4: (down(w3, w4), csp(w4, w4, 3 * depth, true)),
            dark5: (
                down(w4, w5),
                Pyramid {
                    conv1: BaseConv::new(conv([w5, w5 / 2], 1), device),
                    conv2: BaseConv::new(conv([2 * w5, w5], 1), device),
                },
                csp(w5, w5, depth, false),
            ),
        };
        let neck = Neck {
            backbone: dark,
            lateral_conv0: BaseConv::new(conv([w5, w4], 1), device),
            c3_p4: csp(2 * w4, w4, depth, false),
            reduce_conv1: BaseConv::new(conv([w4, w3], 1), device),
            c3_p3: csp(2 * w3, w3, depth, false),
            bu_conv2: down(w3, w3),
            c3_n3: csp(2 * w3, w4, depth, false),
            bu_conv1: down(w4, w4),
            c3_n4: csp(2 * w4, w5, depth, false),
        };
        let branch = |_: usize| {
            let conv = || DepthwiseConv::new(w3, w3, 1, device);
            (conv(), conv())
        };
        let predict = |outputs| {
            let layer = |_| conv([w3, outputs], 1).with_bias(true).init(device).into();
            (0..3).map(layer).collect()
        };
        let stem = |inputs| BaseConv::new(conv([inputs, w3], 1), device);
        YoloX {
            backbone: neck,
            head: Head {
                cls_convs: (0..3).map(branch).collect(),
                reg_convs: (0..3).map(branch).collect(),
                cls_preds: predict(self.classes),
                reg_preds: predict(4),
                obj_preds: predict(1),
                stems: [w3, w4, w5].map(stem).into(),
            },
        }
    }
}

/// An object detector.
#[derive(Module, Debug)]
pub struct YoloX {
    /// Backbone and neck.
    pub backbone: Neck,
    /// Predictions.
    pub head: Head,
}

impl YoloX {
    /// Box, probability of an object and probabilities of the classes, for each cell of three grids.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`, sides being multiples of 32
    /// - predictions: `[batch, 5 + classes, height / s, width / s]`, s being 8, 16, 32
    pub fn forward(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        self.head.forward(self.backbone.forward(images))
    }
}

impl Model for YoloX {
    type Input = Tensor<4>;
    type Output = Vec<Tensor<4>>;

    fn run(&self, input: Tensor<4>) -> Vec<Tensor<4>> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// Four fields have a capital letter.
    fn torch_names(&self) -> TorchNames {
        let blocks = ["p4", "p3", "n3", "n4"].into_iter();
        blocks.fold(TorchNames::new(), |names, block| {
            names.with(
                format!("backbone.c3_{block}."),
                format!("backbone.C3_{block}."),
            )
        })
    }
}

/// A convolution, its batch norm and SiLU.
#[derive(Module, Debug)]
pub struct BaseConv {
    /// The convolution.
    pub conv: Wrapper<Conv2d>,
    /// Its batch norm.
    pub bn: Wrapper<BatchNorm>,
}

impl BaseConv {
    fn new(conv: Conv2dConfig, device: &Device) -> Self {
        let norm = BatchNormConfig::new(conv.channels[1]).with_epsilon(1e-3);
        Self {
            conv: conv.init(device).into(),
            bn: norm.init(device).into(),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, outputs, height / stride, width / stride]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        silu(self.bn.forward(self.conv.forward(x)))
    }
}

/// A 3x3 convolution of each channel and a 1x1 convolution.
#[derive(Module, Debug)]
pub struct DepthwiseConv {
    /// Of each channel.
    pub dconv: BaseConv,
    /// Of all channels.
    pub pconv: BaseConv,
}

impl DepthwiseConv {
    fn new(inputs: usize, outputs: usize, stride: usize, device: &Device) -> Self {
        let depthwise = conv([inputs, inputs], 3).with_groups(inputs);
        Self {
            dconv: BaseConv::new(depthwise.with_stride([stride, stride]), device),
            pconv: BaseConv::new(conv([inputs, outputs], 1), device),
        }
    }

    /// As [`BaseConv::forward`].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.pconv.forward(self.dconv.forward(x))
    }
}

/// Four pixels become four times the channels of one, and a convolution.
#[derive(Module, Debug)]
pub struct Focus {
    /// The convolution.
    pub conv: BaseConv,
}

impl Focus {
    /// `[batch, 3, height, width]` to `[batch, outputs, height / 2, width / 2]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let pixels = vec![
            x.clone().slice(s![.., .., 0..;2, 0..;2]),
            x.clone().slice(s![.., .., 1..;2, 0..;2]),
            x.clone().slice(s![.., .., 0..;2, 1..;2]),
            x.slice(s![.., .., 1..;2, 1..;2]),
        ];
        self.conv.forward(Tensor::cat(pixels, 1))
    }
}

/// A 1x1 convolution to half of the channels or as many, a depthwise one, and perhaps the input.
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// 1x1 convolution.
    pub conv1: BaseConv,
    /// 3x3 convolution.
    pub conv2: DepthwiseConv,
    /// Whether the input is added.
    pub residual: bool,
}

impl Bottleneck {
    /// Keeps the shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = self.conv2.forward(self.conv1.forward(x.clone()));
        if self.residual { x + inner } else { inner }
    }
}

/// Half of the channels through bottlenecks, half beside them.
///
/// ```text
/// conv3(cat(m(conv1(x)), conv2(x)))
/// ```
#[derive(Module, Debug)]
pub struct CspLayer {
    /// To the channels of the bottlenecks.
    pub conv1: BaseConv,
    /// To the channels beside them.
    pub conv2: BaseConv,
    /// From both.
    pub conv3: BaseConv,
    /// Bottlenecks.
    pub m: Vec<Bottleneck>,
}

impl CspLayer {
    fn new(inputs: usize, outputs: usize, depth: usize, residual: bool, device: &Device) -> Self {
        let half = outputs / 2;
        let bottleneck = |_| Bottleneck {
            conv1: BaseConv::new(conv([half, half], 1), device),
            conv2: DepthwiseConv::new(half, half, 1, device),
            residual,
        };
        Self {
            conv1: BaseConv::new(conv([inputs, half], 1), device),
            conv2: BaseConv::new(conv([inputs, half], 1), device),
            conv3: BaseConv::new(conv([2 * half, outputs], 1), device),
            m: (0..depth).map(bottleneck).collect(),
        }
    }

    /// `[batch, channels, height, width]` to `[batch, outputs, height, width]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let beside = self.conv2.forward(x.clone());
        let x = self.conv1.forward(x);
        let x = self.m.iter().fold(x, |x, bottleneck| bottleneck.forward(x));
        self.conv3.forward(Tensor::cat(vec![x, beside], 1))
    }
}

/// Pools of several sizes beside each other.
#[derive(Module, Debug)]
pub struct Pyramid {
    /// To half of the channels.
    pub conv1: BaseConv,
    /// From the four pools.
    pub conv2: BaseConv,
}

impl Pyramid {
    /// Keeps the shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv1.forward(x);
        let pools = [5, 9, 13].map(|kernel| max_pool(x.clone(), kernel, 1, kernel / 2));
        let all = std::iter::once(x).chain(pools).collect();
        self.conv2.forward(Tensor::cat(all, 1))
    }
}

/// The backbone.
#[derive(Module, Debug)]
pub struct CspDarknet {
    /// Half the resolution.
    pub stem: Focus,
    /// A quarter.
    pub dark2: (DepthwiseConv, CspLayer),
    /// An eighth.
    pub dark3: (DepthwiseConv, CspLayer),
    /// A 16th.
    pub dark4: (DepthwiseConv, CspLayer),
    /// A 32nd.
    pub dark5: (DepthwiseConv, Pyramid, CspLayer),
}

impl CspDarknet {
    /// What dark3, dark4 and dark5 make of a batch of images.
    pub fn forward(&self, images: Tensor<4>) -> [Tensor<4>; 3] {
        let x = self.stem.forward(images);
        let stage = |(down, block): &(DepthwiseConv, CspLayer), x| block.forward(down.forward(x));
        let dark3 = stage(&self.dark3, stage(&self.dark2, x));
        let dark4 = stage(&self.dark4, dark3.clone());
        let (down, pyramid, block) = &self.dark5;
        let dark5 = block.forward(pyramid.forward(down.forward(dark4.clone())));
        [dark3, dark4, dark5]
    }
}

/// The backbone and what mixes its three resolutions.
#[derive(Module, Debug)]
pub struct Neck {
    /// The backbone.
    pub backbone: CspDarknet,
    /// Of dark5.
    pub lateral_conv0: BaseConv,
    /// Of dark5 and dark4.
    pub c3_p4: CspLayer,
    /// Of both.
    pub reduce_conv1: BaseConv,
    /// Of all three.
    pub c3_p3: CspLayer,
    /// Down to the resolution of dark4.
    pub bu_conv2: DepthwiseConv,
    /// At that resolution.
    pub c3_n3: CspLayer,
    /// Down to the resolution of dark5.
    pub bu_conv1: DepthwiseConv,
    /// At that resolution.
    pub c3_n4: CspLayer,
}

impl Neck {
    /// Features at an eighth, a 16th and a 32nd of the resolution.
    pub fn forward(&self, images: Tensor<4>) -> [Tensor<4>; 3] {
        let beside = |a, b| Tensor::cat(vec![a, b], 1);
        let [dark3, dark4, dark5] = self.backbone.forward(images);
        let low = self.lateral_conv0.forward(dark5);
        let middle = self.c3_p4.forward(beside(upsampled(low.clone()), dark4));
        let middle = self.reduce_conv1.forward(middle);
        let first = self.c3_p3.forward(beside(upsampled(middle.clone()), dark3));
        let second = self.bu_conv2.forward(first.clone());
        let second = self.c3_n3.forward(beside(second, middle));
        let third = self.bu_conv1.forward(second.clone());
        let third = self.c3_n4.forward(beside(third, low));
        [first, second, third]
    }
}

/// Every pixel four times.
fn upsampled(x: Tensor<4>) -> Tensor<4> {
    interpolate(
        x,
        InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]),
    )
}

/// Predictions for three grids.
#[derive(Module, Debug)]
pub struct Head {
    /// Branches of the classes.
    pub cls_convs: Vec<(DepthwiseConv, DepthwiseConv)>,
    /// Branches of the boxes.
    pub reg_convs: Vec<(DepthwiseConv, DepthwiseConv)>,
    /// Classes.
    pub cls_preds: Vec<Wrapper<Conv2d>>,
    /// Boxes.
    pub reg_preds: Vec<Wrapper<Conv2d>>,
    /// Objects.
    pub obj_preds: Vec<Wrapper<Conv2d>>,
    /// What both branches read.
    pub stems: Vec<BaseConv>,
}

impl Head {
    /// As [`YoloX::forward`], of the features of the neck.
    pub fn forward(&self, features: [Tensor<4>; 3]) -> Vec<Tensor<4>> {
        let branch =
            |(first, second): &(DepthwiseConv, DepthwiseConv), x| second.forward(first.forward(x));
        let grids = features.into_iter().enumerate();
        let predicted = grids.map(|(grid, x)| {
            let x = self.stems[grid].forward(x);
            let classes = branch(&self.cls_convs[grid], x.clone());
            let boxes = branch(&self.reg_convs[grid], x);
            let all = vec![
                self.reg_preds[grid].forward(boxes.clone()),
                sigmoid(self.obj_preds[grid].forward(boxes)),
                sigmoid(self.cls_preds[grid].forward(classes)),
            ];
            Tensor::cat(all, 1)
        });
        predicted.collect()
    }
}
