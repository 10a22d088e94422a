//! The cases, measured in this process.

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use burn_compress_examples::cli::DeviceName;
use burn_compress_examples::digits::{Digits, DigitsBatch, DigitsError, ordered_batches};
use burn_compress_examples::process::Growth;
use burn_compress_examples::quartiles::Quartiles;
use burn_compress_examples::resnet::{DigitsResNet, DigitsResNetConfig};
use burn_compress_zoo::{Model, ResNetConfig};

use super::chains::Network;
use super::rounds::{Samples, Step, WARM_UP, in_turns, wait};
use super::row::{LIBRARY, Row};
use super::variant::Variant;
use super::{Args, Case, Network as Name, name};

/// Steps whose peak of memory is taken.
const WEIGHED: usize = 4;
/// Batches that are trained on in turns.
const BATCHES: usize = 8;
/// Pixels of a side of the images of the zoo.
const SIZE: usize = 64;
const CLASSES: usize = 1000;

/// The rows of a case, the plain step's first.
///
/// # Errors
///
/// Those of the compressors.
pub fn rows(args: &Args, case: Case, device: DeviceName) -> anyhow::Result<Vec<Row>> {
    let variants = args.variants();
    let opened = device.open()?;
    let mut steps = steps(case, &opened, &variants)?;
    let samples = in_turns(&mut steps, &opened, args.rounds, args.seconds)?;
    let plain = samples.first().cloned().unwrap_or_default();
    let rows = variants.iter().zip(&samples).map(|(variant, samples)| Row {
        library: LIBRARY.to_string(),
        device: device.name(),
        model: name(&case.network),
        batch: case.batch,
        variant: name(variant),
        rounds: samples.wall.len(),
        wall: Quartiles::of(samples.wall.clone()),
        cpu: Quartiles::of(samples.cpu.clone()),
        ratio: Quartiles::of(match device.is_cpu() {
            true => ratios(&samples.cpu, &plain.cpu),
            false => ratios(&samples.wall, &plain.wall),
        }),
        reads: (*variant != Variant::Plain).then(|| mean(samples)),
        memory: None,
    });
    Ok(rows.collect())
}

/// Bytes by which steps of the one variant make the memory of this process grow; none where memory
/// is not known.
///
/// # Errors
///
/// Those of the compressors.
pub fn memory(args: &Args, case: Case, device: DeviceName) -> anyhow::Result<Option<u64>> {
    let device = device.open()?;
    let growth = Growth::start();
    // The plain step is always the first; it is not made where another is weighed.
    let variant = args.variants().last().copied().unwrap_or(Variant::Plain);
    let mut steps = steps(case, &device, &[variant])?;
    let Some(step) = steps.first_mut() else {
        return Ok(None);
    };
    for _ in 0..WARM_UP {
        step()?;
    }
    wait(&device)?;
    if let Some(growth) = &growth {
        growth.forget_peak();
    }
    for _ in 0..WEIGHED {
        step()?;
    }
    wait(&device)?;
    Ok(growth.and_then(|growth| growth.peak()))
}

fn steps(case: Case, device: &Device, variants: &[Variant]) -> anyhow::Result<Vec<Step>> {
    device.seed(0);
    match case.network {
        Name::Digits => {
            let network = Network {
                make: |device| DigitsResNetConfig::new().init(device),
                forward: DigitsResNet::forward,
                batches: digits(case.batch, device)?,
                device: device.clone(),
            };
            variants.iter().map(|&one| network.step(one)).collect()
        }
        Name::ResNet18 => {
            let network = Network {
                make: |device| ResNetConfig::resnet18().with_classes(CLASSES).init(device),
                forward: Model::run,
                batches: images(case.batch, device),
                device: device.clone(),
            };
            variants.iter().map(|&one| network.step(one)).collect()
        }
    }
}

/// Full batches of the training digits, in the order of the file.
fn digits(batch: usize, device: &Device) -> Result<Vec<DigitsBatch>, DigitsError> {
    let digits = Digits::load()?;
    let batches = ordered_batches(&digits.train, batch, device).into_iter();
    let mut full: Vec<DigitsBatch> = batches
        .filter(|found| found.labels.dims()[0] == batch)
        .take(BATCHES)
        .collect();
    if full.is_empty() {
        full.push(digits.train.head(batch, device));
    }
    Ok(full)
}

/// Random images, each of another class.
fn images(batch: usize, device: &Device) -> Vec<DigitsBatch> {
    let normal = Distribution::Normal(0.0, 1.0);
    let batches = (0..BATCHES).map(|index| {
        let labels = (0..batch).map(|label| ((index * batch + label) % CLASSES) as i64);
        let labels = TensorData::new(labels.collect(), [batch]);
        DigitsBatch {
            images: Tensor::random([batch, 3, SIZE, SIZE], normal, device),
            labels: Tensor::<1, Int>::from_data(labels, device),
        }
    });
    batches.collect()
}

/// What the values of each round are of the plain step's.
fn ratios(values: &[f64], plain: &[f64]) -> Vec<f64> {
    let both = values.iter().zip(plain);
    both.map(|(value, plain)| value / plain).collect()
}

/// Reads a step.
fn mean(samples: &Samples) -> f64 {
    samples.reads.iter().sum::<f64>() / samples.reads.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use clap::{Parser, ValueEnum};

    use super::*;

    #[test]
    fn ratios_are_those_of_a_round() {
        assert_eq!(ratios(&[3.0, 1.0], &[2.0, 4.0]), [1.5, 0.25]);
    }

    #[test]
    fn batches_are_full() {
        let device = Device::flex();
        let batches = digits(256, &device).unwrap();
        let sizes: Vec<usize> = batches.iter().map(|b| b.labels.dims()[0]).collect();
        // 1437 digits in batches of 256 are five full ones.
        assert_eq!(sizes, [256; 5]);
        assert_eq!(images(3, &device)[1].labels.dims(), [3]);
    }

    #[test]
    fn every_variant_makes_steps() {
        let args = Args::parse_from([
            "bench", "--models", "digits", "--batch", "2", "--rounds", "1",
        ]);
        let rows = rows(&args, args.cases()[0], DeviceName::Flex).unwrap();
        let names: Vec<String> = Variant::value_variants().iter().map(name).collect();
        let found: Vec<&str> = rows.iter().map(|row| row.variant.as_str()).collect();
        assert_eq!(found, names);
        assert!(rows.iter().all(|row| row.ratio.median > 0.0));
        assert_eq!(rows[0].ratio.median, 1.0);
        let fused = rows.iter().find(|row| row.variant == "P+Q+D").unwrap();
        assert_eq!(fused.reads, Some(1.0));
    }
}
