//! Family H: complete short training runs with plain gradient descent.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor};
use burn_compress::{Budget, Compressor};
use serde::Deserialize;
use serde_json::Value;

use crate::reference::activation::Activation;
use crate::reference::adapter::{self, Chain};
use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::drive;
use crate::reference::families::a::compare_masks;
use crate::reference::model::RefModel;
use crate::reference::targets;

/// The losses of one step.
#[derive(Debug, Deserialize)]
struct Losses {
    step: usize,
    raw_loss: f64,
    total_loss: f64,
}

/// One generation of masks.
#[derive(Debug, Deserialize)]
struct Round {
    after_step: usize,
}

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or fuses a compressor that the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let losses: Vec<Losses> = case.expected("losses")?;
    let rounds: Vec<Round> = match case.file.expected.get("rounds") {
        Some(_) => case.expected("rounds")?,
        None => Vec::new(),
    };
    let steps = losses.len();
    let mut inputs = Vec::new();
    let mut labels: Vec<Tensor<1, Int>> = Vec::new();
    for step in 0..steps {
        let x = case.array(&format!("step{step}/x"))?;
        inputs.push(Activation::from_array(x, &device)?);
        labels.push(
            case.array(&format!("step{step}/label"))?
                .int_tensor(&device)?,
        );
    }
    let inputs = Arc::new(inputs);
    let network = |part: &str| {
        RefModel::build(case.model()?, &device)?
            .load(|layer, name| case.tensors.get(&format!("{part}/{layer}.{name}")).cloned())
    };
    let batches = inputs.clone();
    let evaluator = drive::evaluator(steps, case.argument("sgd_lr")?, move |model, step| {
        let output = model.forward(batches[*step].clone()).rows();
        let loss = CrossEntropyLossConfig::new().init(&output.device());
        loss.forward(output, labels[*step].clone())
    });
    let chain = Compressor::from_model(network("init")?, evaluator);
    let mut chain = fuse(
        case,
        &mut checks,
        chain,
        network("teacher")?.valid(),
        &inputs,
    )?;

    for step in 1..=steps {
        chain
            .advance(&Budget::steps(steps), Some(step))
            .map_err(|error| case.error(format!("step {step}: {error}")))?;
        if let Some(round) = rounds.iter().position(|round| round.after_step == step) {
            let masks = targets::masks(chain.model(), &chain.masks());
            compare_masks(case, &mut checks, &format!("round{round}/mask/"), &masks);
        }
    }
    for (name, value) in chain.model().parameters() {
        let expected = format!("final/{name}");
        if case.tensors.contains_key(&expected) {
            checks.array(case, &expected, &value);
        }
    }
    let masks = targets::masks(chain.model(), &chain.masks());
    compare_masks(case, &mut checks, "final_mask/", &masks);
    compare_calibration(case, &mut checks, &chain)?;
    let compressed = chain.finish().map_err(|error| case.error(error))?;
    for expected in &losses {
        let step = expected.step;
        match compressed.history().steps.get(step) {
            Some(record) => {
                checks.number(
                    &format!("raw loss {step}"),
                    record.task_loss,
                    expected.raw_loss,
                );
                checks.number(
                    &format!("total loss {step}"),
                    record.loss,
                    expected.total_loss,
                );
            }
            None => checks.fail(format!("step {step} is not in the history")),
        }
    }
    if let Some(x) = case.tensors.get("eval/x") {
        let x = Activation::from_array(x, &device.without_autodiff())?;
        checks.array(case, "eval/out", &compressed.model().forward(x).array());
    }
    Ok(checks)
}

/// Fuses the compressors of a case in the order of their creation.
fn fuse(
    case: &Case,
    checks: &mut Checks,
    chain: Chain,
    teacher: RefModel,
    inputs: &Arc<Vec<Activation>>,
) -> Result<Chain> {
    let newest_first: Vec<String> = case.expected("fused_compressors_newest_first")?;
    let configurations: &[Value] = case
        .file
        .config_list
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let known = [
        "AGPPruner",
        "LinearPruner",
        "TaylorPruner",
        "SlimPruner",
        "QATQuantizer",
        "DynamicLayerwiseDistiller",
    ];
    if let Some(unknown) = newest_first
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        return case.not_covered(format!("{unknown} is not part of the library yet"));
    }
    let oldest_first = newest_first.iter().rev();
    let mut chain = chain;
    for (name, rules) in oldest_first.zip(configurations) {
        chain = match name.as_str() {
            "AGPPruner" | "LinearPruner" => {
                let base = case
                    .file
                    .expected
                    .get("scheduler_base")
                    .and_then(Value::as_str);
                let chain = match base.unwrap_or("TaylorPruner") {
                    "TaylorPruner" => adapter::taylor(case, chain, rules, score_steps(case)?)?,
                    base => adapter::one_shot(case, chain, base, rules)?,
                };
                let interval = case.argument("interval_steps")?;
                let times = case.argument("total_times")?;
                adapter::schedule(case, chain, name, interval, times)?
            }
            "TaylorPruner" => adapter::taylor(case, chain, rules, score_steps(case)?)?,
            "SlimPruner" => {
                let (steps, scale) = slim_arguments(case)?;
                adapter::slim(case, chain, rules, steps, scale)?
            }
            "QATQuantizer" => adapter::qat(case, chain, rules, case.argument("quant_start_step")?)?,
            _ => {
                let lambda = origin_lambda(case)?;
                let inputs = inputs.clone();
                let predict =
                    move |teacher: &RefModel, step: &usize| teacher.forward(inputs[*step].clone());
                adapter::distil(case, chain, rules, &teacher, predict, lambda)?
            }
        };
    }
    // The library writes abbreviations in names like other words.
    let lower = |names: Vec<String>| names.iter().map(|name| name.to_lowercase()).collect();
    let fused: Vec<String> = lower(
        chain
            .algorithms()
            .iter()
            .rev()
            .map(|n| n.to_string())
            .collect(),
    );
    let expected: Vec<String> = lower(newest_first);
    checks.equal("fused compressors", fused, expected);
    Ok(chain)
}

/// The training steps and the weight of the penalty of a slim pruner.
fn slim_arguments(case: &Case) -> Result<(usize, f64)> {
    #[derive(Deserialize)]
    struct Slim {
        training_steps: usize,
        regular_scale: f64,
    }
    if case.file.arguments.get("slim").is_none() {
        let steps = case.argument("slim_training_steps")?;
        return Ok((steps, case.argument("regular_scale")?));
    }
    let slim: Slim = case.argument("slim")?;
    Ok((slim.training_steps, slim.regular_scale))
}

/// The weight of the model's own loss beside those of a distiller.
fn origin_lambda(case: &Case) -> Result<f64> {
    #[derive(Deserialize)]
    struct Distiller {
        origin_loss_lambda: f64,
    }
    if case.file.arguments.get("distiller").is_none() {
        return case.argument("origin_loss_lambda");
    }
    let distiller: Distiller = case.argument("distiller")?;
    Ok(distiller.origin_loss_lambda)
}

/// The steps whose gradients make a Taylor score.
fn score_steps(case: &Case) -> Result<usize> {
    match case.file.arguments.get("taylor_training_steps") {
        Some(_) => case.argument("taylor_training_steps"),
        None => case.argument("training_steps"),
    }
}

/// Compares ranges, scales and zero points at the end of the run.
fn compare_calibration(case: &Case, checks: &mut Checks, chain: &Chain) -> Result<()> {
    let calibration = chain.calibration().map_err(|error| case.error(error))?;
    for (id, entry) in &calibration {
        let target = targets::name(chain.model(), id);
        for (part, value) in targets::calibration(chain.model(), id, entry) {
            let expected = format!("final_{part}/{target}");
            if !case.tensors.contains_key(&expected) {
                continue;
            }
            match value {
                Ok(value) => checks.array(case, &expected, &value),
                Err(error) => checks.fail(format!("{expected}: {error}")),
            }
        }
    }
    Ok(())
}
