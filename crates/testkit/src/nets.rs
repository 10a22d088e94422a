//! A small residual network, data for it and an evaluator.
//!
//! Nothing here draws from a device's random generator: weights and images come from a generator of
//! their own, so that tests which run side by side do not disturb each other.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d, Relu,
};
use burn::optim::AdamConfig;
use burn::optim::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_compress::{Calibration, Compressed, DummyInput, Evaluator, History, Masks, Wrapper};

use crate::random::Random;

/// Side of the images, in pixels.
pub const SIDE: usize = 6;
/// Number of classes.
pub const CLASSES: usize = 3;
/// Images in a batch.
pub const BATCH: usize = 8;
/// Batches in an epoch.
pub const BATCHES: usize = 7;

/// A residual block whose second convolution and projection are added.
#[derive(Module, Debug)]
pub struct Block {
    /// First convolution, `[width, channels, 3, 3]`.
    pub conv1: Wrapper<Conv2d>,
    /// Batch norm of `conv1`.
    pub bn1: Wrapper<BatchNorm>,
    /// Second convolution, `[width, width, 3, 3]`.
    pub conv2: Wrapper<Conv2d>,
    /// Batch norm of `conv2`.
    pub bn2: Wrapper<BatchNorm>,
    /// Projection of the input, `[width, channels, 1, 1]`.
    pub project: Wrapper<Conv2d>,
}

/// Convolution, batch norm, ReLU, a residual block, global average pool, dropout, linear.
#[derive(Module, Debug)]
pub struct Net {
    /// First convolution, `[stem width, 1, 3, 3]`.
    pub stem: Wrapper<Conv2d>,
    /// Batch norm of the stem.
    pub bn: Wrapper<BatchNorm>,
    /// ReLU of the stem.
    pub relu: Wrapper<Relu>,
    /// The residual block.
    pub block: Block,
    /// Global average pool.
    pub pool: AdaptiveAvgPool2d,
    /// Dropout in front of the classifier.
    pub dropout: Dropout,
    /// Classifier; not wrapped.
    pub plain: Linear,
    /// Last layer.
    pub head: Wrapper<Linear>,
}

/// The sizes of a [`Net`].
#[derive(Clone, Copy, Debug)]
pub struct NetConfig {
    /// Output channels of the stem.
    pub stem: usize,
    /// Output channels of the block.
    pub width: usize,
    /// Probability of dropout.
    pub dropout: f64,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            stem: 6,
            width: 8,
            dropout: 0.0,
        }
    }
}

impl NetConfig {
    /// A network whose weights are a function of `seed` and of their paths.
    pub fn init(self, seed: u64) -> Net {
        let device = &Device::flex();
        let conv = |channels: usize, width: usize, kernel: usize| {
            let pad = kernel / 2;
            Conv2dConfig::new([channels, width], [kernel, kernel])
                .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
                .init(device)
        };
        let bn = |width: usize| BatchNormConfig::new(width).init(device);
        let net = Net {
            stem: conv(1, self.stem, 3).into(),
            bn: bn(self.stem).into(),
            relu: Relu::new().into(),
            block: Block {
                conv1: conv(self.stem, self.width, 3).into(),
                bn1: bn(self.width).into(),
                conv2: conv(self.width, self.width, 3).into(),
                bn2: bn(self.width).into(),
                project: conv(self.stem, self.width, 1).into(),
            },
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            dropout: DropoutConfig::new(self.dropout).init(),
            plain: LinearConfig::new(self.width, 5).init(device),
            head: LinearConfig::new(5, CLASSES).init(device).into(),
        };
        net.map(&mut Fill {
            path: Vec::new(),
            seed,
        })
    }
}

impl Net {
    /// Logits of a batch of images.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 1, SIDE, SIDE]`
    /// - logits: `[batch, CLASSES]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.bn.forward(self.stem.forward(images));
        let x = self.block.forward(self.relu.forward(x));
        let x = self
            .dropout
            .forward(self.pool.forward(x).flatten::<2>(1, 3));
        self.head.forward(relu(self.plain.forward(x)))
    }

    /// Mean cross entropy of a batch.
    pub fn loss(&self, batch: &Batch) -> Tensor<1> {
        let logits = self.forward(batch.images.clone());
        CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits, batch.labels.clone())
    }
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let projected = self.project.forward(x.clone());
        let x = relu(self.bn1.forward(self.conv1.forward(x)));
        relu(self.bn2.forward(self.conv2.forward(x)) + projected)
    }
}

/// Images and their classes.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[BATCH, 1, SIDE, SIDE]`
    pub images: Tensor<4>,
    /// `[BATCH]`
    pub labels: Tensor<1, Int>,
}

/// The batches of an epoch: each class is a pattern of its own under noise.
pub fn batches(seed: u64, epoch: usize) -> Vec<Batch> {
    let device = Device::flex();
    let pixels = SIDE * SIDE;
    let mut patterns = Random::new(seed);
    let patterns: Vec<f32> = (0..CLASSES * pixels)
        .map(|_| patterns.symmetric())
        .collect();
    let mut random = Random::new(seed ^ ((epoch as u64 + 1) << 20));
    (0..BATCHES)
        .map(|_| {
            let labels: Vec<i32> = (0..BATCH)
                .map(|_| (random.draw() % CLASSES as u64) as i32)
                .collect();
            let images: Vec<f32> = labels
                .iter()
                .flat_map(|&label| &patterns[label as usize * pixels..][..pixels])
                .map(|&pixel| pixel + 0.5 * random.symmetric())
                .collect();
            Batch {
                images: Tensor::from_data(TensorData::new(images, [BATCH, 1, SIDE, SIDE]), &device),
                labels: Tensor::from_data(TensorData::new(labels, [BATCH]), &device),
            }
        })
        .collect()
}

/// A network that has nothing in common with that of the chains but its sizes.
pub fn teacher() -> Net {
    NetConfig::default().init(100)
}

/// A teacher's logits of a batch.
pub fn teach(teacher: &Net, batch: &Batch) -> Tensor<2> {
    teacher.forward(batch.images.clone())
}

/// Two images through the network.
pub fn dummy_input() -> DummyInput<Net> {
    let mut random = Random::new(99);
    let values: Vec<f32> = (0..2 * SIDE * SIDE).map(|_| random.symmetric()).collect();
    let images = TensorData::new(values, [2, 1, SIDE, SIDE]);
    let images = Tensor::<4>::from_data(images, &Device::flex());
    DummyInput::new(images, |net: &Net, images| net.forward(images))
}

/// Adam with cosine decay over `steps` steps, cross entropy, a seed for dropout.
pub fn evaluator(steps: usize) -> Evaluator<Net, Batch> {
    let schedule = CosineAnnealingLrSchedulerConfig::new(1e-2, steps.max(1))
        .init()
        .expect("a valid schedule");
    Evaluator::new()
        .with_dummy_input(dummy_input())
        .with_data(|epoch| batches(5, epoch))
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(schedule)
        .with_loss(Net::loss)
        .with_seed(3)
}

/// Every float tensor of a model by path, running statistics included, as bits.
pub fn bits<M: Module>(model: &M) -> Vec<(String, Vec<u32>)> {
    let mut collect = Collect {
        path: Vec::new(),
        found: Vec::new(),
    };
    model.visit(&mut collect);
    collect.found
}

/// The values of one parameter or running statistic.
///
/// # Panics
///
/// When the model has none with this path.
pub fn values<M: Module>(model: &M, path: &str) -> Vec<f32> {
    let found = bits(model).into_iter().find(|(name, _)| name == path);
    let (_, bits) = found.unwrap_or_else(|| panic!("no tensor `{path}`"));
    bits.into_iter().map(f32::from_bits).collect()
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Every raw tensor by path, running statistics included, as bits.
    pub tensors: Vec<(String, Vec<u32>)>,
    /// Masks, sorted by target.
    pub masks: Masks,
    /// Ranges, scales and zero points, sorted by target.
    pub calibration: Calibration,
    /// Record of each step.
    pub history: History,
}

impl Outcome {
    /// Outcome of `compressed`.
    ///
    /// # Panics
    ///
    /// When the device fails.
    pub fn of(compressed: &Compressed<Net>) -> Self {
        let mut masks = compressed.masks();
        masks.sort_keys();
        let mut calibration = compressed
            .calibration()
            .expect("the device hands over its values");
        calibration.sort_keys();
        Self {
            tensors: bits(&compressed.unwrap_model()),
            masks,
            calibration,
            history: compressed.history().clone(),
        }
    }

    /// Differences from another outcome, by name.
    pub fn difference(&self, other: &Self) -> Vec<String> {
        let tensors = self
            .tensors
            .iter()
            .zip(&other.tensors)
            .filter(|(a, b)| a != b);
        let mut found: Vec<String> = tensors.map(|((name, _), _)| name.clone()).collect();
        let masks = self
            .masks
            .iter()
            .filter(|(id, mask)| other.masks.get(*id) != Some(mask));
        found.extend(masks.map(|(id, _)| format!("mask of {id}")));
        let scales = &self.calibration;
        let scales = scales
            .iter()
            .filter(|(id, entry)| other.calibration.get(*id) != Some(entry));
        found.extend(scales.map(|(id, _)| format!("scale of {id}")));
        if self.history != other.history {
            found.push("history".to_string());
        }
        if found.is_empty() && self != other {
            found.push("what only the other has".to_string());
        }
        found
    }
}

/// Gives every parameter values of its own and leaves running statistics as they are.
struct Fill {
    path: Vec<String>,
    seed: u64,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (path, name) = (
            self.path.join("."),
            self.path.last().cloned().unwrap_or_default(),
        );
        if name.starts_with("running") {
            return param;
        }
        let seed = path.bytes().fold(self.seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut random = Random::new(seed);
        param.map(|tensor| {
            let dims = tensor.dims();
            let fan_in = (dims.iter().product::<usize>() / dims[0]).max(2) as f32;
            let (middle, width) = match name.as_str() {
                "gamma" => (1.0, 0.4),
                "beta" | "bias" => (0.0, 0.2),
                _ => (0.0, (3.0 / fan_in).sqrt()),
            };
            let value = |_| middle + width * random.symmetric();
            let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
            Tensor::from_data(TensorData::new(values, dims), &tensor.device())
        })
    }
}

struct Collect {
    path: Vec<String>,
    found: Vec<(String, Vec<u32>)>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.base().detach().into_data().try_to_vec::<f32>();
        let values = values.expect("a float tensor on the host");
        self.found.push((
            self.path.join("."),
            values.into_iter().map(f32::to_bits).collect(),
        ));
    }
}
