//! What every example does around its compressors: train the dense network, compress it, make it
//! small, save and reload it, and report.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use burn::module::Module;
use burn::optim::AdamConfig;
use burn::optim::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::tensor::Device;
use burn_compress::History;
use burn_compress::prelude::*;
use clap::Parser;

use crate::cli::{Args, exit_code};
use crate::configs::{self, QuantRules};
use crate::digits::{Augmentation, Digits, DigitsBatch, batches};
use crate::figure::Figure;
use crate::latency;
#[cfg(feature = "onnx")]
use crate::onnx;
use crate::report::{Accuracy, LatencyRatio, Report, Run, Size};
use crate::resnet::{DigitsResNet, DigitsResNetConfig};
use crate::train::{TrainingConfig, accuracy, cross_entropy, train};

const BATCH: usize = 64;
const LEARNING_RATE: f64 = 1e-3;

/// What a compression starts from.
pub struct Setup {
    /// The data.
    pub digits: Arc<Digits>,
    /// The trained dense network, in validation mode. It is the teacher as well.
    pub dense: DigitsResNet,
    /// The device of the network, without autodiff.
    pub device: Device,
    /// Fraction of channels to remove.
    pub sparsity: f64,
    /// Optimizer steps of the compression.
    pub steps: usize,
    /// Seed of the run.
    pub seed: u64,
    /// How the training digits are varied.
    pub augmentation: Augmentation,
    /// What is quantized.
    pub rules: QuantRules,
}

/// What a compression ends with.
pub struct Outcome {
    /// The network as it was simulated before it was made small.
    pub simulated: DigitsResNet,
    /// The small network.
    pub small: Speedup<DigitsResNet>,
    /// What happened at each step.
    pub history: History,
}

impl Setup {
    /// Adam with cosine decay over `steps` steps, batches of 64, cross entropy, and the accuracy on
    /// the test digits ten times a run.
    ///
    /// # Errors
    ///
    /// Never for at least one step.
    pub fn evaluator(&self, steps: usize) -> anyhow::Result<Evaluator<DigitsResNet, DigitsBatch>> {
        let schedule = CosineAnnealingLrSchedulerConfig::new(LEARNING_RATE, steps)
            .init()
            .map_err(|reason| anyhow::anyhow!("the learning-rate schedule: {reason}"))?;
        let (digits, test) = (self.digits.clone(), self.digits.clone());
        // Another order of the digits than the dense network was trained with.
        let (device, seed) = (self.device.clone(), self.seed.wrapping_add(1 << 32));
        let augmentation = self.augmentation;
        Ok(Evaluator::new()
            .with_dummy_input(self.dummy_input())
            .with_data(move |epoch| {
                batches(&digits.train, BATCH, (seed, epoch), augmentation, &device)
            })
            .with_optimizer(AdamConfig::new().with_epsilon(1e-8).init())
            .with_learning_rate(schedule)
            .with_loss(|model: &DigitsResNet, batch: &DigitsBatch| {
                cross_entropy(model.forward(batch.images.clone()), batch.labels.clone())
            })
            .with_evaluation((steps / 10).max(1), move |model| {
                accuracy(model, &test.test)
            })
            .with_seed(self.seed))
    }

    /// Eight test digits through the network.
    pub fn dummy_input(&self) -> DummyInput<DigitsResNet> {
        let images = self.digits.test.head(8, &self.device).images;
        DummyInput::new(images, |model: &DigitsResNet, images| model.forward(images))
    }

    /// The rules of a quantizer.
    ///
    /// # Errors
    ///
    /// A network that cannot run in integers.
    pub fn quantization(&self) -> anyhow::Result<ConfigList<QuantizationSettings>> {
        configs::quantization(self.rules, &self.dense, &self.dummy_input())
    }

    /// Runs the chain and makes its result small.
    ///
    /// # Errors
    ///
    /// Those of the compressors and of the speedup.
    pub fn finish(
        &self,
        chain: Compressor<DigitsResNet, DigitsBatch>,
        budget: Budget,
    ) -> anyhow::Result<Outcome> {
        let compressed = chain.compress(budget)?;
        let (simulated, history) = (compressed.model().clone(), compressed.history().clone());
        let small = compressed.speedup()?;
        Ok(Outcome {
            simulated,
            small,
            history,
        })
    }

    /// Steps between two updates of a pruning schedule of 20 updates: 10 in a run of 460 steps.
    pub fn interval(&self) -> usize {
        (self.steps * 10 / 460).max(1)
    }

    /// Updates of the pruning schedule: 20, or as many as a short run has room for.
    pub fn updates(&self) -> usize {
        20.min(self.steps / self.interval()).max(1)
    }
}

/// Runs a program: `compress` once a seed, then table, figure and JSON.
///
/// It fails for a device that is not there, a file that cannot be written, both before anything
/// runs, and for the error of a compressor.
pub fn run(name: &str, compress: impl Fn(&Setup) -> anyhow::Result<Outcome>) -> ExitCode {
    exit_code(run_all(name, &Args::parse(), compress))
}

fn run_all(
    name: &str,
    args: &Args,
    compress: impl Fn(&Setup) -> anyhow::Result<Outcome>,
) -> anyhow::Result<()> {
    args.check_outputs(name)?;
    let device = args.device()?;
    let digits = Arc::new(Digits::load()?);
    let mut report = Report {
        platform: args.platform(),
        runs: Vec::new(),
    };
    for seed in args.seeds() {
        eprintln!("seed {seed}: training the dense network");
        let setup = prepare(args, &device, digits.clone(), seed)?;
        eprintln!("seed {seed}: compressing it");
        let outcome = compress(&setup)?;
        if seed == args.seed {
            let path = args.figure(name);
            draw(name, &outcome.history, &path)?;
            println!("figure: {}", path.display());
            #[cfg(feature = "onnx")]
            onnx::write(
                &outcome.small.model,
                &setup.dummy_input(),
                onnx::target(args.rules),
                &args.onnx(name),
            )?;
        }
        println!("seed {seed}\n{}", outcome.small.report);
        report.runs.push(measure(&setup, outcome)?);
    }
    println!("{report}");
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(())
}

fn prepare(args: &Args, device: &Device, digits: Arc<Digits>, seed: u64) -> anyhow::Result<Setup> {
    device.seed(seed);
    let model = DigitsResNetConfig::new().init(&device.clone().autodiff());
    let config = TrainingConfig::new()
        .with_seed(seed)
        .with_augmentation(args.augmentation());
    let trained = train(model, &digits.train, &config)?;
    Ok(Setup {
        digits,
        dense: trained.model.valid(),
        device: device.clone(),
        sparsity: args.sparsity,
        steps: args.steps,
        seed,
        augmentation: args.augmentation(),
        rules: args.rules,
    })
}

fn measure(setup: &Setup, outcome: Outcome) -> anyhow::Result<Run> {
    let (dense, small) = (&setup.dense, &outcome.small);
    let test = &setup.digits.test;
    let folder = std::env::temp_dir().join(format!("burn-compress-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("small");
    save_small(&small.model, &small.state, &file)?;
    let full_size = DigitsResNetConfig::new().init(&setup.device);
    let (reloaded, _) = load_small(full_size, &file)?;
    let bytes = Size {
        dense: dense.clone().into_record().into_bytes()?.len() as u64,
        small: std::fs::metadata(&file)?.len(),
    };
    std::fs::remove_dir_all(&folder).context("the temporary folder")?;
    Ok(Run {
        seed: setup.seed,
        accuracy: Accuracy {
            dense: accuracy(dense, test),
            simulated: accuracy(&outcome.simulated, test),
            small: accuracy(&small.model, test),
            reloaded: accuracy(&reloaded, test),
        },
        params: Size {
            dense: dense.parameters() as u64,
            small: small.model.parameters() as u64,
        },
        macs: Size {
            dense: dense.macs() as u64,
            small: small.model.macs() as u64,
        },
        bytes,
        latency_ratio: LatencyRatio {
            b1: latency::ratio(dense, &small.model, test, 1)?,
            b64: latency::ratio(dense, &small.model, test, 64)?,
        },
        max_relative_error: small.report.max_relative_error,
    })
}

fn draw(name: &str, history: &History, path: &std::path::Path) -> anyhow::Result<()> {
    let loss = history
        .steps
        .iter()
        .map(|record| (record.step, record.loss))
        .collect();
    let sparsity = history
        .steps
        .iter()
        .map(|r| (r.step, 100.0 * r.sparsity))
        .collect();
    Figure::of_run(name, loss, sparsity, history.evaluations.clone()).save(path)
}
