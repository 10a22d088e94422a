//! What every example does around its compressors: train the dense network, compress it, make it
//! small, save and reload it, and report.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use burn::module::Module;
use burn::optim::AdamConfig;
use burn::optim::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress::speedup::Change;
use clap::Parser;

use crate::cli::{Args, exit_code};
use crate::configs::{self, QuantRules};
use crate::digits::{Augmentation, Digits, DigitsBatch, batches};
use crate::file::write_whole;
#[cfg(feature = "onnx")]
use crate::onnx;
use crate::resnet::{DigitsResNet, DigitsResNetConfig};
use crate::results::{Accuracy, LatencyRatio, Results, Run};
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
    /// The report of the run and of its cut.
    pub report: Report,
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

    /// Times of the dense network and of a small one on the first `batch` test digits.
    fn latency(&self, small: &DigitsResNet, batch: usize) -> anyhow::Result<Latency> {
        let images = self.digits.test.head(batch, &self.device).images;
        let input = DummyInput::new(images, |model: &DigitsResNet, images| model.forward(images));
        Ok(latency(&self.dense, small, &input)?)
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
        let simulated = compressed.model().clone();
        let report = Report::new("Compression of the digits network")
            .with_metric_name("test accuracy (%)")
            .with_run(&compressed)?
            .with_seed(self.seed);
        let speedup = ModelSpeedup::new(compressed, self.dummy_input());
        let small = speedup.speedup_model()?;
        let report = report.with_plan(&speedup.plan()?).with_speedup(&small);
        Ok(Outcome {
            simulated,
            small,
            report,
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

/// Runs a program: `compress` once a seed, then table, figure, report and JSON.
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
    let mut results = Results {
        platform: args.platform(),
        runs: Vec::new(),
    };
    for seed in args.seeds() {
        eprintln!("seed {seed}: training the dense network");
        let setup = prepare(args, &device, digits.clone(), seed)?;
        eprintln!("seed {seed}: compressing it");
        let outcome = compress(&setup)?;
        let (run, report) = measure(&setup, &outcome)?;
        if seed == args.seed {
            let (figure, page) = (args.figure(name), args.report(name));
            write_whole(&figure, report.curves()?.as_bytes())?;
            println!("figure: {}", figure.display());
            let report = report
                .with_fact("program", name)
                .with_platform(args.platform());
            write_whole(&page, report.html()?.as_bytes())?;
            println!("report: {}", page.display());
            #[cfg(feature = "onnx")]
            onnx::write(
                &outcome.small.model,
                &setup.dummy_input(),
                onnx::target(args.rules),
                &args.onnx(name),
            )?;
        }
        println!("seed {seed}\n{}", outcome.small.report);
        results.runs.push(run);
    }
    println!("{results}");
    if let Some(path) = &args.json {
        results.write(path)?;
    }
    Ok(())
}

fn prepare(args: &Args, device: &Device, digits: Arc<Digits>, seed: u64) -> anyhow::Result<Setup> {
    device.seed(seed);
    let model = DigitsResNetConfig::new().init(&device.clone().autodiff());
    let config = TrainingConfig::new()
        .with_epochs(args.epochs)
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

/// The results of a run, and its report with them.
fn measure(setup: &Setup, outcome: &Outcome) -> anyhow::Result<(Run, Report)> {
    let (dense, small) = (&setup.dense, &outcome.small);
    let test = &setup.digits.test;
    let folder = std::env::temp_dir().join(format!("burn-compress-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("small");
    save_small(&small.model, &small.state, &file)?;
    let full_size = DigitsResNetConfig::new().init(&setup.device);
    let (reloaded, _) = load_small(full_size, &file)?;
    let bytes = Change {
        dense: dense.clone().into_record().into_bytes()?.len() as u64,
        small: std::fs::metadata(&file)?.len(),
    };
    std::fs::remove_dir_all(&folder).context("the temporary folder")?;
    let [b1, b64] = [1, 64].map(|batch| setup.latency(&small.model, batch));
    let (b1, b64) = (b1?, b64?);
    let run = Run {
        seed: setup.seed,
        accuracy: Accuracy {
            dense: accuracy(dense, test),
            simulated: accuracy(&outcome.simulated, test),
            small: accuracy(&small.model, test),
            reloaded: accuracy(&reloaded, test),
        },
        params: Change {
            dense: dense.parameters() as u64,
            small: small.model.parameters() as u64,
        },
        macs: Change {
            dense: dense.macs() as u64,
            small: small.model.macs() as u64,
        },
        bytes,
        latency_ratio: LatencyRatio {
            b1: b1.ratio(),
            b64: b64.ratio(),
        },
        max_relative_error: small.report.max_relative_error,
    };
    let percent = |accuracy: f64| format!("{accuracy:.2} %");
    let report = outcome.report.clone();
    let report = report
        .with_fact("test accuracy, dense", percent(run.accuracy.dense))
        .with_fact("test accuracy, simulated", percent(run.accuracy.simulated))
        .with_fact("test accuracy, small", percent(run.accuracy.small))
        .with_latency("batch of 1", b1)
        .with_latency("batch of 64", b64);
    Ok((run, report))
}
