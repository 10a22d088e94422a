//! Distillers in chains.

mod errors;
mod losses;
mod masked;
mod precision;
mod resume;
mod teachers;
mod totals;

use std::sync::Mutex;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Compressed, Compressor, Evaluator, Wrapper};

use crate::DistillationSettings;

/// Two convolutions and a classifier of two classes.
#[derive(Module, Debug)]
pub(crate) struct Net {
    pub(crate) first: Wrapper<Conv2d>,
    pub(crate) second: Wrapper<Conv2d>,
    pub(crate) fc: Wrapper<Linear>,
}

impl Net {
    /// `[batch, 1, 6, 6]` to `[batch, 2]`.
    pub(crate) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.first.forward(images));
        let x = relu(self.second.forward(x));
        self.fc.forward(x.mean_dims(&[2, 3]).flatten(1, 3))
    }
}

/// A network with `width` channels.
pub(crate) fn net(width: usize, seed: u64) -> Net {
    // The seed is that of all threads, and parameters draw their values when they are first read.
    static SEED: Mutex<()> = Mutex::new(());
    let device = Device::flex();
    let _alone = SEED.lock();
    device.seed(seed);
    let net = Net {
        first: Conv2dConfig::new([1, width], [3, 3]).init(&device).into(),
        second: Conv2dConfig::new([width, width], [3, 3])
            .init(&device)
            .into(),
        fc: LinearConfig::new(width, 2).init(&device).into(),
    };
    net.forward(batch(0).images);
    net.train()
}

#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) keys: Vec<u64>,
    pub(crate) images: Tensor<4>,
    pub(crate) labels: Tensor<1, Int>,
}

pub(crate) const SAMPLES: usize = 4;

/// Batch `index` of fixed data.
pub(crate) fn batch(index: usize) -> Batch {
    let device = Device::flex().autodiff();
    let pixel = |at: usize| ((at * 37 + index * 11 + at * at % 7) % 19) as f32 / 9.5 - 1.0;
    let pixels: Vec<f32> = (0..SAMPLES * 36).map(pixel).collect();
    let labels: Vec<i32> = (0..SAMPLES).map(|at| ((at + index) % 2) as i32).collect();
    Batch {
        keys: (0..SAMPLES)
            .map(|at| (index * SAMPLES + at) as u64)
            .collect(),
        images: Tensor::from_data(TensorData::new(pixels, [SAMPLES, 1, 6, 6]), &device),
        labels: Tensor::from_data(TensorData::from(&labels[..]), &device),
    }
}

/// Three batches an epoch; the task is that the logits' squares be small.
pub(crate) fn evaluator() -> Evaluator<Net, Batch> {
    Evaluator::new()
        .with_data(|_epoch| (0..3).map(batch))
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.05)
        .with_loss(task)
}

pub(crate) fn task(net: &Net, batch: &Batch) -> Tensor<1> {
    net.forward(batch.images.clone()).square().mean()
}

pub(crate) fn logits(net: &Net, batch: &Batch) -> Tensor<2> {
    net.forward(batch.images.clone())
}

pub(crate) fn labels(batch: &Batch) -> Tensor<1, Int> {
    batch.labels.clone()
}

pub(crate) fn chain(width: usize) -> Compressor<Net, Batch> {
    Compressor::from_model(net(width, 1), evaluator())
}

pub(crate) fn rules(json: &str) -> ConfigList<DistillationSettings> {
    ConfigList::from_json(json).unwrap()
}

/// The loss that was minimised and that of the task, at each step.
pub(crate) fn losses(compressed: &Compressed<Net>) -> Vec<(f64, f64)> {
    let steps = compressed.history().steps.iter();
    steps.map(|step| (step.loss, step.task_loss)).collect()
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// All weights, as bits.
pub(crate) fn bits(net: &Net) -> Vec<u32> {
    let weights = [
        values(net.first.weight.val()),
        values(net.second.weight.val()),
        values(net.fc.weight.val()),
    ];
    weights.iter().flatten().map(|w| w.to_bits()).collect()
}
