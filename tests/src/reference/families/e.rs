//! Family E: quantizers on one layer. Post-training quantization calibrates, quantization-aware
//! training goes step by step.
//!
//! The files prescribe the raw parameters of every step. In each step the loss
//! `sum(output * upstream)` is differentiated to compare the gradients; what the chain then trains
//! is `sum(parameter * direction)` with the direction that leads to the next prescribed
//! parameters. So an element that sits on a clipping edge, where the gradient is a matter of taste,
//! cannot spoil the steps after it.

use std::sync::{Arc, Mutex};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::target::TargetId;
use burn_compress::{Budget, CalibrationEntry, Compressor, Evaluator, fake_quantize, gradients};
use indexmap::IndexMap;
use serde::Deserialize;

use crate::reference::activation::Activation;
use crate::reference::adapter;
use crate::reference::array::Array;
use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::drive;
use crate::reference::families::{few_bits, learned};
use crate::reference::model::RefModel;
use crate::reference::targets;

/// What a target is quantized to.
#[derive(Debug, Deserialize)]
struct Range {
    qmin: f64,
    qmax: f64,
    bits: Option<u32>,
    scheme: Option<String>,
}

/// What one step computed.
#[derive(Debug)]
struct Seen {
    out: Array,
    simulated: IndexMap<String, Array>,
    gradients: IndexMap<String, Array>,
}

/// What the steps of a case prescribe.
struct Prescribed {
    layer: String,
    inputs: Vec<Activation>,
    upstream: Vec<Array>,
    directions: Vec<IndexMap<String, Array>>,
}

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or names a quantizer that the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    match case.file.algorithm.as_str() {
        "QATQuantizer" => qat(case),
        "PtqQuantizer" => ptq(case),
        "LsqQuantizer" | "LsqPlusQuantizer" => learned::run(case),
        "DoReFaQuantizer" => few_bits::dorefa(case),
        "BNNQuantizer" => few_bits::bnn(case),
        other => case.not_covered(format!("{other} is not part of the library yet")),
    }
}

/// Calibrates on the batches of the case, without training.
fn ptq(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let batches: usize = case.argument("calibration_batches")?;
    let ranges: IndexMap<String, Range> = case.expected("targets")?;
    let model = RefModel::build(case.model()?, &device)?
        .load(|_, name| case.tensors.get(&format!("param/{name}")).cloned())?;
    let layer = model.layers().keys().next().cloned().unwrap_or_default();
    let inputs = (0..batches)
        .map(|i| Activation::from_array(case.array(&format!("calib{i}/x"))?, &device))
        .collect::<Result<Vec<_>>>()?;
    let evaluator = Evaluator::new()
        .with_data(move |_epoch| (0..batches).collect::<Vec<_>>())
        .with_loss(move |model: &RefModel, step: &usize| {
            model
                .forward(inputs[*step].clone())
                .flat_rows()
                .mean()
                .reshape([1])
        });
    let chain = Compressor::from_model(model, evaluator);
    let chain = adapter::ptq(case, chain, &case.file.config_list, batches)?;
    let compressed = chain
        .compress(Budget::none())
        .map_err(|error| case.error(error))?;
    let calibration = compressed
        .calibration()
        .map_err(|error| case.error(error))?;
    for (target, range) in &ranges {
        let id = targets::id(compressed.model(), &layer, target)?;
        let Some(entry) = calibration.get(&id) else {
            checks.fail(format!("`{id}` is not quantized"));
            continue;
        };
        compare_entry(
            case,
            &mut checks,
            compressed.model(),
            &id,
            "",
            target,
            entry,
        );
        compare_type(&mut checks, target, range, entry);
    }
    let x = Activation::from_array(case.array("test/x")?, &device.without_autodiff())?;
    checks.array(case, "test/out", &compressed.model().forward(x).array());
    Ok(checks)
}

/// Trains as the case prescribes.
fn qat(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let steps: usize = case.argument("steps")?;
    let start_step: usize = case.argument("quant_start_step")?;
    let learning_rate: f64 = case.argument("sgd_lr")?;
    let ranges: IndexMap<String, Range> = case.expected("targets")?;
    let model = RefModel::build(case.model()?, &device)?
        .load(|_, name| case.tensors.get(&format!("step0/param/{name}")).cloned())?;
    let prescribed = Arc::new(prescribed(case, &model, &device, steps, learning_rate)?);
    let layer = prescribed.layer.clone();

    let seen = Arc::new(Mutex::new(Vec::new()));
    let (course, sink) = (prescribed.clone(), seen.clone());
    let evaluator = drive::evaluator(steps, learning_rate, move |model, step| {
        let (now, loss) = compare_step(model, &course, *step);
        sink.lock()
            .expect("no step panics while it holds the lock")
            .push(now);
        loss
    });
    let chain = Compressor::from_model(model, evaluator);
    let mut chain = adapter::qat(case, chain, &case.file.config_list, start_step)?;
    for step in 0..steps {
        chain
            .advance(&Budget::steps(steps), Some(step + 1))
            .map_err(|error| case.error(format!("step {step}: {error}")))?;
        let calibration = chain.calibration().map_err(|error| case.error(error))?;
        let seen = seen
            .lock()
            .expect("no step panics while it holds the lock")
            .pop();
        let Some(seen) = seen else {
            return Err(case.error(format!("step {step} did not run")));
        };
        compare_seen(case, &mut checks, step, &seen);
        for (target, range) in &ranges {
            let id = targets::id(chain.model(), &layer, target)?;
            let Some(entry) = calibration.get(&id) else {
                checks.fail(format!("step{step}: `{id}` is not quantized"));
                continue;
            };
            let step_name = format!("step{step}/");
            compare_entry(
                case,
                &mut checks,
                chain.model(),
                &id,
                &step_name,
                target,
                entry,
            );
            compare_type(&mut checks, target, range, entry);
            if target == "_input_0" {
                let x = case.array(&format!("step{step}/x"))?;
                let value = quantized_input(case, x, entry)?;
                checks.array(case, &format!("step{step}/fq/{target}"), &value);
            }
        }
    }

    let x = Activation::from_array(case.array("eval/x")?, &device.without_autodiff())?;
    let parameters = chain.model().parameters();
    for (name, _) in case.below("eval/param/") {
        checks.array(
            case,
            &format!("eval/param/{name}"),
            &parameters[&format!("{layer}.{name}")],
        );
    }
    checks.array(case, "eval/out", &chain.model().valid().forward(x).array());
    Ok(checks)
}

/// Reads what the file prescribes.
fn prescribed(
    case: &Case,
    model: &RefModel,
    device: &Device,
    steps: usize,
    learning_rate: f64,
) -> Result<Prescribed> {
    let layer = model.layers().keys().next().cloned().unwrap_or_default();
    let mut prescribed = Prescribed {
        layer,
        inputs: Vec::new(),
        upstream: Vec::new(),
        directions: Vec::new(),
    };
    for step in 0..steps {
        let x = Activation::from_array(case.array(&format!("step{step}/x"))?, device)?;
        prescribed.inputs.push(x);
        prescribed
            .upstream
            .push(case.array(&format!("step{step}/upstream"))?.clone());
        let mut directions = IndexMap::new();
        for (name, now) in case.below(&format!("step{step}/param/")) {
            let next = match step + 1 < steps {
                true => case.array(&format!("step{}/param/{name}", step + 1))?,
                false => case.array(&format!("eval/param/{name}"))?,
            };
            let difference = now
                .values
                .iter()
                .zip(&next.values)
                .map(|(now, next)| now - next);
            let direction = difference
                .map(|d| (f64::from(d) / learning_rate) as f32)
                .collect();
            let direction = Array::float(now.shape.clone(), direction);
            directions.insert(format!("{}.{name}", prescribed.layer), direction);
        }
        prescribed.directions.push(directions);
    }
    Ok(prescribed)
}

/// Runs the forward and backward pass of a step and returns the loss that leads to the next one.
fn compare_step(model: &RefModel, prescribed: &Prescribed, step: usize) -> (Seen, Tensor<1>) {
    let x = prescribed.inputs[step].clone().require_grad();
    let out = model.forward(x.clone());
    let layer = &model.layers()[&prescribed.layer];
    let mut simulated = IndexMap::new();
    let mut found = IndexMap::new();
    let loss = out
        .weighted_sum(&prescribed.upstream[step])
        .expect("the upstream has its shape");
    let mut backward = loss.backward();
    if let Some(gradient) = x.gradient(&backward) {
        found.insert("x".to_owned(), gradient);
    }
    let collected = GradientsParams::from_module(&mut backward, model);
    for path in prescribed.directions[step].keys() {
        let id = targets::parse(model, path).expect("the path is that of a parameter");
        let name = path.rsplit('.').next().unwrap_or_default().to_owned();
        if let Some(value) = layer.simulated(&id.target.to_string()) {
            simulated.insert(name.clone(), targets::convert(model, &id, &value));
        }
        let paths = [id.to_string()].into_iter().collect();
        for gradient in gradients(model, &collected, &paths).values() {
            let gradient = targets::flat(gradient).expect("the device hands over its values");
            found.insert(name.clone(), targets::convert(model, &id, &gradient));
        }
    }
    let seen = Seen {
        out: out.array(),
        simulated,
        gradients: found,
    };
    (
        seen,
        drive::loss_with_gradients(model, &prescribed.directions[step]),
    )
}

/// Compares output, simulated parameters and gradients of a step.
fn compare_seen(case: &Case, checks: &mut Checks, step: usize, seen: &Seen) {
    checks.array(case, &format!("step{step}/out"), &seen.out);
    for (name, value) in &seen.simulated {
        let expected = format!("step{step}/fq/{name}");
        if case.tensors.contains_key(&expected) {
            checks.array(case, &expected, value);
        }
    }
    for (name, gradient) in &seen.gradients {
        let expected = format!("step{step}/grad/{name}");
        if !case.tensors.contains_key(&expected) {
            continue;
        }
        match case.tensors.get(&format!("step{step}/compare/{name}")) {
            Some(selected) => checks.array_where(case, &expected, gradient, selected),
            None => checks.array(case, &expected, gradient),
        }
    }
}

/// Compares the integer type and the scheme of a target.
fn compare_type(checks: &mut Checks, target: &str, range: &Range, entry: &CalibrationEntry) {
    let name = format!("range of {target}");
    let got = (f64::from(entry.qmin), f64::from(entry.qmax));
    checks.equal(&name, got, (range.qmin, range.qmax));
    let dtype = entry.dtype.to_string();
    let bits = dtype.trim_start_matches(char::is_alphabetic).parse().ok();
    checks.equal(&format!("bits of {target}"), bits, range.bits.or(bits));
    let scheme = range.scheme.as_deref().unwrap_or("symmetric");
    checks.equal(
        &format!("scheme of {target}"),
        entry.scheme.to_string().as_str(),
        scheme,
    );
}

/// Compares ranges, scales and zero points of a target with the tensors below `prefix`.
fn compare_entry(
    case: &Case,
    checks: &mut Checks,
    model: &RefModel,
    id: &TargetId,
    prefix: &str,
    target: &str,
    entry: &CalibrationEntry,
) {
    for (part, value) in targets::calibration(model, id, entry) {
        let expected = format!("{prefix}{part}/{target}");
        match (case.tensors.contains_key(&expected), value) {
            (true, Ok(value)) => checks.array(case, &expected, &value),
            (true, Err(error)) => checks.fail(format!("{expected}: {error}")),
            (false, Ok(_)) if entry.enabled => {
                checks.fail(format!("{expected}: a value before the case expects one"));
            }
            (false, _) => {}
        }
    }
}

/// The input as the layer sees it.
fn quantized_input(case: &Case, x: &Array, entry: &CalibrationEntry) -> Result<Array> {
    let (Some(scale), Some(zero_point)) = (&entry.scale, &entry.zero_point) else {
        return Ok(x.clone());
    };
    if !entry.enabled {
        return Ok(x.clone());
    }
    match x.shape.len() {
        2 => quantize::<2>(x, entry, scale, zero_point),
        3 => quantize::<3>(x, entry, scale, zero_point),
        4 => quantize::<4>(x, entry, scale, zero_point),
        rank => Err(case.error(format!("no layer takes a tensor of rank {rank}"))),
    }
}

fn quantize<const D: usize>(
    x: &Array,
    entry: &CalibrationEntry,
    scale: &[f32],
    zero_point: &[f32],
) -> Result<Array> {
    let device = Device::flex();
    let x = x.tensor::<D>(&device)?;
    let dims = x.dims();
    let expand = |values: &[f32]| {
        let values = Tensor::<1>::from_data(TensorData::from(values), &device);
        entry.grid.expand(values, &dims).reshape(dims)
    };
    let (scale, zero_point) = (expand(scale), expand(zero_point));
    let value = fake_quantize(x, scale, zero_point, entry.qmin, entry.qmax, entry.gradient);
    Ok(Array::from_tensor(value))
}
