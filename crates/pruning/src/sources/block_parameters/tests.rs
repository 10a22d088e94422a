//! Small models for the pruners that train values, and the way from blocks to elements.

use std::sync::{Mutex, PoisonError};

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::activation::relu;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Compressed, Compressor, DummyInput, Evaluator, TargetId, Wrapper};

use burn::tensor::{Device, Int, TensorData};

use super::*;
use crate::PrunerConfig;

/// Two output channels, the columns `[1, 3]` and `[2, 4]`.
pub(crate) fn columns() -> Wrapper<Linear> {
    let device = Device::flex();
    let mut linear = LinearConfig::new(2, 2).with_bias(false).init(&device);
    linear.weight = Param::from_data(TensorData::from([[1.0, 2.0], [3.0, 4.0]]), &device);
    Wrapper::new(linear)
}

/// The first output minus the second one for the input `[1, 1]`, and steps of 0.1 down its gradient:
/// the loss is `4 - 6` at first, with gradients `[1, 1]` and `[-1, -1]` of the columns.
pub(crate) fn difference() -> Evaluator<Wrapper<Linear>, ()> {
    Evaluator::new()
        .with_data(|_epoch| vec![()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|model: &Wrapper<Linear>, _: &()| {
            let device = model.weight.val().device();
            let output = model.forward(Tensor::<2>::ones([1, 2], &device));
            let signs = Tensor::<2>::from_floats([[1.0, -1.0]], &device);
            (output * signs).sum()
        })
}

/// A chain over [`columns`] that no algorithm is part of yet.
pub(crate) fn chain() -> Compressor<Wrapper<Linear>, ()> {
    Compressor::from_model(columns(), difference())
}

pub(crate) fn rules(text: &str) -> ConfigList<PruningSettings> {
    ConfigList::from_json(text).unwrap()
}

pub(crate) fn alone() -> PrunerConfig {
    PrunerConfig::new().with_coupled(false)
}

/// The raw weight, row-major.
pub(crate) fn raw(linear: &Wrapper<Linear>) -> Vec<f32> {
    linear.weight.base().into_data().try_to_vec().unwrap()
}

/// The weight that the model computes with.
pub(crate) fn effective(linear: &Wrapper<Linear>) -> Vec<f32> {
    linear.weight.val().into_data().try_to_vec().unwrap()
}

#[track_caller]
pub(crate) fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 2e-6, "{found:?} in place of {expected:?}");
    }
}

/// A convolution with four channels in front of a batch norm, and a head.
#[derive(Module, Debug)]
pub(crate) struct Normed {
    pub(crate) conv: Conv2d,
    pub(crate) bn: BatchNorm,
    pub(crate) head: Conv2d,
}

impl Normed {
    pub(crate) fn chain() -> Compressor<Self, ()> {
        // The seed is that of all threads, and parameters draw their values when they are first read:
        // a second network made of it could be another one.
        static NET: Mutex<Option<Normed>> = Mutex::new(None);
        let device = Device::flex();
        let drawn = || {
            device.seed(7);
            let conv = |channels| Conv2dConfig::new(channels, [1, 1]).init(&device);
            let model = Self {
                conv: conv([2, 4]),
                bn: BatchNormConfig::new(4).init(&device),
                head: conv([4, 3]),
            };
            model.forward(Tensor::zeros([1, 2, 3, 3], &device));
            model
        };
        let mut net = NET.lock().unwrap_or_else(PoisonError::into_inner);
        let model = net.get_or_insert_with(drawn).clone();
        let input = Tensor::<4>::ones([1, 2, 3, 3], &device);
        let evaluator = Evaluator::new()
            .with_dummy_input(DummyInput::new(input, |model: &Self, x| model.forward(x)))
            .with_data(|_epoch| vec![()])
            .with_optimizer(SgdConfig::new().init())
            .with_learning_rate(0.05)
            .with_loss(|model: &Self, _: &()| {
                let device = model.head.weight.val().device();
                let values = Tensor::<1, Int>::arange(0..36, &device).float();
                let input = (values * 0.7).sin().reshape([2, 2, 3, 3]);
                model.forward(input).square().mean()
            });
        Compressor::from_model(model, evaluator)
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.head
            .forward(relu(self.bn.forward(self.conv.forward(x))))
    }
}

/// Which channels the mask of a target removes.
pub(crate) fn removed<M: Module + 'static>(compressed: &Compressed<M>, target: &str) -> Vec<bool> {
    compressed.masks()[&target.parse::<TargetId>().unwrap()].removed_along(0)
}

#[test]
fn values_reach_the_elements_of_their_blocks() {
    let device = Device::flex();
    for block in [
        [1, -1, -1],
        [-1, 1, -1],
        [2, 1, -1],
        [1, 1, 1],
        [1, 2, 3],
        [-1, -1, -1],
    ] {
        let blocks = Blocks::new(&[4, 2, 3], &block).unwrap();
        let spread = BlockBroadcast::new(&blocks, &device);
        let values: Vec<f32> = (0..blocks.count()).map(|block| block as f32).collect();
        let expected = spread.host(&values);
        // Each value stands wherever the mask that keeps its block alone is 1.
        for (block, &value) in values.iter().enumerate() {
            let keep: Vec<bool> = (0..values.len()).map(|other| other == block).collect();
            for (mask, &expected) in blocks.expand(&keep).iter().zip(&expected) {
                assert_eq!(*mask == 1.0, expected == value, "{block:?}");
            }
        }
        let tensor = Tensor::<1>::from_floats(&values[..], &device);
        let found = spread.expand(tensor).into_data().try_to_vec::<f32>();
        assert_eq!(found.unwrap(), expected, "{block:?}");
        assert_eq!(BlockValue.score(&expected, &blocks), values, "{block:?}");
    }
}

#[test]
fn gradients_are_summed_over_each_block() {
    let device = Device::flex();
    let blocks = Blocks::new(&[2, 4], &[1, 2]).unwrap();
    let values = Tensor::<1>::zeros([4], &device.clone().autodiff()).require_grad();
    let spread = BlockBroadcast::new(&blocks, &device).expand(values.clone());
    let weights = Tensor::<1, Int>::arange(0..8, &device.autodiff()).float();
    let gradients = (spread * weights).sum().backward();
    let found = values.grad(&gradients).unwrap().into_data();
    assert_eq!(found.try_to_vec::<f32>().unwrap(), [1.0, 5.0, 9.0, 13.0]);
}

#[test]
fn numbers_out_of_range_are_named() {
    for (scale, rate, key) in [
        (-1.0, 0.1, "regular_scale"),
        (f64::NAN, 0.1, "regular_scale"),
        (f64::INFINITY, 0.1, "regular_scale"),
        (1.0, 0.0, "learning_rate"),
        (1.0, f64::NAN, "learning_rate"),
    ] {
        let error = check_training_numbers(scale, rate).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    check_training_numbers(0.0, 1e-2).unwrap();
}
