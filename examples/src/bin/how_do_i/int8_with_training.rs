//! Inputs and weights are rounded to int8 while the network trains, so that it learns to live with
//! it.

use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress::quantization::Granularity;

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let rules = ConfigList::from([
        on(["Conv2d", "Linear"])
            .with_target_names(["weight"])
            .quant_dtype(QuantDtype::INT8)
            .granularity(Granularity::OutChannel),
        on(["Conv2d", "Linear"])
            .with_target_names(["_input_"])
            .quant_dtype(QuantDtype::INT8),
    ]);
    let config = QatConfig::new().with_start_step(2);
    let quantizer = QatQuantizer::new(Net::new(&device), &rules, evaluator(&device)?, config)?;
    let compressed = quantizer.compress(Budget::steps(8))?;

    assert_eq!(compressed.calibration()?.len(), 6); // scales of three weights and three inputs
    Ok(())
}
