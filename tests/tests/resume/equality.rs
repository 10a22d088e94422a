//! Wherever and however often a run stops, it ends the same.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::prelude::*;
use burn_compress_tests::chains::outcome;
use burn_compress_tests::nets::{Net, bits, evaluator};
use rstest::rstest;

use crate::fixtures::{NET, Place, STEPS, fused};

#[test]
fn stopped_at_any_step_it_ends_bit_for_bit_the_same() {
    let place = Place::new();
    let budget = Budget::steps(STEPS);
    let whole = outcome(fused(1), &budget);
    assert_eq!(whole.history.steps.len(), STEPS);
    let evaluated = whole.history.evaluations.iter().map(|(step, _)| *step);
    assert_eq!(evaluated.collect::<Vec<_>>(), [5, 10, 15, 20, 24]);
    for stop in 0..=STEPS {
        let mut chain = fused(1);
        chain.advance(&budget, Some(stop)).unwrap();
        chain.save_checkpoint(&place.path).unwrap();
        drop(chain);
        // Other weights and other parameter ids, all of which the checkpoint replaces.
        let resumed = fused(2 + stop as u64).resume(&place.path).unwrap();
        let found = outcome(resumed, &budget);
        assert_eq!(found.difference(&whole), [""; 0], "stopped at {stop}");
    }
}

#[test]
fn dropout_draws_the_same_only_because_of_the_seed() {
    // The counterpart of the test above: dropout does matter there.
    let _turn = Place::new();
    let budget = Budget::steps(3);
    let losses = |seed: u64| -> Vec<f64> {
        let evaluator = evaluator(STEPS).with_seed(seed);
        let chain = Compressor::from_model(NET.init(1), evaluator);
        let history = chain.compress(budget.clone()).unwrap().history().clone();
        history.steps.iter().map(|record| record.loss).collect()
    };
    assert_eq!(losses(3), losses(3));
    assert_ne!(losses(3), losses(4));
}

#[rstest]
#[case::once(&[9])]
#[case::often(&[1, 2, 7, 8, 14, 20, 23])]
fn it_may_stop_more_than_once(#[case] stops: &[usize]) {
    let place = Place::new();
    let budget = Budget::steps(STEPS);
    let whole = outcome(fused(1), &budget);
    let mut chain = fused(1);
    for &stop in stops {
        chain.advance(&budget, Some(stop)).unwrap();
        chain.save_checkpoint(&place.path).unwrap();
        chain = fused(7).resume(&place.path).unwrap();
    }
    assert_eq!(outcome(chain, &budget).difference(&whole), [""; 0]);
}

#[test]
fn advancing_in_parts_is_advancing_at_once() {
    let _turn = Place::new();
    let budget = Budget::steps(STEPS);
    let whole = outcome(fused(1), &budget);
    let mut chain = fused(1);
    for stop in [3, 7, 8, 21] {
        chain.advance(&budget, Some(stop)).unwrap();
    }
    assert_eq!(outcome(chain, &budget).difference(&whole), [""; 0]);
}

#[test]
fn a_chain_that_has_already_run_takes_over_the_checkpoint_alone() {
    let place = Place::new();
    let budget = Budget::steps(STEPS);
    let whole = outcome(fused(1), &budget);
    let mut chain = fused(1);
    chain.advance(&budget, Some(10)).unwrap();
    chain.save_checkpoint(&place.path).unwrap();
    // Back to step 10, with the same chain.
    chain.advance(&budget, Some(17)).unwrap();
    let chain = chain.resume(&place.path).unwrap();
    assert_eq!(outcome(chain, &budget).difference(&whole), [""; 0]);
}

/// Digits from 0 to 27 in batches of four, in another order each epoch.
fn shuffled() -> Arc<dyn DataLoader<Tensor<2>>> {
    struct Column;

    impl Batcher<usize, Tensor<2>> for Column {
        fn batch(&self, items: Vec<usize>, device: &Device) -> Tensor<2> {
            let values: Vec<f32> = items.iter().map(|&item| item as f32 / 28.0).collect();
            Tensor::from_data(TensorData::new(values, [items.len(), 1]), device)
        }
    }

    let dataset = InMemDataset::new((0..28).collect());
    DataLoaderBuilder::new(Column)
        .batch_size(4)
        .shuffle(5)
        .build(dataset)
}

#[derive(Module, Debug)]
struct Line {
    fc: Linear,
}

/// A line through the shuffled digits; with a data loader that is as new as the chain.
fn line() -> Compressor<Line, Tensor<2>> {
    let device = Device::flex();
    let mut fc = LinearConfig::new(1, 1).init(&device);
    fc.weight = Param::from_data(TensorData::from([[0.25f32]]), &device);
    fc.bias = Some(Param::from_data(TensorData::from([0.5f32]), &device));
    let evaluator = Evaluator::new()
        .with_data_loader(shuffled())
        .with_optimizer(burn::optim::AdamConfig::new().init())
        .with_learning_rate(1e-2)
        .with_loss(|line: &Line, x: &Tensor<2>| line.fc.forward(x.clone()).square().mean());
    Compressor::from_model(Line { fc }, evaluator)
}

#[rstest]
#[case::steps(Budget::steps(21))]
#[case::epochs(Budget::epochs(3))]
fn a_shuffling_data_loader_goes_on_with_the_order_it_had(#[case] budget: Budget) {
    let place = Place::new();
    let whole = line().compress(budget.clone()).unwrap();
    assert_eq!(whole.history().steps.len(), 21);
    for stop in [1, 6, 7, 8, 13, 14, 20] {
        let mut chain = line();
        chain.advance(&budget, Some(stop)).unwrap();
        chain.save_checkpoint(&place.path).unwrap();
        let resumed = line()
            .resume(&place.path)
            .unwrap()
            .compress(budget.clone())
            .unwrap();
        assert_eq!(resumed.history(), whole.history(), "stopped at {stop}");
        assert_eq!(
            bits(resumed.model()),
            bits(whole.model()),
            "stopped at {stop}"
        );
    }
}

#[test]
fn a_metric_that_is_not_a_number_does_not_spoil_the_checkpoint() {
    let place = Place::new();
    let chain = || {
        let evaluator = evaluator(STEPS).with_evaluation(1, |_: &Net| f64::NAN);
        Compressor::from_model(NET.init(1), evaluator)
    };
    let mut stopped = chain();
    stopped.advance(&Budget::steps(4), Some(2)).unwrap();
    stopped.save_checkpoint(&place.path).unwrap();
    let compressed = chain()
        .resume(&place.path)
        .unwrap()
        .compress(Budget::steps(4))
        .unwrap();
    let evaluations = &compressed.history().evaluations;
    assert_eq!(evaluations.len(), 4);
    assert!(evaluations.iter().all(|(_, metric)| metric.is_nan()));
}
