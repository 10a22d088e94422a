//! A small model in one file, loaded by a program that knows the full-size model alone.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let file = std::env::temp_dir().join(format!("net-{}.small", std::process::id()));
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let net = Net::new(&device);
    let pruner = L1NormPruner::new(net, half, evaluator(&device)?, PrunerConfig::new())?;
    let small = pruner.compress(Budget::none())?.speedup()?;
    small.save(&file)?;

    // There:
    let net = Small::load(Net::new(&device), &file)?.model;

    assert_eq!(net.conv2.weight.dims(), [8, 4, 3, 3]);
    Ok(std::fs::remove_file(&file)?)
}
