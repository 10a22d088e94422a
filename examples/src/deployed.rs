//! A network of digits in an ONNX file: what onnxruntime computes in integers against what was simulated,
//! and with its optimizations against without.
//!
//! Codes are the integers of the input of the last layer.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, ensure};
use burn::tensor::{Tensor, TensorData};
use burn_compress::export::{OnnxConfig, OnnxFile, QuantizationReport, export_onnx};
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions, other_argmax};

use crate::pipeline::Setup;
use crate::resnet::DigitsResNet;

/// Comparison of a quantized network with its file, on the test digits.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// What the file holds.
    pub report: QuantizationReport,
    /// Size of the file.
    pub bytes: usize,
    /// Accuracy of the simulation in percent.
    pub simulated: f64,
    /// Accuracy of onnxruntime in percent.
    pub executed: f64,
    /// Differences between onnxruntime and the simulation.
    pub from_simulation: Differences,
    /// Differences between onnxruntime with its optimizations and without.
    pub from_unoptimized: Differences,
    /// Operators that onnxruntime executes.
    pub operators: BTreeMap<String, usize>,
}

/// Differences between two runs of the test digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differences {
    /// Digits with another largest logit.
    pub argmax: usize,
    /// Codes that differ, in percent.
    pub codes: f64,
    /// Largest difference of a code.
    pub steps: i64,
}

impl Deployed {
    /// Exports the network for onnxruntime on any x86 and runs it.
    ///
    /// # Errors
    ///
    /// A network that cannot be exported or whose `head` has no quantized input, and whatever goes wrong in
    /// Python.
    pub fn of(setup: &Setup, model: &DigitsResNet, runtime: &OnnxRuntime) -> anyhow::Result<Self> {
        let file = export_onnx(model, &setup.dummy_input(), &OnnxConfig::new())?;
        let report = file.report().quantization.clone();
        let report = report.context("the network is not quantized")?;
        let test = &setup.digits.test;
        let batch = test.head(test.len(), &setup.device);
        let images = batch.images;
        let head = Head::of(&report)?;
        let simulated = Computed {
            logits: model.forward(images.clone()).into_data(),
            codes: head.codes(&model.features(images.clone()).into_data()),
        };
        let images = images.into_data();
        let fused = run(runtime, &file, &images, &head, false)?;
        let plain = run(runtime, &file, &images, &head, true)?;
        let counted = runtime.run(file.bytes(), &[vec![images]], &RunOptions::default());
        let labels: Vec<i64> = batch.labels.into_data().iter().collect();
        Ok(Self {
            report,
            bytes: file.bytes().len(),
            simulated: accuracy(&simulated.logits, &labels),
            executed: accuracy(&fused.logits, &labels),
            from_simulation: fused.differences(&simulated),
            from_unoptimized: fused.differences(&plain),
            operators: counted.map_err(|error| anyhow!(error))?.operators,
        })
    }

    /// How often onnxruntime executes an operator.
    pub fn count(&self, operator: &str) -> usize {
        self.operators.get(operator).copied().unwrap_or(0)
    }
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
