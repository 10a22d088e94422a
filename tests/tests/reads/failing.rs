//! What fails in a step is found at the next read, with its target and its step.

use burn_compress::Error;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Chain, assert_says, id, teach};
use burn_compress_tests::nets::{Batch, NetConfig, batches, evaluator};
use rstest::rstest;

const STEPS: usize = 8;
const QUANTIZE: &str = r#"[{"op_types": ["Conv2d"], "quant_dtype": "int8"}]"#;

/// Batches of which the third holds a NaN.
fn spoiled(log_every: usize) -> Chain {
    let evaluator = evaluator(STEPS).with_data(|epoch| {
        let mut batches = batches(5, epoch);
        batches[2].images = batches[2].images.clone() * f32::NAN;
        batches
    });
    let evaluator = evaluator.with_log_every(log_every);
    Compressor::from_model(NetConfig::default().init(1), evaluator)
}

#[test]
fn a_target_s_error_names_the_step_among_those_that_were_read_together() {
    let chain = chains::quantize(spoiled(4), QUANTIZE, QatConfig::new()).unwrap();
    let error = chain.compress(Budget::steps(STEPS)).unwrap_err();
    assert_says(
        &error,
        &[
            "in step 2",
            "cannot quantize `stem._input_0`: block 0",
            "not finite",
        ],
    );
    let Error::Step { step, error } = error else {
        panic!("{error}");
    };
    assert_eq!(step, 2);
    assert!(matches!(*error, Error::Observation { .. }), "{error}");
}

#[test]
fn a_loss_s_error_names_its_step() {
    let error = spoiled(4).compress(Budget::steps(STEPS)).unwrap_err();
    assert!(
        matches!(error, Error::LossNotFinite { step: 2, .. }),
        "{error}"
    );
}

#[rstest]
#[case::each_step(1)]
#[case::several(8)]
fn ranges_are_those_before_the_values_came_in(#[case] log_every: usize) {
    let mut chain = chains::quantize(spoiled(log_every), QUANTIZE, QatConfig::new()).unwrap();
    chain.advance(&Budget::steps(STEPS), Some(1)).unwrap();
    let before = chain.calibration().unwrap();
    chain.advance(&Budget::steps(STEPS), Some(3)).unwrap_err();
    let after = chain.calibration().unwrap();
    let entry = &after[&id("stem._input_0")];
    assert!(entry.minimum.as_ref().unwrap()[0].is_finite(), "{entry:?}");
    if log_every > 1 {
        assert_eq!(entry, &before[&id("stem._input_0")]);
    }
    // Of the three steps, those whose losses are numbers.
    assert_eq!(chain.history().steps.len(), 2);
}

#[test]
fn labels_that_are_no_classes() {
    let evaluator = evaluator(STEPS).with_log_every(3).with_data(|epoch| {
        let mut batches = batches(5, epoch);
        batches[1].labels = batches[1].labels.clone() * 100;
        batches
    });
    // The loss of the task must not meet the labels before the distiller does.
    let evaluator = evaluator.with_loss(|net: &burn_compress_tests::nets::Net, batch: &Batch| {
        net.forward(batch.images.clone()).square().mean()
    });
    let chain = Compressor::from_model(NetConfig::default().init(1), evaluator);
    let rules = ConfigList::from_json(r#"[{"op_names": ["head"]}]"#).unwrap();
    let teacher = NetConfig::default().init(100);
    let labels = |batch: &Batch| batch.labels.clone();
    let chain =
        DkdDistiller::from_compressor(chain, &rules, &teacher, teach, labels, DkdConfig::new());
    let error = chain.unwrap().compress(Budget::steps(STEPS)).unwrap_err();
    assert_says(&error, &["in step 1", "DkdDistiller", "the label of row"]);
}
