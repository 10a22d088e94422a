use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::Device;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{
    Budget, CalibrationEntry, Compressed, Compressor, DummyInput, Evaluator, IntegerType, Wrapper,
};
use rstest::rstest;

use super::*;
use crate::bn_fusion::fold::tests::spread;
use crate::{
    LsqConfig, LsqPlusConfig, LsqPlusQuantizer, LsqQuantizer, PtqConfig, PtqQuantizer, QatConfig,
    QatQuantizer,
};

/// A convolution before a batch norm, and layers with biases of their own.
#[derive(Module, Debug)]
struct Net {
    conv: Wrapper<Conv2d>,
    bn: Wrapper<BatchNorm>,
    biased: Wrapper<Conv2d>,
    last_bn: Wrapper<BatchNorm>,
    head: Wrapper<Linear>,
}

impl Net {
    fn new() -> Self {
        let device = Device::flex();
        let conv = |channels, bias| {
            let conv = Conv2dConfig::new(channels, [1, 1]).with_bias(bias);
            let mut conv = conv.init(&device);
            let [from, to] = channels;
            conv.weight = Param::from_tensor(spread([to, from, 1, 1], 3, (-1.0, 1.0)));
            conv.bias = bias.then(|| Param::from_tensor(spread([to], 4, (-1.0, 1.0))));
            conv
        };
        let mut head = LinearConfig::new(3, 2).init(&device);
        head.weight = Param::from_tensor(spread([3, 2], 5, (-1.0, 1.0)));
        head.bias = Some(Param::from_tensor(spread([2], 6, (-1.0, 1.0))));
        let mut bn = BatchNormConfig::new(4).init(&device);
        bn.beta = Param::from_tensor(spread([4], 7, (-1.0, 1.0)));
        Self {
            conv: conv([2, 4], false).into(),
            bn: bn.into(),
            biased: conv([4, 3], true).into(),
            last_bn: BatchNormConfig::new(3).init(&device).into(),
            head: head.into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.bn.forward(self.conv.forward(x));
        let x = self.last_bn.forward(self.biased.forward(x));
        self.head.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}

fn chain() -> Compressor<Net, Tensor<4>> {
    let images = || spread([4, 2, 3, 3], 1, (-1.0, 1.0));
    let evaluator = Evaluator::new()
        .with_dummy_input(DummyInput::new(images(), Net::forward))
        .with_data(move |_| vec![images()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.05)
        .with_loss(|model: &Net, x: &Tensor<4>| model.forward(x.clone()).square().mean());
    Compressor::from_model(Net::new(), evaluator)
}

fn rules(settings: &str) -> ConfigList<QuantizationSettings> {
    let json = format!(
        r#"[{{"op_names": ["conv", "head"], "target_names": ["_input_0", "weight"],
            "int32_bias": true, "target_settings": {{"weight": {{"granularity": "out_channel"}},
            "_input_0": {{"quant_dtype": "uint8", "quant_scheme": "affine"}}}}{settings}}}]"#
    );
    ConfigList::from_json(&json).unwrap()
}

fn entry(compressed: &Compressed<Net>, id: &str) -> CalibrationEntry {
    let calibration = compressed.calibration().unwrap();
    calibration[&id.parse::<TargetId>().unwrap()].clone()
}

fn check_steps(compressed: &Compressed<Net>) {
    for (layer, bias) in [("conv", "bn.beta"), ("head", "head.bias")] {
        let bias = entry(compressed, bias);
        assert_eq!(bias.dtype, IntegerType::Int32);
        assert!(bias.enabled);
        let input = entry(compressed, &format!("{layer}._input_0"));
        let weight = entry(compressed, &format!("{layer}.weight"));
        let input = input.scale.unwrap()[0];
        let steps: Vec<f32> = weight.scale.unwrap().iter().map(|s| s * input).collect();
        assert_eq!(bias.scale.unwrap(), steps);
    }
    let model = compressed.model();
    let bias = model.head.bias.as_ref().unwrap();
    let steps = entry(compressed, "head.bias").scale.unwrap();
    let values = |bias: Tensor<1>| bias.into_data().try_to_vec::<f32>().unwrap();
    let read = values(bias.val());
    for ((raw, read), step) in values(bias.base()).into_iter().zip(read).zip(steps) {
        assert_eq!(read, (raw / step).round_ties_even() * step);
    }
    // The wrapper of the norm rounds what it leaves.
    assert_eq!(values(model.bn.beta.val()), values(model.bn.beta.base()));
}

#[test]
fn steps_follow_input_and_weight_in_training() {
    let quantizer = QatQuantizer::from_compressor(chain(), rules(""), QatConfig::new()).unwrap();
    check_steps(&quantizer.compress(Budget::steps(3)).unwrap());
    let quantizer = LsqQuantizer::from_compressor(chain(), rules(""), LsqConfig::new());
    assert!(quantizer.is_err(), "LSQ has no affine scheme");
    let rules = rules("");
    let quantizer = LsqPlusQuantizer::from_compressor(chain(), rules, LsqPlusConfig::new());
    check_steps(&quantizer.unwrap().compress(Budget::steps(3)).unwrap());
}

#[test]
fn steps_follow_input_and_weight_without_training() {
    let quantizer = PtqQuantizer::from_compressor(chain(), rules(""), PtqConfig::new()).unwrap();
    check_steps(&quantizer.compress(Budget::steps(0)).unwrap());
}

#[test]
fn resumed_runs_have_the_same_steps() {
    let build = || QatQuantizer::from_compressor(chain(), rules(""), QatConfig::new()).unwrap();
    let path = std::env::temp_dir().join(format!("int32-bias-{}.ckpt", std::process::id()));
    let left = |compressed: Compressed<Net>| format!("{:?}", compressed.calibration().unwrap());
    let whole = left(build().compress(Budget::steps(4)).unwrap());
    let mut first = build();
    first.advance(&Budget::steps(4), Some(2)).unwrap();
    first.save_checkpoint(&path).unwrap();
    let resumed = build().resume(&path).unwrap();
    assert_eq!(left(resumed.compress(Budget::steps(4)).unwrap()), whole);
    std::fs::remove_file(path).unwrap();
}

/// The sum of the two is what integers have: `k s f + q s |f|`.
#[test]
fn a_bias_in_front_of_a_norm_is_rounded_as_well() {
    let json = r#"[{"op_names": ["biased"], "target_names": ["_input_0", "weight"],
        "int32_bias": true}]"#;
    let rules = ConfigList::<QuantizationSettings>::from_json(json).unwrap();
    let quantizer = QatQuantizer::from_compressor(chain(), rules, QatConfig::new()).unwrap();
    let compressed = quantizer.compress(Budget::steps(2)).unwrap();
    let (own, norm) = (
        entry(&compressed, "biased.bias"),
        entry(&compressed, "last_bn.beta"),
    );
    assert_eq!(own, norm);
    let model = compressed.model();
    let x = spread([4, 2, 3, 3], 2, (-1.0, 1.0));
    let output = model.last_bn.forward(
        model
            .biased
            .forward(model.bn.forward(model.conv.forward(x))),
    );
    let output: Vec<f32> = output.into_data().try_to_vec().unwrap();
    let vector = |values: Tensor<1>| values.into_data().try_to_vec::<f32>().unwrap();
    let gamma = vector(model.last_bn.gamma.val());
    let variance = vector(model.last_bn.running_var.value_sync());
    let steps = own.scale.unwrap();
    for (at, value) in output.into_iter().enumerate() {
        let channel = at / 9 % 3;
        let deviation = (f64::from(variance[channel]) + model.last_bn.epsilon).sqrt();
        let step = f64::from(steps[channel]) * f64::from(gamma[channel]).abs() / deviation;
        let integer = f64::from(value) / step;
        assert!((integer - integer.round()).abs() < 0.02, "{integer}");
    }
}

#[test]
fn a_folded_norm_has_its_bias_in_the_layer() {
    let json = r#"[{"op_names": ["biased"], "target_names": ["_input_0", "weight"],
        "int32_bias": true, "fuse": true}]"#;
    let rules = ConfigList::<QuantizationSettings>::from_json(json).unwrap();
    let quantizer = QatQuantizer::from_compressor(chain(), rules, QatConfig::new()).unwrap();
    let compressed = quantizer.compress(Budget::steps(2)).unwrap();
    assert_eq!(entry(&compressed, "biased.bias").dtype, IntegerType::Int32);
}

#[rstest]
#[case::no_host(
    r#"{"op_names": ["bn"], "target_names": ["_output_0"]}"#,
    "`bn.bias` (BatchNorm): only convolutions and linear layers add to an accumulator; leave"
)]
#[case::no_input(
    r#"{"op_names": ["head"], "target_names": ["weight"]}"#,
    "`head._input_0` is not quantized, so the bias has no step; select `_input_0`"
)]
#[case::no_weight(
    r#"{"op_names": ["head"], "target_names": ["_input_0"]}"#,
    "`head.weight` is not quantized, so the bias has no step; select `weight`"
)]
#[case::many_steps(
    r#"{"op_names": ["head"], "target_names": ["_input_0", "weight"],
        "target_settings": {"_input_0": {"granularity": "per_channel"}}}"#,
    "`head._input_0` has the granularity `per_channel`: an accumulator has one step; leave"
)]
#[case::blocks(
    r#"{"op_names": ["head"], "target_names": ["_input_0", "weight"],
        "target_settings": {"weight": {"granularity": "in_channel"}}}"#,
    "`head.weight` has the granularity `in_channel`: an accumulator has one step; use `out_channel`"
)]
#[case::affine(
    r#"{"op_names": ["head"], "target_names": ["_input_0", "weight"], "quant_scheme": "affine"}"#,
    "`head.weight` is quantized with the scheme `affine`; use `symmetric` for the weight"
)]
#[case::bypassed(
    r#"{"op_names": ["head"], "target_names": ["_input_0", "weight"], "apply_method": "bypass"}"#,
    "`head._input_0` is not rounded to integers that are multiplied; use another"
)]
#[case::selected(
    r#"{"op_names": ["head"], "target_names": ["_input_0", "weight", "bias"]}"#,
    "`head.bias` is selected with a quantization of its own; leave out `head.bias`"
)]
#[case::nowhere(
    r#"{"op_names": ["conv"], "target_names": ["_input_0", "weight"], "fuse": true}"#,
    "`bn` is folded while the model trains, and the layer has no bias to take up what is left; give"
)]
fn biases_without_a_step_are_refused(#[case] rule: &str, #[case] expected: &str) {
    let rule = rule.replacen('{', r#"{"int32_bias": true, "#, 1);
    let rules = ConfigList::<QuantizationSettings>::from_json(&format!("[{rule}]")).unwrap();
    let error = QatQuantizer::from_compressor(chain(), rules, QatConfig::new()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("`int32_bias` cannot be simulated: "),
        "{error}"
    );
    assert!(error.contains(expected), "{error}");
}
