//! The chain of the main job: pruning, quantization and distillation over one network.

use burn_compress::prelude::*;

use crate::configs;
use crate::digits::DigitsBatch;
use crate::pipeline::Setup;
use crate::resnet::DigitsResNet;

/// First-order Taylor pruning inside an AGP schedule, int8 quantization-aware training and
/// distillation from the dense network, each fused onto the one before.
///
/// # Errors
///
/// Those of the compressors.
pub fn prune_quantize_distill(
    setup: &Setup,
) -> anyhow::Result<Compressor<DigitsResNet, DigitsBatch>> {
    let pruner = TaylorPruner::new(
        setup.dense.clone(),
        &configs::pruning(setup.sparsity)?,
        setup.evaluator(setup.steps)?,
        TaylorConfig::new(setup.interval()),
    )?;
    let pruner = AgpPruner::new(pruner, AgpConfig::new(setup.interval(), setup.updates()))?;
    let quantizer = QatQuantizer::from_compressor(
        pruner,
        &setup.quantization()?,
        QatConfig::new().with_start_step(setup.steps / 20),
    )?;
    let distiller = DynamicLayerwiseDistiller::from_compressor(
        quantizer,
        &configs::distillation()?,
        &setup.dense,
        |teacher: &DigitsResNet, batch: &DigitsBatch| teacher.forward(batch.images.clone()),
        DistillConfig::new(0.1),
    )?;
    Ok(distiller)
}
