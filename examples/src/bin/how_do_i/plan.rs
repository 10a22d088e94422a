//! What a cut will remove: before the run by count, after it by index, and from a file elsewhere.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let file = std::env::temp_dir().join(format!("net-{}.plan", std::process::id()));
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let net = Net::new(&device);
    let chain = TaylorPruner::new(net, half, evaluator(&device)?, TaylorConfig::new(2))?;
    let before = chain.plan()?;
    println!("{before}");

    let compressed = chain.compress(Budget::steps(4))?;
    let dummy_input = compressed
        .dummy_input()
        .cloned()
        .expect("that of the evaluator");
    let trained = compressed.unwrap_model();
    ModelSpeedup::new(compressed, dummy_input.clone())
        .plan()?
        .save(&file)?;

    // There:
    let small = CutPlan::load(&file)?.apply(trained, &dummy_input)?;

    assert_eq!(small.report.params, before.params);
    assert_eq!(small.model.conv2.weight.dims(), [8, 4, 3, 3]);
    Ok(std::fs::remove_file(&file)?)
}
