//! Pruning and distillation fused over one network, in one run.

use std::process::ExitCode;

use burn_compress::prelude::*;
use burn_compress_examples::digits::DigitsBatch;
use burn_compress_examples::resnet::DigitsResNet;
use burn_compress_examples::{configs, pipeline};

fn main() -> ExitCode {
    pipeline::run("prune_distill", |setup| {
        let pruner = TaylorPruner::new(
            setup.dense.clone(),
            &configs::pruning(setup.sparsity)?,
            setup.evaluator(setup.steps)?,
            TaylorConfig::new(setup.interval()),
        )?;
        let pruner = AgpPruner::new(pruner, AgpConfig::new(setup.interval(), setup.updates()))?;
        let chain = DynamicLayerwiseDistiller::from_compressor(
            pruner,
            &configs::distillation()?,
            &setup.dense,
            |teacher: &DigitsResNet, batch: &DigitsBatch| teacher.forward(batch.images.clone()),
            DistillConfig::new(0.1),
        )?;
        setup.finish(chain, Budget::steps(setup.steps))
    })
}
