//! The network of the examples as an ONNX file, in onnxruntime against Burn on the test digits.

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use burn_compress::DummyInput;
use burn_compress_examples::digits::Digits;
use burn_compress_examples::resnet::{DigitsResNet, DigitsResNetConfig};
use burn_compress_export::{OnnxConfig, export_onnx};
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions, other_argmax, relative_error};
use burn_compress_zoo::randomize_statistics;

#[test]
fn digits_in_onnxruntime() {
    let device = Device::flex();
    device.seed(0);
    let model = randomize_statistics(DigitsResNetConfig::new().init(&device).valid(), 3);
    let test = Digits::load().unwrap().test;
    let images = |count: usize| test.head(count, &device).images;
    let config = OnnxConfig::new();
    let config = config
        .with_input_names(["images"])
        .with_output_names(["logits"]);
    let dummy = DummyInput::new(images(1), DigitsResNet::forward);
    let file = export_onnx(&model, &dummy, &config).unwrap();
    let operators = &file.report().operators;
    assert_eq!(operators["Conv"], operators["BatchNormalization"]);
    assert_eq!(operators["GlobalAveragePool"], 1);
    assert_eq!(operators["Gemm"], 1);
    let Some(runtime) = OnnxRuntime::find() else {
        return;
    };
    let batches = [1, 5, 64, 360];
    let inputs: Vec<Vec<TensorData>> = batches
        .iter()
        .map(|&count| vec![images(count).into_data()])
        .collect();
    let run = runtime
        .run(file.bytes(), &inputs, &RunOptions::default())
        .unwrap();
    for (&count, found) in batches.iter().zip(&run.outputs) {
        let expected = model.forward(images(count)).into_data();
        let error = relative_error(&expected, &found[0]);
        assert!(error <= 1e-5, "batch {count}: {error:e}");
        assert_eq!(other_argmax(&expected, &found[0]), 0, "batch {count}");
    }
}
