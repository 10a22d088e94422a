//! A small network of digits, pruned, quantized and distilled in a short run, as onnxruntime executes it.
//!
//! Left out, with a line on stderr, without a Python that has onnxruntime.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress_examples::configs::QuantRules;
use burn_compress_examples::deployed::Deployed;
use burn_compress_examples::digits::{Augmentation, Digits};
use burn_compress_examples::fused;
use burn_compress_examples::pipeline::Setup;
use burn_compress_examples::resnet::DigitsResNetConfig;
use burn_compress_examples::train::{TrainingConfig, train};
use burn_compress_testkit::onnx::OnnxRuntime;

#[test]
fn onnxruntime_computes_what_was_simulated() {
    let Some(runtime) = OnnxRuntime::find() else {
        return;
    };
    let device = Device::flex();
    let digits = Arc::new(Digits::load().unwrap());
    device.seed(0);
    let config = DigitsResNetConfig::new().with_widths([8, 16, 32]);
    let training = TrainingConfig::new()
        .with_epochs(3)
        .with_learning_rate(4e-3);
    let dense = config.init(&device.clone().autodiff());
    let dense = train(dense, &digits.train, &training)
        .unwrap()
        .model
        .valid();
    let setup = Setup {
        digits,
        dense,
        device,
        sparsity: 0.5,
        steps: 60,
        seed: 0,
        augmentation: Augmentation::None,
        rules: QuantRules::Onnxruntime,
    };
    let chain = fused::prune_quantize_distill(&setup).unwrap();
    let outcome = setup.finish(chain, Budget::steps(setup.steps)).unwrap();
    let found = Deployed::of(&setup, &outcome.small.model, &runtime).unwrap();
    println!("{}\n{:?}", found.report, found.from_simulation);

    // Fifteen convolutions, six sums, a pool and a linear layer.
    let expected = [15, 6, 1, 1];
    let fused = [
        "QLinearConv",
        "QLinearAdd",
        "QLinearGlobalAveragePool",
        "QGemm",
    ];
    assert_eq!(fused.map(|operator| found.count(operator)), expected);
    let float = [
        "Conv",
        "FusedConv",
        "Add",
        "Relu",
        "Gemm",
        "DequantizeLinear",
    ];
    assert_eq!(float.map(|operator| found.count(operator)), [0; 6]);
    assert!(found.report.float_nodes.is_empty(), "{}", found.report);
    assert!(found.report.not_simulated.is_empty(), "{}", found.report);

    let simulation = found.from_simulation;
    assert!(simulation.argmax <= 1, "{simulation:?}");
    assert!(
        simulation.codes <= 2.0 && simulation.steps <= 2,
        "{simulation:?}"
    );
    let unoptimized = found.from_unoptimized;
    assert_eq!(unoptimized.argmax, 0, "{unoptimized:?}");
    assert!(
        unoptimized.codes <= 1.0 && unoptimized.steps <= 2,
        "{unoptimized:?}"
    );
    // A digit is 0.28 points; a network that has learned nothing would agree with anything.
    assert!((found.simulated - found.executed).abs() <= 0.3, "{found:?}");
    assert!(found.simulated > 50.0, "{found:?}");
}
