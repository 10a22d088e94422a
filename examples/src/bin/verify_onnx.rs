//! The network of the main job as an ONNX file: what onnxruntime computes in integers against the
//! simulation, and with its optimizations against without.
//!
//! It needs a Python with `onnx` and `onnxruntime`, which `BURN_COMPRESS_PYTHON` names:
//!
//! ```text
//! cargo run --release -p burn-compress-examples --features onnx --bin verify_onnx -- --repeat 5
//! ```
//!
//! Codes are the integers of the input of the last layer.

use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, anyhow, ensure};
use burn::tensor::{Tensor, TensorData};
use burn_compress::export::{OnnxConfig, OnnxFile, QuantizationReport, export_onnx};
use burn_compress::prelude::*;
use burn_compress_examples::fused;
use burn_compress_examples::pipeline::{self, Setup};
use burn_compress_examples::resnet::DigitsResNet;
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions, other_argmax};
use comfy_table::Table;

/// What was found for one seed.
struct Row {
    seed: u64,
    /// Of the simulation and of the file, in percent.
    accuracy: [f64; 2],
    simulation: Differences,
    unoptimized: Differences,
    operators: String,
    bytes: usize,
}

/// Logits with another largest element, the part of codes that differ in percent, and by how many
/// steps at most.
struct Differences {
    argmax: usize,
    codes: f64,
    steps: i64,
}

fn main() -> ExitCode {
    let rows = Mutex::new(Vec::new());
    let code = pipeline::run("verify_onnx", |setup| {
        let chain = fused::prune_quantize_distill(setup)?;
        let outcome = setup.finish(chain, Budget::steps(setup.steps))?;
        let row = verify(setup, &outcome.small.model)?;
        println!("{}", table(std::slice::from_ref(&row)));
        if let Ok(mut rows) = rows.lock() {
            rows.push(row);
        }
        Ok(outcome)
    });
    if let Ok(rows) = rows.lock() {
        println!("{}", table(&rows));
        for row in rows.iter() {
            println!("seed {}: {}", row.seed, row.operators);
        }
    }
    code
}

fn verify(setup: &Setup, model: &DigitsResNet) -> anyhow::Result<Row> {
    let runtime = OnnxRuntime::find().context("no Python with onnxruntime")?;
    let file = export_onnx(model, &setup.dummy_input(), &OnnxConfig::new())?;
    let report = file.report().quantization.as_ref();
    let report = report.context("the network is not quantized")?;
    println!("{report}");
    let test = &setup.digits.test;
    let batch = test.head(test.len(), &setup.device);
    let images = batch.images;
    let head = Head::of(report)?;
    let simulated = Computed {
        logits: model.forward(images.clone()).into_data(),
        codes: head.codes(&model.features(images.clone()).into_data()),
    };
    let images = images.into_data();
    let fused = run(&runtime, &file, &images, &head, false)?;
    let plain = run(&runtime, &file, &images, &head, true)?;
    let operators = runtime.run(file.bytes(), &[vec![images]], &RunOptions::default());
    let operators = operators.map_err(|error| anyhow!(error))?.operators;
    let operators: Vec<String> = operators
        .iter()
        .map(|(name, n)| format!("{n} {name}"))
        .collect();
    let labels: Vec<i64> = batch.labels.into_data().iter().collect();
    Ok(Row {
        seed: setup.seed,
        accuracy: [&simulated, &fused].map(|computed| accuracy(&computed.logits, &labels)),
        simulation: fused.differences(&simulated),
        unoptimized: fused.differences(&plain),
        operators: operators.join(", "),
        bytes: file.bytes().len(),
    })
}

fn accuracy(logits: &TensorData, labels: &[i64]) -> f64 {
    let device = burn::tensor::Device::flex();
    let found = Tensor::<2>::from_data(logits.clone(), &device)
        .argmax(1)
        .into_data();
    let right = found
        .iter::<i64>()
        .zip(labels)
        .filter(|(found, label)| found == *label);
    100.0 * right.count() as f64 / labels.len() as f64
}

struct Computed {
    logits: TensorData,
    codes: Vec<i64>,
}

impl Computed {
    fn differences(&self, other: &Self) -> Differences {
        let codes = self
            .codes
            .iter()
            .zip(&other.codes)
            .map(|(a, b)| (a - b).abs());
        let codes: Vec<i64> = codes.collect();
        let changed = codes.iter().filter(|&&steps| steps > 0).count();
        Differences {
            argmax: other_argmax(&self.logits, &other.logits),
            codes: 100.0 * changed as f64 / codes.len() as f64,
            steps: codes.into_iter().max().unwrap_or(0),
        }
    }
}

/// The quantizer of the last layer's input.
struct Head {
    tensor: String,
    scale: f32,
    zero_point: i64,
}

impl Head {
    fn of(report: &QuantizationReport) -> anyhow::Result<Self> {
        let of_head = |targets: &[String]| targets.iter().any(|name| name == "head._input_0");
        let quantizer = report
            .quantizers
            .iter()
            .find(|found| of_head(&found.targets));
        let quantizer = quantizer.context("the input of `head` is not quantized")?;
        Ok(Self {
            tensor: format!("{}_dequantized", quantizer.tensor),
            scale: quantizer.scale,
            zero_point: i64::from(quantizer.zero_point),
        })
    }

    /// The integers of features.
    fn codes(&self, features: &TensorData) -> Vec<i64> {
        let code = |x: f32| {
            let q = (x / self.scale).round_ties_even() as i64 + self.zero_point;
            q.clamp(0, 255)
        };
        features.iter::<f32>().map(code).collect()
    }
}

fn run(
    runtime: &OnnxRuntime,
    file: &OnnxFile,
    images: &TensorData,
    head: &Head,
    unoptimized: bool,
) -> anyhow::Result<Computed> {
    let options = RunOptions {
        unoptimized,
        observed: vec![head.tensor.clone()],
    };
    let run = runtime.run(file.bytes(), &[vec![images.clone()]], &options);
    let outputs = run.map_err(|error| anyhow!(error))?.outputs.remove(0);
    ensure!(
        outputs.len() == 2,
        "{} outputs in place of two",
        outputs.len()
    );
    Ok(Computed {
        logits: outputs[0].clone(),
        codes: head.codes(&outputs[1]),
    })
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.set_header([
        "seed",
        "bytes",
        "simulated",
        "int8",
        "other argmax",
        "codes",
        "steps",
        "against unoptimized",
    ]);
    for row in rows {
        let Differences {
            argmax,
            codes,
            steps,
        } = &row.unoptimized;
        table.add_row([
            row.seed.to_string(),
            row.bytes.to_string(),
            format!("{:.2} %", row.accuracy[0]),
            format!("{:.2} %", row.accuracy[1]),
            row.simulation.argmax.to_string(),
            format!("{:.2} %", row.simulation.codes),
            row.simulation.steps.to_string(),
            format!("{argmax}, {codes:.2} %, {steps}"),
        ]);
    }
    table
}
