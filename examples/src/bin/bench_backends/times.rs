//! The times of steps, in turns.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress_examples::digits::Digits;
use burn_compress_examples::quartiles::Quartiles;
use burn_compress_examples::resnet::{DigitsResNet, DigitsResNetConfig};
use burn_compress_examples::train::cross_entropy;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use super::{Args, STEPS, chain};

/// Digits of a batch, those of the main job.
pub const BATCH: usize = 64;
/// Steps of the main job before the first that counts. Its rounding begins a twentieth into it.
const WARM_UP: usize = STEPS / 20 + 2;
/// The most rounds: the main job is evaluated after a tenth of its steps.
const MOST: usize = STEPS / 10 - 1 - WARM_UP;
/// Steps of the other kinds before the first that counts.
const FIRST: usize = 3;
const LEARNING_RATE: f64 = 1e-3;

/// Parses a number of rounds.
///
/// # Errors
///
/// If it is no whole number from 1 to the most.
pub fn rounds(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(value) if (1..=MOST).contains(&value) => Ok(value),
        _ => Err(format!("expected a whole number from 1 to {MOST}")),
    }
}

/// The times of a kind of step on a device.
#[derive(Serialize, Debug, Clone, PartialEq)]
pub struct Row {
    device: String,
    step: &'static str,
    rounds: usize,
    milliseconds: Quartiles,
    /// Times in plain steps of the same round on the same device.
    of_train: Quartiles,
}

type Step = Box<dyn FnMut() -> anyhow::Result<()>>;

/// The kinds of step, of which the first is what the others are related to.
const KINDS: [&str; 3] = ["train", "inference", "fused"];

/// The rows of all devices.
///
/// # Errors
///
/// Those of the devices and of the compressors.
pub fn measure(
    args: &Args,
    digits: &Arc<Digits>,
    dense: &DigitsResNet,
) -> anyhow::Result<Vec<Row>> {
    let mut devices = Vec::new();
    for name in &args.devices {
        let device = name.open()?;
        let dense = dense.clone().to_device(&device);
        let batch = digits.train.head(BATCH, &device);
        let mut chain = chain(args, digits, &dense, &device)?;
        let budget = Budget::steps(STEPS);
        chain.advance(&budget, Some(WARM_UP))?;
        let mut done = WARM_UP;
        let fused = move || {
            done += 1;
            Ok(chain.advance(&budget, Some(done))?)
        };
        let images = batch.images.clone();
        let teacher = dense.valid();
        let inference = move || {
            teacher.forward(images.clone());
            Ok(())
        };
        let mut steps: [Step; 3] = [plain(digits, &device), Box::new(inference), Box::new(fused)];
        for step in &mut steps[..2] {
            for _ in 0..FIRST {
                step()?;
            }
        }
        device.sync().context("the device failed")?;
        devices.push((name.name(), device, steps));
    }
    let mut times = vec![[const { Vec::new() }; 3]; devices.len()];
    for _ in 0..args.rounds {
        for ((_, device, steps), times) in devices.iter_mut().zip(&mut times) {
            for (step, times) in steps.iter_mut().zip(times) {
                let start = Instant::now();
                step()?;
                device.sync().context("the device failed")?;
                times.push(1e3 * start.elapsed().as_secs_f64());
            }
        }
    }
    let names = devices.into_iter().map(|(name, ..)| name);
    Ok(names
        .zip(&times)
        .flat_map(|(name, times)| rows(&name, times))
        .collect())
}

/// A step of plain training.
fn plain(digits: &Digits, device: &Device) -> Step {
    let device = device.clone().autodiff();
    let batch = digits.train.head(BATCH, &device);
    let mut optimizer = AdamConfig::new().with_epsilon(1e-8).init();
    let mut model = Some(DigitsResNetConfig::new().init(&device));
    Box::new(move || {
        let Some(trained) = model.take() else {
            return Ok(());
        };
        let loss = cross_entropy(trained.forward(batch.images.clone()), batch.labels.clone());
        loss.clone().try_into_scalar::<f64>()?;
        let gradients = GradientsParams::from_grads(loss.backward(), &trained);
        model = Some(optimizer.step(LEARNING_RATE, trained, gradients));
        Ok(())
    })
}

fn rows(device: &str, times: &[Vec<f64>; 3]) -> Vec<Row> {
    let row = |(step, own): (&'static str, &Vec<f64>)| Row {
        device: device.to_string(),
        step,
        rounds: own.len(),
        milliseconds: Quartiles::of(own.clone()),
        of_train: Quartiles::of(
            own.iter()
                .zip(&times[0])
                .map(|(own, train)| own / train)
                .collect(),
        ),
    };
    KINDS.into_iter().zip(times).map(row).collect()
}

/// The rows as a table of medians and quartiles.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "device",
        "step",
        "ms",
        "quartiles",
        "of train",
        "quartiles",
    ]);
    for row in rows {
        let Row {
            milliseconds: time,
            of_train: ratio,
            ..
        } = row;
        table.add_row([
            row.device.clone(),
            row.step.to_string(),
            format!("{:.1}", time.median),
            format!("{:.1} to {:.1}", time.first, time.third),
            format!("{:.2}", ratio.median),
            format!("{:.2} to {:.2}", ratio.first, ratio.third),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_related_to_the_plain_steps_of_its_round() {
        let times = [
            vec![2.0, 4.0, 4.0],
            vec![1.0, 1.0, 2.0],
            vec![3.0, 6.0, 8.0],
        ];
        let rows = rows("flex", &times);
        assert_eq!(rows[0].of_train, Quartiles::of(vec![1.0]));
        assert_eq!(rows[1].of_train.median, 0.5);
        assert_eq!(
            (rows[2].milliseconds.median, rows[2].of_train.median),
            (6.0, 1.5)
        );
        let table = table(&rows).to_string();
        for text in ["inference", "6.0", "3.0 to 6.0", "1.50 to 1.50"] {
            assert!(table.contains(text), "{text} in {table}");
        }
    }

    #[test]
    fn no_round_falls_on_an_evaluation() {
        assert!(rounds("0").is_err());
        assert_eq!(rounds("20"), Ok(20));
        assert_eq!(
            rounds("21"),
            Err("expected a whole number from 1 to 20".into())
        );
    }
}
