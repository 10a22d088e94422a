//! The sensitivity of ResNet-18 with random weights, as a table and a figure, in the time of forward passes.
//!
//! It needs no data: the loss is the mean squared distance of the logits of random images from those of
//! the network as it is.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use burn::nn::BatchNorm;
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress::prelude::*;
use burn_compress_examples::cli::{exit_code, steps};
use burn_compress_zoo::{ResNet, ResNetConfig};
use clap::Parser;

/// Forward passes whose median the time of the analysis is divided by.
const FORWARDS: usize = 11;

type Network = ResNet<BatchNorm>;

/// Measures which layers of ResNet-18 bear pruning and few bits
#[derive(Parser)]
struct Args {
    /// Side of an image in pixels
    #[arg(long, default_value_t = 64, value_parser = steps)]
    side: usize,

    /// Images of the one batch
    #[arg(long, default_value_t = 4, value_parser = steps)]
    batch: usize,

    /// Where to draw
    #[arg(long, default_value = "target/figures/zoo_sensitivity.svg")]
    figure: PathBuf,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(folder) = args.figure.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let device = Device::flex();
    device.seed(0);
    let network: Network = ResNetConfig::resnet18().init(&device);
    let images = [args.batch, 3, args.side, args.side];
    let images = Tensor::<4>::random(images, Distribution::Normal(0.0, 1.0), &device);
    let logits = network.forward(images.clone());
    let batch = (images.clone(), logits);
    let evaluator = Evaluator::new()
        .with_dummy_input(DummyInput::new(images, Network::forward))
        .with_data(move |_epoch| vec![batch.clone()])
        .with_loss(
            |network: &Network, (images, logits): &(Tensor<4>, Tensor<2>)| {
                let distance = network.forward(images.clone()) - logits.clone();
                distance.square().mean()
            },
        );
    let config = SensitivityConfig::new()
        .with_pruning(on(["Conv2d"]))
        .with_quantization(on(["Conv2d", "Linear"]))
        .with_batches(1);

    let begin = Instant::now();
    let sensitivity = config.analyze(network.clone(), evaluator.clone())?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..FORWARDS {
        let begin = Instant::now();
        evaluator.forward(&[&network], 1, || Ok(()))?;
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let forward = times[FORWARDS / 2];

    println!("{sensitivity}");
    println!(
        "{} points in the time of {:.0} forward passes; {} of them are the losses",
        sensitivity.measured(),
        seconds / forward,
        sensitivity.forwards()
    );
    sensitivity.save_figure("Sensitivity of ResNet-18", &args.figure)?;
    println!("figure: {}", args.figure.display());
    Ok(())
}
