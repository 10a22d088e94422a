//! What is quantized, and how, follows from what ONNX Runtime computes in integers.

use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress_examples::digits::Digits;

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let net = Net::new(&device);
    let images = Digits::load()
        .map_err(Error::other)?
        .test
        .head(4, &device)
        .images;
    let dummy_input = DummyInput::new(images, Net::forward);
    let rules = Deployment::onnxruntime().rules(&net, &dummy_input)?;
    let quantizer = QatQuantizer::new(net, rules, evaluator(&device)?, QatConfig::new())?;
    let compressed = quantizer.compress(Budget::steps(5))?;

    // Inputs, weights and biases of three layers, one bias in a norm and the input of the pool.
    assert_eq!(compressed.calibration()?.len(), 3 * 3 + 1 + 1);
    Ok(())
}
