//! What the steps of a trainee hand out, and what Burn's `Learner` makes of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Int;
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{AccuracyMetric, LearningRateMetric};
use burn::train::{
    ClassificationOutput, MetricEarlyStoppingStrategy, RegressionOutput, StoppingCondition,
};

use super::*;
use crate::{
    BitsMetric, CompressionOutput, EpochLoader, QuantDtype, QuantScheme, Quantization,
    SparsityMetric, StepOutput,
};

type Classified = CompressionOutput<ClassificationOutput>;

/// The outputs of the layer as logits of two classes, class 1 for every row, with the loss of the task.
fn classify(net: &Net, batch: &Tensor<2>) -> ClassificationOutput {
    let logits = net.fc.forward(batch.clone());
    let targets = Tensor::<1, Int>::ones([batch.dims()[0]], &batch.device());
    ClassificationOutput::new(task_loss(net, batch), logits, targets)
}

/// The chain of one toy, with an output in place of the loss.
fn chain_of<O: StepOutput>(
    at: usize,
    fails_at: Option<usize>,
    output: impl Fn(&Net, &Tensor<2>) -> O + Send + Sync + 'static,
) -> Compressor<Net, Tensor<2>> {
    let mut chain = Compressor::from_model(net(), evaluator().with_output(output));
    let space = chain.chain().claim(Mode::Pruning, &[weight()]).unwrap();
    chain.chain().push(Toy {
        name: "toy",
        space: space.into_iter().next(),
        at,
        fails_at,
        log: Log::default(),
    });
    chain
}

#[test]
fn the_users_own_output_is_handed_out_with_the_loss_that_is_minimised() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let chain = chain_of(1, None, move |net, batch| {
        counter.fetch_add(1, Ordering::Relaxed);
        classify(net, batch)
    });
    let trainee: Trainee<_, _, ClassificationOutput> = chain.into_trainee_with_output(1).unwrap();
    let batch = batches().remove(0);
    let own = classify(&net(), &batch);
    let own_loss = own.loss.into_scalar::<f32>();

    let output = TrainStep::step(&trainee, batch.clone()).item;
    assert_eq!(calls.load(Ordering::Relaxed), 1, "one forward pass a step");
    assert_eq!(output.loss.into_scalar::<f32>(), own_loss * 2.0 + 1.0);
    assert_eq!(
        output.output.into_data().try_to_vec::<f32>().unwrap(),
        own.output.into_data().try_to_vec::<f32>().unwrap()
    );
    let output = InferenceStep::step(&trainee.valid(), batch);
    assert_eq!(output.loss.into_scalar::<f32>(), own_loss);
}

#[test]
fn an_output_changes_nothing_of_the_run() {
    let expected = chain(&net(), 3, None).compress(Budget::epochs(2)).unwrap();
    let whole = chain_of(3, None, classify).compress(Budget::epochs(2));
    assert_eq!(raw(&whole.unwrap()), raw(&expected));

    let chain = chain_of(3, None, classify);
    let mut trainee = chain
        .into_trainee_with_output::<ClassificationOutput>(4)
        .unwrap();
    let mut optimizer = adam();
    for batch in [batches(), batches()].concat() {
        let output = TrainStep::step(&trainee, batch);
        trainee = trainee.optimize(&mut optimizer, 0.1.into(), output.grads);
    }
    let found = trainee.finish().unwrap();
    assert_eq!(raw(&found), raw(&expected));
    assert_eq!(found.history(), expected.history());
}

#[test]
fn another_type_of_output_and_none_are_refused() {
    let error = chain_of(1, None, classify)
        .into_trainee_with_output::<RegressionOutput>(1)
        .unwrap_err();
    assert!(matches!(error, Error::OutputType { .. }));
    let text = error.to_string();
    for part in ["ClassificationOutput", "RegressionOutput"] {
        assert!(text.contains(part), "{text}");
    }
    let error = chain(&net(), 1, None)
        .into_trainee_with_output::<ClassificationOutput>(1)
        .unwrap_err();
    assert!(error.to_string().contains("`.with_output(..)`"), "{error}");
    // A loss that is set later takes the place of the output.
    let evaluator = evaluator().with_output(classify).with_loss(task_loss);
    let error = Compressor::from_model(net(), evaluator)
        .into_trainee_with_output::<ClassificationOutput>(1)
        .unwrap_err();
    assert!(matches!(error, Error::MissingEvaluator { .. }));
}

#[test]
fn a_step_after_an_error_still_hands_an_output_out() {
    let chain = chain_of(1, Some(0), classify);
    let trainee: Trainee<_, _, ClassificationOutput> = chain.into_trainee_with_output(2).unwrap();
    for _ in 0..2 {
        let output = TrainStep::step(&trainee, batches().remove(0));
        assert!(output.grads.is_empty());
        assert!(output.item.loss.into_scalar::<f32>().is_nan());
        assert_eq!(output.item.output.dims(), [2, 2]);
    }
    assert_eq!(trainee.error().unwrap(), "toy: it was told to fail");
}

#[test]
fn sparsity_and_bits_are_those_of_the_forward_pass() {
    let mut model = net();
    model.fc = LinearConfig::new(3, 2).init(&Device::flex());
    let mut chain = Compressor::from_model(model, evaluator());
    let space = chain.chain().claim(Mode::Pruning, &[weight()]).unwrap();
    let space = space.into_iter().next().unwrap();
    chain.chain().push(Toy {
        name: "toy",
        space: Some(space.clone()),
        at: 1,
        fails_at: None,
        log: Log::default(),
    });
    let trainee = chain.into_trainee(2).unwrap();
    let shown = |trainee: &Trainee<Net, Tensor<2>>| {
        let output = TrainStep::step(trainee, batches().remove(0));
        let item = output.item;
        (output.grads, (item.sparsity, item.bits))
    };
    let (grads, before) = shown(&trainee);
    assert_eq!(before, (0.0, 32.0));
    let snapshot = trainee.valid();
    let trainee = trainee.optimize(&mut adam(), 0.1.into(), grads);

    // Two of six elements are masked; 6 weights of 8 bits and 2 biases of 32.
    let mut int8 = Quantization::of(QuantDtype::INT8, QuantScheme::Symmetric);
    space.set_quantization(Some(int8.clone()));
    assert_eq!(
        shown(&trainee).1,
        (2.0 / 6.0, 32.0),
        "without a scale it does not act"
    );
    int8.scale = Some(Tensor::ones([1], &Device::flex()));
    int8.zero_point = Some(Tensor::zeros([1], &Device::flex()));
    int8.enabled = true;
    space.set_quantization(Some(int8));
    assert_eq!(
        shown(&trainee).1,
        (2.0 / 6.0, (6.0 * 8.0 + 2.0 * 32.0) / 8.0)
    );

    let valid = |trainee: &Trainee<Net, Tensor<2>>| {
        let item = InferenceStep::step(trainee, batches().remove(0));
        (item.sparsity, item.bits)
    };
    assert_eq!(valid(&trainee.valid()), (2.0 / 6.0, 14.0));
    assert_eq!(valid(&trainee), (2.0 / 6.0, 14.0));
    assert_eq!(valid(&snapshot), (0.0, 32.0), "a snapshot is of its time");
}

/// Training with metrics of everything, which stops when the loss has not improved for one epoch.
fn launch_with_metrics(learning_rate: f64) -> LearningResult<Trainee<Net, Tensor<2>, Classified>> {
    let directory = tempfile::tempdir().unwrap();
    let stopping = MetricEarlyStoppingStrategy::new(
        &AccuracyMetric::new(),
        Aggregate::Mean,
        Direction::Highest,
        Split::Valid,
        StoppingCondition::NoImprovementSince { n_epochs: 1 },
    );
    let train = EpochLoader::new(|_| batches()).into_shared();
    let training = SupervisedTraining::new(directory.path(), train, loader())
        .num_epochs(5)
        .with_application_logger(None)
        .renderer(Box::new(CliMetricsRenderer::new()))
        .metric_train_numeric(LearningRateMetric::new())
        .metrics((
            AccuracyMetric::new(),
            LossMetric::new(),
            SparsityMetric::new(),
            BitsMetric::new(),
        ))
        .early_stopping(stopping);
    let chain = chain_of(1, None, |net, batch| Classified::from(classify(net, batch)));
    let trainee = chain.into_trainee_with_output(10).unwrap();
    let trainee = trainee.with_interrupter(training.interrupter());
    let result = training.launch(Learner::new(trainee, adam(), learning_rate));
    let log = |split: &str, name: &str| {
        let path = format!("{split}/epoch-1/{name}.log");
        std::fs::read_to_string(directory.path().join(path)).unwrap()
    };
    // The mask comes after the first of the two steps; entries are `value,batches`, the mean last.
    let half_masked = 100.0 * (2.0 / 6.0);
    let expected = format!("0,1\n{half_masked},1\n{},final\n", half_masked / 2.0);
    assert_eq!(log("train", "Sparsity"), expected);
    assert!(log("valid", "Sparsity").starts_with(&format!("{half_masked},1\n")));
    assert!(log("train", "Bits").starts_with("32,1\n"));
    assert!(log("train", "Learning_Rate").starts_with(&format!("{learning_rate},1\n")));
    result
}

#[test]
fn early_stopping_stops() {
    // Nothing is learned, so the second epoch is no better than the first.
    let result = launch_with_metrics(0.0);
    assert!(result.error.is_none() && result.interrupted.is_none());
    let trainee = result.model;
    assert!(matches!(
        trainee.clone().finish(),
        Err(Error::Unfinished { done: 4, total: 10 })
    ));
    let compressed = trainee.finish_early().unwrap();
    assert_eq!(compressed.history().steps.len(), 4);
}

fn epoch(loader: &dyn DataLoader<usize>) -> Vec<usize> {
    loader.iter().map(Result::unwrap).collect()
}

#[test]
fn a_loader_begins_after_the_epochs_that_are_done() {
    let batches = |epoch: usize| (0..3).map(|at| 10 * epoch + at).collect::<Vec<_>>();
    let whole = EpochLoader::new(batches).into_shared();
    assert_eq!(whole.num_items(), 3);
    assert_eq!(epoch(&*whole), [0, 1, 2]);
    // As the `Learner` takes it: a copy is at the same epoch and goes on for itself.
    let copy = whole.to_device(&Device::flex());
    assert_eq!(epoch(&*copy), [10, 11, 12]);
    assert_eq!(epoch(&*copy), [20, 21, 22]);
    assert_eq!(epoch(&*whole), [10, 11, 12]);
    let resumed = EpochLoader::new(batches).after(2).into_shared();
    assert_eq!(epoch(&*resumed), [20, 21, 22]);

    let mut iterator = resumed.iter();
    iterator.next();
    let progress = iterator.progress();
    assert_eq!((progress.items_processed, progress.items_total), (1, 3));
}

#[test]
fn parts_of_a_loader_share_its_batches() {
    let batches = |epoch: usize| (0..5).map(|at| 10 * epoch + at).collect::<Vec<_>>();
    let whole = EpochLoader::new(batches).into_shared();
    let part = whole.slice(1, 4);
    assert_eq!((part.num_items(), epoch(&*part)), (3, vec![1, 2, 3]));
    let inner = whole.slice(1, 4).slice(1, 9);
    assert_eq!((inner.num_items(), epoch(&*inner)), (2, vec![2, 3]));
    let none = whole.slice(7, 9);
    assert_eq!((none.num_items(), epoch(&*none)), (0, vec![]));
}

#[test]
fn a_learner_brings_data_optimizer_and_learning_rate() {
    let own = || Evaluator::<Net, Tensor<2>>::new().with_loss(task_loss);
    assert!(own().require_training("a pruner").is_err());
    assert!(own().with_learner().require_training("a pruner").is_ok());
    let without_loss = Evaluator::<Net, Tensor<2>>::new().with_learner();
    assert!(without_loss.require_training("a pruner").is_err());

    let chain = Compressor::from_model(net(), own().with_learner());
    let error = chain.compress(Budget::steps(1)).unwrap_err();
    assert!(error.to_string().contains("`.with_data(..)`"), "{error}");
    let chain = Compressor::from_model(net(), own().with_learner());
    let trainee = train(chain.into_trainee(2).unwrap(), &mut adam(), &batches());
    assert_eq!(trainee.finish().unwrap().history().steps.len(), 2);
}
