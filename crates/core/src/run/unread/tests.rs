use burn::tensor::Device;

use super::*;
use crate::run::reads::{Collector, Concern, all, check, concerning, count, floats};

fn tensor(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::from(values), &Device::flex())
}

/// Checks that values are at most 10.
fn small(values: &[f32]) -> Result<Option<String>, Error> {
    check(tensor(values), f32::MIN..=10.0, |values| {
        format!("{values:?}")
    })
}

fn begin(unread: &mut Unread, step: usize, losses: [f32; 2]) {
    unread.begin(step, losses.map(|loss| tensor(&[loss])));
}

fn read(unread: &mut Unread) -> (History, Result<(), Error>) {
    let mut history = History::default();
    let outcome = unread.read(&mut history, &Spaces::new());
    (history, outcome)
}

#[test]
fn reads_are_counted_by_transfer() {
    let before = count();
    assert_eq!(floats(tensor(&[1.0, 2.0])).unwrap(), [1.0, 2.0]);
    assert_eq!(count() - before, 1);
    let both = all([tensor(&[1.0]), tensor(&[2.0, 3.0])]).unwrap();
    assert_eq!(both, [vec![1.0], vec![2.0, 3.0]]);
    assert_eq!(count() - before, 2);
    assert!(all([]).unwrap().is_empty());
    assert_eq!(count() - before, 2);
}

#[test]
fn a_check_outside_of_a_run_is_made_at_once() {
    assert_eq!(small(&[1.0, 10.0]).unwrap(), None);
    assert_eq!(small(&[1.0, 11.0]).unwrap().unwrap(), "[1.0, 11.0]");
    assert_eq!(small(&[f32::NAN]).unwrap().unwrap(), "[NaN]");
}

#[test]
fn collected_checks_wait_for_a_read() {
    let before = count();
    let collector = Collector::open();
    concerning(Concern::Algorithm("A"), || {
        assert_eq!(small(&[1.0]).unwrap(), None);
        assert_eq!(small(&[2.0, 30.0]).unwrap(), None);
    });
    let checks = collector.take();
    assert_eq!((checks.len(), count() - before), (2, 0));
    let error = judge(checks).unwrap_err();
    assert_eq!(count() - before, 1);
    assert_eq!(error.to_string(), "A: [2.0, 30.0]");
    assert!(collector.take().is_empty());
    {
        let _inner = Collector::open();
        small(&[40.0]).unwrap();
    }
    assert!(collector.take().is_empty(), "another collector's");
    drop(collector);
    assert!(small(&[11.0]).unwrap().is_some(), "nothing collects");
}

#[test]
fn the_first_values_that_fail_are_kept_and_all_losses() {
    let mut unread = Unread::default();
    let mut history = History::default();
    let steps: [&[f32]; 4] = [&[1.0, 2.0], &[3.0, 11.0], &[f32::NAN, 12.0], &[4.0, 5.0]];
    for (step, values) in steps.into_iter().enumerate() {
        let collector = Collector::open();
        concerning(Concern::Algorithm("A"), || small(values)).unwrap();
        unread.watch(step, collector.take());
        begin(&mut unread, step, [step as f32, 0.5]);
        unread.complete(&mut history, 0.1, 0.0);
    }
    assert!(history.steps.is_empty());
    let before = count();
    let (history, outcome) = read(&mut unread);
    assert_eq!(count() - before, 1);
    let losses: Vec<f64> = history.steps.iter().map(|step| step.loss).collect();
    assert_eq!(losses, [0.0, 1.0, 2.0, 3.0]);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("in step 1"), "{error}");
    assert!(error.ends_with("A: [NaN, 11.0]"), "{error}");
    assert!(read(&mut unread).1.is_ok(), "an error is reported once");
}

#[test]
fn other_checks_are_kept_apart() {
    let mut unread = Unread::default();
    for (step, values) in [&[1.0][..], &[1.0, 2.0], &[20.0]].into_iter().enumerate() {
        let collector = Collector::open();
        small(values).unwrap();
        unread.watch(step, collector.take());
    }
    let error = read(&mut unread).1.unwrap_err().to_string();
    assert!(
        error.contains("in step 2") && error.contains("[20.0]"),
        "{error}"
    );
}

#[test]
fn the_step_at_hand_is_recorded_when_it_is_complete() {
    let mut unread = Unread::default();
    let mut history = History::default();
    begin(&mut unread, 0, [2.0, 1.0]);
    unread.complete(&mut history, 0.1, 0.25);
    begin(&mut unread, 1, [9.0, 9.0]);
    // The second pass of the same step.
    begin(&mut unread, 1, [4.0, 3.0]);
    unread.read(&mut history, &Spaces::new()).unwrap();
    assert_eq!(history.steps.len(), 1);
    let before = count();
    unread.read(&mut history, &Spaces::new()).unwrap();
    assert_eq!(count() - before, 0, "there is nothing to be read");
    unread.complete(&mut history, 0.2, 0.5);
    let found = history
        .steps
        .iter()
        .map(|s| (s.step, s.loss, s.task_loss, s.sparsity));
    assert_eq!(
        found.collect::<Vec<_>>(),
        [(1, 2.0, 1.0, 0.25), (2, 4.0, 3.0, 0.5)]
    );
}

#[test]
fn a_loss_that_is_not_finite_ends_the_history() {
    let mut unread = Unread::default();
    let mut history = History::default();
    for (step, loss) in [1.0, f32::INFINITY, 2.0].into_iter().enumerate() {
        begin(&mut unread, step, [loss, 0.0]);
        unread.complete(&mut history, 0.1, 0.0);
    }
    let (history, outcome) = read(&mut unread);
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, Error::LossNotFinite { step: 1, .. }),
        "{error}"
    );
    assert_eq!(history.steps.len(), 1);
}
