//! Which layers bear pruning is measured, and the rules for a quarter fewer parameters follow from it.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let model = Net::new(&device); // your trained model

    let sensitivity = SensitivityConfig::new()
        .with_pruning(on(["Conv2d"]))
        .with_quantization(on(["Conv2d", "Linear"]))
        .with_batches(2)
        .analyze(model.clone(), evaluator(&device)?)?;
    println!("{sensitivity}"); // how much the loss grows; `save_figure` draws it

    let rules = sensitivity.rules_for(SizeBudget::ParameterRatio(0.75))?;
    let pruner = TaylorPruner::new(model, rules, evaluator(&device)?, TaylorConfig::new(2))?;
    let small = pruner.compress(Budget::steps(4))?.speedup()?;
    let params = small.report.params;
    assert!(4 * params.small <= 3 * params.dense);
    Ok(())
}
