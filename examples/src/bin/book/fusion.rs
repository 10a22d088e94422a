//! Pruning, quantization and distillation in one run, one line more at a time, in any order.

use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;

use crate::output::show;
use crate::own_network::{Batch, Net, evaluator, trained};

// ANCHOR: rules
fn half() -> Rule<PruningSettings> {
    on(["Conv2d"]).sparse_ratio(0.5)
}

fn int8() -> Rule<QuantizationSettings> {
    on(["Conv2d", "Linear"]).quant_dtype(QuantDtype::INT8)
}

fn hidden() -> Rule<DistillationSettings> {
    named(["norm2"]).lambda(0.1)
}

/// The teacher's forward pass of a batch.
fn teach(teacher: &Net, batch: &Batch) -> Tensor<2> {
    teacher.forward(batch.images.clone())
}
// ANCHOR_END: rules

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let model = trained(&device);
    first(&model, &device)?;
    second(&model, &device)?;
    third(&model, &device)?;
    any_order(&model, &device)?;
    several(&model, &device)?;
    one_after_the_other(&model, &device)
}

fn first(model: &Net, device: &Device) -> Result<(), Error> {
    let model = model.clone();
    // ANCHOR: first
    let chain = TaylorPruner::new(model, half(), evaluator(device), TaylorConfig::new(5))?;
    let chain = AgpPruner::new(chain, AgpConfig::new(5, 4))?;
    let compressed = chain.compress(Budget::steps(30))?;

    let percent = |step: usize| 100.0 * compressed.history().steps[step - 1].sparsity;
    let found = [4, 5, 10, 15, 20, 30].map(|step| (step, percent(step).round()));
    let expected = [
        (4, 0.0),
        (5, 28.0),
        (10, 44.0),
        (15, 47.0),
        (20, 50.0),
        (30, 50.0),
    ];
    assert_eq!(found, expected);
    // ANCHOR_END: first
    Ok(())
}

fn second(model: &Net, device: &Device) -> Result<(), Error> {
    let model = model.clone();
    // ANCHOR: second
    let chain = TaylorPruner::new(model, half(), evaluator(device), TaylorConfig::new(5))?;
    let chain = AgpPruner::new(chain, AgpConfig::new(5, 4))?;
    let chain = QatQuantizer::from_compressor(chain, int8(), QatConfig::new().with_start_step(10))?;
    let compressed = chain.compress(Budget::steps(30))?;
    // ANCHOR_END: second
    assert_eq!(compressed.calibration()?.len(), 9); // input, weight and output of three layers
    Ok(())
}

fn third(model: &Net, device: &Device) -> Result<(), Error> {
    let (model, teacher) = (model.clone(), model.clone());
    // ANCHOR: third
    let chain = TaylorPruner::new(model, half(), evaluator(device), TaylorConfig::new(5))?;
    let chain = AgpPruner::new(chain, AgpConfig::new(5, 4))?;
    let chain = QatQuantizer::from_compressor(chain, int8(), QatConfig::new().with_start_step(10))?;
    let config = DistillConfig::new(0.1); // the weight of the task's own loss
    let chain =
        DynamicLayerwiseDistiller::from_compressor(chain, hidden(), &teacher, teach, config)?;
    // ANCHOR_END: third
    show("fusion_chain", &chain);
    // ANCHOR: once
    let compressed = chain.compress(Budget::steps(30))?;
    let small = compressed.speedup()?;
    assert_eq!(small.model.conv2.weight.dims(), [16, 8, 3, 3]);
    // ANCHOR_END: once
    Ok(())
}

fn any_order(model: &Net, device: &Device) -> Result<(), Error> {
    let (model, teacher) = (model.clone(), model.clone());
    // ANCHOR: any_order
    let config = DistillConfig::new(0.1);
    let chain = QatQuantizer::new(model, int8(), evaluator(device), QatConfig::new())?;
    let chain =
        DynamicLayerwiseDistiller::from_compressor(chain, hidden(), &teacher, teach, config)?;
    let chain = TaylorPruner::from_compressor(chain, half(), TaylorConfig::new(5))?;
    let chain = AgpPruner::new(chain, AgpConfig::new(5, 4))?;
    let small = chain.compress(Budget::steps(30))?.speedup()?;
    assert_eq!(small.model.conv2.weight.dims(), [16, 8, 3, 3]);
    // ANCHOR_END: any_order
    Ok(())
}

fn several(model: &Net, device: &Device) -> Result<(), Error> {
    let (model, teacher) = (model.clone(), model.clone());
    // ANCHOR: several
    let (first, second) = (
        named(["conv1"]).sparse_ratio(0.25),
        named(["conv2"]).sparse_ratio(0.75),
    );
    let (hidden, logits) = (named(["norm1"]).lambda(0.1), named(["head"]).lambda(1.0));

    let chain = TaylorPruner::new(model, first, evaluator(device), TaylorConfig::new(5))?;
    let chain = AgpPruner::new(chain, AgpConfig::new(5, 4))?;
    let config = DistillConfig::new(0.5);
    let chain = DynamicLayerwiseDistiller::from_compressor(chain, hidden, &teacher, teach, config)?;
    let chain = L2NormPruner::from_compressor(chain, second, PrunerConfig::new())?;
    let chain = LinearPruner::new(chain, LinearScheduleConfig::new(4, 5))?;
    let config = LogitsConfig::new().with_origin_loss_lambda(0.5);
    let chain = LogitsDistiller::from_compressor(chain, logits, &teacher, teach, config)?;

    let small = chain.compress(Budget::steps(30))?.speedup()?.model;
    assert_eq!(small.conv1.weight.dims(), [12, 1, 3, 3]);
    assert_eq!(small.conv2.weight.dims(), [8, 12, 3, 3]);
    // ANCHOR_END: several
    Ok(())
}

fn one_after_the_other(model: &Net, device: &Device) -> Result<(), Error> {
    let (model, teacher) = (model.clone(), model.clone());
    // ANCHOR: one_after_the_other
    let pruner = L1NormPruner::new(model, half(), evaluator(device), PrunerConfig::new())?;
    let small = pruner.compress(Budget::none())?.speedup()?.model;

    let logits = named(["head"]).lambda(1.0);
    let config = LogitsConfig::new();
    let distiller =
        LogitsDistiller::new(small, logits, evaluator(device), &teacher, teach, config)?;
    let model = distiller.compress(Budget::steps(20))?.into_model();
    assert_eq!(model.conv2.weight.dims(), [16, 8, 3, 3]);
    // ANCHOR_END: one_after_the_other
    Ok(())
}
