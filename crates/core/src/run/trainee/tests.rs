mod outputs;
mod resumed;

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::LossMetric;
use burn::train::renderer::CliMetricsRenderer;
use burn::train::{InferenceStep, Learner, LearningResult, SupervisedTraining, TrainStep};
use parking_lot::Mutex;

use super::Trainee;
use crate::error::BoxError;
use crate::{
    Algorithm, Budget, Compressed, Compressor, Configuration, Error, Evaluator, Mask, Mode, Run,
    Target, TargetId, TargetSpace,
};

#[derive(Module, Debug)]
struct Net {
    fc: Linear,
}

type Log = Arc<Mutex<Vec<String>>>;

/// Doubles the loss and adds 1 to it, sets a mask after step `at`, and logs its hooks.
struct Toy {
    name: &'static str,
    space: Option<Arc<TargetSpace>>,
    at: usize,
    fails_at: Option<usize>,
    log: Log,
}

impl Toy {
    fn log(&self, hook: &str, step: usize) -> Result<(), BoxError> {
        self.log.lock().push(format!("{step} {} {hook}", self.name));
        Ok(())
    }
}

impl Algorithm<Net, Tensor<2>> for Toy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        if total_steps < self.at {
            Err("too short".into())
        } else {
            Ok(())
        }
    }

    fn prepare(&mut self, run: Run<'_, Net>) -> Result<(), BoxError> {
        self.log("prepare", run.step)
    }

    fn observe(&mut self, run: Run<'_, Net>) -> Result<(), BoxError> {
        self.log("observe", run.step)
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        _batch: &Tensor<2>,
        run: Run<'_, Net>,
    ) -> Result<Tensor<1>, BoxError> {
        if self.fails_at == Some(run.step) {
            return Err("it was told to fail".into());
        }
        self.log("loss", run.step)?;
        Ok(loss * 2.0 + 1.0)
    }

    fn gradients(
        &mut self,
        _gradients: &burn::optim::GradientsParams,
        run: Run<'_, Net>,
    ) -> Result<(), BoxError> {
        self.log("gradients", run.step)
    }

    fn after_step(&mut self, run: Run<'_, Net>) -> Result<(), BoxError> {
        self.log("after_step", run.step)?;
        if let (Some(space), true) = (&self.space, run.step == self.at) {
            space.set_mask(Some(mask()))?;
        }
        Ok(())
    }

    fn finish(&mut self, run: Run<'_, Net>) -> Result<(), BoxError> {
        self.log("finish", run.step)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(Configuration::default().with("at", &self.at))
    }
}

fn mask() -> Mask {
    Mask::new(vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0], [3, 2]).unwrap()
}

fn weight() -> TargetId {
    TargetId::new("fc", Target::param("weight"))
}

fn net() -> Net {
    let device = Device::flex();
    let mut fc = LinearConfig::new(3, 2).with_bias(false).init(&device);
    let values = TensorData::from([[0.5f32, -0.25], [1.5, 2.0], [-1.0, 0.75]]);
    fc.weight = Param::from_data(values, &device);
    Net { fc }
}

fn rows() -> Vec<Vec<f32>> {
    vec![
        vec![1.0, 0.5, -0.5],
        vec![0.25, 2.0, 1.0],
        vec![-1.0, 1.0, 0.5],
        vec![2.0, 0.0, 1.5],
    ]
}

fn batch(rows: &[Vec<f32>], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), 3]), device)
}

/// Two batches of two rows.
fn batches() -> Vec<Tensor<2>> {
    rows()
        .chunks(2)
        .map(|rows| batch(rows, &Device::flex()))
        .collect()
}

fn task_loss(net: &Net, batch: &Tensor<2>) -> Tensor<1> {
    (net.fc.forward(batch.clone()) - 0.5).powi_scalar(2).mean()
}

fn adam() -> ModuleOptimizer {
    AdamConfig::new().init()
}

fn evaluator() -> Evaluator<Net, Tensor<2>> {
    Evaluator::new()
        .with_data(|_| batches())
        .with_optimizer(adam())
        .with_learning_rate(0.1)
        .with_loss(task_loss)
}

/// A chain of one toy that masks `fc.weight` after step `at`.
fn chain(net: &Net, at: usize, fails_at: Option<usize>) -> Compressor<Net, Tensor<2>> {
    let mut chain = Compressor::from_model(net.clone(), evaluator());
    let space = chain
        .chain()
        .claim(Mode::Pruning, &[weight()])
        .unwrap()
        .remove(0);
    chain.chain().push(Toy {
        name: "toy",
        space: Some(space),
        at,
        fails_at,
        log: Log::default(),
    });
    chain
}

fn raw(compressed: &Compressed<Net>) -> Vec<f32> {
    values(&compressed.unwrap_model())
}

fn values(net: &Net) -> Vec<f32> {
    net.fc
        .weight
        .base()
        .detach()
        .into_data()
        .try_to_vec()
        .unwrap()
}

/// What a `Learner` does with each batch.
fn train(
    mut trainee: Trainee<Net, Tensor<2>>,
    optimizer: &mut ModuleOptimizer,
    batches: &[Tensor<2>],
) -> Trainee<Net, Tensor<2>> {
    for batch in batches {
        let output = TrainStep::step(&trainee, batch.clone());
        trainee = trainee
            .clone()
            .optimize(optimizer, 0.1.into(), output.grads);
    }
    trainee
}

struct Rows;

impl Batcher<Vec<f32>, Tensor<2>> for Rows {
    fn batch(&self, items: Vec<Vec<f32>>, device: &Device) -> Tensor<2> {
        batch(&items, device)
    }
}

fn loader() -> Arc<dyn DataLoader<Tensor<2>>> {
    DataLoaderBuilder::new(Rows)
        .batch_size(2)
        .build(InMemDataset::new(rows()))
}

/// Two epochs of two batches with Burn's own loop, in a run of `steps`.
fn launch(
    chain: Compressor<Net, Tensor<2>>,
    steps: usize,
    setup: impl FnOnce(
        SupervisedTraining<Trainee<Net, Tensor<2>>>,
    ) -> SupervisedTraining<Trainee<Net, Tensor<2>>>,
) -> LearningResult<Trainee<Net, Tensor<2>>> {
    let directory = tempfile::tempdir().unwrap();
    let training = setup(SupervisedTraining::new(
        directory.path(),
        loader(),
        loader(),
    ))
    .num_epochs(2)
    .with_application_logger(None)
    .renderer(Box::new(CliMetricsRenderer::new()))
    .with_metric_logger(InMemoryMetricLogger::new())
    .metric_train_numeric(LossMetric::new())
    .metric_valid_numeric(LossMetric::new());
    let trainee = chain
        .into_trainee(steps)
        .unwrap()
        .with_interrupter(training.interrupter());
    training.launch(Learner::new(trainee, adam(), 0.1))
}

#[test]
fn hooks_run_in_the_documented_order() {
    let log = Log::default();
    let net = net();
    let forward = log.clone();
    let evaluator = Evaluator::new().with_loss(move |net: &Net, batch: &Tensor<2>| {
        forward.lock().push("forward".to_string());
        task_loss(net, batch)
    });
    let mut chain = Compressor::from_model(net, evaluator);
    for name in ["old", "new"] {
        chain.chain().push(Toy {
            name,
            space: None,
            at: 1,
            fails_at: None,
            log: log.clone(),
        });
    }
    let trainee = chain.into_trainee(1).unwrap();
    let trainee = train(trainee, &mut adam(), &batches()[..1]);
    trainee.finish().unwrap();
    let expected = [
        "0 new prepare",
        "0 old prepare",
        "0 old observe",
        "0 new observe",
        "forward",
        "0 new loss",
        "0 old loss",
        "0 old gradients",
        "0 new gradients",
        "1 new after_step",
        "1 old after_step",
        "1 new finish",
        "1 old finish",
    ];
    assert_eq!(*log.lock(), expected);
}

#[test]
fn steps_and_optimize_equal_compress_bit_for_bit() {
    let net = net();
    let expected = chain(&net, 3, None).compress(Budget::epochs(2)).unwrap();

    let trainee = chain(&net, 3, None).into_trainee(4).unwrap();
    let mut optimizer = adam();
    let data = [batches(), batches()].concat();
    let trainee = train(trainee, &mut optimizer, &data[..2]);
    assert!(trainee.masks().is_empty(), "the mask comes after step 3");
    let trainee = train(trainee, &mut optimizer, &data[2..]);
    let found = trainee.finish().unwrap();

    assert_ne!(raw(&found), values(&net));
    assert_eq!(raw(&found), raw(&expected));
    assert_eq!(found.masks(), expected.masks());
    assert_eq!(found.masks()[&weight()], mask());
    assert_eq!(found.history(), expected.history());
}

#[test]
fn supervised_training_equals_compress_bit_for_bit() {
    let net = net();
    let expected = chain(&net, 3, None).compress(Budget::epochs(2)).unwrap();
    let result = launch(chain(&net, 3, None), 4, |training| training);
    assert!(result.error.is_none() && result.interrupted.is_none());
    let found = result.model.finish().unwrap();
    assert_eq!(raw(&found), raw(&expected));
    assert_eq!(found.masks(), expected.masks());
    assert_eq!(found.history(), expected.history());
}

#[test]
fn the_training_loss_holds_every_part_and_the_validation_loss_the_users_own() {
    let net = net();
    let first = batches().remove(0);
    let own = task_loss(&net, &first).into_scalar::<f32>();
    let trainee = chain(&net, 1, None).into_trainee(1).unwrap();
    let valid = InferenceStep::step(&trainee.valid(), first.clone());
    assert_eq!(valid.loss.into_scalar::<f32>(), own);
    let output = TrainStep::step(&trainee, first);
    assert_eq!(output.item.loss.into_scalar::<f32>(), own * 2.0 + 1.0);
}

#[test]
fn an_error_ends_the_run_and_finish_returns_it() {
    let trainee = chain(&net(), 1, Some(1)).into_trainee(4).unwrap();
    let mut optimizer = adam();
    let trainee = train(trainee, &mut optimizer, &batches()[..1]);
    let before = values(trainee.model());
    assert_eq!(trainee.error(), None);

    let trainee = train(trainee, &mut optimizer, &batches());
    assert_eq!(trainee.error().unwrap(), "toy: it was told to fail");
    assert_eq!(
        values(trainee.model()),
        before,
        "no step changes the model any more"
    );
    let output = TrainStep::step(&trainee, batches().remove(0));
    assert!(output.grads.is_empty());
    assert!(output.item.loss.into_scalar::<f32>().is_nan());
    assert!(matches!(
        trainee.finish(),
        Err(Error::Algorithm {
            algorithm: "toy",
            ..
        })
    ));
}

#[test]
fn the_learner_stops_at_the_first_error() {
    let result = launch(chain(&net(), 1, Some(2)), 4, |training| training);
    let interruption = result.interrupted.expect("the run was interrupted");
    assert_eq!(
        interruption.reason.as_deref(),
        Some("toy: it was told to fail")
    );
    assert!(matches!(
        result.model.finish(),
        Err(Error::Algorithm { .. })
    ));
}

#[test]
fn a_snapshot_keeps_its_weights_and_masks_and_is_what_finish_makes() {
    let trainee = chain(&net(), 2, None).into_trainee(2).unwrap();
    let mut optimizer = adam();
    let trainee = train(trainee, &mut optimizer, &batches()[..1]);
    let snapshot = trainee.valid();
    let before = values(snapshot.model());
    let trainee = train(trainee, &mut optimizer, &batches()[1..]);
    assert_eq!(trainee.masks()[&weight()], mask());
    assert!(snapshot.masks().is_empty());
    assert_ne!(values(trainee.model()), before);

    let compressed = snapshot.finish().unwrap();
    assert_eq!(raw(&compressed), before);
    assert!(compressed.masks().is_empty());
    let again = trainee.finish();
    assert!(
        matches!(again, Err(Error::Trainee { .. })),
        "a run is finished once"
    );
}

#[test]
fn a_snapshot_trains_only_after_train() {
    let trainee = chain(&net(), 2, None).into_trainee(2).unwrap();
    let mut optimizer = adam();
    let trainee = train(trainee, &mut optimizer, &batches()[..1])
        .valid()
        .train();
    let trainee = train(trainee, &mut optimizer, &batches()[1..]);
    assert_eq!(
        trainee.masks()[&weight()],
        mask(),
        "the model follows the run again"
    );

    let snapshot = trainee.valid();
    assert!(
        TrainStep::step(&snapshot, batches().remove(0))
            .grads
            .is_empty()
    );
    assert!(snapshot.error().unwrap().contains("call `train`"));
}

#[test]
fn accumulated_batches_are_one_step() {
    let result = launch(chain(&net(), 2, None), 2, |training| {
        training.grads_accumulation(2)
    });
    let compressed = result.model.finish().unwrap();
    let steps: Vec<usize> = compressed
        .history()
        .steps
        .iter()
        .map(|record| record.step)
        .collect();
    assert_eq!(steps, [1, 2]);
    assert_eq!(compressed.masks()[&weight()], mask());
}

#[test]
fn more_steps_than_laid_out_are_a_warning_of_the_result() {
    let trainee = chain(&net(), 1, None).into_trainee(1).unwrap();
    let trainee = train(trainee, &mut adam(), &batches());
    assert_eq!(
        trainee.finish().unwrap().warnings(),
        ["the run ends after 2 steps, but was laid out for 1"]
    );
}

#[test]
fn a_trainee_needs_a_loss_and_enough_steps() {
    let chain_without_loss = Compressor::from_model(net(), Evaluator::<Net, Tensor<2>>::new());
    let missing = chain_without_loss.into_trainee(1).unwrap_err();
    assert!(matches!(
        missing,
        Error::MissingEvaluator {
            builder: "with_loss",
            ..
        }
    ));
    let short = chain(&net(), 3, None).into_trainee(2).unwrap_err();
    assert!(matches!(short, Error::Budget { .. }));
}

#[test]
fn records_and_display_are_those_of_the_model() {
    let net = net();
    let trainee = chain(&net, 1, None).into_trainee(1).unwrap();
    assert_eq!(trainee.to_string(), trainee.model().to_string());
    let mut other = self::net();
    other.fc.weight = Param::from_data(TensorData::zeros::<f32, _>([3, 2]), &Device::flex());
    let other = other.load_record(trainee.into_record());
    assert_eq!(values(&other), values(&net));
}
