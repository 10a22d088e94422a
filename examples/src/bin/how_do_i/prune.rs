//! Half of the channels of the convolutions go in five steps, while the rest is trained.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let model = Net::new(&device); // your trained model

    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let pruner = TaylorPruner::new(model, half, evaluator(&device)?, TaylorConfig::new(2))?;
    let pruner = AgpPruner::new(pruner, AgpConfig::new(2, 5))?; // every 2 steps, 5 times
    let compressed = pruner.compress(Budget::steps(14))?; // the last 4 fine-tune
    println!("{compressed}");
    let small = compressed.speedup()?;

    assert_eq!(small.model.conv2.weight.dims(), [8, 4, 3, 3]);
    Ok(())
}
