//! The model, data and loss that the programs have in common.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::AdamConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;
use burn_compress_examples::digits::{Augmentation, Digits, DigitsBatch, batches};

/// A network whose layers are wrapped one by one, so that their inputs and outputs can be quantized
/// and distilled.
#[derive(Module, Debug)]
pub struct Net {
    pub conv1: Wrapper<Conv2d>,
    pub norm: Wrapper<BatchNorm>,
    pub conv2: Wrapper<Conv2d>,
    pub pool: Wrapper<AdaptiveAvgPool2d>,
    pub head: Wrapper<Linear>,
}

impl Net {
    pub fn new(device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([1, 8], [3, 3]).init(device).into(),
            norm: BatchNormConfig::new(8).init(device).into(),
            conv2: Conv2dConfig::new([8, 16], [3, 3]).init(device).into(),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init().into(),
            head: LinearConfig::new(16, 10).init(device).into(),
        }
    }

    /// Logits `[batch, 10]` of images `[batch, 1, 8, 8]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.conv1.forward(images)));
        let x = relu(self.conv2.forward(x));
        self.head.forward(self.pool.forward(x).flatten(1, 3))
    }
}

/// What a compressor trains with: an example input, batches, optimizer, learning rate and loss.
pub fn evaluator(device: &Device) -> Result<Evaluator<Net, DigitsBatch>, Error> {
    let digits = Digits::load().map_err(Error::other)?;
    let images = digits.test.head(4, device).images;
    let device = device.clone();
    Ok(Evaluator::new()
        .with_dummy_input(DummyInput::new(images, Net::forward))
        .with_data(move |epoch| batches(&digits.train, 32, (0, epoch), Augmentation::None, &device))
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(1e-3)
        .with_loss(loss))
}

/// Mean cross entropy of a batch.
pub fn loss(net: &Net, batch: &DigitsBatch) -> Tensor<1> {
    let logits = net.forward(batch.images.clone());
    let loss = CrossEntropyLossConfig::new().init(&logits.device());
    loss.forward(logits, batch.labels.clone())
}

/// A teacher's logits of a batch.
pub fn teach(teacher: &Net, batch: &DigitsBatch) -> Tensor<2> {
    teacher.forward(batch.images.clone())
}
