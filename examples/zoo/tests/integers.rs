//! Networks of the zoo, calibrated for ONNX Runtime, as it executes them in integers.
//!
//! Left out, with a line on stderr, without a Python that has onnxruntime.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress::prelude::*;
use burn_compress_export::{OnnxConfig, export_onnx};
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions, relative_error};
use burn_compress_zoo::{
    MobileNetV2, MobileNetV2Config, ResNet, ResNetConfig, randomize_statistics,
};

const CLASSES: usize = 10;

fn images(seed: u64) -> Tensor<4> {
    let device = Device::flex();
    device.seed(seed);
    Tensor::random([4, 3, 64, 64], Distribution::Normal(0.0, 1.0), &device)
}

/// Calibrates a network on other images than those it is run on, and compares onnxruntime with the
/// simulation: they differ by at most this part of what quantization changes.
fn compare<M: Module + 'static>(
    model: M,
    forward: fn(&M, Tensor<4>) -> Tensor<2>,
    expected: [usize; 2],
    part: f64,
) {
    let Some(runtime) = OnnxRuntime::find() else {
        return;
    };
    let model = randomize_statistics(model.valid(), 1);
    let dummy = DummyInput::new(images(2), forward);
    let evaluator = Evaluator::new()
        .with_dummy_input(dummy.clone())
        .with_data(move |_epoch| vec![images(3)])
        .with_loss(move |model: &M, images: &Tensor<4>| forward(model, images.clone()).mean());
    let rules = Deployment::onnxruntime().rules(&model, &dummy).unwrap();
    let config = PtqConfig::new().with_batches(1);
    let quantizer = PtqQuantizer::new(model, rules, evaluator, config).unwrap();
    let compressed = quantizer.compress(Budget::none()).unwrap();
    let file = export_onnx(compressed.model(), &dummy, &OnnxConfig::new()).unwrap();
    let report = file.report().quantization.as_ref().unwrap();
    assert!(report.float_nodes.is_empty(), "{report}");
    assert!(report.not_simulated.is_empty(), "{report}");

    let input = images(4);
    let simulated = forward(compressed.model(), input.clone()).into_data();
    let float = forward(&compressed.unwrap_model(), input.clone()).into_data();
    let input = [vec![input.into_data()]];
    let run = |unoptimized| {
        let options = RunOptions {
            unoptimized,
            ..RunOptions::default()
        };
        runtime.run(file.bytes(), &input, &options).unwrap()
    };
    let (plain, fused) = (run(true), run(false));
    let count = |operator: &str| fused.operators.get(operator).copied().unwrap_or(0);
    assert_eq!(
        ["QLinearConv", "QLinearAdd"].map(count),
        expected,
        "{:?}",
        fused.operators
    );
    let float_operators = [
        "Conv",
        "FusedConv",
        "Add",
        "Relu",
        "Clip",
        "Gemm",
        "DequantizeLinear",
    ];
    assert_eq!(float_operators.map(count), [0; 7], "{:?}", fused.operators);

    let errors = [&plain, &fused].map(|run| relative_error(&simulated, &run.outputs[0][0]));
    let quantization = relative_error(&float, &simulated);
    println!("{errors:?} beside {quantization}, {:?}", fused.operators);
    assert!(quantization > 0.0);
    assert!(
        errors.iter().all(|&error| error <= part * quantization),
        "{errors:?}"
    );
}

/// One test, as the weights are drawn from one generator.
///
/// A value on the boundary of two integers falls to either side, and the 37 layers of MobileNetV2 with random
/// weights make a part of the rounding itself of it.
#[test]
fn convolutional_networks_in_integers() {
    let device = Device::flex();
    device.seed(0);
    let config = ResNetConfig::resnet18().with_width(8).with_classes(CLASSES);
    let forward = |model: &ResNet<BatchNorm>, images| model.forward(images);
    // The first convolution, two in each of eight blocks and three shortcuts.
    compare(config.init(&device), forward, [1 + 16 + 3, 8], 0.05);

    device.seed(0);
    let config = MobileNetV2Config::new().with_classes(CLASSES).with_depth(2);
    // Twelve blocks, the first with two convolutions, and one on each side of them; five are residual.
    let expected = [2 + 2 + 11 * 3, 5];
    compare(config.init(&device), MobileNetV2::forward, expected, 0.5);
}
