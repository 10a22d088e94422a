//! Family H.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Device;
use serde_json::Value;

use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::model::{Activation, RefModel};

/// Runs a case.
pub fn run(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let model = RefModel::build(case.model()?, &device)?
        .load(|layer, name| case.tensors.get(&format!("init/{layer}.{name}")).cloned())?;
    let x = Activation::from_array(case.array("step0/x")?, &device)?;
    let labels = case.array("step0/label")?.int_tensor::<1>(&device)?;
    let loss = CrossEntropyLossConfig::new().init(&device).forward(model.forward(x).rows(), labels);
    let losses: Vec<Value> = case.expected("losses")?;
    checks.number("raw_loss", loss.into_scalar::<f32>() as f64, losses[0]["raw_loss"].as_f64().unwrap());
    Ok(checks)
}
