//! Three pruners on different layers and two distillers, fused in any order one likes.

use std::process::ExitCode;

use burn_compress::prelude::*;
use burn_compress_examples::digits::DigitsBatch;
use burn_compress_examples::pipeline;
use burn_compress_examples::resnet::DigitsResNet;

fn main() -> ExitCode {
    pipeline::run("three_pruners_two_distillers", |setup| {
        let layers = |pattern| {
            let rule = on(["Conv2d"]).with_op_names_re([pattern]);
            ConfigList::from(rule.sparse_ratio(setup.sparsity))
        };
        let features = |pattern| {
            let rule = on(["Conv2d"]).with_op_names_re([pattern]);
            ConfigList::from(rule.lambda(0.1))
        };
        let predict =
            |teacher: &DigitsResNet, batch: &DigitsBatch| teacher.forward(batch.images.clone());
        let agp = || AgpConfig::new(setup.interval(), setup.updates());

        // Stem and first stage share their channels through the additions, so they go together.
        let chain = TaylorPruner::new(
            setup.dense.clone(),
            layers("stem|stage1"),
            setup.evaluator(setup.steps)?,
            TaylorConfig::new(setup.interval()),
        )?;
        let chain = AgpPruner::new(chain, agp())?;
        let chain = DynamicLayerwiseDistiller::from_compressor(
            chain,
            features("stage1|stage2"),
            &setup.dense,
            predict,
            DistillConfig::new(0.5),
        )?;
        let chain = L1NormPruner::from_compressor(chain, layers("stage2"), PrunerConfig::new())?;
        let chain = AgpPruner::new(chain, agp())?;
        let chain = L2NormPruner::from_compressor(chain, layers("stage3"), PrunerConfig::new())?;
        let chain = LinearPruner::new(
            chain,
            LinearScheduleConfig::new(setup.interval(), setup.updates()),
        )?;
        let chain = DynamicLayerwiseDistiller::from_compressor(
            chain,
            features("stage3"),
            &setup.dense,
            predict,
            DistillConfig::new(0.5),
        )?;
        setup.finish(chain, Budget::steps(setup.steps))
    })
}
