//! Channels that must stay, and the reasons given for them.

use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{relu, sigmoid, softmax};
use burn::tensor::s;

use super::*;

#[derive(Module, Debug)]
struct Pair {
    conv1: Conv2d,
    conv2: Conv2d,
}

/// Two convolutions with `between` in the middle.
fn reason(between: impl Fn(Tensor<4>) -> Tensor<4> + Send + Sync + 'static) -> Option<String> {
    let model = Pair {
        conv1: conv(3, 4, 1),
        conv2: conv(4, 2, 1),
    };
    let dummy = DummyInput::new(images(3), move |model: &Pair, x: Tensor<4>| {
        model.conv2.forward(between(model.conv1.forward(x)))
    });
    let graph = analyze(&model, &dummy);
    let group = &graph.groups()[graph.group_of("conv1", "weight", 0).unwrap()];
    let all = group
        .channels
        .iter()
        .all(|channel| graph.protected(*channel).is_some());
    assert_eq!(group.protected.is_some(), all);
    group.protected.clone()
}

#[test]
fn what_is_not_zero_when_it_is_read() {
    let not_zero = |op| {
        Some(format!(
            "`{op}` of a removed channel is not zero before `conv2`"
        ))
    };
    assert_eq!(reason(sigmoid), not_zero("sigmoid"));
    assert_eq!(reason(|x| relu(x.cos())), not_zero("cos"));
    assert_eq!(reason(|x| x + 1.0), not_zero("add_scalar"));
    assert_eq!(reason(|x| x.clamp(0.5, 1.0)), not_zero("clamp"));
    assert_eq!(reason(|x| x.recip() * 0.0), not_zero("recip"));
    assert_eq!(reason(|x| x.exp() - 1.0), None);
    assert_eq!(
        reason(|x| x.clone().mask_fill(x.lower_elem(0.0), 7.0)),
        None
    );
    assert_eq!(
        reason(|x| x.clone().mask_fill(x.lower_equal_elem(0.0), 7.0)),
        not_zero("mask_fill")
    );
}

#[test]
fn what_runs_over_channels() {
    assert_eq!(
        reason(|x| softmax(x, 1)),
        Some("`softmax` runs over channels".into())
    );
    assert_eq!(
        reason(|x| x.clone() - x.mean_dim(1)),
        Some("`mean_dim` runs over channels".into())
    );
    assert_eq!(reason(|x| x.clone() * x.mean_dim(3)), None);
}

#[test]
fn what_has_a_fixed_size() {
    let constant = |x: Tensor<4>| Tensor::<4>::ones([1, 4, 1, 1], &x.device());
    assert_eq!(
        reason(move |x| x.clone() * constant(x)),
        Some("is combined with a size that cannot change in `mul`".into())
    );
    assert_eq!(
        reason(|x| Tensor::cat(vec![x.slice([s![..], s![0..4;2]]); 2], 1)),
        Some("is cut at 0..4 of 4 by a slice".into())
    );
    assert_eq!(
        reason(|x| x.reshape([2, 3, 48]).reshape([2, 4, 6, 6])),
        Some("is taken apart by reshape [2, 4, 6, 6] -> [2, 3, 48]".into())
    );
    assert_eq!(
        reason(|x| x.reshape([2, 4, 36]).reshape([2, 4, 6, 6])),
        None
    );
}

#[derive(Module, Debug)]
struct Normalized {
    fc1: Linear,
    norm: LayerNorm,
    fc2: Linear,
    unused: Linear,
}

#[test]
fn layer_normalization_outputs_and_unused_layers() {
    let model = Normalized {
        fc1: LinearConfig::new(3, 4).init(&device()),
        norm: LayerNormConfig::new(4).init(&device()),
        fc2: LinearConfig::new(4, 2).init(&device()),
        unused: LinearConfig::new(4, 4).init(&device()),
    };
    let x = Tensor::<2>::ones([2, 3], &device());
    let dummy = DummyInput::new(x, |model: &Normalized, x: Tensor<2>| {
        model.fc2.forward(model.norm.forward(model.fc1.forward(x)))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph),
        [
            "4 channels of fc1.weight[1] fc1.bias[0] norm.gamma[0] norm.beta[0] -> fc2.weight[0], \
             4 protected: the plain `LayerNorm` `norm` takes its statistics over them",
            "2 channels of fc2.weight[1] fc2.bias[0], 2 protected: reaches the model's output",
        ]
    );
    assert_eq!(graph.param_channels("unused.weight", 0), None);
    let input = graph.param_channels("fc1.weight", 0).unwrap()[0];
    assert_eq!(
        graph.protected(input),
        Some("`fc1` reads it from the model's input")
    );
}

#[derive(Module, Debug)]
struct Computed {
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

/// `fc1`, then the rows of `fc2` in reverse order, reading `between` of what `fc1` made; both
/// halves of the output are made by different layers.
fn computed(between: fn(Tensor<2>) -> Tensor<2>) -> (Computed, DummyInput<Computed>) {
    let linear = |bias| LinearConfig::new(4, 4).with_bias(bias).init(&device());
    let model = Computed {
        fc1: linear(true),
        fc2: linear(false),
        fc3: LinearConfig::new(8, 2).init(&device()),
    };
    let x = Tensor::<2>::ones([2, 4], &device());
    let dummy = DummyInput::new(x, move |model: &Computed, x: Tensor<2>| {
        let x = between(model.fc1.forward(x));
        let weight = model.fc2.weight.val();
        let weight = Tensor::cat(vec![weight.clone().flip([0]), weight.flip([0])], 1);
        model.fc3.forward(relu(x.matmul(weight)))
    });
    (model, dummy)
}

#[test]
fn weights_that_are_computed_from_parameters_are_followed() {
    let (model, dummy) = computed(relu);
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..2],
        [
            "4 channels of fc1.weight[1] fc1.bias[0] -> fc2.weight[0]",
            "4 channels of fc2.weight[1] -> fc3.weight[0]",
        ]
    );
    assert_eq!(
        graph.groups()[0].consumers[0].positions,
        [[3], [2], [1], [0]]
    );
    assert_eq!(
        graph.groups()[1].consumers[0].positions,
        [[0, 4], [1, 5], [2, 6], [3, 7]]
    );
    let mut removed = pick(&graph, 0, &[0]);
    removed.extend(pick(&graph, 1, &[1, 2]));
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

#[test]
fn a_weight_that_only_reads_is_not_what_makes_a_channel_zero() {
    let (model, dummy) = computed(sigmoid);
    let graph = analyze(&model, &dummy);
    assert_eq!(
        graph.groups()[0].protected.as_deref(),
        Some("`sigmoid` of a removed channel is not zero before `fc2`")
    );
}
