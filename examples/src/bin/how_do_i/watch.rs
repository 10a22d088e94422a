//! A run is followed while it trains, and its history goes into a file afterwards.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator};

/// Prints what happens to the masks; steps and evaluations have methods of the same kind.
struct Masks;

impl RunObserver for Masks {
    fn on_masks(&mut self, event: &MasksEvent) {
        println!(
            "step {}: {:.1} % removed",
            event.step,
            100.0 * event.sparsity
        );
    }
}

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let model = Net::new(&device); // your trained model
    let pruner = TaylorPruner::new(model, half, evaluator(&device)?, TaylorConfig::new(2))?;
    let pruner = AgpPruner::new(pruner, AgpConfig::new(2, 5))?.with_observer(Masks);
    let compressed = pruner.compress(Budget::steps(14))?;

    let path = std::env::temp_dir().join(format!("history-{}.csv", std::process::id()));
    compressed.history().save_csv(&path)?;
    std::fs::remove_file(&path)?; // so that the program leaves nothing behind
    Ok(())
}
