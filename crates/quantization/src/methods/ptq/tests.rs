use std::sync::{Mutex, PoisonError};

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressor, Error, Evaluator, Wrapper};
use rstest::rstest;

mod bias;

use super::*;
use crate::quantizers;
use crate::testing::cause;

#[derive(Module, Debug)]
struct Net {
    conv: Wrapper<Conv2d>,
    fc: Wrapper<Linear>,
}

impl Net {
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.conv.forward(x).flatten(1, 3))
    }
}

type Chain = Compressor<Net, Tensor<4>>;

fn batch(seed: usize, device: &Device) -> Tensor<4> {
    let value = |i: usize| ((i * 37 + seed * 101) % 97) as f32 / 97.0 - 0.25;
    let values: Vec<f32> = (0..5 * 2 * 4 * 4).map(value).collect();
    Tensor::from_data(TensorData::new(values, [5, 2, 4, 4]), device)
}

fn evaluator(learning_rate: f64) -> Evaluator<Net, Tensor<4>> {
    let device = Device::flex();
    Evaluator::new()
        .with_data(move |_| (0..3).map(|i| batch(i, &device)).collect::<Vec<_>>())
        .with_loss(|model: &Net, x: &Tensor<4>| model.forward(x.clone()).square().mean())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(learning_rate)
}

fn rules(json: &str) -> ConfigList<QuantizationSettings> {
    ConfigList::from_json(json).unwrap()
}

const ALL: &str = r#"[{"op_types": ["Conv2d", "Linear"], "quant_dtype": "int8"}]"#;

fn net() -> Net {
    // The seed is that of all threads, and parameters draw their values when they are first read: a
    // second network made of it could be another one.
    static NET: Mutex<Option<Net>> = Mutex::new(None);
    let drawn = || {
        let device = Device::flex().autodiff();
        device.seed(7);
        let net = Net {
            conv: Conv2dConfig::new([2, 3], [3, 3]).init(&device).into(),
            fc: LinearConfig::new(12, 2).init(&device).into(),
        };
        net.forward(batch(0, &device));
        net
    };
    let mut net = NET.lock().unwrap_or_else(PoisonError::into_inner);
    net.get_or_insert_with(drawn).clone()
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn id(target: &str) -> TargetId {
    target.parse().unwrap()
}

fn extremes(values: &[f32]) -> (f32, f32) {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    (
        low,
        values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
    )
}

#[test]
fn scales_by_hand() {
    #[derive(Module, Debug)]
    struct Layer {
        fc: Wrapper<Linear>,
    }
    let device = Device::flex();
    let mut fc = LinearConfig::new(2, 1).init(&device);
    fc.weight = Param::from_tensor(Tensor::from_floats([[3.0], [-14.0]], &device));
    fc.bias = Some(Param::from_tensor(Tensor::from_floats([1.0], &device)));
    let batches = [[[1.0, 0.0]], [[0.5, -2.0]], [[7.0, 9.0]]];
    let evaluator = Evaluator::new()
        .with_data(move |_| batches.map(|x| Tensor::<2>::from_floats(x, &Device::flex())))
        .with_loss(|model: &Layer, x: &Tensor<2>| model.fc.forward(x.clone()).mean());
    let config = rules(r#"[{"op_names": ["fc"], "quant_dtype": "int4"}]"#);
    // The third batch is not reached.
    let options = PtqConfig::new().with_batches(2);
    let chain = PtqQuantizer::new(Layer { fc: fc.into() }, &config, evaluator, options).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let calibration = compressed.calibration().unwrap();
    let entry = |target: &str| &calibration[&id(&format!("fc.{target}"))];
    assert!(calibration.values().all(|entry| entry.enabled));
    // Inputs 1, 0, 0.5, -2; outputs 4 and 30.5; the symmetric int4 is -7..=7.
    let ranges = |target| {
        let entry = entry(target);
        let one = |values: &Option<Vec<f32>>| values.as_ref().unwrap()[0];
        (one(&entry.minimum), one(&entry.maximum), one(&entry.scale))
    };
    assert_eq!(ranges("_input_0"), (-2.0, 1.0, 2.0 / 7.0));
    assert_eq!(ranges("weight"), (-14.0, 3.0, 2.0));
    assert_eq!(ranges("_output_0"), (4.0, 30.5, 30.5 / 7.0));
    // Weights 3 / 2 = 1.5 and -7 become 4 and -14; x = 4 and 2 steps of 2 / 7.
    let x = Tensor::<2>::from_floats([[1.1, 0.6]], &device);
    let output = compressed.model().fc.forward(x);
    let exact = 4.0 * 8.0 / 7.0 - 14.0 * 4.0 / 7.0 + 1.0;
    let expected = (exact / (30.5 / 7.0f32)).round_ties_even() * (30.5 / 7.0);
    assert!((host(output)[0] - expected).abs() < 1e-5);
}

#[test]
fn nothing_is_trained() {
    let model = net();
    let weight = host(model.conv.weight.val());
    let chain = PtqQuantizer::new(model, rules(ALL), evaluator(0.1), PtqConfig::new()).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    assert_eq!(host(compressed.unwrap_model().conv.weight.val()), weight);
    assert!(compressed.history().steps.is_empty());
    let calibration = compressed.calibration().unwrap();
    assert_eq!(calibration.len(), 6);
    for (id, entry) in &calibration {
        assert!(
            entry.enabled && entry.scale.as_ref().unwrap()[0] > 0.0,
            "{id}"
        );
    }
    let inputs: Vec<f32> = (0..3)
        .flat_map(|i| host(batch(i, &Device::flex())))
        .collect();
    let input = &calibration[&id("conv._input_0")];
    let found = (
        input.minimum.as_ref().unwrap()[0],
        input.maximum.as_ref().unwrap()[0],
    );
    assert_eq!(found, extremes(&inputs));
}

#[test]
fn a_fused_run_trains_in_full_precision() {
    let plain = Compressor::from_model(net(), evaluator(0.1));
    let plain = plain.compress(Budget::steps(5)).unwrap();
    for follow in [true, false] {
        let options = PtqConfig::new().with_follow_training(follow);
        let chain = Compressor::from_model(net(), evaluator(0.1));
        let chain = PtqQuantizer::from_compressor(chain, rules(ALL), options).unwrap();
        let compressed = chain.compress(Budget::steps(5)).unwrap();
        assert_eq!(compressed.history().steps, plain.history().steps);
        let calibration = compressed.calibration().unwrap();
        let weight = &calibration[&id("conv.weight")];
        let values = host(compressed.unwrap_model().conv.weight.val());
        let found = (
            weight.minimum.as_ref().unwrap()[0],
            weight.maximum.as_ref().unwrap()[0],
        );
        assert_eq!(found, extremes(&values), "the weights are the final ones");
        // The loss pulls outputs to zero: those of the first steps are the largest.
        let output = &calibration[&id("fc._output_0")];
        let model = plain.model();
        let outputs = (0..3).flat_map(|i| host(model.forward(batch(i, &Device::flex()))));
        let (low, high) = extremes(&outputs.collect::<Vec<_>>());
        let seen = (
            output.minimum.as_ref().unwrap()[0],
            output.maximum.as_ref().unwrap()[0],
        );
        match follow {
            true => assert!(seen.0 <= low && seen.1 >= high && seen != (low, high)),
            false => assert_eq!(seen, (low, high)),
        }
    }
}

#[rstest]
#[case("\"min_max\"")]
#[case("\"moving_average\"")]
#[case("\"histogram\"")]
#[case("\"mse\"")]
#[case("{\"percentile\": 99.0}")]
fn a_resumed_run_calibrates_alike(#[case] observer: &str) {
    let config = rules(&format!(
        r#"[{{"op_types": ["Conv2d"], "quant_dtype": "int8", "observer": {observer},
            "target_settings": {{
                "weight": {{"observer": "mse"}},
                "_output_": {{"granularity": "per_channel"}}
            }}}}]"#
    ));
    let chain = || -> Chain {
        PtqQuantizer::new(net(), &config, evaluator(0.05), PtqConfig::new()).unwrap()
    };
    let whole = chain().compress(Budget::steps(4)).unwrap();
    let mut first = chain();
    first.advance(&Budget::steps(4), Some(2)).unwrap();
    let name = format!(
        "burn-compress-ptq-{}-{}",
        std::process::id(),
        observer.len()
    );
    let path = std::env::temp_dir().join(name);
    first.save_checkpoint(&path).unwrap();
    let resumed = chain().resume(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let resumed = resumed.compress(Budget::steps(4)).unwrap();
    assert_eq!(resumed.calibration().unwrap(), whole.calibration().unwrap());
    assert_eq!(resumed.history().steps, whole.history().steps);
}

#[test]
fn weights_too_small_for_a_histogram_are_refused_by_name() {
    let config = rules(
        r#"[{"op_types": ["Conv2d"], "observer": "histogram", "granularity": "out_channel",
            "target_names": ["weight"]}]"#,
    );
    let error = PtqQuantizer::new(net(), &config, evaluator(0.1), PtqConfig::new()).unwrap_err();
    let error = error.to_string();
    for part in ["rule 0", "conv", "18 values", "needs 150", "`mse`"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn channels_with_few_values_keep_their_extremes() {
    // Three batches of five rows with two outputs.
    let calibrated = |observer: &str| {
        let config = rules(&format!(
            r#"[{{"op_types": ["Linear"], "observer": "{observer}", "granularity": "per_channel",
                "target_names": ["_output_"]}}]"#
        ));
        let chain = PtqQuantizer::new(net(), &config, evaluator(0.1), PtqConfig::new()).unwrap();
        let compressed = chain.compress(Budget::none()).unwrap();
        compressed.calibration().unwrap()
    };
    assert_eq!(calibrated("histogram"), calibrated("min_max"));
}

#[test]
fn bypassed_targets_are_calibrated_and_left_alone() {
    let config =
        rules(r#"[{"op_types": ["Conv2d"], "quant_dtype": "int2", "apply_method": "bypass"}]"#);
    let model = net();
    let x = batch(9, &Device::flex());
    let expected = host(model.valid().forward(x.clone()));
    let chain = PtqQuantizer::new(model, &config, evaluator(0.1), PtqConfig::new()).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    assert_eq!(host(compressed.model().forward(x)), expected);
    let calibration = compressed.calibration().unwrap();
    assert!(
        calibration
            .values()
            .all(|entry| entry.scale.is_some() && !entry.enabled)
    );
}

#[test]
fn a_layer_that_is_never_called_is_named() {
    let evaluator =
        evaluator(0.1).with_loss(|model: &Net, x: &Tensor<4>| model.conv.forward(x.clone()).mean());
    let chain = PtqQuantizer::new(net(), rules(ALL), evaluator, PtqConfig::new()).unwrap();
    let error = chain.compress(Budget::none()).unwrap_err();
    assert!(error.to_string().contains("`fc._input_0`"), "{error}");
}

#[test]
fn values_that_are_not_finite_are_named() {
    let device = Device::flex();
    let bad = Tensor::<4>::full([1, 2, 4, 4], f32::NAN, &device);
    let evaluator = evaluator(0.1).with_data(move |_| vec![bad.clone()]);
    let chain = PtqQuantizer::new(net(), rules(ALL), evaluator, PtqConfig::new()).unwrap();
    let error = chain.compress(Budget::none()).unwrap_err().to_string();
    assert!(
        error.contains("conv._input_0") && error.contains("not finite"),
        "{error}"
    );
}

#[test]
fn weights_alone_need_no_data() {
    let config =
        rules(r#"[{"op_types": ["Linear"], "quant_dtype": "int4", "target_names": ["weight"]}]"#);
    let nothing = Evaluator::<Net, Tensor<4>>::new;
    let chain = PtqQuantizer::new(net(), &config, nothing(), PtqConfig::new()).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    assert_eq!(compressed.calibration().unwrap().len(), 1);

    let error = PtqQuantizer::new(net(), rules(ALL), nothing(), PtqConfig::new()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::MissingEvaluator {
                builder: "with_data",
                ..
            }
        ),
        "{error}"
    );
    let options = PtqConfig::new().with_bias_correction(true);
    let error = PtqQuantizer::new(net(), &config, nothing(), options).unwrap_err();
    assert!(matches!(error, Error::MissingEvaluator { .. }), "{error}");
}

#[test]
fn settings_that_cannot_be_are_errors() {
    let options = PtqConfig::new().with_batches(0);
    let error = PtqQuantizer::new(net(), rules(ALL), evaluator(0.1), options).unwrap_err();
    assert!(matches!(
        cause(error),
        QuantizationError::Setting { key: "batches", .. }
    ));

    let binary = rules(r#"[{"op_types": ["Conv2d"], "quant_dtype": "int1"}]"#);
    for entry in quantizers::<Net, Tensor<4>>() {
        let chain = Compressor::from_model(net(), evaluator(0.1));
        if ["QatQuantizer", "PtqQuantizer"].contains(&entry.name) {
            let error = cause((entry.fuse)(chain, &binary).unwrap_err());
            assert!(matches!(
                error,
                QuantizationError::Setting {
                    key: "quant_dtype",
                    ..
                }
            ));
        }
    }

    let inputs =
        rules(r#"[{"op_types": ["Conv2d"], "quant_dtype": "int8", "target_names": ["_input_"]}]"#);
    let options = PtqConfig::new().with_bias_correction(true);
    let error = PtqQuantizer::new(net(), &inputs, evaluator(0.1), options).unwrap_err();
    assert!(
        cause(error)
            .to_string()
            .contains("no layer whose weight is quantized")
    );
}

#[test]
fn running_statistics_are_not_touched() {
    use burn::nn::{BatchNorm, BatchNormConfig};
    #[derive(Module, Debug)]
    struct Normed {
        conv: Wrapper<Conv2d>,
        norm: Wrapper<BatchNorm>,
    }
    let device = Device::flex().autodiff();
    let model = Normed {
        conv: Conv2dConfig::new([2, 3], [3, 3]).init(&device).into(),
        norm: BatchNormConfig::new(3).init(&device).into(),
    };
    let x = Tensor::<4>::random([4, 2, 5, 5], Distribution::Default, &device);
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![x.clone()])
        .with_loss(|model: &Normed, x: &Tensor<4>| {
            model.norm.forward(model.conv.forward(x.clone())).mean()
        });
    let config = rules(r#"[{"op_types": ["Conv2d"], "quant_dtype": "int8"}]"#);
    let chain = PtqQuantizer::new(model, &config, evaluator, PtqConfig::new()).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let mean = compressed.unwrap_model().norm.running_mean.value_sync();
    assert_eq!(host(mean), [0.0; 3]);
}

#[test]
fn a_search_over_too_few_values_is_a_warning_of_the_result() {
    // 5 samples of 2 outputs in each of 3 batches.
    let rules = rules(
        r#"[
            {"op_names": ["conv"], "target_names": ["weight"]},
            {"op_names": ["fc"], "target_names": ["_output_"], "observer": "histogram"}
        ]"#,
    );
    let expected = |name: &str| format!("{name}: `fc._output_0`: 1 of 1 blocks keep the range");
    for quantizer in ["PtqQuantizer", "QatQuantizer", "AdaRoundQuantizer"] {
        let mut all = quantizers::<Net, Tensor<4>>().into_iter();
        let quantizer = all.find(|q| q.name == quantizer).unwrap();
        let chain = Compressor::from_model(net(), evaluator(0.0));
        let chain = (quantizer.fuse)(chain, &rules).unwrap();
        let compressed = chain.compress(Budget::steps(3)).unwrap();
        let warnings = compressed.warnings();
        assert_eq!(warnings.len(), 1, "{}: {warnings:?}", quantizer.name);
        assert!(
            warnings[0].starts_with(&expected(quantizer.name)),
            "{warnings:?}"
        );
    }
}
