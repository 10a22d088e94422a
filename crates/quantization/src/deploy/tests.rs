use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Tensor};
use burn_compress_core::{Add, Concat, Wrapper};
use rstest::rstest;

use super::*;

/// A residual block behind a stem, both joined again by a concatenation.
#[derive(Module, Debug)]
struct Net {
    stem: Wrapper<Conv2d>,
    conv: Wrapper<Conv2d>,
    bn: Wrapper<BatchNorm>,
    add: Wrapper<Add>,
    concat: Wrapper<Concat>,
    gate: Wrapper<Conv2d>,
    max: MaxPool2d,
    pool: Wrapper<AdaptiveAvgPool2d>,
    head: Wrapper<Linear>,
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |from, to, bias| {
            let conv = Conv2dConfig::new([from, to], [1, 1]).with_bias(bias);
            conv.init(device).into()
        };
        Self {
            stem: conv(1, 4, true),
            conv: conv(4, 4, false),
            bn: BatchNormConfig::new(4).init(device).into(),
            add: Add::new().into(),
            concat: Concat::new(1).into(),
            gate: conv(8, 8, true),
            max: MaxPool2dConfig::new([2, 2]).init(),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init().into(),
            head: LinearConfig::new(8, 2).init(device).into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.stem.forward(x));
        let y = self.bn.forward(self.conv.forward(x.clone()));
        let y = relu(self.add.forward((y, x.clone())));
        let x = self.max.forward(self.concat.forward(vec![x, y]));
        let x = sigmoid(self.gate.forward(x));
        self.head.forward(self.pool.forward(x).flatten(1, 3))
    }
}

fn images() -> Tensor<4> {
    Tensor::ones([2, 1, 4, 4], &Device::flex())
}

fn dummy() -> DummyInput<Net> {
    DummyInput::new(images(), Net::forward)
}

/// Targets with their types, in module order.
fn selected(deployment: &Deployment) -> Vec<(String, String)> {
    let net = Net::new(&Device::flex());
    let rules = deployment.rules(&net, &dummy()).unwrap();
    let selected = rules.select(&layers(&net)).unwrap();
    let described = selected.iter().map(|one| {
        let settings = &one.settings;
        let kind = format!("{} {}", settings.dtype(), settings.scheme());
        (one.id().to_string(), kind)
    });
    described.collect()
}

#[test]
fn everything_that_onnxruntime_reads_in_integers() {
    let found = selected(&Deployment::onnxruntime());
    let of = |kind: &str| -> Vec<&str> {
        let found = found.iter().filter(|(_, found)| found == kind);
        found.map(|(id, _)| id.as_str()).collect()
    };
    // The sigmoid reads the output of `gate` in floating point, and the pool what it returns.
    let activations = [
        "stem._input_0",
        "conv._input_0",
        "add._input_0",
        "add._input_1",
        "concat._input_0",
        "concat._input_1",
        "gate._input_0",
        "gate._output_0",
        "pool._input_0",
        "head._input_0",
    ];
    assert_eq!(of("uint8 affine"), activations);
    let weights = ["stem.weight", "conv.weight", "gate.weight", "head.weight"];
    assert_eq!(of("int8 symmetric"), weights);
    assert_eq!(found.len(), activations.len() + weights.len());
}

#[test]
fn tensorrt_reads_the_identity_of_a_sum_in_integers() {
    let found = selected(&Deployment::tensorrt());
    let full: Vec<&str> = found
        .iter()
        .filter(|(_, kind)| kind == "int8_full symmetric")
        .map(|(id, _)| id.as_str())
        .collect();
    // What the convolution adds to it stays in the accumulator.
    let expected = [
        "stem._input_0",
        "conv._input_0",
        "add._input_1",
        "gate._input_0",
        "pool._input_0",
        "head._input_0",
    ];
    assert_eq!(full, expected);
}

#[test]
fn layers_that_stay_in_floating_point() {
    let net = Net::new(&Device::flex());
    let deployment = Deployment::onnxruntime().with_float(["head", "gate"]);
    let rules = deployment.rules(&net, &dummy()).unwrap();
    let selected = rules.select(&layers(&net)).unwrap();
    let ids: Vec<String> = selected.iter().map(|one| one.id().to_string()).collect();
    // The max pool gives integers to a convolution that reads floats, and so does the mean.
    assert!(ids.contains(&"concat._output_0".to_string()), "{ids:?}");
    assert!(ids.contains(&"pool._output_0".to_string()), "{ids:?}");
    let deployment = Deployment::onnxruntime().with_float(["pool", "add"]);
    assert!(deployment.rules(&net, &dummy()).is_ok());
    assert!(
        !ids.iter()
            .any(|id| id.starts_with("head") || id.starts_with("gate"))
    );
}

#[test]
fn rules_are_written_and_read() {
    let net = Net::new(&Device::flex());
    let rules = Deployment::onnxruntime().rules(&net, &dummy()).unwrap();
    let json = serde_json::to_string(&rules).unwrap();
    assert_eq!(ConfigList::from_json(&json).unwrap(), rules);
}

/// Nothing of it runs in integers.
#[derive(Module, Debug)]
struct Plain {
    conv: Conv2d,
    bn: BatchNorm,
    up: Wrapper<ConvTranspose2d>,
    wrapped: Wrapper<Conv2d>,
    aside: Wrapper<Conv2d>,
}

impl Plain {
    fn new() -> Self {
        let device = Device::flex();
        let conv = || Conv2dConfig::new([1, 1], [1, 1]).init(&device);
        Self {
            conv: conv(),
            bn: BatchNormConfig::new(1).init(&device),
            up: ConvTranspose2dConfig::new([1, 1], [1, 1])
                .init(&device)
                .into(),
            wrapped: conv().into(),
            aside: conv().into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.bn.forward(self.conv.forward(x));
        let x = self.up.forward(self.wrapped.forward(x.clone())) + x;
        let y = self.wrapped.forward(x.clone());
        (y.clone() + x).mean_dim(3) + y.mean_dim(2)
    }
}

fn obstacles(deployment: &Deployment) -> Vec<String> {
    let dummy = DummyInput::new(images(), Plain::forward);
    let error = deployment.rules(&Plain::new(), &dummy).unwrap_err();
    let message = error.to_string();
    let prefix = "the network cannot run in integers on ONNX Runtime: ";
    let obstacles = message.strip_prefix(prefix).unwrap();
    obstacles.lines().map(ToString::to_string).collect()
}

#[test]
fn everything_in_the_way_is_named_at_once() {
    let found = obstacles(&Deployment::onnxruntime().with_float(["wraped"]));
    let expected = [
        "`wraped._output_0`: `with_float` names a layer that the model does not have; correct the \
         name, did you mean `wrapped`?",
        "`conv._input_0` (Conv2d): it is not wrapped, so its input cannot be quantized; make its \
         field a `Wrapper<Conv2d>`, or name it in `with_float`",
        "`bn._input_0` (BatchNorm): it is not wrapped, so the bias that it leaves when it is folded \
         cannot be rounded; make its field a `Wrapper<BatchNorm>`, or name it in `with_float`, or \
         leave the rounding out by `with_int32_bias`",
        "`up._input_0` (ConvTranspose2d): the runtime computes such a layer in floating point; name \
         it in `with_float`",
        "`aside._input_0` (Conv2d): the forward pass of the dummy input does not call it, or not by \
         the `forward` of its wrapper; call its wrapper, or name it in `with_float`",
        "`wrapped._output_0`: a sum reads it that belongs to no layer, so what it reads cannot be \
         quantized; make it a field `Wrapper<Add>` of the model, or let it stay in floating point by \
         `with_float_operations`",
        "`wrapped._output_0`: a mean reads it that belongs to no layer, so what it reads cannot be \
         quantized; make it a field `Wrapper<AdaptiveAvgPool2d>` of the model, or let it stay in \
         floating point by `with_float_operations`",
    ];
    assert_eq!(found, expected);
}

#[rstest]
#[case(Deployment::onnxruntime().with_float_operations(true))]
#[case(Deployment::tensorrt().with_float_operations(true))]
fn what_is_named_may_stay_in_floating_point(#[case] deployment: Deployment) {
    let dummy = DummyInput::new(images(), Plain::forward);
    let deployment = deployment.with_float(["conv", "bn", "up", "aside"]);
    let rules = deployment.rules(&Plain::new(), &dummy).unwrap();
    let selected = rules.select(&layers(&Plain::new())).unwrap();
    assert!(
        selected
            .iter()
            .any(|one| one.id().to_string() == "wrapped._input_0")
    );
}
