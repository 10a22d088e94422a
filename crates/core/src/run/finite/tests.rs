use burn::module::Param;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::Device;

use super::*;
use crate::{Budget, Compressor, Evaluator};

#[derive(Module, Debug)]
struct Net {
    fc: Linear,
    norm: BatchNorm,
}

fn net() -> Net {
    let device = Device::flex();
    Net {
        fc: LinearConfig::new(2, 1).init(&device),
        norm: BatchNormConfig::new(1).init(&device),
    }
}

/// Two batches, whose values are multiplied by `scale` in the second.
fn chain(net: Net, scale: f32) -> Compressor<Net, Tensor<2>> {
    let device = Device::flex();
    let evaluator = Evaluator::new()
        .with_data(move |_| {
            let batch = Tensor::<2>::from_floats([[1.0, -0.5], [0.25, 2.0]], &device);
            vec![batch.clone(), batch * scale]
        })
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|net: &Net, batch: &Tensor<2>| {
            net.norm.forward(net.fc.forward(batch.clone())).mean()
        });
    Compressor::from_model(net, evaluator)
}

#[track_caller]
fn names(error: Error) -> (usize, Vec<String>) {
    match error {
        Error::NotFinite { step, names } => (step, names),
        other => panic!("{other}"),
    }
}

#[test]
fn statistics_that_overflow_do_not_leave_the_run() {
    // The variance is too large for a float, what the norm makes of it in training is not.
    let error = chain(net(), 1e37).compress(Budget::steps(2)).unwrap_err();
    assert!(error.to_string().contains("`norm.running_var`"), "{error}");
    let (step, names) = names(error);
    assert_eq!(step, 2);
    assert!(names.contains(&"norm.running_var".to_string()), "{names:?}");
    assert!(chain(net(), 1.0).compress(Budget::steps(2)).is_ok());
}

#[test]
fn they_do_not_replace_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut chain = chain(net(), 1e37);
    chain.advance(&Budget::steps(2), Some(1)).unwrap();
    chain.save_checkpoint(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    let budget = Budget::steps(2).with_checkpoint(&path, 1);
    let error = chain.advance(&budget, None).unwrap_err();
    assert_eq!(names(error).0, 2);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_model_that_begins_so_is_refused_before_the_run() {
    for value in [f32::NAN, f32::INFINITY] {
        let mut net = net();
        net.fc.weight = Param::from_data(TensorData::from([[value], [1.0]]), &Device::flex());
        for budget in [Budget::none(), Budget::steps(2)] {
            let error = chain(net.clone(), 1.0).compress(budget).unwrap_err();
            assert_eq!(names(error), (0, vec!["fc.weight".to_string()]));
        }
    }
}

#[test]
fn a_constant_may_be_infinite_but_no_number_at_all() {
    let with = |value: f32| {
        let mut net = net();
        let bias = Param::from_data(TensorData::from([value]), &Device::flex());
        net.fc.bias = Some(bias.set_require_grad(false));
        require(&net, &Spaces::new(), 0)
    };
    assert!(with(f32::NEG_INFINITY).is_ok());
    assert_eq!(names(with(f32::NAN).unwrap_err()).1, ["fc.bias"]);
}

#[test]
fn sums_that_overflow_are_looked_at_value_by_value() {
    let tensor = |values: &[f32]| Tensor::<1>::from_data(values, &Device::flex());
    let max = f32::MAX;
    let tensors = [
        tensor(&[1.0, -2.0]),
        tensor(&[max, max]),
        tensor(&[f32::INFINITY, f32::NEG_INFINITY]),
        tensor(&[0.0, f32::NAN]),
    ];
    assert_eq!(finite(&tensors).unwrap(), [true, true, false, false]);
    assert!(finite(&[]).unwrap().is_empty());
}
