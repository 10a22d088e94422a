//! The main job on several devices from the same dense network: the masks, and how far losses and
//! outputs are apart.
//!
//! Sums are rounded in another order on each device. The differences begin in the last digits and
//! grow from step to step, quickly once values are rounded to integers, in the main job from step
//! 23 on: a value on a boundary falls to one side or the other, and the runs go their own ways. So
//! there are two comparisons. *Each step alone* takes every step from the state in which the first
//! device was, through its checkpoint: what a device itself adds. *The whole run* lets every device
//! go its own way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use burn::module::Module;
use burn::tensor::Device;
use burn_compress::Masks;
use burn_compress::prelude::*;
use burn_compress_examples::cli::DeviceName;
use burn_compress_examples::digits::Digits;
use burn_compress_examples::resnet::DigitsResNet;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use super::{Args, Chain, STEPS, chain};

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

/// The table of a comparison of the first `args.agreement` steps with those on the first device.
///
/// # Errors
///
/// Those of the compressors and of the checkpoints.
pub fn compare(args: &Args, digits: &Arc<Digits>, dense: &DigitsResNet) -> anyhow::Result<Table> {
    let folder = std::env::temp_dir().join(format!("burn-compress-devices-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let compared = compare_in(&folder, args, digits, dense);
    std::fs::remove_dir_all(&folder).context("the temporary folder")?;
    compared
}

fn compare_in(
    folder: &Path,
    args: &Args,
    digits: &Arc<Digits>,
    dense: &DigitsResNet,
) -> anyhow::Result<Table> {
    let state = |step: usize| -> PathBuf { folder.join(format!("{step}.ckpt")) };
    let budget = Budget::steps(STEPS);
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "device",
        "what",
        "masks",
        "largest loss difference",
        "largest output difference",
    ]);
    let mut reference: Vec<Step> = Vec::new();
    for (index, name) in args.devices.iter().enumerate() {
        let device = name.open()?;
        let mut chain = chain(args, digits, dense, &device)?;
        let mut whole = Apart::default();
        for step in 1..=args.agreement.min(STEPS) {
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
        for step in 1..=args.agreement.min(STEPS) {
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
