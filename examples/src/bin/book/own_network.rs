//! A network of one's own: trained, pruned by half and quantized to int8 in one run, cut, saved and
//! loaded.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_compress::prelude::*;

// ANCHOR: net
#[derive(Module, Debug)]
pub struct Net {
    pub conv1: Wrapper<Conv2d>,
    pub norm1: Wrapper<BatchNorm>,
    pub conv2: Wrapper<Conv2d>,
    pub norm2: Wrapper<BatchNorm>,
    pub head: Wrapper<Linear>,
}

impl Net {
    pub fn new(device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([1, 16], [3, 3]).init(device).into(),
            norm1: BatchNormConfig::new(16).init(device).into(),
            conv2: Conv2dConfig::new([16, 32], [3, 3]).init(device).into(),
            norm2: BatchNormConfig::new(32).init(device).into(),
            head: LinearConfig::new(32, 4).init(device).into(),
        }
    }

    /// Logits `[batch, 4]` of images `[batch, 1, 10, 10]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm1.forward(self.conv1.forward(images)));
        let x = relu(self.norm2.forward(self.conv2.forward(x)));
        self.head.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}
// ANCHOR_END: net

// ANCHOR: data
#[derive(Clone, Debug)]
pub struct Batch {
    pub images: Tensor<4>,
    pub labels: Tensor<1, Int>,
}

/// Stripes along one of four directions, under noise: in place of your data.
pub fn stripes(count: usize, seed: usize, device: &Device) -> Batch {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (label, phase) = ((4.0 * random()) as usize, (4.0 * random()) as usize);
        labels.push(label as i64);
        for (y, x) in (0..100).map(|at| (at / 10, at % 10)) {
            let along = phase + [x, y, x + y, 10 + x - y][label];
            let stripe = if along % 4 < 2 { 1.0 } else { -1.0 };
            pixels.push(stripe + 6.0 * (random() - 0.5));
        }
    }
    Batch {
        images: Tensor::from_data(TensorData::new(pixels, [count, 1, 10, 10]), device),
        labels: Tensor::from_data(TensorData::new(labels, [count]), device),
    }
}
// ANCHOR_END: data

// ANCHOR: loss
/// Mean cross entropy of a batch.
pub fn loss(net: &Net, batch: &Batch) -> Tensor<1> {
    let logits = net.forward(batch.images.clone());
    let loss = CrossEntropyLossConfig::new().init(&logits.device());
    loss.forward(logits, batch.labels.clone())
}

/// The fraction of 400 images, none of which trains, that the network recognizes.
pub fn accuracy(net: &Net) -> f64 {
    let device = net.head.weight.device();
    let test = stripes(400, 999_999, &device);
    let found = net.forward(test.images).argmax(1).flatten::<1>(0, 1);
    found.equal(test.labels).float().mean().into_scalar::<f64>()
}
// ANCHOR_END: loss

// ANCHOR: train
/// A network trained as any Burn model is.
pub fn trained(device: &Device) -> Net {
    device.seed(0);
    let (mut net, mut adam) = (Net::new(device).train(), AdamConfig::new().init());
    for step in 0..80 {
        let batch = stripes(32, step, device);
        let gradients = GradientsParams::from_grads(loss(&net, &batch).backward(), &net);
        net = adam.step(3e-3, net, gradients);
    }
    net.valid()
}
// ANCHOR_END: train

// ANCHOR: evaluator
/// What compressors train with.
pub fn evaluator(device: &Device) -> Evaluator<Net, Batch> {
    let example = stripes(4, 0, device).images;
    let device = device.clone();
    Evaluator::new()
        .with_dummy_input(DummyInput::new(example, Net::forward))
        .with_data(move |epoch| {
            let batch = |at| stripes(32, 1000 * (epoch + 1) + at, &device);
            (0..50).map(batch).collect::<Vec<_>>()
        })
        .with_loss(loss)
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(1e-3)
        .with_evaluation(50, accuracy)
}
// ANCHOR_END: evaluator

// ANCHOR: chain
/// Half of the channels of the convolutions go, and everything is rounded to int8.
pub fn chain(model: Net, device: &Device) -> Result<Compressor<Net, Batch>, Error> {
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let int8 = on(["Conv2d", "Linear"]).quant_dtype(QuantDtype::INT8);

    let chain = TaylorPruner::new(model, half, evaluator(device), TaylorConfig::new(10))?;
    let chain = AgpPruner::new(chain, AgpConfig::new(10, 6))?;
    QatQuantizer::from_compressor(chain, int8, QatConfig::new())
}
// ANCHOR_END: chain

pub fn run() -> Result<(), Error> {
    // ANCHOR: print
    let device = Device::flex();
    let model = trained(&device);
    let dense = accuracy(&model);

    let chain = chain(model, &device)?;
    println!("{chain}");
    println!("{}", chain.plan()?);
    // ANCHOR_END: print

    // ANCHOR: compress
    let compressed = chain.compress(Budget::steps(100))?;
    let small = compressed.speedup()?;
    println!("{}", small.report);

    assert_eq!(small.model.conv1.weight.dims(), [8, 1, 3, 3]);
    assert_eq!(small.model.conv2.weight.dims(), [16, 8, 3, 3]);
    assert_eq!(small.model.head.weight.dims(), [16, 4]);
    // ANCHOR_END: compress

    // ANCHOR: save
    let file = std::env::temp_dir().join(format!("stripes-{}.small", std::process::id()));
    let storage = small.save(&file)?;
    assert_eq!(storage.integers, 8 * 9 + 16 * 8 * 9 + 16 * 4); // the weights, a byte each

    let loaded = Small::load(Net::new(&device), &file)?.model;
    assert_eq!(accuracy(&loaded), accuracy(&small.model));
    // ANCHOR_END: save
    println!(
        "accuracy: dense {dense:.3}, small int8 {:.3}",
        accuracy(&loaded)
    );
    println!("file: {} bytes", storage.file_bytes);
    assert!(dense > 0.9 && accuracy(&loaded) > 0.9);
    assert!(storage.file_bytes < 5000);
    Ok(std::fs::remove_file(&file)?)
}
