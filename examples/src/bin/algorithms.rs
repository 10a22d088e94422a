//! The accuracy of every registered algorithm at a fixed budget, as Markdown tables.
//!
//! - Pruners remove 80 % of the output channels of every convolution, once, and train on.
//! - Quantizers bring the weights and inputs of every convolution but the first to few bits.
//! - Distillers teach a network of a quarter of the width from the beginning.
//!
//! All start from the same dense network of a seed, train for the same number of steps with the
//! same data, optimizer and schedule, and none is tuned: each has the settings of its registry
//! entry.

use std::process::ExitCode;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use burn_compress::distillation::registry::{Needs, Supervision, distillers};
use burn_compress::prelude::*;
use burn_compress::pruning::registry::{Needs as Score, pruners};
use burn_compress::quantization::QuantDtype;
use burn_compress::quantization::registry::quantizers;
use burn_compress_examples::cli::{self, DeviceName, exit_code};
use burn_compress_examples::configs::QuantRules;
use burn_compress_examples::digits::{Augmentation, Digits, DigitsBatch};
use burn_compress_examples::pipeline::Setup;
use burn_compress_examples::resnet::{DigitsResNet, DigitsResNetConfig};
use burn_compress_examples::train::{TrainingConfig, accuracy, train};
use clap::Parser;

/// Options of the comparison.
#[derive(Parser, Debug)]
#[command(allow_negative_numbers = true)]
struct Args {
    /// Number of runs of each algorithm, with seeds from 0 on
    #[arg(long, default_value_t = 3, value_parser = cli::runs)]
    seeds: u64,

    /// Optimizer steps of each run
    #[arg(long, default_value_t = 230, value_parser = cli::steps)]
    steps: usize,

    /// Only algorithms whose name contains this
    #[arg(long, default_value = "")]
    only: String,

    /// Only these widths, as `W4A4;W4A4, norms folded`
    #[arg(long, value_delimiter = ';')]
    widths: Vec<String>,

    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceName::Flex)]
    device: DeviceName,
}

type Chain = Compressor<DigitsResNet, DigitsBatch>;

const SPARSITY: f64 = 0.8;
/// Steps over which a pruner collects its score.
const SCORED: usize = 20;
const WIDTHS: [Width; 4] = [
    Width::of(8, 8),
    Width::of(4, 4),
    Width::of(2, 4),
    Width {
        folds: true,
        ..Width::of(4, 4)
    },
];
const QUARTER: [usize; 3] = [8, 16, 32];

/// Bits of weights and of inputs.
#[derive(Clone, Copy, Debug)]
struct Width {
    weights: u32,
    inputs: u32,
    /// Whether the batch norms are folded into the weights before these are rounded.
    folds: bool,
}

impl Width {
    const fn of(weights: u32, inputs: u32) -> Self {
        Self {
            weights,
            inputs,
            folds: false,
        }
    }

    fn name(self) -> String {
        let folded = if self.folds { ", norms folded" } else { "" };
        format!("W{}A{}{folded}", self.weights, self.inputs)
    }
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let known = WIDTHS.map(Width::name);
    if let Some(unknown) = args.widths.iter().find(|width| !known.contains(width)) {
        anyhow::bail!("`{unknown}` is no width; those are {}", known.join("; "));
    }
    let setups = setups(args)?;
    let seeds = setups.len();
    let dense: Vec<f64> = setups
        .iter()
        .map(|setup| accuracy(&setup.dense, &setup.digits.test))
        .collect();
    println!(
        "Test accuracy in percent, mean of {seeds} seeds, {} steps each. The dense network has \
         {:.2}.\n",
        args.steps,
        mean(&dense)
    );

    println!("| pruner | 80 % of the channels removed |\n|---|---|");
    for pruner in pruners::<DigitsResNet, DigitsBatch>() {
        row(args, pruner.name, &setups, &[()], |setup, ()| {
            let chain = Compressor::from_model(setup.dense.clone(), setup.evaluator(setup.steps)?);
            let chain = (pruner.fuse)(
                chain,
                &ConfigList::from_json(&pruning(pruner.needs))?,
                SCORED,
            )?;
            let outcome = setup.finish(chain, Budget::steps(setup.steps))?;
            Ok(accuracy(&outcome.small.model, &setup.digits.test))
        })?;
    }

    let mut widths = WIDTHS.to_vec();
    widths.retain(|width| args.widths.is_empty() || args.widths.contains(&width.name()));
    let heads: Vec<String> = widths.iter().map(|width| width.name()).collect();
    println!(
        "\n| quantizer | {} |\n|---{}|",
        heads.join(" | "),
        "|---".repeat(widths.len())
    );
    for quantizer in quantizers::<DigitsResNet, DigitsBatch>() {
        let steps = if quantizer.trains { args.steps } else { 0 };
        row(args, quantizer.name, &setups, &widths, |setup, &width| {
            let config = quantization(quantizer.name, width);
            quantized(setup, &config, steps, quantizer.fuse)
        })?;
    }
    let rounded = [
        (
            "DoReFaQuantizer, gradients of 8 bits",
            GradientDtype::Dtype(QuantDtype::INT8),
        ),
        (
            "DoReFaQuantizer, gradients as the weight",
            GradientDtype::OfWeight,
        ),
    ];
    for (name, gradients) in rounded {
        row(args, name, &setups, &widths, |setup, &width| {
            let config = quantization("DoReFaQuantizer", width);
            quantized(setup, &config, args.steps, |chain, config| {
                let options = DoReFaConfig::new().with_gradients(gradients);
                DoReFaQuantizer::from_compressor(chain, config, options)
            })
        })?;
    }

    println!("\n| distiller | a quarter of the width |\n|---|---|");
    row(
        args,
        "none, from the labels alone",
        &setups,
        &[()],
        |setup, ()| {
            let chain = Compressor::from_model(student(setup), setup.evaluator(setup.steps)?);
            let compressed = chain.compress(Budget::steps(setup.steps))?;
            Ok(accuracy(compressed.model(), &setup.digits.test))
        },
    )?;
    for distiller in distillers::<DigitsResNet, DigitsResNet, DigitsBatch>() {
        row(args, distiller.name, &setups, &[()], |setup, ()| {
            let chain = Compressor::from_model(student(setup), setup.evaluator(setup.steps)?);
            let config = ConfigList::from_json(distillation(distiller.needs))?;
            let supervision = Supervision::new(
                &setup.dense,
                |teacher: &DigitsResNet, batch: &DigitsBatch| teacher.forward(batch.images.clone()),
                |batch: &DigitsBatch| batch.labels.clone(),
            );
            let chain = (distiller.fuse)(chain, &config, &supervision)?;
            let compressed = chain.compress(Budget::steps(setup.steps))?;
            Ok(accuracy(compressed.model(), &setup.digits.test))
        })?;
    }
    Ok(())
}

/// The accuracy of the dense network after a quantizer.
fn quantized(
    setup: &Setup,
    config: &str,
    steps: usize,
    fuse: impl Fn(Chain, &ConfigList<QuantizationSettings>) -> Result<Chain, burn_compress::Error>,
) -> anyhow::Result<f64> {
    let chain = Compressor::from_model(setup.dense.clone(), setup.evaluator(setup.steps)?);
    let config = ConfigList::from_json(config)?;
    let compressed = fuse(chain, &config)?.compress(Budget::steps(steps))?;
    Ok(accuracy(compressed.model(), &setup.digits.test))
}

/// The dense network of each seed.
fn setups(args: &Args) -> anyhow::Result<Vec<Setup>> {
    let digits = Arc::new(Digits::load()?);
    let device = args.device.open()?;
    (0..args.seeds)
        .map(|seed| {
            device.seed(seed);
            let model = DigitsResNetConfig::new().init(&device.clone().autodiff());
            let config = TrainingConfig::new()
                .with_seed(seed)
                .with_augmentation(Augmentation::Shift);
            Ok(Setup {
                digits: digits.clone(),
                dense: train(model, &digits.train, &config)?.model.valid(),
                device: device.clone(),
                sparsity: SPARSITY,
                steps: args.steps,
                seed,
                augmentation: Augmentation::Shift,
                rules: QuantRules::default(),
            })
        })
        .collect()
}

fn student(setup: &Setup) -> DigitsResNet {
    let device: &Device = &setup.device;
    device.seed(setup.seed);
    DigitsResNetConfig::new().with_widths(QUARTER).init(device)
}

/// What is trained for a channel is trained for the batch norm, which cancels the scale of the
/// convolution.
fn pruning(needs: Score) -> String {
    let norms = match needs {
        Score::Factors | Score::Movement => format!(
            r#", {{"op_types": ["BatchNorm"], "target_names": ["gamma"], "sparse_ratio": {SPARSITY}}}"#
        ),
        _ => String::new(),
    };
    format!(
        r#"[{{
            "op_types": ["Conv2d"], "sparse_ratio": {SPARSITY}, "granularity": "out_channel"
        }}{norms}]"#
    )
}

/// Int weights per output channel where the quantizer has channels, and unsigned inputs, since what
/// enters a convolution comes from a ReLU. Such inputs have one sign, so that a binary network
/// keeps them as they are.
fn quantization(name: &str, width: Width) -> String {
    let Width {
        weights,
        inputs,
        folds,
    } = width;
    let granularity = match name {
        "DoReFaQuantizer" | "BnnQuantizer" => "default",
        _ => "out_channel",
    };
    let (weight_scheme, scheme) = match name {
        "LsqQuantizer" => ("symmetric", "symmetric"),
        "LsqPlusQuantizer" => ("affine", "affine"),
        _ => ("symmetric", "affine"),
    };
    let inputs = match name {
        "BnnQuantizer" => String::new(),
        _ => format!(
            r#", {{
                "op_types": ["Conv2d"], "exclude_op_names": ["stem"], "target_names": ["_input_"],
                "quant_dtype": "uint{inputs}", "quant_scheme": "{scheme}"
            }}"#
        ),
    };
    format!(
        r#"[{{
            "op_types": ["Conv2d"], "exclude_op_names": ["stem"], "target_names": ["weight"],
            "quant_dtype": "int{weights}", "quant_scheme": "{weight_scheme}",
            "granularity": "{granularity}", "fuse": {folds}
        }}{inputs}]"#
    )
}

/// Logits where shapes must be equal, the last convolution of each stage where they need not.
fn distillation(needs: Needs) -> &'static str {
    match needs {
        Needs::Channels | Needs::Positions | Needs::Samples => {
            r#"[{"op_names": ["stage1.1.conv2", "stage2.1.conv2", "stage3.1.conv2"]}]"#
        }
        _ => r#"[{"op_names": ["head"]}]"#,
    }
}

/// Prints a line of a table: for each budget the mean over the seeds.
fn row<B>(
    args: &Args,
    name: &str,
    setups: &[Setup],
    budgets: &[B],
    run: impl Fn(&Setup, &B) -> anyhow::Result<f64>,
) -> anyhow::Result<()> {
    if !name.contains(&args.only) {
        return Ok(());
    }
    let mut cells = Vec::new();
    for budget in budgets {
        let found = setups
            .iter()
            .map(|setup| run(setup, budget))
            .collect::<anyhow::Result<Vec<f64>>>();
        cells.push(format!("{:.2}", mean(&found?)));
    }
    println!("| {name} | {} |", cells.join(" | "));
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
