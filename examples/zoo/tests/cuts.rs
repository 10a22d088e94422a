//! Half of the channels of convolutional networks removed: the cut network computes what the masked
//! one does, on inputs that the cut has not seen.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use burn_compress::graph::ForwardOutputs;
use burn_compress::prelude::*;
use burn_compress_zoo::{
    DenseNetConfig, MobileNetV2Config, Model, ResNetConfig, parameters, randomize_statistics,
};

/// Random numbers of a device come from one generator, whichever test asks.
static RANDOM: Mutex<()> = Mutex::new(());

/// Removes half of the channels of all convolutions.
fn assert_halved<M: Model>(init: impl FnOnce(&Device) -> M) {
    let _alone = RANDOM.lock().unwrap_or_else(PoisonError::into_inner);
    let (device, size) = (Device::flex(), 32);
    device.seed(2);
    let model = init(&device);
    let model = randomize_statistics(model.valid(), 1);
    let dense = parameters(&model);
    let evaluator = Evaluator::<_, ()>::new().with_dummy_input(model.dummy_input(1, size, &device));
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let chain = L1NormPruner::new(model, half, evaluator, PrunerConfig::new()).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let masked = compressed.masked_model();
    let small = compressed.speedup().unwrap().model;

    let input = small.random_input(2, size, &device);
    let [expected, found] = [masked.run(input.clone()), small.run(input)].map(values);
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    let error = (expected - found).abs().max().into_scalar::<f32>() / largest;
    assert!(error <= 1e-6, "{error}");
    // A convolution with half of its inputs and outputs has a quarter of its weights.
    let rest = parameters(&small) as f64 / dense as f64;
    assert!((0.2..0.5).contains(&rest), "{rest}");
}

/// All values of the outputs in a row.
fn values<O: ForwardOutputs>(outputs: O) -> Tensor<1> {
    let all = outputs.data().into_iter();
    let values: Vec<f32> = all
        .flat_map(|data| data.try_to_vec::<f32>().unwrap())
        .collect();
    Tensor::from_floats(&values[..], &Device::flex())
}

#[test]
fn resnet() {
    let config = ResNetConfig::new([1, 2, 1, 1], false).with_width(8);
    assert_halved(|device| config.with_classes(10).init(device));
}

#[test]
fn mobilenet_v2() {
    let config = MobileNetV2Config::new().with_width(0.25).with_depth(2);
    assert_halved(|device| config.with_classes(10).init(device));
}

#[test]
fn densenet() {
    let config = DenseNetConfig::new([2, 1, 1, 2]).with_growth(4);
    assert_halved(|device| config.with_classes(10).init(device));
}
