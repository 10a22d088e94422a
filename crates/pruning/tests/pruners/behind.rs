//! Which output scores a layer: that of the activation behind it in the forward pass.

use burn::module::{Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, Relu, Sigmoid};
use burn::optim::SgdConfig;
use burn::tensor::activation::{relu, silu};
use burn::tensor::{Device, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressor, DummyInput, Error, Evaluator, TargetId, Wrapper};
use burn_compress_pruning::{
    ActivationConfig, ActivationPruner, ApozConfig, ApozPruner, PrunerConfig, PruningSettings,
};

/// A residual block whose one `relu` is called twice, and what else may follow a layer.
#[derive(Module, Debug)]
struct Net {
    first: Wrapper<Linear>,
    norm1: Wrapper<BatchNorm>,
    relu: Wrapper<Relu>,
    second: Wrapper<Linear>,
    norm2: Wrapper<BatchNorm>,
    other: Wrapper<Relu>,
    sigmoid: Wrapper<Sigmoid>,
    head: Wrapper<Linear>,
    plain: Linear,
    unseen: BatchNorm,
}

type Forward = fn(&Net, Tensor<2>) -> Tensor<2>;
type Chain = Compressor<Net, Tensor<2>>;

fn linear(weight: [[f32; 2]; 2]) -> Linear {
    let device = Device::flex();
    let mut linear = LinearConfig::new(2, 2).with_bias(false).init(&device);
    linear.weight = Param::from_tensor(Tensor::from_floats(weight, &device));
    linear
}

/// Inputs of about -10 and 10, of which `first` makes `scale` times as much with the other sign.
fn chain(scale: [f32; 2], forward: Forward) -> Chain {
    let device = Device::flex();
    let norm = || BatchNormConfig::new(2).init(&device);
    let net = Net {
        first: linear([[-scale[0], 0.0], [0.0, -scale[1]]]).into(),
        norm1: norm().into(),
        relu: Relu::new().into(),
        second: linear([[0.01, 0.0], [0.0, 0.01]]).into(),
        norm2: norm().into(),
        other: Relu::new().into(),
        sigmoid: Sigmoid::new().into(),
        head: linear([[1.0, 0.0], [0.0, 1.0]]).into(),
        plain: linear([[1.0, 0.0], [0.0, 1.0]]),
        unseen: norm(),
    };
    let batch = Tensor::from_floats([[-10.0, 10.0], [-11.0, 11.0], [-9.0, 9.0]], &device);
    let dummy = DummyInput::new(batch.clone(), move |net: &Net, x| forward(net, x));
    let evaluator = Evaluator::new()
        .with_dummy_input(dummy)
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.0)
        .with_loss(move |net: &Net, x: &Tensor<2>| forward(net, x.clone()).mean());
    Compressor::from_model(net, evaluator)
}

fn half(layer: &str, more: &str) -> ConfigList<PruningSettings> {
    let rule = format!(r#"[{{"op_names": ["{layer}"], "sparse_ratio": 0.5{more}}}]"#);
    ConfigList::from_json(&rule).unwrap()
}

fn alone() -> PrunerConfig {
    PrunerConfig::new().with_coupled(false)
}

fn apoz(chain: Chain, config: &ConfigList<PruningSettings>) -> Result<Chain, Error> {
    ApozPruner::from_compressor(chain, config, ApozConfig::new(1).with_pruner(alone()))
}

fn mean(chain: Chain, config: &ConfigList<PruningSettings>) -> Result<Chain, Error> {
    let options = ActivationConfig::new(1).with_pruner(alone());
    ActivationPruner::from_compressor(chain, config, options)
}

fn before(chain: Chain, config: &ConfigList<PruningSettings>) -> Result<Chain, Error> {
    let options = ActivationConfig::new(1).with_before_activation(true);
    ActivationPruner::from_compressor(chain, config, options.with_pruner(alone()))
}

/// The channel of `layer` that goes.
#[track_caller]
fn removed(chain: Result<Chain, Error>, layer: &str) -> usize {
    let masks = chain.unwrap().compress(Budget::steps(1)).unwrap().masks();
    let id: TargetId = format!("{layer}.weight").parse().unwrap();
    let removed = masks[&id].removed_along(1);
    assert_eq!(removed.iter().filter(|removed| **removed).count(), 1);
    removed.iter().position(|removed| *removed).unwrap()
}

#[track_caller]
fn refused(chain: Result<Chain, Error>, parts: &[&str]) {
    let error = chain.map(|_| ()).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// `relu(norm2(second(relu(norm1(first(x))))) + x)`.
fn residual(net: &Net, x: Tensor<2>) -> Tensor<2> {
    let y = net
        .relu
        .forward(net.norm1.forward(net.first.forward(x.clone())));
    let y = net.norm2.forward(net.second.forward(y));
    net.head.forward(net.relu.forward(y + x))
}

#[test]
fn a_relu_that_is_called_twice_counts_where_the_layer_reaches_it() {
    // Behind `first`, the second channel is negative; behind the addition, the first one is.
    let first = half("first", "");
    assert_eq!(
        removed(apoz(chain([1.0, 1.0], residual), &first), "first"),
        1
    );
    assert_eq!(
        removed(mean(chain([1.0, 1.0], residual), &first), "first"),
        1
    );
    let named = half("first", r#", "activation": "relu""#);
    assert_eq!(
        removed(apoz(chain([1.0, 1.0], residual), &named), "first"),
        1
    );
    // What is added to the second layer decides with it.
    let second = half("second", "");
    assert_eq!(
        removed(apoz(chain([1.0, 1.0], residual), &second), "second"),
        0
    );
    assert_eq!(
        removed(mean(chain([1.0, 1.0], residual), &second), "second"),
        0
    );
}

/// `relu(first(x))`, with the function.
fn function(net: &Net, x: Tensor<2>) -> Tensor<2> {
    net.plain.forward(relu(net.first.forward(x)))
}

#[test]
fn a_dead_channel_goes_however_large_it_is_before_the_activation() {
    let first = half("first", "");
    let chain = |forward| chain([1.0, 100.0], forward);
    assert_eq!(removed(mean(chain(function), &first), "first"), 1);
    assert_eq!(removed(before(chain(function), &first), "first"), 0);
    assert_eq!(removed(apoz(chain(function), &first), "first"), 1);
    // A composed function: silu(-1000) = 0.
    let composed: Forward = |net, x| net.plain.forward(silu(net.first.forward(x)));
    assert_eq!(removed(mean(chain(composed), &first), "first"), 1);
    // Where none follows, it is the layer itself.
    let none: Forward = |net, x| net.plain.forward(net.first.forward(x));
    assert_eq!(removed(mean(chain(none), &first), "first"), 0);
}

/// Two activations of each layer, read by different layers.
fn forked(net: &Net, x: Tensor<2>) -> Tensor<2> {
    let x = net.first.forward(x);
    let y = net.second.forward(net.relu.forward(x.clone()));
    let gated = net.head.forward(net.sigmoid.forward(y.clone()));
    gated + net.plain.forward(net.relu.forward(y)) + net.plain.forward(net.other.forward(x))
}

#[test]
fn what_is_ambiguous_is_refused_for_all_layers_at_once() {
    let both = ConfigList::from_json(r#"[{"op_names": ["first", "second"], "sparse_ratio": 0.5}]"#);
    let both = both.unwrap();
    for pruner in [apoz, mean] {
        refused(
            pruner(chain([1.0, 1.0], forked), &both),
            &[
                "`first.weight` is followed by `relu`, `other`",
                "`second.weight` is followed by `sigmoid`, `relu`",
                "set `activation`",
            ],
        );
    }
    let named = |layer: &str| half("first", &format!(r#", "activation": "{layer}""#));
    assert_eq!(
        removed(apoz(chain([1.0, 1.0], forked), &named("other")), "first"),
        1
    );
    assert_eq!(
        removed(apoz(chain([1.0, 1.0], forked), &named("relu")), "first"),
        1
    );
    let own = mean(chain([1.0, 100.0], forked), &named("first"));
    assert_eq!(removed(own, "first"), 0);
}

#[test]
fn what_cannot_be_observed_is_refused() {
    // Neither the norm nor the layer behind it is wrapped.
    let unseen: Forward = |net, x| {
        net.plain
            .forward(relu(net.unseen.forward(net.first.forward(x))))
    };
    refused(
        mean(chain([1.0, 1.0], unseen), &half("first", "")),
        &[
            "`first.weight` is followed by a `relu`",
            "`Wrapper`",
            "set `activation`",
        ],
    );
    // A wrapped layer that reads it is enough.
    let seen: Forward = |net, x| {
        net.head
            .forward(relu(net.unseen.forward(net.first.forward(x))))
    };
    assert_eq!(
        removed(mean(chain([1.0, 1.0], seen), &half("first", "")), "first"),
        1
    );
    let far = half("second", r#", "activation": "relu""#);
    let twice: Forward = |net, x| {
        let x = net.relu.forward(net.relu.forward(x));
        net.head.forward(net.second.forward(x))
    };
    refused(
        apoz(chain([1.0, 1.0], twice), &far),
        &["`relu`, which is called 2 times"],
    );
    refused(
        apoz(chain([1.0, 1.0], function), &half("second", "")),
        &["`second.weight` is not called in the forward pass"],
    );
}

#[test]
fn zeros_of_what_is_never_zero_are_refused() {
    let gated: Forward = |net, x| net.head.forward(net.sigmoid.forward(net.first.forward(x)));
    let first = half("first", "");
    refused(
        apoz(chain([1.0, 1.0], gated), &first),
        &["`sigmoid`, whose values all have one sign"],
    );
    assert_eq!(removed(mean(chain([1.0, 1.0], gated), &first), "first"), 1);
}

#[test]
fn a_concatenation_moves_the_channels() {
    // Channels 2 and 3 of what the activation reads are those of `second`.
    let joined: Forward = |net, x| {
        let y = Tensor::cat(vec![x.clone(), net.second.forward(x.neg())], 1);
        let y = net.other.forward(y);
        net.head
            .forward(y.clone().slice([0..3, 0..2]) + y.slice([0..3, 2..4]))
    };
    assert_eq!(
        removed(
            apoz(chain([1.0, 1.0], joined), &half("second", "")),
            "second"
        ),
        1
    );
    assert_eq!(
        removed(
            mean(chain([1.0, 1.0], joined), &half("second", "")),
            "second"
        ),
        1
    );
}

#[test]
fn without_a_forward_pass_the_activation_has_to_be_named() {
    let device = Device::flex();
    let batch = Tensor::<2>::from_floats([[-10.0, 10.0]], &device);
    let evaluator = || {
        let batch = batch.clone();
        Evaluator::new()
            .with_data(move |_| vec![batch.clone()])
            .with_optimizer(SgdConfig::new().init())
            .with_learning_rate(0.0)
            .with_loss(|net: &Net, x: &Tensor<2>| residual(net, x.clone()).mean())
    };
    let net = || chain([1.0, 1.0], residual).unwrap_model();
    let chain = || Compressor::from_model(net(), evaluator());
    refused(
        mean(chain(), &half("first", "")),
        &["dummy input", "ActivationPruner"],
    );
    let named = half("first", r#", "activation": "norm1""#);
    assert_eq!(removed(apoz(chain(), &named), "first"), 1);
    // Which of the two calls is meant is known of no forward pass.
    let twice = half("first", r#", "activation": "relu""#);
    let error = apoz(chain(), &twice)
        .unwrap()
        .compress(Budget::steps(1))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`relu._output_0` is called 2 times"),
        "{error}"
    );
}
