//! Learned rounding: its objective at given values, and its result beside all roundings.

use burn::tensor::{Device, Tensor};
use burn_compress::config::ConfigList;
use burn_compress::quantization::internals::LearnedRounding;
use burn_compress::quantization::{AdaRoundConfig, AdaRoundQuantizer, PtqConfig, PtqQuantizer};
use burn_compress::{Budget, Compressed, Wrapper};

use super::case::{Case, Numbers};
use super::check::Checks;
use super::nets::{Chain, evaluator, linear};
use crate::reference::case::Result;

/// Runs a case.
pub fn run(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    match case.optional::<Numbers>("v")? {
        Some(v) => objective(case, checks, &v),
        None => rounding(case, checks),
    }
}

fn config(case: &Case) -> Result<AdaRoundConfig> {
    let mut config = AdaRoundConfig::new();
    if let Some(steps) = case.optional("steps")? {
        config.steps = steps;
    }
    if let Some(rate) = case.optional("learning_rate")? {
        config.learning_rate = rate;
    }
    if let Some(regularization) = case.optional("regularization")? {
        config.regularization = regularization;
    }
    Ok(config)
}

fn objective(case: &Case, checks: &mut Checks<'_>, v: &Numbers) -> Result<()> {
    let device = Device::flex();
    let (x, weight): (Numbers, Numbers) = (case.input("x")?, case.input("weight")?);
    let scale: f64 = case.input("scale")?;
    let qmax: f64 = case.input("qmax")?;
    let qmin: f64 = case.optional("qmin")?.unwrap_or(-qmax);
    // In single precision the largest weight may come to lie on the other side of the grid's end.
    let rounding = LearnedRounding::new(
        x.double(&device)?,
        weight.double(&device)?,
        scale,
        (qmin as f32, qmax as f32),
        config(case)?,
    );
    let [rows, columns]: [usize; 2] = weight.tensor(&device)?.dims();
    checks.compare("/initial_v", rounding.initial().reshape([rows, columns]));
    let v = v.double::<2>(&device.autodiff())?.flatten(0, 1);
    let leaf: Tensor<1> = v.detach().require_grad();
    for at in case.elements("/at") {
        let step: usize = case.expected(&format!("{at}/step"))?;
        checks.compare(&format!("{at}/step"), step);
        checks.compare_or_none(&format!("{at}/beta"), rounding.beta(step));
        let loss = rounding.loss(leaf.clone(), step);
        checks.compare(&format!("{at}/loss"), loss.clone());
        match leaf.grad(&loss.backward()) {
            Some(gradient) => {
                let gradient = gradient.reshape([rows, columns]);
                checks.compare(&format!("{at}/gradient"), gradient);
            }
            None => checks.fail(format!("{at}/gradient: there is none")),
        }
    }
    Ok(())
}

fn rounding(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let (x, weight): (Numbers, Numbers) = (case.input("x")?, case.input("weight")?);
    let scale: f64 = case.input("scale")?;
    let learned = |case: &Case| -> Result<Compressed<Chain>> {
        let chain =
            AdaRoundQuantizer::new(model(&weight)?, &rules(case)?, batches(&x)?, config(case)?);
        let chain = chain.map_err(|error| case.error(error))?;
        chain
            .compress(Budget::none())
            .map_err(|error| case.error(error))
    };
    let learned = learned(case)?;
    let calibration = learned.calibration().map_err(|error| case.error(error))?;
    let found = calibration
        .values()
        .next()
        .and_then(|entry| entry.scale.clone());
    match found.as_deref() {
        Some([found]) if checks.agrees(f64::from(*found), scale) => {}
        other => checks.fail(format!("the scale is {other:?} instead of {scale}")),
    }
    let learned = Rounded::new(&x, &weight, scale, learned.model());
    checks.compare("/weight", learned.weight.clone());
    checks.compare("/integers", learned.integers.clone());
    checks.compare("/distance", learned.distances.iter().sum::<f64>());
    if let Ok(runner_up) = case.expected::<Vec<f64>>("/runner_up_distance") {
        let nearer = learned
            .distances
            .iter()
            .zip(&runner_up)
            .all(|(own, other)| own < other);
        let same = runner_up.len() == learned.distances.len();
        checks.require("/runner_up_distance", nearer && same, || {
            format!("{:?} are not below {runner_up:?}", learned.distances)
        });
    }

    let chain = PtqQuantizer::new(
        model(&weight)?,
        &rules(case)?,
        batches(&x)?,
        PtqConfig::new(),
    );
    let chain = chain.map_err(|error| case.error(error))?;
    let nearest = chain
        .compress(Budget::none())
        .map_err(|error| case.error(error))?;
    let nearest = Rounded::new(&x, &weight, scale, nearest.model());
    checks.compare("/nearest_integers", nearest.integers.clone());
    checks.compare("/nearest_distance", nearest.distances.iter().sum::<f64>());
    Ok(())
}

fn model(weight: &Numbers) -> Result<Chain> {
    let layer = linear(weight, None, &Device::flex())?;
    Ok(Chain {
        layers: vec![Wrapper::new(layer)],
    })
}

fn batches(x: &Numbers) -> Result<burn_compress::Evaluator<Chain, Tensor<2>>> {
    let x: Tensor<2> = x.tensor(&Device::flex())?;
    Ok(evaluator(vec![x], |net: &Chain, x: &Tensor<2>| {
        net.forward(x.clone()).mean().reshape([1])
    }))
}

fn rules(case: &Case) -> Result<ConfigList<burn_compress::quantization::QuantizationSettings>> {
    let dtype: String = case.input("dtype")?;
    let rules = format!(
        r#"[{{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "{dtype}",
              "quant_scheme": "symmetric", "observer": "min_max"}}]"#
    );
    ConfigList::from_json(&rules).map_err(|error| case.error(error))
}

/// A quantized weight and how far it takes each output from that in full precision.
struct Rounded {
    weight: Vec<f64>,
    integers: Vec<f64>,
    /// Squared distances, averaged over the samples, by output.
    distances: Vec<f64>,
}

impl Rounded {
    fn new(x: &Numbers, raw: &Numbers, scale: f64, model: &Chain) -> Self {
        let quantized = model.layers[0].weight.val().into_data();
        let weight: Vec<f64> = quantized.convert::<f64>().iter().collect();
        let [samples, features, outputs] = [x.shape[0], raw.shape[0], raw.shape[1]];
        let mut distances = vec![0.0; outputs];
        for sample in 0..samples {
            for (output, distance) in distances.iter_mut().enumerate() {
                let terms = (0..features).map(|feature| {
                    let at = feature * outputs + output;
                    x.values[sample * features + feature] * (raw.values[at] - weight[at])
                });
                *distance += terms.sum::<f64>().powi(2) / samples as f64;
            }
        }
        Self {
            integers: weight.iter().map(|w| (w / scale).round()).collect(),
            weight,
            distances,
        }
    }
}
