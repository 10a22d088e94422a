use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Learner;
use parking_lot::Mutex;

use super::*;
use crate::run::reads;
use crate::{
    Algorithm, BoxError, Budget, Compressor, Error, Evaluator, Mode, Run, TargetSpace, Trainee,
};

#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Step(StepEvent),
    Masks(MasksEvent),
    Evaluation(EvaluationEvent),
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl Recorder {
    fn seen(&self) -> Vec<Seen> {
        self.0.lock().clone()
    }

    /// Step and kind of each event: step 2, then masks after it, is `2s 2m`.
    fn order(&self) -> String {
        let name = |seen: &Seen| match seen {
            Seen::Step(event) => format!("{}s", event.record.step),
            Seen::Masks(event) => format!("{}m", event.step),
            Seen::Evaluation(event) => format!("{}e", event.step),
        };
        self.seen().iter().map(name).collect::<Vec<_>>().join(" ")
    }
}

impl RunObserver for Recorder {
    fn on_step(&mut self, event: &StepEvent) {
        self.0.lock().push(Seen::Step(*event));
    }

    fn on_masks(&mut self, event: &MasksEvent) {
        self.0.lock().push(Seen::Masks(event.clone()));
    }

    fn on_evaluation(&mut self, event: &EvaluationEvent) {
        self.0.lock().push(Seen::Evaluation(*event));
    }
}

/// Masks as many elements as the step has in [`GONE`], and three at the end.
struct Masker(Arc<TargetSpace>);

/// Removed elements before the first step and after each; the mask of step 4 equals that of step 3.
const GONE: [Option<usize>; 7] = [Some(0), None, Some(1), Some(2), Some(2), None, None];

impl Masker {
    fn mask(&self, gone: usize) -> Result<(), BoxError> {
        let values = (0..4).map(|at| if at < gone { 0.0 } else { 1.0 });
        self.0
            .set_mask(Some(Mask::new(values.collect(), [4, 1])?))?;
        Ok(())
    }
}

impl Algorithm<Linear, Tensor<2>> for Masker {
    fn name(&self) -> &'static str {
        "Masker"
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn prepare(&mut self, run: Run<'_, Linear>) -> Result<(), BoxError> {
        self.after_step(run)
    }

    fn after_step(&mut self, run: Run<'_, Linear>) -> Result<(), BoxError> {
        GONE[run.step].map_or(Ok(()), |gone| self.mask(gone))
    }

    fn finish(&mut self, _: Run<'_, Linear>) -> Result<(), BoxError> {
        self.mask(3)
    }
}

fn chain(log_every: usize) -> (Compressor<Linear, Tensor<2>>, Recorder) {
    let device = Device::flex();
    let mut model = LinearConfig::new(4, 1).with_bias(false).init(&device);
    let weight = TensorData::from([[0.5], [1.5], [-1.0], [2.0]]);
    model.weight = Param::from_data(weight, &device);
    let batch = Tensor::<2>::from_floats([[1.0, 2.0, 3.0, 4.0]], &device);
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.125)
        .with_loss(|model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).mean())
        .with_evaluation(2, |model| {
            model.weight.val().sum().into_scalar::<f32>().into()
        })
        .with_log_every(log_every);
    let mut chain = Compressor::from_model(model, evaluator);
    let weight = ["weight".parse().unwrap()];
    let space = chain
        .chain()
        .claim(Mode::Pruning, &weight)
        .unwrap()
        .remove(0);
    chain.chain().push(Masker(space));
    let recorder = Recorder::default();
    (chain.with_observer(recorder.clone()), recorder)
}

/// The masks of the end come last.
const ORDER: &str = "0m 1s 2s 2m 2e 3s 3m 4s 4e 5s 6s 6e 6m";

#[test]
fn events_come_in_the_order_of_their_steps() {
    for log_every in [1, 2, 4, 100] {
        let (chain, recorder) = chain(log_every);
        let compressed = chain.compress(Budget::steps(6)).unwrap();
        assert_eq!(recorder.order(), ORDER, "read every {log_every} steps");
        let history = compressed.history();
        let steps = recorder.seen().into_iter().filter_map(|seen| match seen {
            Seen::Step(event) => Some((event.record, event.total_steps)),
            _ => None,
        });
        let expected = history.steps.iter().map(|&record| (record, 6));
        assert_eq!(steps.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let evaluations = recorder.seen().into_iter().filter_map(|seen| match seen {
            Seen::Evaluation(event) => Some((event.step, event.metric)),
            _ => None,
        });
        assert_eq!(evaluations.collect::<Vec<_>>(), history.evaluations);
    }
}

#[test]
fn masks_are_told_when_they_change() {
    let (chain, recorder) = chain(1);
    chain.compress(Budget::steps(6)).unwrap();
    let masks = recorder.seen().into_iter().filter_map(|seen| match seen {
        Seen::Masks(event) => Some(event),
        _ => None,
    });
    let expected = [(0, 0), (2, 1), (3, 2), (6, 3)].map(|(step, removed)| MasksEvent {
        step,
        total_steps: 6,
        changed: vec![ChangedMask {
            target: "weight".parse().unwrap(),
            removed,
            elements: 4,
        }],
        sparsity: removed as f64 / 4.0,
    });
    assert_eq!(masks.collect::<Vec<_>>(), expected);
}

#[test]
fn a_run_without_training_tells_its_masks() {
    let (chain, recorder) = chain(1);
    chain.compress(Budget::none()).unwrap();
    assert_eq!(recorder.order(), "0m 0m");
}

#[test]
fn a_mask_that_goes_is_a_change() {
    let (mut chain, recorder) = chain(1);
    chain.advance(&Budget::steps(6), Some(2)).unwrap();
    chain.inner.spaces[0].set_mask(None).unwrap();
    watch(&mut chain);
    let Some(Seen::Masks(event)) = recorder.seen().pop() else {
        panic!("no masks in {}", recorder.order());
    };
    assert_eq!((event.changed[0].removed, event.sparsity), (0, 0.0));
}

fn watch(chain: &mut Compressor<Linear, Tensor<2>>) {
    crate::run::training::watch_masks(&mut chain.inner);
}

#[test]
fn a_resumed_run_tells_what_an_uninterrupted_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    for (log_every, stop) in [(1, 2), (1, 3), (4, 3), (4, 5)] {
        let (whole, expected) = chain(log_every);
        whole.compress(Budget::steps(6)).unwrap();
        let (mut first, before) = chain(log_every);
        first.advance(&Budget::steps(6), Some(stop)).unwrap();
        first.save_checkpoint(&path).unwrap();
        let (second, after) = chain(log_every);
        second
            .resume(&path)
            .unwrap()
            .compress(Budget::steps(6))
            .unwrap();
        let together = [before.seen(), after.seen()].concat();
        assert_eq!(together, expected.seen(), "stopped after {stop}");
        assert!(after.order().starts_with(&format!("{}s", stop + 1)));
    }
}

type Run6 = Learner<Trainee<Linear, Tensor<2>>>;

fn learner(trainee: Trainee<Linear, Tensor<2>>) -> Run6 {
    Learner::new(trainee, SgdConfig::new().init(), 0.125)
}

fn steps(mut learner: Run6, steps: usize) -> Trainee<Linear, Tensor<2>> {
    let batch = Tensor::<2>::from_floats([[1.0, 2.0, 3.0, 4.0]], &Device::flex());
    for _ in 0..steps {
        let output = learner.train_step(batch.clone());
        learner.lr_step();
        learner.optimizer_step(output.grads);
    }
    learner.model()
}

#[test]
fn a_learner_tells_the_same_stopped_or_not() {
    let (whole, expected) = chain(1);
    whole.compress(Budget::steps(6)).unwrap();
    for log_every in [1, 4] {
        let (first, before) = chain(log_every);
        let trainee = steps(learner(first.into_trainee(6).unwrap()), 3);
        let record = trainee.into_record();
        let (second, after) = chain(log_every);
        // The masks before the first step are told before the record is loaded.
        let trainee = second.into_trainee(6).unwrap();
        let begun = after.seen().len();
        assert_eq!(after.order(), "0m");
        let trainee = steps(learner(trainee.load_record(record)), 3);
        trainee.finish().unwrap();
        let together = [before.seen(), after.seen().split_off(begun)].concat();
        assert_eq!(together, expected.seen(), "read every {log_every} steps");
    }
}

#[test]
fn an_observer_costs_no_read_of_the_device() {
    let reads_of = |observed: bool| {
        let (mut chain, _) = chain(4);
        if !observed {
            chain.inner.events.observers.clear();
        }
        let before = reads::count();
        chain.compress(Budget::steps(6)).unwrap();
        reads::count() - before
    };
    assert_eq!(reads_of(true), reads_of(false));
}

#[test]
fn steps_before_a_failure_are_told() {
    for (log_every, expected) in [(1, "0m 1s 2s 2m 2e"), (100, "0m 1s 2s 2m 2e")] {
        let (chain, recorder) = chain(log_every);
        let evaluator = chain.evaluator().clone();
        let seen = Mutex::new(0);
        let evaluator = evaluator.with_loss(move |model: &Linear, batch: &Tensor<2>| {
            *seen.lock() += 1;
            let factor = if *seen.lock() == 3 { f32::NAN } else { 1.0 };
            model.forward(batch.clone()).mean() * factor
        });
        let mut chain = chain;
        chain.inner.evaluator = evaluator.erased();
        let error = chain.compress(Budget::steps(6)).unwrap_err();
        assert!(
            matches!(error, Error::LossNotFinite { step: 2, .. }),
            "{error}"
        );
        assert_eq!(recorder.order(), expected, "read every {log_every} steps");
    }
}
