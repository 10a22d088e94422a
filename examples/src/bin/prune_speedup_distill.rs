//! Pruning in one shot, speedup, and then a distiller that trains the small network.

use std::process::ExitCode;

use burn_compress::prelude::*;
use burn_compress_examples::digits::DigitsBatch;
use burn_compress_examples::pipeline;
use burn_compress_examples::resnet::DigitsResNet;

fn main() -> ExitCode {
    pipeline::run("prune_speedup_distill", |setup| {
        let pruner = L1NormPruner::new(
            setup.dense.clone(),
            &burn_compress_examples::configs::pruning(setup.sparsity)?,
            setup.evaluator(setup.steps)?,
            PrunerConfig::new(),
        )?;
        let pruned = setup.finish(pruner, Budget::none())?;

        // The head is the only layer that still has the teacher's width.
        let links = ConfigList::from_json(
            r#"[{"op_names": ["head"], "lambda": 1.0, "apply_method": "kl"}]"#,
        )?;
        let chain = DynamicLayerwiseDistiller::new(
            pruned.small.model,
            &links,
            setup.evaluator(setup.steps)?,
            &setup.dense,
            |teacher: &DigitsResNet, batch: &DigitsBatch| teacher.forward(batch.images.clone()),
            DistillConfig::new(1.0),
        )?;
        setup.finish(chain, Budget::steps(setup.steps))
    })
}
