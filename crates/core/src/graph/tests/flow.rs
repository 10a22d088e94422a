//! What follows a layer, and how it can be observed.

use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{
    GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, Relu, RmsNorm, RmsNormConfig,
};
use burn::tensor::activation::{gelu, gelu_approximate, hard_swish, mish, relu, silu, tanh};

use super::*;
use crate::layer::layers;
use crate::simulate::flat::FlatTensor;
use crate::{Compressor, Evaluator, Target, TargetId, Wrapper};

#[derive(Module, Debug)]
struct Net {
    first: Wrapper<Conv2d>,
    second: Wrapper<Conv2d>,
    relu: Wrapper<Relu>,
    norm: BatchNorm,
    group: GroupNorm,
    instance: InstanceNorm,
    rms: RmsNorm,
    /// Not wrapped.
    last: Conv2d,
}

type Forward = fn(&Net, Tensor<4>) -> Tensor<4>;
type Elementwise = fn(Tensor<1>) -> Tensor<1>;

/// What follows `first` in a forward pass of images of 3 channels.
fn behind(forward: Forward) -> Follow {
    let net = Net {
        first: conv(3, 4, 1).into(),
        second: conv(4, 4, 1).into(),
        relu: Relu::new().into(),
        norm: norm(4),
        group: GroupNormConfig::new(2, 4).init(&device()),
        instance: InstanceNormConfig::new(4).init(&device()),
        rms: RmsNormConfig::new(6).init(&device()),
        last: conv(4, 2, 1),
    };
    // A chain tells the wrappers their paths.
    let net = Compressor::<_, ()>::from_model(net, Evaluator::new())
        .unwrap_model()
        .valid();
    let dummy = DummyInput::new(images(3), move |net: &Net, x| forward(net, x));
    let captured = capture(&net, &dummy).unwrap();
    let layers = layers(&net);
    let flow = Flow::new(&captured, &layers);
    flow.follow(&layers[0], "weight", Some(1))
}

fn names(stops: &[Stop]) -> Vec<&str> {
    stops.iter().map(|stop| stop.name.as_str()).collect()
}

#[test]
fn an_activation_is_found_behind_what_keeps_channels_apart() {
    let forwards: [Forward; 7] = [
        |net, x| net.last.forward(net.relu.forward(net.first.forward(x))),
        |net, x| {
            net.last
                .forward(net.relu.forward(net.norm.forward(net.first.forward(x))))
        },
        |net, x| {
            net.last
                .forward(net.relu.forward(net.group.forward(net.first.forward(x))))
        },
        |net, x| {
            net.last
                .forward(net.relu.forward(net.instance.forward(net.first.forward(x))))
        },
        |net, x| {
            net.last
                .forward(net.relu.forward(net.rms.forward(net.first.forward(x))))
        },
        |net, x| {
            net.last
                .forward(net.relu.forward(net.first.forward(x) * 0.5 + 1.0))
        },
        |net, x| {
            let x = MaxPool2dConfig::new([2, 2])
                .init()
                .forward(net.first.forward(x));
            net.last.forward(net.relu.forward(x))
        },
    ];
    for (at, forward) in forwards.into_iter().enumerate() {
        let found = behind(forward);
        assert_eq!(names(&found.activations), ["`relu`"], "{at}");
        assert_eq!(names(&found.own), ["`first`"], "{at}");
    }
}

#[test]
fn an_addition_leads_to_the_activation_behind_it() {
    let found = behind(|net, x| {
        let x = net.first.forward(x);
        let y = net.second.forward(net.relu.forward(x.clone()));
        net.last.forward(net.relu.forward(x + y))
    });
    // Two calls of one layer, both behind `first`.
    assert_eq!(names(&found.activations), ["`relu`", "`relu`"]);
    assert_eq!(
        found
            .returned
            .iter()
            .filter(|stop| stop.name == "`relu`")
            .count(),
        2
    );
}

#[test]
fn without_an_activation_it_is_the_norm_or_the_layer() {
    let found = behind(|net, x| net.second.forward(net.norm.forward(net.first.forward(x))));
    assert_eq!(found.activations.len(), 0);
    assert_eq!(
        names(&found.normalized),
        ["the `batch_norm` in front of `second`"]
    );
    let found = behind(|net, x| net.last.forward(net.first.forward(x)));
    assert_eq!(names(&found.normalized), ["`first`"]);
    let found = behind(|net, x| net.last.forward(net.norm.forward(net.first.forward(x))));
    assert_eq!(names(&found.normalized), ["a `batch_norm`"]);
    assert!(found.normalized[0].observed.is_none());
    let never = behind(|net, x| net.last.forward(x.repeat_dim(1, 2).narrow(1, 0, 4)));
    assert!(never.own.is_empty());
}

#[test]
fn a_concatenation_moves_the_first_channel() {
    let found = behind(|net, x| {
        let joined = Tensor::cat(vec![x.clone(), net.first.forward(x)], 1);
        let all = net.relu.forward(joined);
        net.last.forward(all.slice([0..2, 3..7]))
    });
    assert_eq!(names(&found.activations), ["`relu`"]);
    assert_eq!(found.activations[0].first, Some(3));
    assert_eq!(found.activations[0].shape, [2, 7, 6, 6]);
}

#[test]
fn functions_are_computed_from_what_wrapped_layers_return() {
    let functions: [(Forward, Elementwise); 6] = [
        (|net, x| net.last.forward(relu(net.first.forward(x))), relu),
        (|net, x| net.last.forward(silu(net.first.forward(x))), silu),
        (|net, x| net.last.forward(gelu(net.first.forward(x))), gelu),
        (|net, x| net.last.forward(tanh(net.first.forward(x))), tanh),
        (
            |net, x| net.last.forward(hard_swish(net.first.forward(x))),
            hard_swish,
        ),
        (
            |net, x| net.last.forward(gelu_approximate(net.first.forward(x))),
            gelu_approximate,
        ),
    ];
    let values = [-3.0, -0.5, 0.0, 0.5, 3.0];
    for (at, (forward, function)) in functions.into_iter().enumerate() {
        let found = behind(forward);
        assert_eq!(found.activations.len(), 1, "{at}");
        let observed = found.activations[0].observed.clone().unwrap();
        let first = TargetId::new("first", Target::Output(0));
        assert!(
            observed.ports().iter().all(|port| *port == (&first, 1)),
            "{at}"
        );
        let input = Tensor::<1>::from_floats(values, &device());
        let value = observed
            .value(&|_, _| Some(FlatTensor::new(input.clone())))
            .unwrap();
        let read = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap();
        for (a, b) in read(value.values)
            .into_iter()
            .zip(read(function(input.clone())))
        {
            assert!((a - b).abs() < 1e-6, "{at}: {a} in place of {b}");
        }
    }
    // What is not computed is observed where a wrapped layer reads it.
    let found = behind(|net, x| net.second.forward(mish(net.first.forward(x))));
    let observed = found.activations[0].observed.clone().unwrap();
    assert_eq!(
        observed.ports(),
        [(&TargetId::new("second", Target::Input(0)), 1)]
    );
    let found = behind(|net, x| net.last.forward(mish(net.first.forward(x))));
    assert_eq!(found.activations.len(), 1);
    assert!(found.activations[0].observed.is_none());
}
