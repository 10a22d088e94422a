//! Family J: a convolution or linear layer with the batch norm, and the rectifier, behind it folded
//! into it.
//!
//! Scales are given. Every case is run in three ways: one forward pass of the fused chain, the pure
//! fold with the statistics that this leaves, and the finished model with the folded values in it.
//!
//! A case may give the norm's `eps` and `momentum`, beside what it expects or with the layer; without
//! them the norm has Burn's, which are PyTorch's.
//!
//! In training the two frameworks differ in the norm itself: PyTorch moves the running variance
//! towards the variance of the batch over `n - 1` values, Burn towards that over `n`. The models
//! of these cases start from a variance that is shifted by what one update differs, so that both
//! arrive at the same one.

use burn::module::{Module, Param};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress::quantization::fold;
use burn_compress::target::{Target, TargetId};
use burn_compress::{
    Budget, Calibration, CalibrationEntry, Compressor, DummyInput, Evaluator, Grid, Norm,
    QuantScheme, RoundGradient,
};

use crate::reference::activation::Activation;
use crate::reference::adapter;
use crate::reference::array::Array;
use crate::reference::case::{Case, OpSpec, Result};
use crate::reference::check::Checks;
use crate::reference::drive::Step;
use crate::reference::layer::RefLayer;
use crate::reference::layout;
use crate::reference::model::RefModel;

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run.
pub fn run(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let training: bool = case.argument("training")?;
    let mut checks = Checks::new(case);
    let (model, names) = model(case, &device)?;
    let plain_x = Activation::from_array(case.array("x")?, &device.clone().without_autodiff())?;

    if case.tensors.contains_key("out_unfused_float") {
        let out = model.valid().forward(plain_x.clone());
        checks.array(case, "out_unfused_float", &out.array());
    }

    let calibration = calibration(case, &names)?;
    let model = match training {
        true => shift_variance(case, model, &names, &calibration, &plain_x)?,
        false => model,
    };
    let chain = Compressor::from_model(model, evaluator(&plain_x));
    let mut chain = adapter::qat(case, chain, &case.file.config_list, 0)?;
    chain
        .update_calibration(&calibration)
        .map_err(|error| case.error(error))?;

    let out = match training {
        true => chain
            .model()
            .forward(Activation::from_array(case.array("x")?, &device)?),
        false => chain.model().valid().forward(plain_x.clone()),
    };
    checks.array(case, "out", &out.array());

    // What the forward pass has left of the statistics, and the fold with them.
    let after = chain.model().valid();
    let parameters = after.parameters();
    for (statistic, _) in case.below("after/") {
        match parameters.get(statistic) {
            Some(value) => checks.array(case, &format!("after/{statistic}"), value),
            None => checks.fail(format!("after/{statistic}: the model has no such value")),
        }
    }
    let (weight, bias) = folded(case, &mut checks, &after, &names)?;
    checks.array(case, "folded/weight", &weight);
    checks.array(case, "folded/bias", &bias);

    // The finished model, of a run of which no step is made.
    chain
        .advance(&Budget::steps(1), Some(0))
        .map_err(|error| case.error(error))?;
    let compressed = chain.finish_early().map_err(|error| case.error(error))?;
    let out = compressed.model().forward(plain_x);
    checks.array(case, "out", &out.array());
    Ok(checks)
}

/// What a norm is built with, as the files name it.
const NORM_OPTIONS: [&str; 2] = ["eps", "momentum"];

/// The layers of the case one after another, with the given values.
fn model(case: &Case, device: &Device) -> Result<(RefModel, Vec<String>)> {
    let mut spec = case.model()?.clone();
    let names: Vec<String> = spec.layers.iter().map(|layer| layer.name.clone()).collect();
    if names.len() < 2 {
        return Err(case.error("a host and a norm are needed"));
    }
    for key in NORM_OPTIONS {
        if let Some(value) = case.file.expected.get(key) {
            let options = &mut spec.layers[1].options;
            options.entry(key.to_owned()).or_insert(value.clone());
        }
    }
    let value = |at: usize| match at {
        0 => "x".to_owned(),
        at if at == names.len() => "y".to_owned(),
        at => format!("v{at}"),
    };
    let ops = names.iter().enumerate().map(|(at, name)| OpSpec {
        op: "layer".to_owned(),
        layer: Some(name.clone()),
        inputs: vec![value(at)],
        output: value(at + 1),
    });
    spec.ops = Some(ops.collect());
    let model = RefModel::build(&spec, device)?
        .load(|layer, name| case.tensors.get(&format!("param/{layer}.{name}")).cloned())?;
    Ok((model, names))
}

/// The model with the running variance that one update of Burn's takes to where one of PyTorch's
/// takes the variance of the case.
///
/// ```text
/// (1 - m) v' + m s = (1 - m) v + m s n / (n - 1)    so    v' = v + m / (1 - m) s / (n - 1)
/// ```
///
/// with the momentum `m` and the variance `s` of the batch, that of the raw host's output on the
/// quantized input.
fn shift_variance(
    case: &Case,
    model: RefModel,
    names: &[String],
    calibration: &Calibration,
    x: &Activation,
) -> Result<RefModel> {
    let RefLayer::BatchNorm(norm) = &model.layers()[&names[1]] else {
        return Err(case.error(format!("`{}` is no batch norm", names[1])));
    };
    let momentum = norm.momentum as f32;
    if momentum == 1.0 {
        return case
            .not_covered("with a momentum of 1 no earlier variance makes up the difference");
    }
    let is_input = |id: &TargetId| matches!(id.target, Target::Input(_));
    let inputs = calibration.iter().filter(|(id, _)| is_input(id));
    let inputs = inputs.map(|(id, entry)| (id.clone(), entry.clone()));
    let mut chain = Compressor::<_, Step>::from_model(model.clone(), Evaluator::new());
    chain
        .update_calibration(&inputs.collect())
        .map_err(|error| case.error(error))?;
    let raw = chain.model().valid().layers()[&names[0]].forward(x.clone());
    let shape = raw.array().shape;
    let (_, variance) = match raw {
        Activation::Rank2(raw) => fold::batch_statistics(raw),
        Activation::Rank3(raw) => fold::batch_statistics(raw),
        Activation::Rank4(raw) => fold::batch_statistics(raw),
    };
    let values: usize = shape[0] * shape[2..].iter().product::<usize>();
    let factor = momentum / (1.0 - momentum) / (values - 1) as f32;
    let name = format!("{}.running_var", names[1]);
    let start = case.array(&format!("param/{name}"))?;
    let shift = Array::from_tensor(variance * factor);
    let shifted = start.values.iter().zip(&shift.values).map(|(v, s)| v + s);
    let shifted = Array::float(start.shape.clone(), shifted.collect());
    model.load(|layer, statistic| {
        let is_variance = format!("{layer}.{statistic}") == name;
        is_variance.then(|| shifted.clone())
    })
}

/// The quantizer asks for an evaluator that could train, and for an input that shows the graph.
fn evaluator(x: &Activation) -> Evaluator<RefModel, Step> {
    let dummy = match x.clone() {
        Activation::Rank2(x) => DummyInput::new(x, |model: &RefModel, x| {
            model.forward(Activation::Rank2(x)).flat_rows()
        }),
        Activation::Rank3(x) => DummyInput::new(x, |model: &RefModel, x| {
            model.forward(Activation::Rank3(x)).flat_rows()
        }),
        Activation::Rank4(x) => DummyInput::new(x, |model: &RefModel, x| {
            model.forward(Activation::Rank4(x)).flat_rows()
        }),
    };
    let x = x.clone();
    Evaluator::new()
        .with_data(|_epoch| vec![0])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(move |model: &RefModel, _step: &Step| {
            model.forward(x.clone()).flat_rows().mean().reshape([1])
        })
        .with_dummy_input(dummy)
}

/// The scales and zero points that the case gives; those of the output at the end of the sequence.
fn calibration(case: &Case, names: &[String]) -> Result<Calibration> {
    let mut calibration = Calibration::new();
    for (name, scale) in case.below("scale/") {
        let target: Target = name.parse().map_err(|error| case.error(error))?;
        let layer = match target {
            Target::Output(_) => &names[names.len() - 1],
            _ => &names[0],
        };
        let zero_point = case.array(&format!("zero_point/{name}"))?;
        let (qmin, qmax): (f32, f32) = (case.expected("qmin")?, case.expected("qmax")?);
        let rule = &case.file.config_list[0];
        let scheme: Option<QuantScheme> = serde_json::from_value(rule["quant_scheme"].clone())
            .map_err(|error| case.error(error))?;
        let entry = CalibrationEntry {
            dtype: rule["quant_dtype"].as_str().unwrap_or_default().into(),
            scheme: scheme.unwrap_or_default(),
            qmin,
            qmax,
            grid: Grid::new([]),
            gradient: RoundGradient::Clipped,
            enabled: true,
            scale: Some(vec![scale.scalar()?]),
            zero_point: Some(vec![zero_point.scalar()?]),
            minimum: None,
            maximum: None,
        };
        calibration.insert(TargetId::new(layer, target), entry);
    }
    Ok(calibration)
}

/// The folded weight and bias with the statistics of the model, in PyTorch's layout.
fn folded(
    case: &Case,
    checks: &mut Checks,
    model: &RefModel,
    names: &[String],
) -> Result<(Array, Array)> {
    let RefLayer::BatchNorm(layer) = &model.layers()[&names[1]] else {
        return Err(case.error(format!("`{}` is no batch norm", names[1])));
    };
    for (key, found) in NORM_OPTIONS
        .into_iter()
        .zip([layer.epsilon, layer.momentum])
    {
        if case.file.expected[key].is_number() {
            checks.number(key, found, case.expected(key)?);
        }
    }
    let norm = Norm {
        gamma: Some(layer.gamma.base()),
        beta: Some(layer.beta.base()),
        mean: layer.running_mean.value(),
        variance: layer.running_var.value(),
        epsilon: layer.epsilon,
    };
    let host = &model.layers()[&names[0]];
    let base = |bias: &Option<Param<Tensor<1>>>| bias.as_ref().map(Param::base);
    let (weight, bias) = match host {
        RefLayer::Conv2d(host) => (
            Array::from_tensor(fold::weight(host.weight.base(), 0, &norm)),
            base(&host.bias),
        ),
        RefLayer::Linear(host) => (
            Array::from_tensor(fold::weight(host.weight.base(), 1, &norm)),
            base(&host.bias),
        ),
        other => return Err(case.error(format!("a {} is no host", other.kind()))),
    };
    let weight = layout::convert(host.kind(), "weight", &weight);
    Ok((weight, Array::from_tensor(fold::bias(bias, &norm))))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A case of this family with other expectations, and the norm that is built for it.
    fn norm(expected: Value) -> (f64, f64) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("reference");
        let mut case = Case::load(&folder, "j_conv_bn_train").unwrap();
        case.file.expected = expected;
        let (model, names) = model(&case, &Device::flex()).unwrap();
        let RefLayer::BatchNorm(norm) = &model.layers()[&names[1]] else {
            panic!("`{}` is no batch norm", names[1]);
        };
        (norm.epsilon, norm.momentum)
    }

    #[test]
    fn the_norm_is_built_with_the_numbers_of_the_case() {
        assert_eq!(norm(json!({"eps": 1e-3, "momentum": 0.25})), (1e-3, 0.25));
        assert_eq!(norm(json!({"momentum": 0.4})), (1e-5, 0.4));
        assert_eq!(norm(json!({})), (1e-5, 0.1));
    }

    #[test]
    fn a_case_in_training_agrees_with_another_momentum() {
        // The case has m = 0.1: after = 0.9 before + 0.1 mean of the batch.
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("reference");
        let mut case = Case::load(&folder, "j_conv_bn_train").unwrap();
        let before = &case.tensors["param/bn.running_mean"].values;
        let after = &case.tensors["after/bn.running_mean"].values;
        let pairs = before.iter().zip(after);
        let mixed = pairs.map(|(before, after)| 0.7 * before + 3.0 * (after - 0.9 * before));
        let expected = Array::float([before.len()], mixed.collect());
        case.file.expected["momentum"] = json!(0.3);
        case.tensors
            .insert("after/bn.running_mean".to_owned(), expected);
        let failures = run(&case).unwrap().finish(&case);
        let about_the_mean = failures.iter().any(|text| text.contains("running_mean"));
        assert!(!about_the_mean, "{failures:?}");
    }
}
