//! A network from Burn to integers: what the graph computes against what Burn simulates.

use burn::module::{Module, Param, RunningState};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress_core::erased::AnyModel;
use burn_compress_core::graph::DummyInput;
use burn_compress_core::{
    Add, Calibration, Compressed, Error, History, Mask, Masks, Wrapper, fake_quantize,
};
use rstest::rstest;

use super::evaluator::{Array, evaluate};
use super::net::{INT8, SYMMETRIC, UINT8, entry};
use super::runtime;
use crate::export::{Exported, export};
use crate::{ExportError, OnnxConfig, OnnxTarget, export_onnx};

const CHANNELS: usize = 3;
const IMAGES: [usize; 4] = [2, CHANNELS, 4, 4];

/// ```text
/// h = relu(bn1(conv1(x)));   r = relu(bn2(conv2(h)) + h);   head(pool(r))
/// ```
#[derive(Module, Debug)]
struct Residual {
    conv1: Wrapper<Conv2d>,
    bn1: Wrapper<BatchNorm>,
    conv2: Wrapper<Conv2d>,
    bn2: Wrapper<BatchNorm>,
    add: Wrapper<Add>,
    pool: Wrapper<AdaptiveAvgPool2d>,
    head: Wrapper<Linear>,
}

impl Residual {
    fn new(device: &Device) -> Self {
        // Computed, as the random numbers of a device come from one generator, whichever test asks.
        let weight = |count: usize, step: usize| {
            let values = (0..count).map(|i| ((i * step + 5) % 23) as f32 / 22.0 - 0.5);
            Tensor::<1>::from_floats(&values.collect::<Vec<_>>()[..], device)
        };
        let conv = |step: usize| {
            let config = Conv2dConfig::new([CHANNELS; 2], [1, 1]).with_bias(false);
            let mut conv = config.init(device);
            let values = weight(CHANNELS * CHANNELS, step);
            conv.weight = Param::from_tensor(values.reshape([CHANNELS, CHANNELS, 1, 1]));
            conv
        };
        let mut head = LinearConfig::new(CHANNELS, 2).init(device);
        head.weight = Param::from_tensor(weight(CHANNELS * 2, 9).reshape([CHANNELS, 2]));
        head.bias = Some(Param::from_tensor(weight(2, 4)));
        let vector = |values: [f32; CHANNELS]| Tensor::<1>::from_floats(values, device);
        let norm = |gamma, beta, mean, var| {
            let mut norm = BatchNormConfig::new(CHANNELS).init(device);
            norm.gamma = Param::from_tensor(vector(gamma));
            norm.beta = Param::from_tensor(vector(beta));
            norm.running_mean = RunningState::new(vector(mean));
            norm.running_var = RunningState::new(vector(var));
            norm
        };
        let bn1 = norm(
            [1.5, -0.7, 0.4],
            [0.3, 0.6, 0.2],
            [0.1, -0.2, 0.0],
            [0.8, 1.3, 0.5],
        );
        let bn2 = norm(
            [0.9, 1.1, -0.6],
            [-0.1, 0.2, 0.4],
            [0.3, 0.1, -0.1],
            [0.7, 0.9, 1.6],
        );
        Self {
            conv1: conv(7).into(),
            bn1: bn1.into(),
            conv2: conv(10).into(),
            bn2: bn2.into(),
            add: Add::new().into(),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init().into(),
            head: head.into(),
        }
    }

    fn features(&self, x: Tensor<4>) -> Tensor<2> {
        let h = relu(self.bn1.forward(self.conv1.forward(x)));
        let y = self.bn2.forward(self.conv2.forward(h.clone()));
        let r = relu(self.add.forward((y, h)));
        self.pool.forward(r).flatten(1, 3)
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.features(x))
    }
}

fn images(device: &Device) -> Tensor<4> {
    let count = IMAGES.iter().product::<usize>();
    let values: Vec<f32> = (0..count)
        .map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0)
        .collect();
    Tensor::<1>::from_floats(&values[..], device).reshape(IMAGES)
}

fn calibration() -> Calibration {
    let mut found = Calibration::new();
    let mut add = |target: &str, range, grid: &[usize], scale: &[f32], zero: f32| {
        found.insert(target.parse().unwrap(), entry(range, grid, scale, zero));
    };
    let scales = [0.004, 0.005, 0.0045];
    add("conv1._input_0", UINT8, &[1], &[2.0 / 255.0], 127.0);
    add("conv1.weight", SYMMETRIC, &[3, 1, 1, 1], &scales, 0.0);
    for port in ["conv2._input_0", "add._input_1"] {
        add(port, UINT8, &[1], &[0.013], 0.0);
    }
    add("conv2.weight", SYMMETRIC, &[3, 1, 1, 1], &scales, 0.0);
    add("add._input_0", UINT8, &[1], &[0.015], 111.0);
    add("pool._input_0", UINT8, &[1], &[0.014], 0.0);
    add("head._input_0", UINT8, &[1], &[0.009], 0.0);
    add("head.weight", SYMMETRIC, &[1, 2], &[0.005, 0.004], 0.0);
    found
}

fn compressed(masks: &Masks, calibration: &Calibration) -> Compressed<Residual> {
    let model = Residual::new(&Device::flex());
    Compressed::from_parts(model, masks, calibration, History::default()).unwrap()
}

fn dummy_input() -> DummyInput<Residual> {
    DummyInput::new(images(&Device::flex()), Residual::forward)
}

fn exported(model: &Residual, config: &OnnxConfig) -> Exported {
    let config = config
        .clone()
        .with_dynamic_batch(false)
        .with_input_names(["x"]);
    let model = AnyModel::new(model.clone());
    export(model, &AnyModel::dummy_input(&dummy_input()), &config).unwrap()
}

/// The output of the graph by the evaluator and, without optimizations, by onnxruntime.
fn run(exported: &Exported) -> Vec<f64> {
    let input: Vec<f64> = images(&Device::flex()).into_data().iter::<f64>().collect();
    let input = Array::new(IMAGES, &input);
    let found = evaluate(&exported.graph, &[("x", input.clone())])[0]
        .values
        .clone();
    for optimized in [false, true] {
        if let Some(run) = runtime::run(&exported.graph, &input, optimized) {
            assert_close(&run.output, &found, 0.01);
        }
    }
    found
}

fn simulated(model: &Residual) -> Vec<f64> {
    model
        .forward(images(&Device::flex()))
        .into_data()
        .iter::<f64>()
        .collect()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    let pairs = found.iter().zip(expected);
    let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(
        found.len() == expected.len() && error <= tolerance,
        "{found:?} {expected:?}"
    );
}

/// Logits of 0.5 to 1; what remains are the int32 biases, at most half a step of 0.009 * 0.005.
#[rstest]
#[case(OnnxTarget::OnnxRuntime)]
#[case(OnnxTarget::OnnxRuntimeX86)]
fn integers_compute_what_was_simulated(#[case] target: OnnxTarget) {
    let compressed = compressed(&Masks::new(), &calibration());
    let exported = exported(compressed.model(), &OnnxConfig::new().with_target(target));
    let report = exported.quantization.as_ref().unwrap();
    assert!(report.float_nodes.is_empty(), "{report}");
    assert_eq!(report.integer_nodes.len(), 5);
    assert_eq!(report.absorbed_activations.len(), 2);
    assert_close(&run(&exported), &simulated(compressed.model()), 5e-5);
    // The float model is another one.
    let float = simulated(&compressed.unwrap_model());
    let distance = run(&exported)
        .iter()
        .zip(&float)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert!(distance > 1e-3, "{distance}");
}

/// For TensorRT everything is symmetric, biases are floats and ReLUs stay: nothing is left to differ.
#[test]
fn symmetric_quantizers_for_tensorrt() {
    let mut calibration = calibration();
    for (path, quantizer) in &mut calibration {
        if !path.target.is_param() {
            *quantizer = entry(INT8, &[1], &[0.02], 0.0);
        }
    }
    let compressed = compressed(&Masks::new(), &calibration);
    let config = OnnxConfig::new().with_target(OnnxTarget::TensorRt);
    let exported = exported(compressed.model(), &config);
    let report = exported.quantization.as_ref().unwrap();
    assert_eq!(
        (report.integer_biases, report.absorbed_activations.len()),
        (0, 0)
    );
    assert!(report.not_simulated.is_empty(), "{report}");
    let float: Vec<&str> = report
        .float_nodes
        .iter()
        .map(|node| node.operator.as_str())
        .collect();
    assert_eq!(float, ["Relu"], "{report}");
    let input: Vec<f64> = images(&Device::flex()).into_data().iter::<f64>().collect();
    let found = evaluate(&exported.graph, &[("x", Array::new(IMAGES, &input))]);
    assert_close(&found[0].values, &simulated(compressed.model()), 1e-6);
}

/// For floating point parameters have the simulated values, inputs and outputs none.
#[test]
fn floating_point_on_request() {
    let compressed = compressed(&Masks::new(), &calibration());
    let config = OnnxConfig::new().with_target(OnnxTarget::Float);
    let exported = exported(compressed.model(), &config);
    let report = exported.quantization.as_ref().unwrap();
    assert_eq!(report.left_out.len(), 6);
    let mut weights = calibration();
    weights.retain(|target, _| target.target.is_param());
    let expected = simulated(self::compressed(&Masks::new(), &weights).model());
    assert_close(&run(&exported), &expected, 1e-6);
}

/// Masks of parameters are in their integers; one of an output whose norm is folded too.
#[test]
fn masks_of_parameters_and_outputs() {
    let rows = Mask::new([1.0, 0.0, 1.0].repeat(3), [3, 3, 1, 1]).unwrap();
    let channel = Mask::new(vec![1.0, 1.0, 0.0], [1, 3, 1, 1]).unwrap();
    let masks = Masks::from_iter([
        ("conv2.weight".parse().unwrap(), rows),
        ("bn2._output_0".parse().unwrap(), channel),
    ]);
    let compressed = compressed(&masks, &calibration());
    let exported = exported(compressed.model(), &OnnxConfig::new());
    let report = exported.quantization.as_ref().unwrap();
    assert!(report.float_nodes.is_empty(), "{report}");
    assert_close(&run(&exported), &simulated(compressed.model()), 5e-5);
    let unmasked = self::compressed(&Masks::new(), &calibration());
    let other = simulated(unmasked.model());
    assert!(
        run(&exported)
            .iter()
            .zip(&other)
            .any(|(a, b)| (a - b).abs() > 1e-3)
    );
}

/// A bias that the simulation has rounded is not listed as a difference.
#[test]
fn simulated_biases() {
    let mut calibration = calibration();
    let scale = [0.009_f32 * 0.005, 0.009_f32 * 0.004];
    let (low, high) = (i32::MIN as f32, 2_147_483_520.0);
    let bias = entry(("int32", low, high), &[2], &scale, 0.0);
    calibration.insert("head.bias".parse().unwrap(), bias);
    let compressed = compressed(&Masks::new(), &calibration);
    let exported = exported(compressed.model(), &OnnxConfig::new());
    let report = exported.quantization.as_ref().unwrap();
    let differences = report.not_simulated.iter().map(|d| d.path.as_str());
    assert_eq!(
        differences.collect::<Vec<_>>(),
        ["conv1.bias", "conv2.bias"]
    );
    assert_close(&run(&exported), &simulated(compressed.model()), 1e-6);
}

#[test]
fn refusals_come_before_anything_is_written() {
    let mut calibration = calibration();
    let per_channel = entry(INT8, &[1, 3, 1, 1], &[0.01; 3], 0.0);
    calibration.insert("conv1._input_0".parse().unwrap(), per_channel);
    calibration.insert(
        "head._input_0".parse().unwrap(),
        entry(UINT8, &[1], &[0.009], 0.5),
    );
    let compressed = compressed(&Masks::new(), &calibration);
    let error = export_onnx(compressed.model(), &dummy_input(), &OnnxConfig::new()).unwrap_err();
    let expected = "onnxruntime on x86 cannot execute this model:\n  `conv1._input_0`: it has 3 scales, one a \
                    channel; use the granularity `default`, one scale for the whole tensor\n  \
                    `head._input_0`: its zero point 0.5 is not an integer; round it, or use a quantizer with \
                    integer zero points (`QatQuantizer`, `LsqQuantizer`)";
    assert_eq!(error.to_string(), expected);
    let ExportError::NotExecutable { refusals, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(refusals.len(), 2);
    assert_eq!(Error::from(error).to_string(), expected);
}

/// The values of a weight are the products of its integers and scales, bit for bit those of the
/// simulation.
#[test]
fn weights_are_those_of_the_simulation() {
    let compressed = compressed(&Masks::new(), &calibration());
    let weight = compressed.unwrap_model().head.weight.val();
    let scale = Tensor::<2>::from_floats([[0.005, 0.004]], &Device::flex());
    let gradient = fake_quantize::RoundGradient::StraightThrough;
    let expected = fake_quantize::fake_quantize(
        weight,
        scale.clone(),
        scale.zeros_like(),
        -127.0,
        127.0,
        gradient,
    );
    let mut config = OnnxConfig::new().with_target(OnnxTarget::Float);
    let float = exported(compressed.model(), &config);
    let expected: Vec<f32> = expected.into_data().iter().collect();
    assert_eq!(float.graph.floats("head.weight").unwrap(), expected);
    config.target = OnnxTarget::OnnxRuntimeX86;
    let integers = exported(compressed.model(), &config);
    let stored = &integers.graph.initializers["head.weight_quantized"].values;
    let crate::graph::Values::Uint8(stored) = stored else {
        panic!("{stored:?} is not shifted");
    };
    let scales = [0.005_f32, 0.004];
    let values = stored.iter().enumerate();
    let values = values.map(|(at, &q)| (f32::from(q) - 128.0) * scales[at % 2]);
    assert_eq!(values.collect::<Vec<_>>(), expected);
}
