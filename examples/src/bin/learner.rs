//! Pruned and quantized by Burn's own `Learner`: accuracy, loss, sparsity, bits and learning rate as
//! metrics, early stopping, and checkpoints that a training is resumed from.
//!
//! With the feature `dashboard` Burn draws its dashboard on a terminal.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress_examples::cli::{exit_code, sparsity, steps};
use burn_compress_examples::digits::Digits;
use burn_compress_examples::learner::LearnerTraining;
use burn_compress_examples::resnet::DigitsResNetConfig;
use burn_compress_examples::train::{TrainingConfig, accuracy, train};
use clap::Parser;

/// Trains, prunes and quantizes a network of digits with Burn's Learner
#[derive(Parser)]
struct Args {
    /// Epochs of the compression
    #[arg(long, default_value_t = 20, value_parser = steps)]
    epochs: usize,

    /// Fraction of channels to remove, from 0 up to but not including 1
    #[arg(long, default_value_t = 0.8, value_parser = sparsity)]
    sparsity: f64,

    /// Epochs without a better accuracy after which the training stops
    #[arg(long, default_value_t = 4, value_parser = steps)]
    patience: usize,

    /// Seed of the weights and of the order of the digits
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Checkpoints to keep, those of the last epochs
    #[arg(long, default_value_t = 2, value_parser = steps)]
    checkpoints: usize,

    /// Epoch to go on from, whose checkpoint is in the directory
    #[arg(long, value_name = "EPOCH", value_parser = steps)]
    resume: Option<usize>,

    /// Directory of metrics and checkpoints
    #[arg(long, default_value = "target/learner")]
    directory: PathBuf,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let device = Device::flex();
    let digits = Arc::new(Digits::load()?);
    device.seed(args.seed);
    let network = DigitsResNetConfig::new().init(&device.clone().autodiff());
    let network = match args.resume {
        Some(_) => network.valid(), // its weights are in the checkpoint
        None => {
            let config = TrainingConfig::new().with_seed(args.seed);
            train(network, &digits.train, &config)?.model.valid()
        }
    };
    println!("dense: {:.2} % correct", accuracy(&network, &digits.test));

    let training = LearnerTraining {
        epochs: args.epochs,
        batch_size: 64,
        sparsity: args.sparsity,
        patience: args.patience,
        seed: args.seed,
        checkpoints: args.checkpoints,
        directory: args.directory.clone(),
        resume: args.resume,
    };
    let compressed = training.run(network, &digits, &device)?;
    let steps = compressed.history().steps.len();
    let small = compressed.speedup()?;
    println!("{}", small.report);
    println!(
        "small, after {steps} steps: {:.2} % correct",
        accuracy(&small.model, &digits.test)
    );
    Ok(())
}
