//! The losses of distillers by hand, and a student of a quarter of the width.

use burn::nn::conv::Conv2dConfig;
use burn::nn::{BatchNormConfig, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use burn_compress::distillation::Channels;
use burn_compress::distillation::attention::attention;
use burn_compress::distillation::logits::soft_targets;
use burn_compress::prelude::*;

use crate::output::{assert_close, values};
use crate::own_network::{Batch, Net, evaluator, trained};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    by_hand(&device);
    let teacher = trained(&device);
    narrow_student(&teacher, &device)?;
    pruned_student(&teacher, &device)?;
    several_teachers(&teacher, &device)
}

fn by_hand(device: &Device) {
    // ANCHOR: soft_targets
    let teacher = Tensor::<2>::from_floats([[2.0, 0.0]], device); // 88 % and 12 %
    let student = Tensor::<2>::from_floats([[0.0, 0.0]], device); // 50 % and 50 %
    let divergence = |temperature| {
        let loss = soft_targets(student.clone(), teacher.clone(), temperature);
        (1000.0 * loss.into_scalar::<f32>()).round() / 1000.0
    };
    assert_eq!(divergence(1.0), 0.328); // 0.881 ln(0.881 / 0.5) + 0.119 ln(0.119 / 0.5)
    assert_eq!(divergence(2.0), 0.444); // 4 (0.731 ln(0.731 / 0.5) + 0.269 ln(0.269 / 0.5))
    // ANCHOR_END: soft_targets

    // ANCHOR: attention
    // One sample, two positions; the teacher has two channels and is active at the first alone.
    let teacher = Tensor::<3>::from_floats([[[3.0, 4.0], [0.0, 0.0]]], device); // energies 25, 0
    let student = Tensor::<3>::from_floats([[[1.0], [1.0]]], device); // energies 1, 1
    let half = 0.5_f32.sqrt();
    let expected = (1.0 - half).powi(2) + half.powi(2); // maps (1, 0) and (0.71, 0.71)
    assert_close(values(attention(student, teacher)), &[expected]);
    // ANCHOR_END: attention
}

// ANCHOR: student
/// A network of a quarter of the width.
fn student(device: &Device) -> Net {
    device.seed(1);
    Net {
        conv1: Conv2dConfig::new([1, 4], [3, 3]).init(device).into(),
        norm1: BatchNormConfig::new(4).init(device).into(),
        conv2: Conv2dConfig::new([4, 8], [3, 3]).init(device).into(),
        norm2: BatchNormConfig::new(8).init(device).into(),
        head: LinearConfig::new(8, 4).init(device).into(),
    }
}

fn teach(teacher: &Net, batch: &Batch) -> Tensor<2> {
    teacher.forward(batch.images.clone())
}
// ANCHOR_END: student

/// Runs a few steps; the distiller's part is in the loss.
fn run_of(chain: Compressor<Net, Batch>) -> Result<Net, Error> {
    let compressed = chain.compress(Budget::steps(6))?;
    for step in &compressed.history().steps {
        assert!(step.loss > step.task_loss);
    }
    Ok(compressed.into_model())
}

fn narrow_student(teacher: &Net, device: &Device) -> Result<(), Error> {
    let (student, evaluator) = (|| student(device), || evaluator(device));
    // ANCHOR: logits
    let head = named(["head"]).lambda(1.0);
    let config = LogitsConfig::new().with_temperature(4.0);
    let chain = LogitsDistiller::new(student(), head, evaluator(), teacher, teach, config)?;
    run_of(chain)?;
    // ANCHOR_END: logits

    // ANCHOR: dkd
    let labels = |batch: &Batch| -> Tensor<1, Int> { batch.labels.clone() };
    let head = named(["head"]).lambda(1.0);
    let config = DkdConfig::new().with_warmup_steps(3);
    let chain = DkdDistiller::new(student(), head, evaluator(), teacher, teach, labels, config)?;
    // ANCHOR_END: dkd
    chain.compress(Budget::steps(6))?;

    // ANCHOR: features
    let hidden = || named(["norm2"]).lambda(1.0);
    let (net, config) = (student(), FitNetsConfig::new());
    run_of(FitNetsDistiller::new(
        net,
        hidden(),
        evaluator(),
        teacher,
        teach,
        config,
    )?)?;

    let (net, config) = (student(), AttentionConfig::new());
    run_of(AttentionDistiller::new(
        net,
        hidden(),
        evaluator(),
        teacher,
        teach,
        config,
    )?)?;

    let (net, config) = (student(), RelationalConfig::new());
    run_of(RelationalDistiller::new(
        net,
        hidden(),
        evaluator(),
        teacher,
        teach,
        config,
    )?)?;
    // ANCHOR_END: features

    // ANCHOR: refused
    let (net, config) = (student(), DistillConfig::new(1.0));
    let chain = DynamicLayerwiseDistiller::new(net, hidden(), evaluator(), teacher, teach, config)?;
    let error = chain.compress(Budget::steps(1)).unwrap_err();
    // ANCHOR_END: refused
    crate::output::show("distillers_refused", error);
    Ok(())
}

fn pruned_student(teacher: &Net, device: &Device) -> Result<(), Error> {
    // ANCHOR: kept
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let pruner = L1NormPruner::new(
        teacher.clone(),
        half,
        evaluator(device),
        PrunerConfig::new(),
    )?;
    let hidden = named(["norm2"]).lambda(1.0).channels(Channels::Kept);
    let config = DistillConfig::new(1.0);
    let chain = DynamicLayerwiseDistiller::from_compressor(pruner, hidden, teacher, teach, config)?;
    run_of(chain)?;
    // ANCHOR_END: kept
    Ok(())
}

fn several_teachers(teacher: &Net, device: &Device) -> Result<(), Error> {
    let other = student(device);
    // ANCHOR: teachers
    let teachers = Teachers::new([
        Teacher::of_logits(teacher, teach).with_weight(2.0),
        Teacher::of_logits(&other, teach),
    ]);
    let chain = Compressor::from_model(student(device), evaluator(device));
    let head = named(["head"]).lambda(1.0);
    run_of(LogitsDistiller::from_teachers(
        chain,
        head,
        teachers,
        LogitsConfig::new(),
    )?)?;
    // ANCHOR_END: teachers
    Ok(())
}
