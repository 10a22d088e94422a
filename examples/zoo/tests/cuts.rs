//! Half of the channels of convolutional networks removed: the cut network computes what the masked
//! one does, on inputs that the cut has not seen.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use burn_compress::graph::ForwardOutputs;
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;
use burn_compress_zoo::{
    DenseNetConfig, MobileNetV2Config, Model, ResNetConfig, ShuffleNetV2Config, Zoo, parameters,
    randomize_statistics,
};

/// Random numbers of a device come from one generator, whichever test asks.
static RANDOM: Mutex<()> = Mutex::new(());

/// Removes half of the channels of all convolutions.
fn assert_halved<M: Model>(init: impl FnOnce(&Device) -> M) {
    assert_halved_but(&[], init);
}

/// Removes half of the channels of all convolutions but those of `fixed`.
fn assert_halved_but<M: Model>(fixed: &[&str], init: impl FnOnce(&Device) -> M) {
    let _alone = RANDOM.lock().unwrap_or_else(PoisonError::into_inner);
    let (device, size) = (Device::flex(), 32);
    device.seed(2);
    let model = init(&device);
    let model = randomize_statistics(model.valid(), 1);
    let dense = parameters(&model);
    let evaluator = Evaluator::<_, ()>::new().with_dummy_input(model.dummy_input(1, size, &device));
    let half = on(["Conv2d"]).with_exclude_op_names(fixed.iter().copied());
    let half = half.sparse_ratio(0.5);
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
    // Fixed ones keep more.
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

#[test]
fn shufflenet_v2() {
    let fixed = Zoo::ShuffleNetV2.fixed();
    assert_halved_but(fixed, |device| ShuffleNetV2Config::x1_0().init(device));
}

/// What no cut of ShuffleNetV2 removes is refused before anything runs, with what to leave out.
#[test]
fn the_stages_of_shufflenet_v2_stay() {
    let device = Device::flex();
    let model = ShuffleNetV2Config::x1_0().init(&device);
    let evaluator = Evaluator::<_, ()>::new().with_dummy_input(model.dummy_input(1, 32, &device));
    let half: ConfigList<_> = on(["Conv2d"]).sparse_ratio(0.5).into();
    let error = L1NormPruner::new(model, half, evaluator, PrunerConfig::new());
    let error = error.map(|chain| chain.algorithms()).unwrap_err();
    let Some(PruningError::Unprunable { obstacles }) = error.downcast_ref() else {
        panic!("{error}");
    };
    let refused: Vec<&str> = obstacles.iter().map(|found| &*found.target.layer).collect();
    assert_eq!(refused, Zoo::ShuffleNetV2.fixed());
    assert_eq!(
        obstacles[0].to_string(),
        "`stage2.0.shortcut.project.conv.weight` (Conv2d): the slice 0..58 of 116 along dimension 1 \
         behind `stage2.0.project.norm` gives 0..29 with fewer channels, where 0..30 would follow; no \
         channels can go that leave the same share on both sides: take the bounds of the slice from \
         the sizes of the layers that read its parts, or exclude the layer"
    );
}
