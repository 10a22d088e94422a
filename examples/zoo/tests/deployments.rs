//! What the networks of the zoo compute in integers where they are deployed.

use burn::tensor::{Device, Tensor};
use burn_compress::layer::layers;
use burn_compress::prelude::*;
use burn_compress_zoo::{MobileNetV2Config, Model, ResNetConfig};

/// The number of targets in layers of each type.
fn counts<M: Model<Output = Tensor<2>>>(model: &M, kinds: [&str; 4]) -> [usize; 4] {
    let dummy = model.dummy_input(2, 64, &Device::flex());
    let rules = Deployment::onnxruntime().rules(model, &dummy).unwrap();
    let selected = rules.select(&layers(model)).unwrap();
    kinds.map(|kind| selected.iter().filter(|one| one.layer.kind == kind).count())
}

const KINDS: [&str; 4] = ["Conv2d", "Add", "AdaptiveAvgPool2d", "Linear"];

#[test]
fn residual_networks() {
    let device = Device::flex();
    // 20 convolutions with input and weight, 8 sums with two operands.
    let resnet = ResNetConfig::resnet18().with_width(8).init(&device);
    assert_eq!(counts(&resnet, KINDS), [40, 16, 1, 2]);
    // 52 convolutions, 10 sums.
    let mobilenet = MobileNetV2Config::new().init(&device);
    assert_eq!(counts(&mobilenet, KINDS), [104, 20, 1, 2]);
}
