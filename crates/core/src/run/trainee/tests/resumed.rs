//! A training that Burn's `Learner` resumes from its own checkpoint.

use std::path::Path;

use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Bytes;

use super::*;

/// Epochs of two batches with Burn's own loop and its own checkpoints in `folder`.
fn epochs(
    folder: &Path,
    trainee: Trainee<Net, Tensor<2>>,
    epochs: usize,
    from: Option<usize>,
) -> LearningResult<Trainee<Net, Tensor<2>>> {
    let training = SupervisedTraining::new(folder, loader(), loader())
        .num_epochs(epochs)
        .with_default_checkpointers()
        .with_application_logger(None)
        .renderer(Box::new(CliMetricsRenderer::new()))
        .with_metric_logger(InMemoryMetricLogger::new())
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new());
    let training = match from {
        Some(epoch) => training.checkpoint(epoch),
        None => training,
    };
    let trainee = trainee.with_interrupter(training.interrupter());
    training.launch(Learner::new(trainee, adam(), 0.1))
}

/// A trainee over weights that no run has, in a run of 4 epochs.
fn other(at: usize) -> Trainee<Net, Tensor<2>> {
    let mut net = net();
    let values = TensorData::from([[9.0f32, 8.0], [7.0, 6.0], [5.0, 4.0]]);
    net.fc.weight = Param::from_data(values, &Device::flex());
    chain(&net, at, None).into_trainee(8).unwrap()
}

#[test]
fn it_ends_bit_for_bit_like_one_that_was_not_stopped() {
    // The mask comes before the checkpoint, right at it, and at the end of the run.
    for at in [1, 4, 8] {
        let net = net();
        let whole = chain(&net, at, None).compress(Budget::steps(8)).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let first = chain(&net, at, None).into_trainee(8).unwrap();
        epochs(folder.path(), first, 2, None);
        let result = epochs(folder.path(), other(at), 4, Some(2));
        assert!(result.error.is_none() && result.interrupted.is_none());
        let found = result.model.finish().unwrap();

        assert_eq!(raw(&found), raw(&whole), "masked after {at}");
        assert_eq!(found.masks(), whole.masks());
        assert_eq!(found.masks()[&weight()], mask());
        assert_eq!(found.history(), whole.history());
    }
}

/// The record of a trainee after `steps` steps, through bytes.
fn record(trainee: &Trainee<Net, Tensor<2>>) -> ModuleRecord {
    let bytes: Bytes = trainee.clone().into_record().into_bytes().unwrap();
    ModuleRecord::from_bytes(bytes).unwrap()
}

fn trained(at: usize, steps: usize) -> Trainee<Net, Tensor<2>> {
    let trainee = chain(&net(), at, None).into_trainee(8).unwrap();
    let data = [batches(), batches(), batches(), batches()].concat();
    train(trainee, &mut adam(), &data[..steps])
}

#[test]
fn another_configuration_ends_the_run_unless_it_is_accepted() {
    let record = record(&trained(6, 4));
    let refused = other(7).load_record(record.clone());
    let text = refused.error().unwrap();
    assert!(text.contains("toy: `at` was 6, is 7"), "{text}");
    assert!(text.contains("Trainee::accept_changes"), "{text}");
    let refused = train(refused, &mut adam(), &batches());
    assert!(matches!(
        refused.finish(),
        Err(Error::Changed { differences, .. }) if differences.len() == 1
    ));
    assert!(matches!(
        other(7).try_load_record(record.clone()),
        Err(RecordError::Validation(_))
    ));

    let accepted = other(7).accept_changes().load_record(record);
    let data = [batches(), batches()].concat();
    let accepted = train(accepted, &mut adam(), &data);
    assert_eq!(accepted.masks()[&weight()], mask());
    assert_eq!(accepted.finish().unwrap().history().steps.len(), 8);
}

#[test]
fn a_record_without_a_run_ends_the_run() {
    let plain = net().into_record();
    let trainee = other(7).load_record(plain.clone());
    assert!(matches!(trainee.finish(), Err(Error::Record { .. })));
    // A partial record says that something is left out.
    let trainee = other(7).load_record(plain.allow_partial(true));
    assert_eq!(trainee.error(), None);
    assert_eq!(values(trainee.model()), values(&net()));
}

#[test]
fn more_steps_than_the_run_has_are_refused() {
    let record = record(&trained(2, 6));
    let short = chain(&net(), 2, None).into_trainee(4).unwrap();
    let short = short.load_record(record);
    assert!(matches!(short.finish(), Err(Error::Budget { .. })));
}

#[test]
fn a_snapshot_has_the_record_of_its_model() {
    let trainee = trained(2, 3);
    let record = trainee.valid().into_record();
    assert_eq!(record.len(), net().into_record().len());
    assert_eq!(values(&net().load_record(record)), values(trainee.model()));
}

#[test]
fn a_run_is_finished_at_its_end_or_early() {
    for steps in [0, 1, 7] {
        let error = trained(6, steps).finish().unwrap_err();
        assert!(
            matches!(error, Error::Unfinished { done, total: 8 } if done == steps),
            "{error}"
        );
        let early = trained(6, steps).finish_early().unwrap();
        assert_eq!(early.history().steps.len(), steps);
        assert_eq!(early.masks().is_empty(), steps < 6);
    }
    assert!(trained(6, 8).finish().is_ok());
    // What is refused can still be finished early, or go on.
    let trainee = trained(6, 1);
    assert!(trainee.clone().finish().is_err());
    assert!(trainee.finish_early().is_ok());
}
