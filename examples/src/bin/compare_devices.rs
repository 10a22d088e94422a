//! The main job on several devices from the same dense network: the masks, and how far losses and
//! outputs are apart.
//!
//! Sums are rounded in another order on each device. The differences begin in the last digits and
//! grow from step to step, quickly once values are rounded to integers, in the main job from step
//! 23 on: a value on a boundary falls to one side or the other, and the runs go their own ways. So
//! there are two comparisons. *Each step alone* takes every step from the state in which the first
//! device was, through its checkpoint: what a device itself adds. *The whole run* lets every device
//! go its own way.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use burn::module::Module;
use burn::tensor::Device;
use burn_compress::Masks;
use burn_compress::prelude::*;
use burn_compress_examples::cli::{self, DeviceName, exit_code};
use burn_compress_examples::configs::QuantRules;
use burn_compress_examples::digits::{Augmentation, Digits, DigitsBatch};
use burn_compress_examples::fused;
use burn_compress_examples::pipeline::Setup;
use burn_compress_examples::resnet::{DigitsResNet, DigitsResNetConfig};
use burn_compress_examples::train::{TrainingConfig, train};
use clap::Parser;
use comfy_table::Table;

/// Options of the comparison.
#[derive(Parser, Debug)]
#[command(allow_negative_numbers = true)]
struct Args {
    /// The devices; the first trains the dense network and is what the others are compared with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [DeviceName::Flex])]
    devices: Vec<DeviceName>,

    /// Optimizer steps of the compression, which its schedules are laid out for
    #[arg(long, default_value_t = 460, value_parser = cli::steps)]
    steps: usize,

    /// Number of these steps that are run and compared
    #[arg(long, default_value_t = 20, value_parser = cli::steps)]
    stop: usize,

    /// Epochs of the dense network
    #[arg(long, default_value_t = 5, value_parser = cli::steps)]
    epochs: usize,

    /// Fraction of the channels to remove
    #[arg(long, default_value_t = 0.8, value_parser = cli::sparsity)]
    sparsity: f64,
}

type Chain = Compressor<DigitsResNet, DigitsBatch>;

/// What a device computed in one step.
struct Step {
    masks: Masks,
    loss: f64,
    outputs: Vec<f64>,
}

impl Step {
    fn of(chain: &Chain, digits: &Digits, device: &Device) -> anyhow::Result<Self> {
        let images = digits.test.head(digits.test.len(), device).images;
        let outputs = chain.model().valid().forward(images).into_data();
        let record = chain.history().steps.last().context("no step was done")?;
        Ok(Self {
            masks: chain.masks(),
            loss: record.loss,
            outputs: outputs.iter::<f64>().collect(),
        })
    }
}

/// How far the steps of a device are from those of the reference.
#[derive(Default)]
struct Apart {
    /// Mask entries that differ, over all steps.
    masks: usize,
    entries: usize,
    first: Option<usize>,
    loss: f64,
    output: f64,
}

impl Apart {
    fn add(&mut self, step: usize, reference: &Step, found: &Step) {
        for (id, mask) in &reference.masks {
            let values = mask.values().iter();
            let other = found.masks.get(id).map_or(&[][..], |mask| mask.values());
            let differ = values.zip(other).filter(|(a, b)| a != b).count();
            self.masks += differ + mask.values().len().abs_diff(other.len());
            self.entries += mask.values().len();
        }
        if self.masks > 0 {
            self.first.get_or_insert(step);
        }
        let loss = (reference.loss - found.loss).abs() / reference.loss.abs();
        self.loss = self.loss.max(loss);
        self.output = self.output.max(largest(&reference.outputs, &found.outputs));
    }

    fn row(&self, device: DeviceName, what: &str) -> [String; 5] {
        let masks = match self.first {
            None => "all equal".to_string(),
            Some(step) => format!(
                "{} of {} entries differ, from step {step} on",
                self.masks, self.entries
            ),
        };
        [
            device.name(),
            what.to_string(),
            masks,
            format!("{:.1e}", self.loss),
            format!("{:.1e}", self.output),
        ]
    }
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let digits = Arc::new(Digits::load()?);
    let mut devices = args.devices.iter();
    let first = devices.next().context("name at least one device")?;
    let device = first.open()?;
    device.seed(0);
    let model = DigitsResNetConfig::new().init(&device.clone().autodiff());
    let config = TrainingConfig::new().with_epochs(args.epochs);
    let dense = train(model, &digits.train, &config)?.model.valid();

    let folder = std::env::temp_dir().join(format!("burn-compress-devices-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let compared = compare(args, &digits, &dense, &folder);
    std::fs::remove_dir_all(&folder).context("the temporary folder")?;
    println!(
        "compared with {first:?} over {} steps; differences are relative to its largest value\n{}",
        args.steps, compared?
    );
    Ok(())
}

fn compare(
    args: &Args,
    digits: &Arc<Digits>,
    dense: &DigitsResNet,
    folder: &std::path::Path,
) -> anyhow::Result<Table> {
    let state = |step: usize| -> PathBuf { folder.join(format!("{step}.ckpt")) };
    let budget = Budget::steps(args.steps);
    let mut table = Table::new();
    table.set_header([
        "device",
        "",
        "masks",
        "largest loss difference",
        "largest output difference",
    ]);
    let mut reference: Vec<Step> = Vec::new();
    for (index, name) in args.devices.iter().enumerate() {
        let device = name.open()?;
        let mut chain = chain(args, digits, dense, &device)?;
        let mut whole = Apart::default();
        for step in 1..=args.stop.min(args.steps) {
            if index == 0 {
                chain.save_checkpoint(state(step - 1))?;
            }
            chain.advance(&budget, Some(step))?;
            let found = Step::of(&chain, digits, &device)?;
            match index {
                0 => reference.push(found),
                _ => whole.add(step, &reference[step - 1], &found),
            }
        }
        if index == 0 {
            continue;
        }
        let mut alone = Apart::default();
        for step in 1..=args.stop.min(args.steps) {
            chain = chain.resume(state(step - 1))?;
            chain.advance(&budget, Some(step))?;
            let found = Step::of(&chain, digits, &device)?;
            alone.add(step, &reference[step - 1], &found);
        }
        table.add_row(alone.row(*name, "each step alone"));
        table.add_row(whole.row(*name, "the whole run"));
    }
    Ok(table)
}

fn chain(
    args: &Args,
    digits: &Arc<Digits>,
    dense: &DigitsResNet,
    device: &Device,
) -> anyhow::Result<Chain> {
    fused::prune_quantize_distill(&Setup {
        digits: digits.clone(),
        dense: dense.valid().to_device(device),
        device: device.clone(),
        sparsity: args.sparsity,
        steps: args.steps,
        seed: 0,
        augmentation: Augmentation::Shift,
        rules: QuantRules::PerChannel,
    })
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
