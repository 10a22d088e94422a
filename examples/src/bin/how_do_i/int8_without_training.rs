//! Scales are measured on a few batches; the weights stay as they are.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let rules = on(["Conv2d", "Linear"])
        .with_target_names(["weight", "_input_"])
        .quant_dtype(QuantDtype::INT8);
    let config = PtqConfig::new().with_batches(4);
    let quantizer = PtqQuantizer::new(Net::new(&device), rules, evaluator(&device)?, config)?;
    let compressed = quantizer.compress(Budget::none())?; // nothing is trained

    assert_eq!(compressed.calibration()?.len(), 6);
    Ok(())
}
