use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::train::Learner;
use indexmap::{IndexMap, IndexSet};

use super::*;
use crate::erased::AnyBatch;
use crate::{
    Algorithm, BoxError, Budget, Compressor, Evaluator, FlatTensor, Grid, Mode, Run, Stage, Target,
    TargetId, Transform, parameters,
};

/// Multiplies a weight by a factor that is learned, and folds the factor in at the end.
struct Factor {
    learned: Arc<Learnable>,
    id: TargetId,
}

#[derive(Debug)]
struct Scale(Arc<Learnable>);

impl Transform for Scale {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        let factor = self.0.tensor_for(&value.values);
        let factor = Grid::per_tensor(2).expand(factor, &value.shape);
        FlatTensor {
            values: value.values * factor,
            shape: value.shape,
        }
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        let values = self.0.values().unwrap();
        let device = self.0.tensor().device();
        let shape = self.0.shape();
        let copy = Learnable::new("copy", values, shape, self.0.trained_by(), &device);
        Arc::new(Scale(copy.unwrap()))
    }
}

impl Factor {
    fn fuse(
        mut chain: Compressor<Linear, Tensor<2>>,
        trained_by: TrainedBy,
    ) -> Compressor<Linear, Tensor<2>> {
        let id = TargetId::new("", Target::Param("weight".into()));
        let space = chain
            .chain()
            .claim(Mode::Pruning, std::slice::from_ref(&id))
            .unwrap()
            .remove(0);
        let device = Device::flex();
        let learned = Learnable::new("factor", vec![1.0], [1], trained_by, &device).unwrap();
        space.set_transform(Stage::Quantize, Some(Arc::new(Scale(learned.clone()))));
        chain.chain().push(Self { learned, id });
        chain
    }
}

impl Algorithm<Linear, Tensor<2>> for Factor {
    fn name(&self) -> &'static str {
        "Factor"
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        vec![self.learned.clone()]
    }

    fn rewrite(
        &mut self,
        run: Run<'_, Linear>,
    ) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        let path = IndexSet::from([self.id.to_string()]);
        let weight = parameters(run.model, &path).swap_remove(&path[0]).unwrap();
        let values = Scale(self.learned.clone()).apply(weight, None);
        Ok(IndexMap::from([(self.id.clone(), values)]))
    }
}

fn chain(trained_by: TrainedBy) -> Compressor<Linear, Tensor<2>> {
    let device = Device::flex();
    let mut linear = LinearConfig::new(2, 1).with_bias(false).init(&device);
    linear.weight = Param::from_data(TensorData::from([[0.5], [1.5]]), &device);
    let batch = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|model: &Linear, batch: &Tensor<2>| {
            let batch = batch.clone().to_device(&model.weight.val().device());
            model.forward(batch).mean()
        });
    Factor::fuse(Compressor::from_model(linear, evaluator), trained_by)
}

fn factor(chain: &Compressor<Linear, Tensor<2>>) -> f32 {
    chain.inner.algorithms[0].learnables()[0].values().unwrap()[0]
}

fn raw(linear: &Linear) -> Vec<f32> {
    linear.weight.base().into_data().try_to_vec().unwrap()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-6, "{found:?} in place of {expected:?}");
    }
}

#[test]
fn the_evaluators_optimizer_trains_it_with_the_model() {
    let mut chain = chain(TrainedBy::Evaluator);
    // y = 1 * 0.5 + 2 * 1.5 = 3.5 is the gradient of the factor, [1, 2] that of the weight.
    chain.advance(&Budget::steps(2), Some(1)).unwrap();
    close(&[factor(&chain)], &[0.65]);
    close(&raw(chain.model()), &[0.4, 1.3]);
    // Then 0.4 + 2.6 = 3 and 0.65 * [1, 2].
    chain.advance(&Budget::steps(2), None).unwrap();
    close(&[factor(&chain)], &[0.35]);
    close(&raw(chain.model()), &[0.335, 1.17]);
    // The factor is folded into the weight: 0.35 * [0.335, 1.17].
    let weight = raw(&chain.finish().unwrap().unwrap_model());
    close(&weight, &[0.117_25, 0.409_5]);
}

#[test]
fn adam_steps_by_its_own_learning_rate() {
    let mut chain = chain(TrainedBy::Adam {
        learning_rate: 0.01,
    });
    chain.advance(&Budget::steps(1), None).unwrap();
    // The first step of Adam is the learning rate in the direction of the gradient's sign.
    close(&[factor(&chain)], &[0.99]);
}

#[test]
fn a_learner_trains_it_as_the_chain_does() {
    for by in [
        TrainedBy::Evaluator,
        TrainedBy::Adam {
            learning_rate: 0.02,
        },
    ] {
        let alone = chain(by).compress(Budget::steps(3)).unwrap();
        let trainee = chain(by).into_trainee(3).unwrap();
        let mut learner = Learner::new(trainee, SgdConfig::new().init(), 0.1);
        let batch = Tensor::<2>::from_floats([[1.0, 2.0]], &Device::flex());
        for _ in 0..3 {
            let output = learner.train_step(batch.clone());
            learner.lr_step();
            learner.optimizer_step(output.grads);
        }
        let learned = learner.model().valid().finish().unwrap();
        assert_eq!(raw(learned.model()), raw(alone.model()), "{by:?}");
    }
}

#[test]
fn an_old_snapshot_finishes_with_what_was_learned_by_then() {
    for by in [
        TrainedBy::Evaluator,
        TrainedBy::Adam {
            learning_rate: 0.02,
        },
    ] {
        let stopped = |stop| {
            let mut chain = chain(by);
            chain.advance(&Budget::steps(3), Some(stop)).unwrap();
            raw(chain.finish_early().unwrap().model())
        };
        for through in [0, 1, 2] {
            let trainee = chain(by).into_trainee(3).unwrap();
            let mut learner = Learner::new(trainee, SgdConfig::new().init(), 0.1);
            let batch = Tensor::<2>::from_floats([[1.0, 2.0]], &Device::flex());
            let mut snapshots = Vec::new();
            for _ in 0..3 {
                let output = learner.train_step(batch.clone());
                learner.lr_step();
                learner.optimizer_step(output.grads);
                snapshots.push(learner.model().valid());
            }
            let old = snapshots.swap_remove(0);
            let (finished, expected) = match through {
                0 => (old.finish(), stopped(1)),
                // A snapshot of a snapshot is of the same time,
                1 => (old.clone().valid().finish(), stopped(1)),
                // but one that trains again follows the run, all but its parameters.
                _ => {
                    let latest = factor_of(&learner.model());
                    let weight = raw(old.model());
                    let scaled = weight.iter().map(|w| w * latest).collect();
                    (old.train().finish(), scaled)
                }
            };
            close(&raw(finished.unwrap().model()), &expected);
        }
    }
}

fn factor_of(trainee: &crate::Trainee<Linear, Tensor<2>>) -> f32 {
    let weight = trainee.model().weight.val().into_data();
    weight.try_to_vec::<f32>().unwrap()[0] / raw(trainee.model())[0]
}

#[test]
fn a_snapshot_stays_as_it_is() {
    let mut chain = chain(TrainedBy::Evaluator);
    let before = chain.model().valid();
    let effective =
        |model: &Linear| -> Vec<f32> { model.weight.val().into_data().try_to_vec().unwrap() };
    chain.advance(&Budget::steps(1), None).unwrap();
    close(&effective(&before), &[0.5, 1.5]);
    close(&effective(&chain.model().valid()), &[0.26, 0.845]);
}

#[test]
fn a_state_that_is_restored_goes_on_training() {
    let mut chain = chain(TrainedBy::Evaluator);
    let space = chain.inner.spaces.values().next().unwrap().clone();
    space.restore(&space.snapshot());
    chain.advance(&Budget::steps(1), None).unwrap();
    let weight = chain.model().valid().weight.val().into_data();
    // Otherwise the factor would still be 1, and the weight [0.4, 1.3].
    close(&weight.try_to_vec::<f32>().unwrap(), &[0.26, 0.845]);
}

#[test]
fn a_resumed_run_goes_on_bit_for_bit() {
    let path = std::env::temp_dir().join(format!("learnable-{}.ckpt", std::process::id()));
    for by in [
        TrainedBy::Evaluator,
        TrainedBy::Adam {
            learning_rate: 0.02,
        },
    ] {
        let whole = chain(by).compress(Budget::steps(5)).unwrap();
        for stop in 0..5 {
            let mut first = chain(by);
            first.advance(&Budget::steps(5), Some(stop)).unwrap();
            first.save_checkpoint(&path).unwrap();
            let second = chain(by).resume(&path).unwrap();
            assert_eq!(factor(&first), factor(&second));
            let resumed = second.compress(Budget::steps(5)).unwrap();
            assert_eq!(raw(resumed.model()), raw(whole.model()), "{by:?}, {stop}");
        }
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn values_must_fill_the_shape() {
    let device = Device::flex();
    let error = Learnable::new("x", vec![1.0; 3], [2, 2], TrainedBy::Evaluator, &device);
    assert!(matches!(error, Err(Error::Learnable { found: 3, .. })));
    let huge = [usize::MAX, 2];
    let error = Learnable::new("x", Vec::new(), huge, TrainedBy::Evaluator, &device);
    assert!(matches!(error, Err(Error::Learnable { found: 0, .. })));
    let learnable = Learnable::new("x", vec![1.0; 4], [2, 2], TrainedBy::Evaluator, &device);
    assert!(learnable.unwrap().set_values(vec![0.0; 5]).is_err());
}

#[test]
fn gradients_of_several_batches_add_up_until_the_optimizer_steps() {
    for trained_by in [TrainedBy::Evaluator, TrainedBy::Adam { learning_rate: 0.5 }] {
        let mut chain = chain(trained_by);
        let batches = [[[1.0, 2.0]], [[-2.0, 1.0]]];
        let batches = batches.map(|rows| Tensor::<2>::from_floats(rows, &Device::flex()));
        // The derivative by the factor is x W: 1 * 0.5 + 2 * 1.5, and -2 * 0.5 + 1 * 1.5.
        let batches = batches.map(AnyBatch::new);
        for (batch, expected) in batches.iter().zip([3.5, 3.5 + 0.5]) {
            crate::run::training::backward(&mut chain.inner, batch).unwrap();
            let learnable = chain.chain().learnables().remove(0);
            let found: f32 = learnable.gradient().unwrap().into_scalar();
            assert_eq!(found, expected, "{trained_by:?}");
        }
        let mut sgd = SgdConfig::new().init();
        let inner = &mut chain.inner;
        crate::run::training::learn(
            &inner.algorithms,
            &mut inner.progress.adam,
            |due, gradients| {
                sgd.step(0.1, due, gradients);
            },
        );
        // SGD goes 0.1 * 4; the first step of Adam is its learning rate.
        let expected = match trained_by {
            TrainedBy::Evaluator => 0.6,
            TrainedBy::Adam { .. } => 0.5,
        };
        assert!((factor(&chain) - expected).abs() < 1e-6);
        assert!(chain.chain().learnables()[0].gradient().is_none());
    }
}
