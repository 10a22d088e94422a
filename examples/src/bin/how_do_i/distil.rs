//! A network learns the softened class probabilities of a teacher beside its own loss.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator, teach};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let teacher = Net::new(&device); // the better network, of any type
    let student = Net::new(&device);

    let rules = named(["head"]).lambda(1.0);
    let distiller = LogitsDistiller::new(
        student,
        rules,
        evaluator(&device)?,
        &teacher,
        teach,
        LogitsConfig::new(),
    )?;
    let trained = distiller.compress(Budget::steps(4))?.into_model();

    assert_eq!(trained.head.weight.dims(), [16, 10]);
    Ok(())
}
