//! The main job on several devices from the same dense network: the masks, and how far losses and
//! outputs are apart.

use std::sync::Arc;

use anyhow::Context;
use burn::module::Module;
use burn::tensor::Device;
use burn_compress::Masks;
use burn_compress::prelude::*;
use burn_compress_examples::cli::DeviceName;
use burn_compress_examples::digits::{Augmentation, Digits};
use burn_compress_examples::fused;
use burn_compress_examples::pipeline::Setup;
use burn_compress_examples::resnet::{DigitsResNet, DigitsResNetConfig};
use burn_compress_examples::train::{TrainingConfig, train};
use clap::{Parser, ValueEnum};
use comfy_table::Table;

/// Options of the comparison.
#[derive(Parser, Debug)]
struct Args {
    /// The devices; the first trains the dense network and is what the others are compared with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [DeviceName::Flex])]
    devices: Vec<DeviceName>,

    /// Optimizer steps of the compression
    #[arg(long, default_value_t = 20)]
    steps: usize,

    /// Epochs of the dense network
    #[arg(long, default_value_t = 5)]
    epochs: usize,

    /// Fraction of the channels to remove
    #[arg(long, default_value_t = 0.8)]
    sparsity: f64,
}

/// What a device computed.
struct Computed {
    masks: Masks,
    losses: Vec<f64>,
    outputs: Vec<f32>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let digits = Arc::new(Digits::load()?);
    let first = args
        .devices
        .first()
        .context("name at least one device")?
        .open()?;
    first.seed(0);
    let model = DigitsResNetConfig::new().init(&first.clone().autodiff());
    let config = TrainingConfig::new().with_epochs(args.epochs);
    let dense = train(model, &digits.train, &config)?.model.valid();

    let mut table = Table::new();
    table.set_header([
        "device",
        "masks",
        "largest loss difference",
        "largest output difference",
    ]);
    let mut reference: Option<Computed> = None;
    for name in &args.devices {
        let found = compute(&args, &digits, &dense, &name.open()?)?;
        let reference = reference.get_or_insert_with(|| Computed {
            masks: found.masks.clone(),
            losses: found.losses.clone(),
            outputs: found.outputs.clone(),
        });
        let different = found
            .masks
            .iter()
            .filter(|(id, mask)| reference.masks[*id] != **mask);
        table.add_row([
            name.to_possible_value()
                .map_or_else(String::new, |name| name.get_name().to_string()),
            match different.count() {
                0 => format!("all {} equal", found.masks.len()),
                count => format!("{count} of {} differ", found.masks.len()),
            },
            format!("{:.1e}", largest(&reference.losses, &found.losses)),
            format!(
                "{:.1e}",
                largest(&widened(&reference.outputs), &widened(&found.outputs))
            ),
        ]);
    }
    println!(
        "differences are relative to the largest value of {:?}\n{table}",
        args.devices[0]
    );
    Ok(())
}

fn compute(
    args: &Args,
    digits: &Arc<Digits>,
    dense: &DigitsResNet,
    device: &Device,
) -> anyhow::Result<Computed> {
    let setup = Setup {
        digits: digits.clone(),
        dense: dense.valid().to_device(device),
        device: device.clone(),
        sparsity: args.sparsity,
        steps: args.steps,
        seed: 0,
        augmentation: Augmentation::Shift,
    };
    let compressed = fused::prune_quantize_distill(&setup)?.compress(Budget::steps(args.steps))?;
    let images = digits.test.head(digits.test.len(), device).images;
    let outputs = compressed.model().forward(images).into_data();
    Ok(Computed {
        masks: compressed.masks(),
        losses: compressed
            .history()
            .steps
            .iter()
            .map(|record| record.loss)
            .collect(),
        outputs: outputs
            .convert::<f32>()
            .try_into_vec()
            .map_err(|e| anyhow::anyhow!("{e:?}"))?,
    })
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// The largest difference, relative to the largest value of `expected`.
fn largest(expected: &[f64], found: &[f64]) -> f64 {
    let scale = expected
        .iter()
        .fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let difference = expected
        .iter()
        .zip(found)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    difference / scale
}
