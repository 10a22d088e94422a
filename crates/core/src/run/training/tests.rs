use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, TensorData};
use indexmap::{IndexMap, IndexSet};

use super::*;
use crate::{BoxError, Compressor, Evaluator, FlatTensor, Mode, Run, TargetId, parameters};

type Toy = Compressor<Linear, Tensor<2>>;

/// When an [`Affine`] gives the weight its new values.
#[derive(Clone, Copy, PartialEq)]
enum When {
    AfterEachStep,
    AtTheEnd,
}

/// Gives `weight` the value `scale * weight + shift`.
struct Affine {
    when: When,
    scale: f32,
    shift: f32,
}

impl Affine {
    fn values(&self, run: Run<'_, Linear>, when: When) -> IndexMap<TargetId, FlatTensor> {
        if self.when != when {
            return IndexMap::new();
        }
        let path = IndexSet::from(["weight".to_string()]);
        let mut weight = parameters(run.model, &path).swap_remove(&path[0]).unwrap();
        weight.values = weight.values * self.scale + self.shift;
        IndexMap::from([("weight".parse().unwrap(), weight)])
    }
}

impl Algorithm<Linear, Tensor<2>> for Affine {
    fn name(&self) -> &'static str {
        "Affine"
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn project(
        &mut self,
        run: Run<'_, Linear>,
    ) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(self.values(run, When::AfterEachStep))
    }

    fn rewrite(
        &mut self,
        run: Run<'_, Linear>,
    ) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(self.values(run, When::AtTheEnd))
    }
}

/// Returns something else in the place of the loss, or of the weight.
#[derive(Clone, Copy)]
enum Wrong {
    LossShape,
    LossDetached,
    Rewrite,
}

impl Algorithm<Linear, Tensor<2>> for Wrong {
    fn name(&self) -> &'static str {
        "Wrong"
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        _batch: &Tensor<2>,
        _run: Run<'_, Linear>,
    ) -> Result<Tensor<1>, BoxError> {
        Ok(match self {
            Self::LossShape => loss.repeat_dim(0, 2),
            Self::LossDetached => loss.detach(),
            Self::Rewrite => loss,
        })
    }

    fn rewrite(
        &mut self,
        _run: Run<'_, Linear>,
    ) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        let values = FlatTensor {
            values: Tensor::zeros([3], &Device::flex()),
            shape: vec![2, 1],
        };
        Ok(IndexMap::from([("weight".parse().unwrap(), values)]))
    }
}

/// `x W` with `W = [0.5, 1.5]` on the batch `[1, 2]`: a step leaves `W - 0.1 [1, 2] = [0.4, 1.3]`.
fn chain() -> Toy {
    let device = Device::flex();
    let mut linear = LinearConfig::new(2, 1).with_bias(false).init(&device);
    linear.weight = Param::from_data(TensorData::from([[0.5], [1.5]]), &device);
    let batch = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).mean());
    Compressor::from_model(linear, evaluator)
}

/// First an algorithm that doubles the weight, then one that adds 1.
fn doubled_and_shifted(when: When) -> Toy {
    let mut chain = chain();
    for (scale, shift) in [(2.0, 0.0), (1.0, 1.0)] {
        chain.chain().push(Affine { when, scale, shift });
    }
    chain
}

#[track_caller]
fn assert_weight(model: &Linear, expected: [f32; 2]) {
    let found: Vec<f32> = model.weight.base().into_data().try_to_vec().unwrap();
    let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    assert!(
        found.iter().zip(&expected).all(close),
        "{found:?} in place of {expected:?}"
    );
}

#[test]
fn the_newest_algorithm_rewrites_first() {
    let compressed = doubled_and_shifted(When::AtTheEnd)
        .compress(Budget::steps(1))
        .unwrap();
    // 2 (w + 1), not 2 w + 1.
    assert_weight(&compressed.unwrap_model(), [2.8, 4.6]);
}

#[test]
fn the_newest_algorithm_projects_first() {
    let mut chain = doubled_and_shifted(When::AfterEachStep);
    chain.advance(&Budget::steps(2), Some(1)).unwrap();
    assert_weight(chain.model(), [2.8, 4.6]);
    // The next step begins there: 2 (2.8 - 0.1 + 1) and 2 (4.6 - 0.2 + 1).
    chain.advance(&Budget::steps(2), None).unwrap();
    assert_weight(chain.model(), [7.4, 10.8]);
}

fn fails(algorithm: Wrong) -> Error {
    let mut chain = chain();
    chain.chain().push(algorithm);
    chain.compress(Budget::steps(1)).unwrap_err()
}

#[test]
fn a_loss_must_be_one_number_that_depends_on_the_model() {
    let error = fails(Wrong::LossShape);
    assert!(matches!(error, Error::LossShape { found } if found == [2]));
    assert!(matches!(fails(Wrong::LossDetached), Error::LossDetached));
    let constant = Evaluator::new().with_loss(|_: &Linear, batch: &Tensor<2>| batch.clone().mean());
    let mut chain = Compressor::from_model(chain().unwrap_model(), constant);
    let batch = AnyBatch::new(Tensor::<2>::ones([1, 2], &Device::flex()));
    let error = backward(&mut chain.inner, &batch).unwrap_err();
    assert!(matches!(error, Error::LossDetached));
}

#[test]
fn new_values_must_fill_their_shape() {
    let error = fails(Wrong::Rewrite);
    assert!(
        matches!(&error, Error::ShapeMismatch { expected, found, .. }
            if *expected == [2, 1] && *found == [3]),
        "{error}"
    );
}

#[test]
fn each_accumulated_batch_draws_its_own_random_numbers() {
    let random = |model: &Linear, batch: &Tensor<2>| {
        let noise = batch.random_like(burn::tensor::Distribution::Default);
        model.forward(noise).mean()
    };
    let evaluator = || Evaluator::new().with_seed(7).with_loss(random);
    let mut chain = Compressor::from_model(chain().unwrap_model(), evaluator());
    let batch = AnyBatch::new(Tensor::<2>::ones([4, 2], &Device::flex()));
    let mut losses = || {
        let mut loss = || {
            backward(&mut chain.inner, &batch)
                .unwrap()
                .0
                .into_scalar::<f32>()
        };
        let first = [loss(), loss(), loss()];
        after_step(&mut chain.inner, 0.1).unwrap();
        first
    };
    let (first, second) = (losses(), losses());
    let all: Vec<f32> = first.into_iter().chain(second).collect();
    for (i, loss) in all.iter().enumerate() {
        assert!(!all[..i].contains(loss), "{all:?}");
    }
    // A step that is made again draws the same.
    chain.inner.progress.step = 0;
    let again = backward(&mut chain.inner, &batch)
        .unwrap()
        .0
        .into_scalar::<f32>();
    assert_eq!(again, first[0]);
}

#[test]
fn losses_are_recorded_as_precisely_as_they_are() {
    let precise = |model: &Linear, batch: &Tensor<2>| {
        let loss = model.forward(batch.clone()).mean();
        loss.cast(burn::tensor::FloatDType::F64) * 0.1
    };
    let chain = chain();
    let evaluator = chain.evaluator().clone().with_loss(precise);
    let compressed = Compressor::from_model(chain.unwrap_model(), evaluator)
        .compress(Budget::steps(1))
        .unwrap();
    // 1 * 0.5 + 2 * 1.5 is exact, a tenth of it is not.
    assert_eq!(compressed.history().steps[0].loss, 3.5 * 0.1);
}

#[test]
fn frozen_parameters_stay_as_they_are() {
    let chain = chain();
    let evaluator = chain.evaluator().clone();
    let mut model = chain.unwrap_model();
    let device = Device::flex();
    let bias = Param::from_data(TensorData::from([0.25]), &device);
    model.bias = Some(bias.set_require_grad(false));
    let compressed = Compressor::from_model(model, evaluator)
        .compress(Budget::steps(1))
        .unwrap();
    let model = compressed.unwrap_model();
    assert_weight(&model, [0.4, 1.3]);
    let bias: f32 = model.bias.unwrap().base().into_scalar();
    assert_eq!(bias, 0.25);
}
