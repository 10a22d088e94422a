//! The networks: dense, small, and small in eight bits.

use std::sync::Arc;

use burn::module::Module;
use burn::optim::SgdConfig;
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress::prelude::*;
use burn_compress_examples::configs::QuantRules;
use burn_compress_examples::digits::{Augmentation, Digits};
use burn_compress_examples::fused;
use burn_compress_examples::onnxruntime::Runtime;
use burn_compress_examples::pipeline::Setup;
use burn_compress_examples::resnet::{DigitsResNet, DigitsResNetConfig};
use burn_compress_examples::train::{TrainingConfig, train};
use burn_compress_zoo::{MobileNetV2Config, Model, ResNetConfig, randomize_statistics};

use super::Args;
use super::contest::Contest;
use super::row::Row;

/// Batches of random images that a network of the zoo is calibrated on.
const CALIBRATION: usize = 4;

pub fn digits(args: &Args, runtime: &Runtime) -> anyhow::Result<Row> {
    let device = Device::flex();
    let digits = Arc::new(Digits::load()?);
    device.seed(args.seed);
    let model = DigitsResNetConfig::new().init(&device.clone().autodiff());
    let augmentation = Augmentation::Shift;
    let config = TrainingConfig::new()
        .with_seed(args.seed)
        .with_augmentation(augmentation);
    let setup = Setup {
        dense: train(model, &digits.train, &config)?.model.valid(),
        digits,
        device: device.clone(),
        sparsity: 0.8,
        steps: args.steps,
        seed: args.seed,
        augmentation,
        rules: QuantRules::Onnxruntime,
    };
    let chain = fused::prune_quantize_distill(&setup)?;
    let compressed = chain.compress(Budget::steps(setup.steps))?;
    let test = setup.digits.test.clone();
    let contest = Contest {
        name: "digits",
        forward: |model: &DigitsResNet, images| model.forward(images),
        images: &|batch| test.head(batch, &device).images,
        dense: setup.dense.clone(),
        compressed,
        dummy_input: setup.dummy_input(),
    };
    contest.run(args, runtime)
}

pub fn resnet18(args: &Args, runtime: &Runtime) -> anyhow::Result<Row> {
    of_zoo("resnet18", args, runtime, |device| {
        ResNetConfig::resnet18().init(device)
    })
}

pub fn mobilenet_v2(args: &Args, runtime: &Runtime) -> anyhow::Result<Row> {
    of_zoo("mobilenet_v2", args, runtime, |device| {
        MobileNetV2Config::new().init(device)
    })
}

/// Half of the channels of each convolution removed, calibrated on random images.
fn of_zoo<M>(
    name: &'static str,
    args: &Args,
    runtime: &Runtime,
    init: impl FnOnce(&Device) -> M,
) -> anyhow::Result<Row>
where
    M: Model<Input = Tensor<4>, Output = Tensor<2>>,
{
    let (device, size) = (Device::flex(), args.size);
    device.seed(args.seed);
    let model = randomize_statistics(init(&device).valid(), args.seed);
    let images = |batch: usize| {
        let normal = Distribution::Normal(0.0, 1.0);
        Tensor::<4>::random([batch, 3, size, size], normal, &Device::flex())
    };
    let dummy_input = DummyInput::new(images(1), M::run);
    let calibration: Vec<Tensor<4>> = (0..CALIBRATION).map(|_| images(1)).collect();
    let evaluator = Evaluator::new()
        .with_dummy_input(dummy_input.clone())
        .with_data(move |_epoch| calibration.clone())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.0)
        .with_loss(|model: &M, images: &Tensor<4>| model.run(images.clone()).mean());
    let rules = Deployment::onnxruntime().rules(&model, &dummy_input)?;
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let pruner = L1NormPruner::new(model.clone(), half, evaluator, PrunerConfig::new())?;
    let config = PtqConfig::new().with_batches(CALIBRATION);
    let quantizer = PtqQuantizer::from_compressor(pruner, rules, config)?;
    let contest = Contest {
        name,
        forward: M::run_images,
        images: &images,
        dense: model,
        compressed: quantizer.compress(Budget::none())?,
        dummy_input,
    };
    contest.run(args, runtime)
}

trait Images {
    fn run_images(&self, images: Tensor<4>) -> Tensor<2>;
}

impl<M: Model<Input = Tensor<4>, Output = Tensor<2>>> Images for M {
    fn run_images(&self, images: Tensor<4>) -> Tensor<2> {
        self.run(images)
    }
}
