//! What a file holds: operators, names, shared parameters.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn_compress::{Compressed, DummyInput, History, Mask, Masks, Wrapper};
use burn_compress_export::{OnnxConfig, OnnxFile, export_onnx};

use crate::fixtures::{compare_model, device};

#[derive(Module, Debug)]
struct Net {
    conv: Wrapper<Conv2d>,
    norm: Wrapper<BatchNorm>,
    head: Wrapper<Linear>,
}

impl Net {
    fn new() -> Self {
        let device = device();
        device.seed(2);
        Self {
            conv: Conv2dConfig::new([1, 4], [3, 3]).init(&device).into(),
            norm: BatchNormConfig::new(4).init(&device).into(),
            head: LinearConfig::new(4, 2).init(&device).into(),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.conv.forward(images)));
        self.head.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}

fn images(batch: usize) -> Tensor<4> {
    let count = batch * 36;
    let values: Vec<f32> = (0..count).map(|at| (at as f32).cos()).collect();
    Tensor::from_data(TensorData::new(values, [batch, 1, 6, 6]), &device())
}

fn holds(file: &OnnxFile, text: &str) -> bool {
    file.bytes()
        .windows(text.len())
        .any(|bytes| bytes == text.as_bytes())
}

#[test]
fn layers_are_single_operators_and_parameters_have_their_paths() {
    let config = OnnxConfig::new()
        .with_input_names(["images"])
        .with_output_names(["logits"]);
    let file = compare_model(
        &Net::new(),
        Net::forward,
        &[images(1), images(5)],
        &config,
        &[],
    );
    let report = file.report();
    let operators: Vec<(&str, usize)> = report
        .operators
        .iter()
        .map(|(name, n)| (name.as_str(), *n))
        .collect();
    let expected = [
        ("Conv", 1),
        ("BatchNormalization", 1),
        ("Relu", 1),
        ("GlobalAveragePool", 1),
        ("Reshape", 1),
        ("Gemm", 1),
    ];
    assert_eq!(operators, expected);
    assert_eq!(report.inputs[0].to_string(), "images float[batch, 1, 6, 6]");
    assert_eq!(report.outputs[0].to_string(), "logits float[batch, 2]");
    assert_eq!(
        (report.opset, report.bytes),
        (18, file.bytes().len() as u64)
    );
    assert!(report.quantization.is_none() && report.notes.is_empty());
    for path in [
        "conv.weight",
        "conv.bias",
        "norm.running_mean",
        "norm.gamma",
        "head.weight",
    ] {
        assert!(holds(&file, path), "{path}");
    }
    let table = report.to_string();
    assert!(
        table.contains("GlobalAveragePool") && table.contains("images float"),
        "{table}"
    );
}

#[test]
fn a_fixed_batch() {
    let config = OnnxConfig::new().with_dynamic_batch(false);
    let file = compare_model(&Net::new(), Net::forward, &[images(3)], &config, &[]);
    assert_eq!(
        file.report().inputs[0].to_string(),
        "input float[3, 1, 6, 6]"
    );
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let net = Net::new();
    let dummy = DummyInput::new(images(1), Net::forward);
    let export = || export_onnx(&net, &dummy, &OnnxConfig::new()).unwrap();
    assert!(export().bytes() == export().bytes());
}

#[test]
fn masks_act_on_what_is_written() {
    let mask = Mask::new([1.0, 0.0, 1.0, 1.0].map(|x| [x; 9]).concat(), [4, 1, 3, 3]).unwrap();
    let masks = Masks::from([("conv.weight".parse().unwrap(), mask)]);
    let masked =
        Compressed::from_parts(Net::new(), &masks, &Default::default(), History::default());
    let masked = masked.unwrap().into_model();
    compare_model(
        &masked,
        Net::forward,
        &[images(2), images(1)],
        &OnnxConfig::new(),
        &[],
    );
}

/// Two layers with one weight.
#[derive(Module, Debug)]
struct Tied {
    first: Linear,
    second: Linear,
}

#[test]
fn shared_parameters_are_written_once() {
    let first = LinearConfig::new(8, 8).with_bias(false).init(&device());
    let forward = |model: &Tied, x: Tensor<2>| model.second.forward(relu(model.first.forward(x)));
    let input = [Tensor::ones([2, 8], &device())];
    let shared = Tied {
        second: first.clone(),
        first,
    };
    let file = compare_model(&shared, forward, &input, &OnnxConfig::new(), &[]);
    assert!(holds(&file, "first.weight") && !holds(&file, "second.weight"));
    assert_eq!(file.report().constants, 64);
    // The same identity, but other values by now.
    let mut apart = shared;
    apart.second.weight = Param::initialized(apart.first.weight.id, apart.first.weight.val() * 2.0);
    let file = compare_model(&apart, forward, &input, &OnnxConfig::new(), &[]);
    assert!(holds(&file, "second.weight"));
    assert_eq!(file.report().constants, 128);
}

#[test]
fn outputs_that_are_inputs_or_come_twice() {
    let linear = LinearConfig::new(3, 3).init(&device());
    let forward = |linear: &Linear, x: Tensor<2>| {
        let y = linear.forward(x.clone());
        let same = y.clone().reshape([-1, 3]);
        (x, y, same, linear.weight.val())
    };
    let names = ["in", "out", "again", "weights"];
    let config = OnnxConfig::new().with_output_names(names);
    let inputs = [
        Tensor::ones([2, 3], &device()),
        Tensor::ones([4, 3], &device()),
    ];
    compare_model(&linear, forward, &inputs, &config, &names);
}

/// A model in training is exported as it computes in validation.
#[test]
fn a_model_on_a_device_with_gradients() {
    let device = device().autodiff();
    let net = Net::new().train();
    let dummy = DummyInput::new(images(1).to_device(&device), Net::forward);
    let file = export_onnx(&net, &dummy, &OnnxConfig::new()).unwrap();
    assert_eq!(file.report().operators["BatchNormalization"], 1);
    let plain = DummyInput::new(images(1), Net::forward);
    let plain = export_onnx(&Net::new(), &plain, &OnnxConfig::new()).unwrap();
    assert!(file.bytes() == plain.bytes());
}

#[test]
fn a_file_is_written_whole() {
    let dummy = DummyInput::new(images(1), Net::forward);
    let file = export_onnx(&Net::new(), &dummy, &OnnxConfig::new()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    file.save(&path).unwrap();
    assert!(std::fs::read(&path).unwrap() == file.bytes());
    let error = file.save(folder.path()).unwrap_err().to_string();
    assert!(error.contains("cannot write"), "{error}");
}

/// Norms in a wrapper are captured as what they compute.
#[test]
fn norms_in_wrappers() {
    use burn::nn::{
        GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, RmsNorm, RmsNormConfig,
    };
    let device = device();
    let x = |batch: usize| images(batch).reshape([batch, 6, 6]);
    let inputs = [x(2), x(1), x(4)];
    let norm: Wrapper<LayerNorm> = LayerNormConfig::new(6).init(&device).into();
    let forward = |norm: &Wrapper<LayerNorm>, x: Tensor<3>| norm.forward(x);
    let file = compare_model(&norm, forward, &inputs, &OnnxConfig::new(), &[]);
    assert_eq!(file.report().operators["LayerNormalization"], 1);
    let norm: Wrapper<BatchNorm> = BatchNormConfig::new(6).init(&device).into();
    let forward = |norm: &Wrapper<BatchNorm>, x: Tensor<3>| norm.forward(x);
    compare_model(&norm, forward, &inputs, &OnnxConfig::new(), &[]);
    let rows: Vec<Tensor<2>> = inputs.iter().map(|x| x.clone().flatten(0, 1)).collect();
    let forward = |norm: &Wrapper<BatchNorm>, x: Tensor<2>| norm.forward(x);
    compare_model(&norm, forward, &rows, &OnnxConfig::new(), &[]);
    let norm: Wrapper<RmsNorm> = RmsNormConfig::new(6).init(&device).into();
    let forward = |norm: &Wrapper<RmsNorm>, x: Tensor<3>| norm.forward(x);
    compare_model(&norm, forward, &inputs, &OnnxConfig::new(), &[]);
    let norm: Wrapper<GroupNorm> = GroupNormConfig::new(2, 6).init(&device).into();
    let forward = |norm: &Wrapper<GroupNorm>, x: Tensor<3>| norm.forward(x);
    compare_model(&norm, forward, &inputs, &OnnxConfig::new(), &[]);
    let norm: Wrapper<InstanceNorm> = InstanceNormConfig::new(6).init(&device).into();
    let forward = |norm: &Wrapper<InstanceNorm>, x: Tensor<3>| norm.forward(x);
    compare_model(&norm, forward, &inputs, &OnnxConfig::new(), &[]);
}
