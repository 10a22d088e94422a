use std::sync::{Mutex, PoisonError};

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, TensorData};
use burn_compress_core::{Budget, Compressor, Grid, Wrapper};
use rstest::rstest;

use super::*;
use crate::PtqQuantizer;

fn vector(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::from(values), &Device::flex())
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn the_sigmoid_begins_at_the_fraction_and_reaches_both_ends() {
    let fractions = [0.0, 0.25, 0.5, 0.999];
    let h = host(rectified_sigmoid(initial(vector(&fractions))));
    for (h, fraction) in h.iter().zip(fractions) {
        assert!((h - fraction).abs() < 1e-6, "{h} {fraction}");
    }
    // 1.2 / (1 + e^-4) - 0.1 = 1.078, 1.2 / (1 + e^0) - 0.1 = 0.5.
    assert_eq!(
        host(rectified_sigmoid(vector(&[-4.0, 0.0, 4.0]))),
        [0.0, 0.5, 1.0]
    );
}

#[test]
fn the_exponent_falls_after_a_fifth() {
    assert_eq!(beta(19, 100), None);
    assert_eq!(beta(20, 100), Some(20.0));
    assert!((beta(60, 100).unwrap() - 11.0).abs() < 1e-12);
    assert!((beta(99, 100).unwrap() - 2.0).abs() < 0.01);
    assert_eq!(beta(0, 1), Some(20.0));
}

#[test]
fn positions_by_hand() {
    // 0.7 / 0.5 = 1.4, -0.7 / 0.5 = -1.4, 9 / 0.5 is beyond 7.
    let weight = Weight {
        floor: vector(&[1.0, -2.0, 18.0]),
        fraction: vector(&[0.4, 0.6, 0.0]),
        scale: vector(&[0.5; 3]),
        zero_point: vector(&[0.0; 3]),
        range: (-7.0, 7.0),
    };
    assert_eq!(host(weight.simulate(vector(&[0.0; 3]))), [0.5, -1.0, 3.5]);
    assert_eq!(host(weight.simulate(vector(&[1.0; 3]))), [1.0, -0.5, 3.5]);
}

#[derive(Module, Debug)]
struct Net {
    conv: Wrapper<Conv2d>,
    pool: MaxPool2d,
    fc: Wrapper<Linear>,
}

impl Net {
    fn new() -> Self {
        // The seed is that of all threads, and parameters draw their values when they are first read:
        // a second network made of it could be another one.
        static NET: Mutex<Option<Net>> = Mutex::new(None);
        let drawn = || {
            let device = Device::flex();
            device.seed(3);
            let net = Self {
                conv: Conv2dConfig::new([2, 4], [3, 3]).init(&device).into(),
                pool: MaxPool2dConfig::new([2, 2]).init(),
                fc: LinearConfig::new(16, 3).init(&device).into(),
            };
            net.forward(Tensor::zeros([1, 2, 6, 6], &device));
            net
        };
        let mut net = NET.lock().unwrap_or_else(PoisonError::into_inner);
        net.get_or_insert_with(drawn).clone()
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = activation::relu(self.conv.forward(x));
        self.fc.forward(self.pool.forward(x).flatten(1, 3))
    }
}

fn batch(seed: usize) -> Tensor<4> {
    let wave = |i: usize| ((i * (seed + 3)) as f32 * 0.37).sin() + 0.3;
    let values: Vec<f32> = (0..8 * 2 * 6 * 6).map(wave).collect();
    Tensor::from_data(TensorData::new(values, [8, 2, 6, 6]), &Device::flex())
}

fn evaluator() -> Evaluator<Net, Tensor<4>> {
    Evaluator::new()
        .with_data(|_| (0..4).map(batch).collect::<Vec<_>>())
        .with_loss(|model: &Net, x: &Tensor<4>| model.forward(x.clone()).mean())
}

fn rules(json: &str) -> ConfigList<QuantizationSettings> {
    ConfigList::from_json(json).unwrap()
}

const WEIGHTS: &str =
    r#"[{"op_types": ["Conv2d", "Linear"], "quant_dtype": "int3", "target_names": ["weight"]}]"#;

#[test]
fn errors_of_correlated_inputs_cancel() {
    #[derive(Module, Debug)]
    struct Layer {
        fc: Wrapper<Linear>,
    }
    let device = Device::flex();
    let mut fc = LinearConfig::new(3, 1).with_bias(false).init(&device);
    // The range gives scale 1; both other weights are always multiplied by the same number.
    fc.weight = Param::from_tensor(Tensor::from_floats([[7.0], [0.45], [0.35]], &device));
    let x = Tensor::<2>::from_floats([[0.1, 1.0, 1.0], [-0.2, -2.0, -2.0]], &device);
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![x.clone()])
        .with_loss(|model: &Layer, x: &Tensor<2>| model.fc.forward(x.clone()).mean());
    let config =
        rules(r#"[{"op_types": ["Linear"], "quant_dtype": "int4", "target_names": ["weight"]}]"#);
    let options = AdaRoundConfig::new();
    let chain =
        AdaRoundQuantizer::new(Layer { fc: fc.into() }, &config, evaluator, options).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    // Nearest would be 7, 0, 0 and off by 0.8 x; one of the two has to be rounded up.
    assert_eq!(
        host(compressed.unwrap_model().fc.weight.val()),
        [7.0, 1.0, 0.0]
    );
}

#[test]
fn every_call_of_a_layer_counts() {
    #[derive(Module, Debug)]
    struct Shared {
        fc: Wrapper<Linear>,
    }
    let device = Device::flex();
    let mut fc = LinearConfig::new(3, 1).with_bias(false).init(&device);
    fc.weight = Param::from_tensor(Tensor::from_floats([[7.0], [0.45], [0.35]], &device));
    let evaluator = Evaluator::new()
        .with_data(|_| vec![Tensor::<2>::from_floats([[0.0, 2.0, 2.0]], &Device::flex())])
        .with_loss(|model: &Shared, x: &Tensor<2>| {
            // What the last call takes is served best by the nearest values, 0 and 0.
            let last = Tensor::<2>::from_floats([[0.0, 0.1, -0.1]], &Device::flex());
            (model.fc.forward(x.clone()) + model.fc.forward(last)).mean()
        });
    let config =
        rules(r#"[{"op_types": ["Linear"], "quant_dtype": "int4", "target_names": ["weight"]}]"#);
    let options = AdaRoundConfig::new();
    let chain =
        AdaRoundQuantizer::new(Shared { fc: fc.into() }, &config, evaluator, options).unwrap();
    let weight = host(
        chain
            .compress(Budget::none())
            .unwrap()
            .unwrap_model()
            .fc
            .weight
            .val(),
    );
    assert_eq!((weight[0], weight[1] + weight[2]), (7.0, 1.0), "{weight:?}");
}

/// Mean squared distance of the outputs to those in full precision.
fn distance(model: &Net) -> f32 {
    let full = Net::new();
    let of = |x: Tensor<4>| (model.forward(x.clone()) - full.forward(x)).square().mean();
    (0..4).map(|seed| host(of(batch(seed)))[0]).sum()
}

#[test]
fn outputs_come_closer_than_by_nearest_rounding() {
    let config = rules(
        r#"[{"op_types": ["Conv2d", "Linear"], "quant_dtype": "int3", "target_names": ["weight"],
            "observer": "min_max"}]"#,
    );
    let nearest = PtqQuantizer::new(Net::new(), &config, evaluator(), PtqConfig::new()).unwrap();
    let nearest = nearest.compress(Budget::none()).unwrap();
    let options = AdaRoundConfig::new().with_steps(400);
    let learned = AdaRoundQuantizer::new(Net::new(), &config, evaluator(), options).unwrap();
    let learned = learned.compress(Budget::none()).unwrap();
    let (before, after) = (distance(nearest.model()), distance(learned.model()));
    assert!(after < 0.7 * before, "{after} instead of {before}");

    assert_eq!(
        learned.calibration().unwrap(),
        nearest.calibration().unwrap()
    );
    let raw = host(learned.unwrap_model().conv.weight.val());
    assert_eq!(
        host(learned.model().conv.weight.val()),
        raw,
        "raw weights lie on the grid"
    );
    let id: TargetId = "conv.weight".parse().unwrap();
    let scale = learned.calibration().unwrap()[&id].scale.as_ref().unwrap()[0];
    let mut moved = 0;
    for (raw, before) in raw.iter().zip(host(Net::new().conv.weight.val())) {
        assert!(
            (raw - before).abs() <= scale * 1.001,
            "{before} became {raw}"
        );
        moved += usize::from((raw - before).abs() > scale * 0.501);
    }
    assert!(moved > 0, "not every weight goes to its nearest neighbour");
}

#[rstest]
#[case("int4", 0.75)]
#[case("int2", 0.35)]
fn weights_begin_on_the_grid_of_the_least_error(#[case] dtype: &str, #[case] factor: f32) {
    #[derive(Module, Debug)]
    struct Layer {
        fc: Wrapper<Linear>,
    }
    // Weights with the tails of a trained layer, and inputs as they come from a rectifier.
    let mut rng = fastrand::Rng::with_seed(11);
    let mut laplace = || {
        let u = 2.0 * rng.f32() - 1.0;
        -u.signum() * (1.0 - u.abs()).ln()
    };
    let device = Device::flex();
    let weight: Vec<f32> = (0..64 * 16).map(|_| 0.1 * laplace()).collect();
    let x: Vec<f32> = (0..128 * 64).map(|_| laplace().max(0.0)).collect();
    let x = Tensor::<2>::from_data(TensorData::new(x, [128, 64]), &device);
    let layer = || {
        let mut fc = LinearConfig::new(64, 16).with_bias(false).init(&device);
        fc.weight = Param::from_data(TensorData::new(weight.clone(), [64, 16]), &device);
        Layer { fc: fc.into() }
    };
    let learned = |settings: &str| {
        let batch = x.clone();
        let evaluator = Evaluator::new()
            .with_data(move |_| vec![batch.clone()])
            .with_loss(|model: &Layer, x: &Tensor<2>| model.fc.forward(x.clone()).mean());
        let config = rules(&format!(
            r#"[{{"op_types": ["Linear"], "quant_dtype": "{dtype}", "target_names": ["weight"]{settings}}}]"#
        ));
        let options = AdaRoundConfig::new().with_steps(300);
        let chain = AdaRoundQuantizer::new(layer(), &config, evaluator, options).unwrap();
        let compressed = chain.compress(Budget::none()).unwrap();
        let output = compressed.model().fc.forward(x.clone());
        let distance = (output - layer().fc.forward(x.clone())).square().mean();
        (host(distance)[0], compressed.calibration().unwrap())
    };
    let (by_default, extremes) = (learned(""), learned(r#", "observer": "min_max""#));
    assert_eq!(by_default.1, learned(r#", "observer": "mse""#).1);
    assert!(
        by_default.0 < factor * extremes.0,
        "{} instead of {}",
        by_default.0,
        extremes.0
    );
}

#[test]
fn only_weights_have_the_grid_of_the_least_error() {
    let learned = |observer: &str| {
        let config = rules(&format!(
            r#"[{{"op_types": ["Linear"], "quant_dtype": "int4"{observer}}}]"#
        ));
        let options = AdaRoundConfig::new().with_steps(1);
        let chain = AdaRoundQuantizer::new(Net::new(), &config, evaluator(), options).unwrap();
        chain
            .compress(Budget::none())
            .unwrap()
            .calibration()
            .unwrap()
    };
    let (by_default, extremes) = (learned(""), learned(r#", "observer": "min_max""#));
    for target in ["fc._input_0", "fc._output_0"] {
        let id: TargetId = target.parse().unwrap();
        assert_eq!(by_default[&id], extremes[&id]);
    }
}

#[test]
fn blocks_and_zero_points_have_their_place() {
    let config = rules(
        r#"[{"op_types": ["Conv2d"], "quant_dtype": "uint4", "quant_scheme": "affine",
             "target_names": ["weight"], "granularity": "out_channel"},
            {"op_types": ["Linear"], "quant_dtype": "uint4", "quant_scheme": "affine",
             "target_names": ["_input_", "weight"], "target_settings": {"weight": {"granularity": [4, -1]}}}]"#,
    );
    let options = AdaRoundConfig::new().with_steps(50);
    let chain = AdaRoundQuantizer::new(Net::new(), &config, evaluator(), options).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let calibration = compressed.calibration().unwrap();
    let blocks = |id: &str| calibration[&id.parse::<TargetId>().unwrap()].grid.clone();
    assert_eq!(blocks("conv.weight"), Grid::new([4, 1, 1, 1]));
    assert_eq!(blocks("fc.weight"), Grid::new([4, 1]));
    let plain = compressed.unwrap_model();
    for (raw, simulated) in [
        (
            host(plain.conv.weight.val()),
            host(compressed.model().conv.weight.val()),
        ),
        (
            host(plain.fc.weight.val()),
            host(compressed.model().fc.weight.val()),
        ),
    ] {
        for (raw, simulated) in raw.iter().zip(simulated) {
            assert!((raw - simulated).abs() < 1e-6, "{raw} {simulated}");
        }
    }
}

#[rstest]
#[case(AdaRoundConfig::new().with_steps(0), "`steps` is 0")]
#[case(AdaRoundConfig::new().with_learning_rate(0.0), "`learning_rate` is 0")]
#[case(AdaRoundConfig::new().with_learning_rate(f64::NAN), "must be positive")]
#[case(AdaRoundConfig::new().with_regularization(-1.0), "`regularization` is -1")]
#[case(AdaRoundConfig::new().with_batches(0), "`batches` is 0")]
fn settings_that_cannot_be(#[case] options: AdaRoundConfig, #[case] expected: &str) {
    let error = AdaRoundQuantizer::new(Net::new(), rules(WEIGHTS), evaluator(), options);
    let error = error.unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn weights_that_cannot_be_learned_are_named() {
    #[derive(Module, Debug)]
    struct Bare {
        conv: Conv2d,
        wide: Wrapper<burn::nn::conv::Conv1d>,
    }
    let device = Device::flex();
    let build = |json: &str| {
        let model = Bare {
            conv: Conv2dConfig::new([1, 1], [1, 1]).init(&device),
            wide: burn::nn::conv::Conv1dConfig::new(1, 1, 1)
                .init(&device)
                .into(),
        };
        let evaluator = Evaluator::new()
            .with_data(|_| vec![Tensor::<4>::ones([1, 1, 1, 1], &Device::flex())])
            .with_loss(|model: &Bare, x: &Tensor<4>| model.conv.forward(x.clone()).mean());
        let options = AdaRoundConfig::new();
        let chain = AdaRoundQuantizer::new(model, rules(json), evaluator, options);
        match chain.unwrap_err() {
            Error::Algorithm { source, .. } => *source.downcast::<QuantizationError>().unwrap(),
            other => panic!("{other}"),
        }
    };
    let error = build(r#"[{"op_names": ["conv"], "quant_dtype": "int4"}]"#).to_string();
    assert!(
        error.contains("`conv`") && error.contains("`Wrapper<Conv2d>`"),
        "{error}"
    );
    let error = build(r#"[{"op_names": ["wide"], "quant_dtype": "int4"}]"#).to_string();
    assert!(error.contains("this is a `Conv1d`"), "{error}");
    let error =
        build(r#"[{"op_names": ["wide"], "quant_dtype": "int4", "target_names": ["_input_"]}]"#);
    assert!(
        matches!(error, QuantizationError::Rounding { .. }),
        "{error}"
    );
}

#[test]
fn masked_weights_take_no_part() {
    let mut chain = Compressor::from_model(Net::new(), evaluator());
    let values: Vec<f32> = (0..4 * 2 * 9).map(|i| f32::from(i >= 18)).collect();
    let mask = burn_compress_core::Mask::new(values, [4, 2, 3, 3]).unwrap();
    let masks = burn_compress_core::Masks::from([("conv.weight".parse().unwrap(), mask)]);
    chain.update_masks(&masks).unwrap();
    let options = AdaRoundConfig::new().with_steps(50);
    let chain = AdaRoundQuantizer::from_compressor(chain, rules(WEIGHTS), options).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    assert_eq!(host(compressed.model().conv.weight.val())[..18], [0.0; 18]);
    let raw = host(compressed.unwrap_model().conv.weight.val());
    assert!(raw[..18].iter().any(|value| *value != 0.0));
}
