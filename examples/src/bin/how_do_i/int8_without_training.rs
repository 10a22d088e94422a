//! Scales are measured on a few batches; the weights stay as they are.

use anyhow::ensure;
use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator};

pub fn run() -> anyhow::Result<()> {
    let device = Device::flex();
    let rules = on(["Conv2d", "Linear"])
        .with_target_names(["weight", "_input_"])
        .quant_dtype(QuantDtype::INT8);
    let config = PtqConfig::new().with_batches(4);
    let quantizer = PtqQuantizer::new(Net::new(&device), rules, evaluator(&device)?, config)?;
    let compressed = quantizer.compress(Budget::none())?; // nothing is trained

    ensure!(compressed.calibration()?.len() == 6);
    Ok(())
}
