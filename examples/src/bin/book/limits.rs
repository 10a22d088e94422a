//! What is simulated, what is stored and what is faster.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::own_network::{evaluator, trained};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let model = trained(&device);

    // ANCHOR: bits
    let int8 = on(["Conv2d", "Linear"])
        .with_target_names(["weight"])
        .quant_dtype(QuantDtype::INT8);
    let chain = PtqQuantizer::new(model.clone(), int8, evaluator(&device), PtqConfig::new())?;
    let report = chain.compress(Budget::none())?.speedup()?.report;
    assert_eq!(report.bytes.dense, report.bytes.small); // in memory: floats as before
    assert_eq!(report.macs.dense, report.macs.small); // in time: as many products as before
    let file = report
        .storage
        .expect("a model that can be saved")
        .file_bytes;
    assert!(2 * file < report.bytes.small); // in the file: a byte each
    // ANCHOR_END: bits

    // ANCHOR: single
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let chain = LevelPruner::new(model, half, evaluator(&device), PrunerConfig::new())?;
    let report = chain.compress(Budget::none())?.speedup()?.report;
    assert_eq!(report.params.dense, report.params.small);
    assert_eq!(report.uncut.len(), 2); // masks that stay in the small model
    // ANCHOR_END: single
    println!("{}", report.uncut[0]);
    Ok(())
}
