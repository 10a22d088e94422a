//! Family I: removing masked channels, without and with quantization.

use burn::module::Module;
use burn::tensor::Device;
use burn_compress::quantization::QuantizationSettings;
use burn_compress::target::{Target, TargetId};
use burn_compress::{
    Budget, Calibration, CalibrationEntry, Compressor, Evaluator, Mask, Masks, RoundGradient,
};
use indexmap::IndexMap;
use serde_json::Value;

use crate::reference::activation::Activation;
use crate::reference::adapter::{self, Chain};
use crate::reference::array::Array;
use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::config::{self, DefaultBlock};
use crate::reference::families::a::compare_masks;
use crate::reference::model::RefModel;
use crate::reference::targets;

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or needs what the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    let device = Device::flex();
    let mut checks = Checks::new(case);
    let model = RefModel::build(case.model()?, &device)?
        .load(|layer, name| case.tensors.get(&format!("param/{layer}.{name}")).cloned())?
        .valid();
    let input = case.array("x")?;
    let x = Activation::from_array(input, &device)?;
    if case.tensors.contains_key("out_original") {
        checks.array(case, "out_original", &model.forward(x.clone()).array());
    }
    let quantized = !case.below("scale/").is_empty();
    let pruning_rules = match quantized {
        true => &case.file.config_list[0],
        false => &case.file.config_list,
    };
    compare_pruner(case, &mut checks, &model, pruning_rules)?;

    let mut chain: Chain = Compressor::from_model(model, Evaluator::new());
    let masks = masks(case, chain.model())?;
    chain
        .update_masks(&masks)
        .map_err(|error| case.error(error))?;
    let calibration = match quantized {
        true => calibration(case, chain.model())?,
        false => Calibration::new(),
    };
    chain
        .update_calibration(&calibration)
        .map_err(|error| case.error(error))?;
    let compressed = chain
        .compress(Budget::none())
        .map_err(|error| case.error(error))?;
    let simulated = compressed.model().forward(x.clone()).array();
    let simulated_name = if quantized { "out_fused" } else { "out_masked" };
    if case.tensors.contains_key(simulated_name) {
        checks.array(case, simulated_name, &simulated);
    }

    let before = count(case.below("param/").into_iter());
    let small = adapter::speedup(case, compressed, input)?;
    let parameters = small.plain.parameters();
    let shapes: IndexMap<String, Vec<usize>> = case.expected("shapes")?;
    for (name, shape) in &shapes {
        let found = parameters.get(name).map(|value| value.shape.clone());
        checks.equal(&format!("shape of {name}"), found, Some(shape.clone()));
    }
    if case.file.expected.get("params_before").is_some() {
        checks.equal("params_before", before, case.expected("params_before")?);
        let after = count(
            parameters
                .iter()
                .map(|(name, value)| (name.as_str(), value)),
        );
        checks.equal("params_after", after, case.expected("params_after")?);
    }
    compare_kept(case, &mut checks, &small.kept);
    if !quantized {
        checks.equal("masks that are left", small.masks.len(), 0);
    }
    for (name, value) in &parameters {
        checks.array(case, &format!("fast/{name}"), value);
    }
    if quantized {
        checks.array(
            case,
            "out_fast_quantized",
            &small.model.forward(x.clone()).array(),
        );
        checks.array(case, "out_fast_float", &small.plain.forward(x).array());
        for (id, entry) in &small.calibration {
            let target = targets::name(&small.model, id);
            for (part, value) in targets::calibration(&small.model, id, entry) {
                let expected = format!("fast_{part}/{target}");
                if case.tensors.contains_key(&expected) {
                    checks.array(case, &expected, &value?);
                }
            }
        }
    } else {
        checks.array(case, "out_fast", &small.plain.forward(x).array());
    }
    Ok(checks)
}

/// Our own pruner's masks must be those that the file gives.
fn compare_pruner(case: &Case, checks: &mut Checks, model: &RefModel, rules: &Value) -> Result<()> {
    let named = case.file.arguments.get("pruner").and_then(Value::as_str);
    let first = case.file.algorithm.split(['+', ',']).next();
    let chain = Chain::from_model(model.clone(), Evaluator::new());
    let pruner = named.or(first).unwrap_or_default();
    let chain = adapter::one_shot(case, chain, pruner, rules)?;
    // Aligned outputs have a shape once a forward pass has reached their layers.
    let x = Activation::from_array(case.array("x")?, &Device::flex())?;
    chain.model().forward(x);
    let compressed = chain
        .compress(Budget::none())
        .map_err(|error| case.error(error))?;
    let masks = targets::masks(model, &compressed.masks());
    compare_masks(case, checks, "mask/", &masks);
    Ok(())
}

/// The masks of the file in Burn's layout.
fn masks(case: &Case, model: &RefModel) -> Result<Masks> {
    let mut masks = Masks::new();
    for (name, array) in case.below("mask/") {
        let id = targets::parse(model, name)?;
        let array = targets::convert(model, &id, array);
        let mask = Mask::new(array.values, array.shape).map_err(|error| case.error(error))?;
        masks.insert(id, mask);
    }
    Ok(masks)
}

/// The scales and zero points of the file, with types and schemes from the configuration.
fn calibration(case: &Case, model: &RefModel) -> Result<Calibration> {
    let rules = &case.file.config_list[1];
    let config = config::translate::<QuantizationSettings>(rules, model, DefaultBlock::Other)?;
    let layers = burn_compress::layer::layers(model);
    let selected = config.select(&layers).map_err(|error| case.error(error))?;
    let mut calibration = Calibration::new();
    for target in selected {
        let id = target.id();
        let name = targets::name(model, &id);
        let rank = rank(case, model, &id, &name)?;
        let scale = case.array(&format!("scale/{name}"))?;
        let (grid, scale) = targets::grid(model, &id, rank, scale);
        let zero_point = case.array(&format!("zero_point/{name}"))?;
        let (_, zero_point) = targets::grid(model, &id, rank, zero_point);
        let dtype = target.settings.dtype();
        let entry = CalibrationEntry {
            dtype: dtype.into(),
            scheme: target.settings.scheme(),
            qmin: dtype.qmin(),
            qmax: dtype.qmax(),
            grid,
            gradient: RoundGradient::default(),
            enabled: true,
            scale: Some(scale),
            zero_point: Some(zero_point),
            minimum: None,
            maximum: None,
        };
        calibration.insert(id, entry);
    }
    Ok(calibration)
}

/// Number of dims of a target; inputs and outputs have that of the network's input, or that which
/// their scales give away.
fn rank(case: &Case, model: &RefModel, id: &TargetId, name: &str) -> Result<usize> {
    let scale = case.array(&format!("scale/{name}"))?.shape.len();
    Ok(match (&id.target, model.kind(&id.layer)) {
        (Target::Param(_), _) => case.array(&format!("param/{name}"))?.shape.len(),
        (_, "Conv2d") => 4,
        (_, "Linear") => 2,
        _ => scale.max(case.array("x")?.shape.len()),
    })
}

/// Compares the surviving channels of every layer that the file lists.
fn compare_kept(
    case: &Case,
    checks: &mut Checks,
    kept: &IndexMap<String, (Vec<usize>, Vec<usize>)>,
) {
    for (side, pick) in [("kept_in", 0), ("kept_out", 1)] {
        for (layer, _) in case.below(&format!("{side}/")) {
            let name = format!("{side}/{layer}");
            match kept.get(layer) {
                Some((inputs, outputs)) => {
                    let indices = if pick == 0 { inputs } else { outputs };
                    let values = indices
                        .iter()
                        .map(|index| *index as f32)
                        .collect::<Vec<_>>();
                    checks.array(case, &name, &Array::float([values.len()], values));
                }
                None => checks.fail(format!("{name}: the layer was not analysed")),
            }
        }
    }
}

/// Number of trainable values; running statistics are not.
fn count<'a>(parameters: impl Iterator<Item = (&'a str, &'a Array)>) -> usize {
    parameters
        .filter(|(name, _)| !name.ends_with(".running_mean") && !name.ends_with(".running_var"))
        .map(|(_, value)| value.values.len())
        .sum()
}
