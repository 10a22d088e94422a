//! Pruning alone: first-order Taylor scores inside an AGP schedule, on all convolutions.

use std::process::ExitCode;

use burn_compress::prelude::*;
use burn_compress_examples::{configs, pipeline};

fn main() -> ExitCode {
    pipeline::run("prune", |setup| {
        let taylor = TaylorConfig::new(setup.interval());
        let chain = TaylorPruner::new(
            setup.dense.clone(),
            &configs::pruning(setup.sparsity)?,
            setup.evaluator(setup.steps)?,
            taylor,
        )?;
        let chain = AgpPruner::new(chain, AgpConfig::new(setup.interval(), setup.updates()))?;
        setup.finish(chain, Budget::steps(setup.steps))
    })
}
