//! What came of a run, as one HTML file with figures and tables: no server, no network.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let int8 = on(["Conv2d", "Linear"]).quant_dtype(QuantDtype::INT8);
    let dense = Net::new(&device); // your trained model
    let data = evaluator(&device)?;
    let pruner = TaylorPruner::new(dense.clone(), half, data, TaylorConfig::new(2))?;
    let chain = QatQuantizer::from_compressor(pruner, int8, QatConfig::new())?;
    let plan = chain.plan()?;
    let compressed = chain.compress(Budget::steps(6))?;

    let dummy_input = compressed.dummy_input().cloned();
    let dummy_input = dummy_input.expect("that of the evaluator");
    let report = Report::new("Digits").with_run(&compressed)?;
    let small = compressed.speedup()?;
    let path = std::env::temp_dir().join(format!("digits-{}.html", std::process::id()));
    report
        .with_plan(&plan)
        .with_speedup(&small)
        .with_latency("batch of 4", latency(&dense, &small.model, &dummy_input)?)
        .with_platform(Platform::new("flex"))
        .save(&path)?;
    Ok(std::fs::remove_file(&path)?) // so that the program leaves nothing behind
}
