//! Family F: what stands around one layer, with masks, scales and zero points set by hand.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::target::{Mode, TargetId};
use burn_compress::{
    Compressor, Evaluator, Mask, MaskMethod, QuantScheme, Quantization, gradients,
};
use serde::Deserialize;
use serde_json::Value;

use crate::reference::activation::Activation;
use crate::reference::array::Array;
use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::model::RefModel;
use crate::reference::targets;

/// Integer range of a target.
#[derive(Debug, Deserialize)]
struct Range {
    qmin: f32,
    qmax: f32,
    dtype: String,
}

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run.
pub fn run(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let model = RefModel::build(case.model()?, &device)?
        .load(|_, name| case.tensors.get(&format!("param/{name}")).cloned())?;
    let layer = model.layers().keys().next().cloned().unwrap_or_default();
    let x = Activation::from_array(case.array("x")?, &device)?.require_grad();
    let output_rank = case.array("out")?.shape.len();
    let mut chain = Compressor::<RefModel, ()>::from_model(model, Evaluator::new());
    let error = |error: &dyn std::fmt::Display| case.error(error);

    // Masks.
    for (target, array) in case.below("mask/") {
        let id = targets::id(chain.model(), &layer, target)?;
        let mask = mask(case, chain.model(), &id, target, array)?;
        let space = chain
            .chain()
            .claim(Mode::Pruning, std::slice::from_ref(&id))
            .map_err(|e| error(&e))?;
        space[0].set_mask(Some(mask)).map_err(|e| error(&e))?;
    }

    // Scales and zero points.
    let ranges: indexmap::IndexMap<String, Range> = case.expected("targets")?;
    for (target, range) in &ranges {
        let id = targets::id(chain.model(), &layer, target)?;
        let rank = match target.as_str() {
            "_output_0" => output_rank,
            "_input_0" => case.array("x")?.shape.len(),
            name => case.array(&format!("param/{name}"))?.shape.len(),
        };
        let plain = device.clone().without_autodiff();
        let scale = case.array(&format!("scale/{target}"))?;
        let (grid, scale) = targets::grid(chain.model(), &id, rank, scale);
        let zero_point = case.array(&format!("zero_point/{target}"))?;
        let (_, zero_point) = targets::grid(chain.model(), &id, rank, zero_point);
        let tensor =
            |values: Vec<f32>| Tensor::<1>::from_data(TensorData::from(values.as_slice()), &plain);
        let mut quantization = Quantization::new(
            range.dtype.as_str(),
            QuantScheme::Affine,
            range.qmin,
            range.qmax,
        )
        .with_grid(grid);
        quantization.scale = Some(tensor(scale));
        quantization.zero_point = Some(tensor(zero_point));
        quantization.enabled = true;
        let space = chain
            .chain()
            .claim(Mode::Quantization, std::slice::from_ref(&id))
            .map_err(|e| error(&e))?;
        space[0].set_quantization(Some(quantization));
    }

    // The recorded hidden state.
    let records = case.tensors.contains_key("distil/_output_0");
    let output = targets::id(chain.model(), &layer, "_output_0")?;
    if records {
        let space = chain
            .chain()
            .claim(Mode::Distillation, std::slice::from_ref(&output))
            .map_err(|e| error(&e))?;
        space[0].set_recording(true);
    }

    let out = chain.model().forward(x.clone());
    checks.array(case, "out", &out.array());
    if records {
        match chain
            .chain()
            .space(&output)
            .and_then(|space| space.take_hidden())
        {
            Some(hidden) => checks.array(case, "distil/_output_0", &targets::flat(&hidden)?),
            None => checks.fail("distil/_output_0: nothing was recorded"),
        }
    }
    for (param, _) in case.below("simulated/") {
        let id = targets::id(chain.model(), &layer, param)?;
        match chain.model().layers()[&layer].simulated(&id.target.to_string()) {
            Some(value) => {
                let value = targets::convert(chain.model(), &id, &value);
                checks.array(case, &format!("simulated/{param}"), &value);
            }
            None => checks.fail(format!(
                "simulated/{param}: the layer has no such parameter"
            )),
        }
    }

    let mut backward = out.weighted_sum(case.array("upstream")?)?.backward();
    if let Some(gradient) = x.gradient(&backward) {
        checks.array(case, "grad/x", &gradient);
    }
    let collected = GradientsParams::from_module(&mut backward, chain.model());
    for (param, _) in case.below("grad/") {
        if param == "x" {
            continue;
        }
        let id = targets::id(chain.model(), &layer, param)?;
        let paths = [id.to_string()].into_iter().collect();
        for gradient in gradients(chain.model(), &collected, &paths).values() {
            let gradient = targets::convert(chain.model(), &id, &targets::flat(gradient)?);
            checks.array(case, &format!("grad/{param}"), &gradient);
        }
    }

    let plain = chain.unwrap_model();
    checks.array(case, "plain_out", &plain.forward(x).array());
    Ok(checks)
}

/// The mask of a target; those of inputs and outputs are given without the batch dim.
fn mask(case: &Case, model: &RefModel, id: &TargetId, target: &str, array: &Array) -> Result<Mask> {
    let method = case.file.config_list[0]["pruning"]["target_settings"][target_key(target)]
        .get("apply_method")
        .and_then(Value::as_str);
    let array = match id.target.is_param() {
        true => targets::convert(model, id, array),
        false => {
            let shape = std::iter::once(1).chain(array.shape.iter().copied());
            Array::float(shape.collect::<Vec<_>>(), array.values.clone())
        }
    };
    let mask = Mask::new(array.values, array.shape).map_err(|error| case.error(error))?;
    match method {
        None | Some("mul") => Ok(mask),
        Some("add") => Ok(mask.with_method(MaskMethod::Add)),
        Some(other) => case.not_covered(format!("masks do not know the method `{other}`")),
    }
}

/// A target as a configuration writes it: `_input_` is `_input_0`.
fn target_key(target: &str) -> &str {
    match target {
        "_input_0" => "_input_",
        "_output_0" => "_output_",
        other => other,
    }
}
