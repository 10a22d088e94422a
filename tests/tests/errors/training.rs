//! Runs that cannot train: their data, their loss, their budget and schedule.

use burn_compress::Error;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Chain, HALF, assert_says};
use burn_compress_tests::nets::{Batch, Net, batches, evaluator};
use rstest::rstest;

use crate::fixtures::{QUANTIZE, STEPS, chain, net, prune, quantize};

/// Batches of which the third holds a NaN.
fn spoiled(epoch: usize) -> Vec<Batch> {
    let mut batches = batches(5, epoch);
    batches[2].images = batches[2].images.clone() * f32::NAN;
    batches
}

fn spoiled_chain() -> Chain {
    Compressor::from_model(net(), evaluator(STEPS).with_data(spoiled))
}

#[test]
fn data_that_is_not_a_number() {
    let error = spoiled_chain().compress(Budget::steps(STEPS)).unwrap_err();
    assert!(
        matches!(error, Error::LossNotFinite { step: 2, .. }),
        "{error}"
    );
    assert_says(&error, &["step 2", "NaN", "check the data"]);
    // A quantizer sees it before the loss does, and where.
    let chain = chains::quantize(spoiled_chain(), QUANTIZE, QatConfig::new()).unwrap();
    let error = chain.compress(Budget::steps(STEPS)).unwrap_err();
    assert!(matches!(error, Error::Observation { .. }), "{error}");
    assert_says(
        &error,
        &["cannot quantize `stem._input_0`: block 0", "not finite"],
    );
    assert_eq!(
        error.to_string().matches("cannot quantize").count(),
        1,
        "{error}"
    );
}

#[test]
fn a_quantizer_that_does_not_check_fails_at_the_loss() {
    let quantizer = QatConfig::new().with_check_finite(false);
    let chain = chains::quantize(spoiled_chain(), QUANTIZE, quantizer).unwrap();
    let error = chain.compress(Budget::steps(STEPS)).unwrap_err();
    assert!(
        matches!(error, Error::LossNotFinite { step: 2, .. }),
        "{error}"
    );
}

fn chain_with_nan_weight() -> Chain {
    let mut net = net();
    net.stem.weight = net.stem.weight.clone().map(|weight| weight * f32::NAN);
    Compressor::from_model(net, evaluator(STEPS))
}

#[test]
fn weights_that_are_not_numbers() {
    let pruner = chains::prune(chain_with_nan_weight(), HALF, PrunerConfig::new());
    let error = pruner.unwrap_err();
    assert_says(&error, &["stem.weight", "value 0 is NaN", "diverged"]);

    let chain = chains::quantize(chain_with_nan_weight(), QUANTIZE, QatConfig::new()).unwrap();
    let error = chain.compress(Budget::steps(STEPS)).unwrap_err();
    assert_says(&error, &["`stem.weight`", "not finite"]);
}

#[rstest]
#[case::steps(Budget::steps(3))]
#[case::epochs(Budget::epochs(3))]
fn an_epoch_without_a_batch(#[case] budget: Budget) {
    let evaluator = evaluator(STEPS).with_data(|_| Vec::new());
    let error = Compressor::from_model(net(), evaluator)
        .compress(budget)
        .unwrap_err();
    assert!(matches!(error, Error::NoBatches { epoch: 0 }), "{error}");
    assert_says(&error, &["epoch 0", "no batch"]);
}

#[test]
fn a_later_epoch_without_a_batch() {
    let evaluator = evaluator(STEPS).with_data(|epoch| {
        if epoch < 1 {
            batches(5, epoch)
        } else {
            Vec::new()
        }
    });
    let error = Compressor::from_model(net(), evaluator)
        .compress(Budget::steps(8))
        .unwrap_err();
    assert!(matches!(error, Error::NoBatches { epoch: 1 }), "{error}");
}

#[test]
fn a_loss_that_is_no_number() {
    let evaluator = evaluator(STEPS)
        .with_loss(|net: &Net, batch: &Batch| net.forward(batch.images.clone()).flatten::<1>(0, 1));
    let error = Compressor::from_model(net(), evaluator)
        .compress(Budget::steps(1))
        .unwrap_err();
    assert!(matches!(error, Error::LossShape { .. }), "{error}");
    assert_says(&error, &["[24]", "mean"]);
}

#[test]
fn budgets_that_are_too_short() {
    let config = ConfigList::from_json(HALF).unwrap();
    let taylor =
        || TaylorPruner::new(net(), &config, evaluator(STEPS), TaylorConfig::new(2)).unwrap();
    let scheduled = AgpPruner::new(taylor(), AgpConfig::new(3, 4)).unwrap();
    let error = scheduled.compress(Budget::steps(11)).unwrap_err();
    assert!(matches!(error, Error::Budget { .. }));
    assert_says(&error, &["AgpPruner", "step 12", "11 steps", "at least 12"]);
    let error = taylor().compress(Budget::none()).unwrap_err();
    assert_says(&error, &["TaylorPruner", "step 2", "0 steps"]);
    let late = QatConfig::new().with_start_step(5);
    let chain = chains::quantize(chain(), QUANTIZE, late).unwrap();
    let error = chain.compress(Budget::steps(5)).unwrap_err();
    assert_says(
        &error,
        &["QatQuantizer", "step 5", "5 steps", "with_start_step"],
    );
}

#[test]
fn schedules_that_schedule_nothing() {
    let error = AgpPruner::new(chain(), AgpConfig::new(2, 3)).unwrap_err();
    assert_says(&error, &["AgpPruner", "an empty chain"]);
    let error = AgpPruner::new(quantize(QUANTIZE).unwrap(), AgpConfig::new(2, 3)).unwrap_err();
    assert_says(&error, &["AgpPruner", "QatQuantizer"]);
    let error = AgpPruner::new(prune(HALF).unwrap(), AgpConfig::new(0, 3)).unwrap_err();
    assert_says(&error, &["every 0 steps", "at least 1"]);
    let config = ConfigList::from_json(HALF).unwrap();
    let taylor =
        |steps| TaylorPruner::new(net(), &config, evaluator(STEPS), TaylorConfig::new(steps));
    let error = AgpPruner::new(taylor(4).unwrap(), AgpConfig::new(3, 2)).unwrap_err();
    assert_says(&error, &["`interval` is 3", "training steps"]);
    assert_says(
        &taylor(0).unwrap_err(),
        &["`training_steps` is 0", "at least 1"],
    );
}
