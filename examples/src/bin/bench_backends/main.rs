//! Backends beside each other: what the steps of the main job cost on each, and how far their results
//! are apart.
//!
//! - *train*: a step of plain training, a loop that a user of Burn writes;
//! - *inference*: a forward pass of the dense network in validation mode;
//! - *fused*: a step of the main job, which prunes, quantizes and distils, after its first masks and
//!   with rounding in force.
//!
//! All three have batches of 64 digits and alternate, device by device, in one process, so that what
//! slows the machine down for a while slows all of them.

mod agreement;
mod times;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use burn::module::Module;
use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress::report::Platform;
use burn_compress_examples::cli::{self, DeviceName, exit_code};
use burn_compress_examples::configs::QuantRules;
use burn_compress_examples::digits::{Augmentation, Digits, DigitsBatch};
use burn_compress_examples::file::{writable, write_whole};
use burn_compress_examples::fused;
use burn_compress_examples::pipeline::Setup;

use burn_compress_examples::resnet::{DigitsResNet, DigitsResNetConfig};
use burn_compress_examples::train::{TrainingConfig, train};
use clap::Parser;
use clap::builder::{PathBufValueParser, TypedValueParser};

/// Optimizer steps of the main job, which its schedules are laid out for.
const STEPS: usize = 460;

type Chain = Compressor<DigitsResNet, DigitsBatch>;

/// Options of the comparison.
#[derive(Parser, Debug)]
#[command(allow_negative_numbers = true)]
struct Args {
    /// The devices; the first trains the dense network and is what the others are compared with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [DeviceName::Flex])]
    devices: Vec<DeviceName>,

    /// Rounds that are timed; each device makes one step of each kind in each
    #[arg(long, default_value_t = 15, value_parser = times::rounds)]
    rounds: usize,

    /// Steps of the main job whose masks, losses and outputs are compared between the devices
    #[arg(long, default_value_t = 0)]
    agreement: usize,

    /// Epochs of the dense network
    #[arg(long, default_value_t = 5, value_parser = cli::steps)]
    epochs: usize,

    /// Fraction of the channels to remove
    #[arg(long, default_value_t = 0.8, value_parser = cli::sparsity)]
    sparsity: f64,

    /// Where to write the times as JSON [default: nowhere]
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(writable))]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        args.agreement == 0 || args.devices.len() > 1,
        "`--agreement` compares devices; name at least two"
    );
    for device in &args.devices {
        device.open()?;
    }
    let digits = Arc::new(Digits::load()?);
    let first = args.devices.first().context("name at least one device")?;
    let device = first.open()?;
    device.seed(0);
    let model = DigitsResNetConfig::new().init(&device.clone().autodiff());
    let config = TrainingConfig::new().with_epochs(args.epochs);
    let dense = train(model, &digits.train, &config)?.model.valid();

    let names: Vec<String> = args.devices.iter().map(|device| device.name()).collect();
    let platform = Platform::new(names.join(", "));
    let rows = times::measure(args, &digits, &dense)?;
    println!(
        "{platform}, batch {}\n\n{}",
        times::BATCH,
        times::table(&rows)
    );
    if let Some(file) = &args.json {
        let all = serde_json::json!({ "platform": platform, "rows": rows });
        write_whole(
            file,
            (serde_json::to_string_pretty(&all)? + "\n").as_bytes(),
        )?;
    }
    if args.agreement > 0 {
        println!(
            "\ncompared with {} over {} steps; differences are relative to its largest value\n\n{}",
            first.name(),
            args.agreement,
            agreement::compare(args, &digits, &dense)?
        );
    }
    Ok(())
}

/// The main job on a device.
fn chain(
    args: &Args,
    digits: &Arc<Digits>,
    dense: &DigitsResNet,
    device: &Device,
) -> anyhow::Result<Chain> {
    let chain = fused::prune_quantize_distill(&Setup {
        digits: digits.clone(),
        dense: dense.valid().to_device(device),
        device: device.clone(),
        sparsity: args.sparsity,
        steps: STEPS,
        seed: 0,
        augmentation: Augmentation::Shift,
        rules: QuantRules::PerChannel,
    })?;
    Ok(chain.without_progress_line())
}
