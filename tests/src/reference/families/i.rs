//! Family I.

use burn::module::Module;
use burn::tensor::Device;

use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::model::{Activation, RefModel};

/// Runs a case.
pub fn run(case: &Case) -> Result<Checks> {
    let device = Device::flex();
    let mut checks = Checks::new(case);
    let model = RefModel::build(case.model()?, &device)?
        .load(|layer, name| case.tensors.get(&format!("param/{layer}.{name}")).cloned())?
        .valid();
    let x = Activation::from_array(case.array("x")?, &device)?;
    checks.array(case, "out_original", &model.forward(x).array());
    Ok(checks)
}
