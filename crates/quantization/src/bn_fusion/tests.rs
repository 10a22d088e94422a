//! Fused layers in a chain: while it trains, at its end, and what cannot be fused.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, Linear, Relu};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{
    Budget, CalibrationEntry, Compressed, Compressor, DummyInput, Error, Evaluator, FlatTensor,
    Mask, Masks, Mode, Target, TargetId, Wrapper, gradients,
};
use rstest::rstest;

mod batch;
mod every;
mod masks;
mod refused;

use super::fold::{
    self,
    tests::{spread, trained_norm, values_of},
};
use crate::{PtqConfig, PtqQuantizer, QatConfig, QatQuantizer, QuantizationSettings};

/// A convolution with a bias and a linear layer without, each before a batch norm.
#[derive(Module, Debug)]
struct Net {
    conv: Wrapper<Conv2d>,
    bn: Wrapper<BatchNorm>,
    relu: Wrapper<Relu>,
    fc: Wrapper<Linear>,
    fc_bn: Wrapper<BatchNorm>,
    head: Wrapper<Linear>,
    head_relu: Wrapper<Relu>,
    plain: BatchNorm,
}

impl Net {
    fn features(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.relu.forward(self.bn.forward(self.conv.forward(x)));
        let x = x.mean_dim(3).mean_dim(2).reshape([-1, 4]);
        self.fc_bn.forward(self.fc.forward(x))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.head_relu.forward(self.head.forward(self.features(x)))
    }
}

fn linear(inputs: usize, outputs: usize, has_bias: bool) -> Linear {
    let bias = Param::from_tensor(spread([outputs], 31, (-0.3, 0.3)));
    Linear {
        weight: Param::from_tensor(spread([inputs, outputs], 30, (-1.0, 1.0))),
        bias: has_bias.then_some(bias),
    }
}

fn net() -> Net {
    let conv = Conv2d {
        weight: Param::from_tensor(spread([4, 2, 3, 3], 20, (-0.6, 0.6))),
        bias: Some(Param::from_tensor(spread([4], 21, (-0.3, 0.3)))),
        ..Conv2dConfig::new([2, 4], [3, 3]).init(&Device::flex())
    };
    Net {
        conv: conv.into(),
        bn: trained_norm(4, 1).into(),
        relu: Relu::new().into(),
        fc: linear(4, 3, false).into(),
        fc_bn: trained_norm(3, 5).into(),
        head: linear(3, 2, true).into(),
        head_relu: Relu::new().into(),
        plain: trained_norm(1, 9),
    }
}

fn batch() -> Tensor<4> {
    spread([6, 2, 5, 5], 40, (-1.5, 2.0))
}

type Chain = Compressor<Net, Tensor<4>>;

fn evaluator() -> Evaluator<Net, Tensor<4>> {
    let (data, dummy) = (batch(), batch());
    Evaluator::new()
        .with_data(move |_epoch| vec![data.clone(), data.clone() * 0.5])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.05)
        .with_loss(|model: &Net, x: &Tensor<4>| {
            (model.forward(x.clone()) - 0.5)
                .square()
                .mean()
                .reshape([1])
        })
        .with_dummy_input(DummyInput::new(dummy, |model: &Net, x| model.forward(x)))
}

fn config(json: &str) -> ConfigList<QuantizationSettings> {
    ConfigList::from_json(json).unwrap()
}

const FUSE: &str = r#"[{"op_types": ["Conv2d", "Linear"], "fuse": true}]"#;

fn qat(json: &str) -> Result<Chain, Error> {
    QatQuantizer::new(net(), config(json), evaluator(), QatConfig::new())
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn output(net: &Net) -> Vec<f32> {
    host(net.valid().features(batch()))
}

/// The largest difference, relative to the largest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0.0f32, |largest, b| largest.max(b.abs()));
    let pairs = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    pairs.fold(0.0, f32::max) / largest
}

fn assert_finished(chain: Chain) -> Compressed<Net> {
    let simulated = output(chain.model());
    let unfused = output(&chain.model().valid());
    assert_eq!(simulated, unfused, "a snapshot folds as the chain does");
    let compressed = chain.finish().unwrap();
    let folded = output(compressed.model());
    let error = difference(&folded, &simulated);
    assert!(error <= 1e-6, "{error}");
    compressed
}

#[test]
fn folded_for_good_computes_what_was_simulated() {
    let mut chain = qat(FUSE).unwrap();
    chain.advance(&Budget::steps(6), None).unwrap();
    let before = chain.model().valid();
    let compressed = assert_finished(chain);

    let model = compressed.model();
    for (norm, left) in [(&model.bn, false), (&model.fc_bn, true)] {
        let channels = norm.gamma.dims()[0];
        assert_eq!(host(norm.beta.val()), vec![0.0; channels]);
        assert_eq!(host(norm.gamma.val()), vec![1.0; channels]);
        // The linear layer has no bias, so its norm keeps the shift.
        let mean = host(norm.running_mean.value());
        assert_eq!(mean.iter().any(|mean| *mean != 0.0), left);
    }
    let expected = fold::weight(before.conv.weight.base(), 0, &values_of(&before.bn));
    assert_eq!(host(model.conv.weight.base()), host(expected));
    assert_ne!(
        host(model.conv.weight.val()),
        host(model.conv.weight.base()),
        "the folded weight is still rounded"
    );
    let targets: Vec<String> = compressed
        .calibration()
        .unwrap()
        .keys()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "conv._input_0",
        "conv.weight",
        "relu._output_0",
        "fc._input_0",
        "fc.weight",
        "fc_bn._output_0",
        "head._input_0",
        "head.weight",
        "head_relu._output_0",
    ];
    assert_eq!(targets, expected);
}

#[test]
fn without_rounding_the_model_is_the_same_in_validation() {
    let json = r#"[{"op_types": ["Conv2d", "Linear"], "fuse": true, "apply_method": "bypass"}]"#;
    let mut chain = qat(json).unwrap();
    assert!(difference(&output(chain.model()), &output(&net())) <= 1e-6);
    chain.advance(&Budget::steps(3), None).unwrap();
    let fused = output(chain.model());
    let plain = output(
        &Compressor::<_, Tensor<4>>::from_model(
            assert_finished(chain).unwrap_model(),
            Evaluator::new(),
        )
        .unwrap_model(),
    );
    assert!(difference(&plain, &fused) <= 1e-6);
}

#[test]
fn the_range_is_that_of_the_folded_weight() {
    let json = r#"[{"op_names": ["conv"], "target_names": ["weight"],
        "fuse_names": [["conv", "bn"]]}]"#;
    let mut chain = qat(json).unwrap();
    chain.advance(&Budget::steps(1), None).unwrap();

    // The running statistics move first, with the output of the raw convolution: 0.9 and 0.1.
    let net = net();
    let (mean, variance) = fold::batch_statistics(net.conv.forward(batch()));
    let mut norm = values_of(&net.bn);
    norm.mean = norm.mean * 0.9 + mean * 0.1;
    norm.variance = norm.variance * 0.9 + variance * 0.1;
    let running = host(chain.model().valid().bn.running_mean.value());
    assert!(difference(&running, &host(norm.mean.clone())) <= 1e-6);
    let folded = host(fold::weight(net.conv.weight.val(), 0, &norm));
    let entry = chain.calibration().unwrap();
    let entry = &entry[&TargetId::new("conv", Target::param("weight"))];
    let minimum = folded.iter().copied().fold(f32::INFINITY, f32::min);
    let maximum = folded.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let found = [
        entry.minimum.as_ref().unwrap()[0],
        entry.maximum.as_ref().unwrap()[0],
    ];
    assert!(difference(&found, &[minimum, maximum]) <= 1e-6, "{found:?}");
}

#[test]
fn gradients_pass_the_fold() {
    let json = r#"[{"op_names": ["conv"], "target_names": ["weight"],
        "fuse_names": [["conv", "bn"]], "apply_method": "bypass"}]"#;
    let chain = qat(json).unwrap();
    let paths = ["conv.weight", "conv.bias", "bn.gamma", "bn.beta"];
    let paths = paths.map(str::to_string).into_iter().collect();
    let device = Device::flex().autodiff();
    let x = batch().to_device(&device);
    let upstream = spread([6, 4, 3, 3], 50, (-1.0, 1.0)).to_device(&device);

    let model = chain.model();
    let loss = (model.bn.forward(model.conv.forward(x.clone())) * upstream.clone()).sum();
    let found = GradientsParams::from_grads(loss.backward(), model);
    let found = gradients(model, &found, &paths);

    // The same by hand, on the statistics that the forward pass above has left.
    let plain = Chain::from_model(net(), Evaluator::new());
    let plain = plain.model();
    let mut norm = values_of(&plain.bn);
    norm.mean = model.bn.running_mean.value_sync();
    norm.variance = model.bn.running_var.value_sync();
    let folded = Conv2d {
        weight: Param::initialized(
            plain.conv.weight.id,
            fold::weight(plain.conv.weight.val(), 0, &norm),
        ),
        bias: plain
            .conv
            .bias
            .as_ref()
            .map(|bias| Param::initialized(bias.id, fold::bias(Some(bias.val()), &norm))),
        ..(*plain.conv).clone()
    };
    let loss = (folded.forward(x) * upstream).sum();
    let expected = GradientsParams::from_grads(loss.backward(), plain);
    let expected = gradients(plain, &expected, &paths);
    assert_eq!(found.len(), 4);
    assert_eq!(expected.len(), 4);
    for (path, found) in found {
        let expected = expected[&path].to_vec().unwrap();
        let error = difference(&found.to_vec().unwrap(), &expected);
        assert!(error <= 1e-5, "{path}: {error}");
    }
}

#[test]
fn post_training_quantization_observes_the_folded_weight() {
    let chain = PtqQuantizer::new(net(), config(FUSE), evaluator(), PtqConfig::new()).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let net = net();
    let folded = host(fold::weight(net.conv.weight.val(), 0, &values_of(&net.bn)));
    let largest = folded
        .iter()
        .fold(0.0f32, |largest, w| largest.max(w.abs()));
    let calibration = compressed.calibration().unwrap();
    let entry = &calibration[&TargetId::new("conv", Target::param("weight"))];
    let scale = entry.scale.as_ref().unwrap()[0];
    assert!((scale - largest / 127.0).abs() <= 1e-6 * scale);
    assert_eq!(host(compressed.model().conv.weight.base()), folded);
    let error = difference(&output(compressed.model()), &output(&net));
    assert!(error > 0.0 && error < 0.05, "{error}");
}

#[test]
fn a_resumed_run_goes_on_bit_for_bit() {
    let path = std::env::temp_dir().join(format!("fused-{}.ckpt", std::process::id()));
    let budget = Budget::steps(5);
    let straight = qat(FUSE).unwrap().compress(budget.clone()).unwrap();
    let mut first = qat(FUSE).unwrap();
    first.advance(&budget, Some(3)).unwrap();
    first.save_checkpoint(&path).unwrap();
    let resumed = qat(FUSE).unwrap().resume(&path).unwrap();
    let resumed = resumed.compress(budget).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output(resumed.model()), output(straight.model()));
}

#[test]
fn a_fused_layer_cannot_be_claimed_any_more() {
    let mut chain = qat(FUSE).unwrap();
    for (target, mode) in [
        ("bn.gamma", Mode::Quantization),
        ("bn._input_0", Mode::Pruning),
        ("conv._output_0", Mode::Pruning),
    ] {
        let (layer, name) = target.split_once('.').unwrap();
        let id = TargetId::new(layer, name.parse().unwrap());
        let error = chain.chain().claim(mode, &[id]).unwrap_err();
        assert!(matches!(error, Error::Folding { .. }), "{error}");
        assert!(error.to_string().contains(target), "{error}");
    }
    // All of them at once, with what to select in their place.
    let outputs = ["conv", "fc"].map(|layer| TargetId::new(layer, Target::Output(0)));
    let error = chain
        .chain()
        .claim(Mode::Distillation, &outputs)
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("`conv._output_0`, `fc._output_0`"),
        "{error}"
    );
    let instead = "select `bn._output_0`, `fc_bn._output_0` in their place";
    assert!(error.contains(instead), "{error}");
    let output = TargetId::new("bn", Target::Output(0));
    assert!(chain.chain().claim(Mode::Distillation, &[output]).is_ok());
}

#[test]
fn a_norm_and_its_activation_have_one_output() {
    let json = r#"[{"op_names": ["bn"], "target_names": ["gamma", "_output_0"],
        "fuse_names": [["bn", "relu"]]}]"#;
    let mut chain = qat(json).unwrap();
    chain.advance(&Budget::steps(2), None).unwrap();
    let targets = chain.calibration().unwrap().into_iter();
    let minimum = |(id, entry): (TargetId, CalibrationEntry)| (id.to_string(), entry.minimum);
    let targets: Vec<_> = targets.map(minimum).collect();
    assert_eq!(targets[0].0, "bn.gamma");
    // What leaves the rectifier is not negative, what leaves the norm is.
    assert_eq!(targets[1], ("relu._output_0".to_string(), Some(vec![0.0])));
    assert_finished(chain);
}

#[test]
fn a_follower_with_a_quantization_of_its_own() {
    let json = r#"[{"op_names": ["conv"], "fuse_names": [["conv", "bn", "relu"]]},
        {"op_names": ["relu"], "target_names": ["_output_0"]}]"#;
    let error = qat(json).unwrap_err().to_string();
    assert!(error.contains("`relu._output_0` is selected"), "{error}");
}

#[test]
fn what_fusing_needs() {
    let options = PtqConfig::new().with_bias_correction(true);
    let error = PtqQuantizer::new(net(), config(FUSE), evaluator(), options).unwrap_err();
    assert!(
        error.to_string().contains("leave out `bias_correction`"),
        "{error}"
    );
    let evaluator = Evaluator::new()
        .with_data(|_epoch| vec![batch()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|model: &Net, x: &Tensor<4>| model.forward(x.clone()).mean().reshape([1]));
    let error = QatQuantizer::new(net(), config(FUSE), evaluator, QatConfig::new()).unwrap_err();
    assert!(matches!(
        error,
        Error::MissingEvaluator {
            builder: "with_dummy_input",
            ..
        }
    ));
}

#[test]
fn an_output_needs_no_quantized_weight() {
    let json = r#"[{"op_names": ["head"], "target_names": ["_output_0"], "fuse": true}]"#;
    let mut chain = qat(json).unwrap();
    chain.advance(&Budget::steps(2), None).unwrap();
    let calibration = chain.calibration().unwrap();
    let found: Vec<String> = calibration.keys().map(ToString::to_string).collect();
    assert_eq!(found, ["head_relu._output_0"]);
}
