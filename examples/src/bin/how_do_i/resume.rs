//! A run that is stopped and goes on bit for bit.

use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress_examples::digits::DigitsBatch;

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let (budget, file) = (
        Budget::steps(8),
        std::env::temp_dir().join("run.checkpoint"),
    );
    let model = Net::new(&Device::flex());

    let mut pruner = chain(&model)?;
    pruner.advance(&budget, Some(3))?; // the first 3 of 8 steps
    pruner.save_checkpoint(&file)?;
    drop(pruner);

    let resumed = chain(&model)?.resume(&file)?.compress(budget.clone())?;
    assert_eq!(
        resumed.history(),
        chain(&model)?.compress(budget)?.history()
    );
    Ok(std::fs::remove_file(&file)?)
}

/// A chain is built the same way again; its checkpoint holds the rest.
fn chain(model: &Net) -> Result<Compressor<Net, DigitsBatch>, Error> {
    let evaluator = evaluator(&Device::flex())?;
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    TaylorPruner::new(model.clone(), half, evaluator, TaylorConfig::new(4))
}
