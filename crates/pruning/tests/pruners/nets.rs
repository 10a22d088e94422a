//! A small network with a batch norm, a grouped convolution and a residual connection.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d, Relu};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Compressor, DummyInput, Error, Evaluator, Masks, TargetId, Wrapper};
use burn_compress_pruning::{PruningError, PruningSettings};

/// `head(mean(x + block(x)))` with `x = grouped(relu(norm(stem(image))))`.
#[derive(Module, Debug)]
pub struct Net {
    /// `[8, 1, 3, 3]`; read by groups, so that both halves lose equally many channels.
    pub stem: Wrapper<Conv2d>,
    pub norm: Wrapper<BatchNorm>,
    pub relu: Wrapper<Relu>,
    /// `[12, 4, 1, 1]` in two groups.
    pub grouped: Wrapper<Conv2d>,
    /// `[12, 12, 1, 1]`.
    pub block: Wrapper<Conv2d>,
    /// `[12, 3]`; not wrapped.
    pub head: Linear,
}

/// Images `[4, 1, 4, 4]`.
pub type Batch = Tensor<4>;
pub type Chain = Compressor<Net, Batch>;

/// The error of the pruner in one of its chain.
#[track_caller]
pub fn cause(error: &Error) -> &PruningError {
    let cause = error.downcast_ref();
    cause.unwrap_or_else(|| panic!("no error of a pruner: {error}"))
}

/// A generator that no other test draws from.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number from -1 to 1.
    pub fn draw(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Fills parameters in their order.
pub struct Fill(pub Random);

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.dims();
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|_| 0.1 + self.0.draw().abs()).collect();
        let data = TensorData::new(values, shape);
        param.map(|tensor| {
            Tensor::from_data(data, &tensor.device()).set_require_grad(tensor.is_require_grad())
        })
    }
}

pub fn net(seed: u64) -> Net {
    let device = Device::flex();
    let conv = |channels: [usize; 2], kernel: usize, groups: usize| {
        Conv2dConfig::new(channels, [kernel, kernel])
            .with_padding(PaddingConfig2d::Valid)
            .with_groups(groups)
            .init(&device)
    };
    let net = Net {
        stem: conv([1, 8], 3, 1).into(),
        norm: BatchNormConfig::new(8).init(&device).into(),
        relu: Relu::new().into(),
        grouped: conv([8, 12], 1, 2).into(),
        block: conv([12, 12], 1, 1).into(),
        head: LinearConfig::new(12, 3).init(&device),
    };
    net.map(&mut Fill(Random::new(seed)))
}

impl Net {
    pub fn forward(&self, images: Batch) -> Tensor<2> {
        let x = self.norm.forward(self.stem.forward(images));
        let x = self.grouped.forward(self.relu.forward(x));
        let x = self.block.forward(x.clone()) + x;
        let [batch, channels, ..] = x.dims();
        self.head
            .forward(x.mean_dim(2).mean_dim(3).reshape([batch, channels]))
    }
}

pub fn batch(seed: u64) -> Batch {
    let mut random = Random::new(seed);
    let values: Vec<f32> = (0..4 * 16).map(|_| random.draw()).collect();
    Tensor::from_data(TensorData::new(values, [4, 1, 4, 4]), &Device::flex())
}

/// Gradient descent on the mean square of the output.
pub fn evaluator() -> Evaluator<Net, Batch> {
    Evaluator::new()
        .with_dummy_input(DummyInput::new(batch(9), |net: &Net, x| net.forward(x)))
        .with_data(|epoch| (0..4).map(move |i| batch(epoch as u64 * 4 + i + 1)))
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(1e-3)
        .with_loss(|net: &Net, batch: &Batch| net.forward(batch.clone()).square().mean())
}

pub fn chain() -> Chain {
    Compressor::from_model(net(1), evaluator())
}

pub fn rules(text: &str) -> ConfigList<PruningSettings> {
    ConfigList::from_json(text).unwrap()
}

/// Which output channels of a convolution are removed.
pub fn removed(masks: &Masks, target: &str) -> Vec<bool> {
    masks[&target.parse::<TargetId>().unwrap()].removed_along(0)
}

/// How many output channels of a convolution are removed.
pub fn count(masks: &Masks, target: &str) -> usize {
    let removed = removed(masks, target);
    removed.iter().filter(|removed| **removed).count()
}
