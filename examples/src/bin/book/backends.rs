//! One chain on each device that this program was built with.

use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress_examples::cli::DeviceName;
use clap::ValueEnum;

use crate::own_network::{Net, evaluator, trained};

pub fn run() -> Result<(), Error> {
    // ANCHOR: devices
    let device = Device::flex(); // with the feature `wgpu`: Device::wgpu(DeviceKind::DefaultDevice)
    let loss = last_loss(&device)?;
    // ANCHOR_END: devices
    assert!(loss.is_finite());
    for name in DeviceName::value_variants() {
        match name.open() {
            Ok(device) => println!("{}: loss {:.4}", name.name(), last_loss(&device)?),
            Err(reason) => println!("{}: {reason}", name.name()),
        }
    }
    Ok(())
}

// ANCHOR: chain
/// The loss after 20 steps of a chain on `device`.
fn last_loss(device: &Device) -> Result<f64, Error> {
    let model = trained(device); // everything else follows from where the parameters are
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let int8 = on(["Conv2d", "Linear"]).quant_dtype(QuantDtype::INT8);
    let evaluator = evaluator(device).with_log_every(10);

    let chain = TaylorPruner::new(model, half, evaluator, TaylorConfig::new(5))?;
    let chain = QatQuantizer::from_compressor(chain, int8, QatConfig::new())?;
    let compressed = chain.compress(Budget::steps(20))?;

    let steps = compressed.history().steps.clone();
    assert_eq!(steps.len(), 20); // all of them, read ten at a time
    let small: Net = compressed.speedup()?.model;
    assert_eq!(small.conv2.weight.dims(), [16, 8, 3, 3]);
    Ok(steps[19].loss)
}
// ANCHOR_END: chain
