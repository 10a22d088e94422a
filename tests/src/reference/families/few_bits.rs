//! The part of family E that is about very few bits: DoReFa and binary networks.

use std::sync::{Arc, Mutex};

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::fake_quantize::binarize;
use burn_compress::quantization::{
    BnnConfig, BnnQuantizer, DoReFaConfig, DoReFaQuantizer, QuantDtype, dorefa,
};
use burn_compress::{
    Budget, CalibrationEntry, Compressor, FlatTensor, RoundGradient, fake_quantize, gradients,
};
use indexmap::IndexMap;
use serde_json::Value;

use crate::reference::activation::Activation;
use crate::reference::array::Array;
use crate::reference::case::{Case, ModelSpec, OpSpec, Result};
use crate::reference::check::Checks;
use crate::reference::config::{self, DefaultBlock};
use crate::reference::drive;
use crate::reference::layer::RefLayer;
use crate::reference::model::RefModel;
use crate::reference::targets;

/// The layers of the case one after another.
fn sequence(case: &Case, device: &Device) -> Result<RefModel> {
    let spec = case.model()?;
    let last = spec.layers.len().saturating_sub(1);
    let value = |at: usize| format!("v{at}");
    let ops = spec.layers.iter().enumerate().map(|(at, layer)| OpSpec {
        op: "layer".to_owned(),
        layer: Some(layer.name.clone()),
        inputs: vec![if at == 0 {
            "x".to_owned()
        } else {
            value(at - 1)
        }],
        output: if at == last {
            "y".to_owned()
        } else {
            value(at)
        },
    });
    let spec = ModelSpec {
        ops: Some(ops.collect()),
        ..spec.clone()
    };
    RefModel::build(&spec, device)
}

/// Compares what DoReFa does to a weight, an input and an output, and to a gradient.
///
/// # Errors
///
/// When the case cannot be run.
pub fn dorefa(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let model = sequence(case, &device)?.load(|layer, name| {
        let values = case.tensors.get(&format!("x/{layer}.{name}"));
        values.cloned()
    })?;
    let weight_id = targets::parse(&model, "m.weight")?;
    let upstream = targets::convert(&model, &weight_id, case.array("upstream/m.weight")?);
    let input = Activation::from_array(case.array("x/m._input_0")?, &device)?;

    let seen = Arc::new(Mutex::new(None));
    let (sink, path) = (seen.clone(), weight_id.to_string());
    let evaluator = drive::evaluator(1, 0.0, move |model: &RefModel, _step| {
        let RefLayer::Linear(layer) = &model.layers()["m"] else {
            panic!("the case has a linear layer `m`");
        };
        let weight = layer.weight.val();
        let simulated = Array::from_tensor(weight.clone());
        let weights = upstream.tensor::<2>(&weight.device());
        let sum = (weight * weights.expect("a weight has two dims")).sum();
        let mut backward = sum.backward();
        let collected = GradientsParams::from_module(&mut backward, model);
        let gradient = gradients(model, &collected, &[path.clone()].into_iter().collect());
        let gradient = gradient.values().next().map(targets::flat);
        *sink.lock().expect("no step panics while it holds the lock") = Some((simulated, gradient));
        model.forward(input.clone()).rows().sum()
    });
    let rules = config::translate(&case.file.config_list, &model, DefaultBlock::Other)?;
    let chain = Compressor::from_model(model, evaluator);
    let mut chain = DoReFaQuantizer::from_compressor(chain, &rules, DoReFaConfig::new())
        .map_err(|error| case.error(error))?;
    chain
        .advance(&Budget::steps(1), None)
        .map_err(|error| case.error(error))?;
    let model = chain.model();
    let seen = seen
        .lock()
        .expect("no step panics while it holds the lock")
        .take();
    let Some((simulated, Some(gradient))) = seen else {
        return Err(case.error("the step did not run"));
    };
    let simulated = targets::convert(model, &weight_id, &simulated);
    checks.array(case, "y/m.weight", &simulated);
    let gradient = targets::convert(model, &weight_id, &gradient?);
    checks.array(case, "grad_x/m.weight", &gradient);

    let calibration = chain.calibration().map_err(|error| case.error(error))?;
    let ranges: IndexMap<String, Value> = case.expected("targets")?;
    for (target, range) in &ranges {
        let id = targets::parse(model, target)?;
        let Some(entry) = calibration.get(&id) else {
            checks.fail(format!("`{id}` is not quantized"));
            continue;
        };
        let got = (Some(f64::from(entry.qmin)), Some(f64::from(entry.qmax)));
        let expected = (range["qmin"].as_f64(), range["qmax"].as_f64());
        checks.equal(&format!("range of {target}"), got, expected);
        let (Some(scale), Some(zero_point)) = (&entry.scale, &entry.zero_point) else {
            checks.fail(format!("`{id}` has no scale"));
            continue;
        };
        let (mut scale, mut zero_point) = (scale[0], zero_point[0]);
        if id.target.is_param() {
            // The file gives the grid over 0..=1, before the weight is laid over -1..=1.
            scale /= 2.0;
            zero_point -= (entry.qmax - entry.qmin) / 2.0;
        }
        let one = |value: f32| Array::float([1], vec![value]);
        checks.array(case, &format!("scale/{target}"), &one(scale));
        checks.array(case, &format!("zero_point/{target}"), &one(zero_point));
        if !id.target.is_param() {
            compare_activation(case, &mut checks, target, entry)?;
        }
    }

    let dtype = case.file.config_list[0]["quant_dtype"].as_str();
    let dtype: QuantDtype = dtype
        .unwrap_or_default()
        .parse()
        .map_err(|error| case.error(error))?;
    checks.equal("bits", u64::from(dtype.bits()), case.expected("bits")?);
    let plain = Device::flex();
    let noise = case
        .array("gradq/noise")?
        .tensor::<2>(&plain)?
        .flatten(0, 1);
    let gradient = case.array("gradq/grad_output")?.tensor::<2>(&plain)?;
    let rounded =
        dorefa::quantize_gradient(gradient, noise, dtype).map_err(|error| case.error(error))?;
    checks.array(case, "gradq/expected", &Array::from_tensor(rounded));
    Ok(checks)
}

/// Quantizes an input or output with what the chain found for it.
fn compare_activation(
    case: &Case,
    checks: &mut Checks,
    target: &str,
    entry: &CalibrationEntry,
) -> Result<()> {
    let device = Device::flex().autodiff();
    let x = case.array(&format!("x/{target}"))?.tensor::<2>(&device)?;
    let x = x.require_grad();
    let one = |values: &Option<Vec<f32>>| {
        let values = values.clone().unwrap_or_default();
        Tensor::<2>::from_data(TensorData::new(values, [1, 1]), &device)
    };
    let (scale, zero_point) = (one(&entry.scale), one(&entry.zero_point));
    let (qmin, qmax) = (entry.qmin, entry.qmax);
    let y = fake_quantize(x.clone(), scale, zero_point, qmin, qmax, entry.gradient);
    let upstream = case.array(&format!("upstream/{target}"))?;
    let gradients = (y.clone() * upstream.tensor::<2>(&device)?)
        .sum()
        .backward();
    checks.array(case, &format!("y/{target}"), &Array::from_tensor(y));
    match x.grad(&gradients) {
        Some(gradient) => {
            let gradient = Array::from_tensor(gradient);
            checks.array(case, &format!("grad_x/{target}"), &gradient);
        }
        None => checks.fail(format!("grad_x/{target}: no gradient")),
    }
    Ok(())
}

/// The output of a step and the gradients of its parameters.
type Seen = (Array, Vec<(String, FlatTensor)>);

/// Trains a binary network.
///
/// # Errors
///
/// When the case cannot be run.
pub fn bnn(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let steps: usize = case.argument("steps")?;
    let learning_rate: f64 = case.argument("sgd_lr")?;
    let model = sequence(case, &device)?
        .load(|_, name| case.tensors.get(&format!("step0/param/{name}")).cloned())?;
    let layer = model.layers().keys().next().cloned().unwrap_or_default();
    let mut batches = Vec::new();
    for step in 0..steps {
        let x = Activation::from_array(case.array(&format!("step{step}/x"))?, &device)?;
        batches.push((x, case.array(&format!("step{step}/upstream"))?.clone()));
    }
    let seen: Arc<Mutex<Option<Seen>>> = Arc::default();
    let sink = seen.clone();
    let evaluator = drive::evaluator(steps, learning_rate, move |model: &RefModel, step| {
        let (x, upstream) = &batches[*step];
        let loss = || {
            let out = model.forward(x.clone());
            let loss = out.weighted_sum(upstream);
            (out, loss.expect("the upstream has its shape"))
        };
        let (out, first) = loss();
        let mut backward = first.backward();
        let collected = GradientsParams::from_module(&mut backward, model);
        let paths = model.parameters().keys().cloned().collect();
        let found = gradients(model, &collected, &paths).into_iter().collect();
        *sink.lock().expect("no step panics while it holds the lock") = Some((out.array(), found));
        loss().1
    });
    let rules = config::translate(&case.file.config_list, &model, DefaultBlock::Other)?;
    let chain = Compressor::from_model(model, evaluator);
    let mut chain = BnnQuantizer::from_compressor(chain, &rules, BnnConfig::new())
        .map_err(|error| case.error(error))?;
    let compare_parameters = |checks: &mut Checks, model: &RefModel, prefix: &str| {
        let parameters = model.parameters();
        for (name, _) in case.below(prefix) {
            let found = &parameters[&format!("{layer}.{name}")];
            checks.array(case, &format!("{prefix}{name}"), found);
        }
    };
    for step in 0..steps {
        compare_parameters(&mut checks, chain.model(), &format!("step{step}/param/"));
        chain
            .advance(&Budget::steps(steps), Some(step + 1))
            .map_err(|error| case.error(format!("step {step}: {error}")))?;
        let seen = seen
            .lock()
            .expect("no step panics while it holds the lock")
            .take();
        let Some((out, found)) = seen else {
            return Err(case.error(format!("step {step} did not run")));
        };
        checks.array(case, &format!("step{step}/out"), &out);
        for (path, gradient) in &found {
            let id = targets::parse(chain.model(), path)?;
            let gradient = targets::convert(chain.model(), &id, &targets::flat(gradient)?);
            let name = format!("step{step}/grad/{}", id.target);
            checks.array(case, &name, &gradient);
        }
        compare_parameters(&mut checks, chain.model(), &format!("step{step}/after/"));
    }

    let x = case.array("elem/x")?.tensor::<2>(&device)?.require_grad();
    let scale = Tensor::<2>::ones([1, 1], &device);
    let y = binarize(x.clone(), scale, RoundGradient::Clipped);
    let upstream = case.array("elem/upstream")?.tensor::<2>(&device)?;
    let backward = (y.clone() * upstream).sum().backward();
    checks.array(case, "elem/y", &Array::from_tensor(y));
    match x.grad(&backward) {
        Some(gradient) => checks.array(case, "elem/grad_x", &Array::from_tensor(gradient)),
        None => checks.fail("elem/grad_x: no gradient"),
    }
    Ok(checks)
}
