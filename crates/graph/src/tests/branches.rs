//! Branches that meet again: residual connections, concatenation, gates.

use burn::nn::conv::{ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{relu, sigmoid};

use super::*;

#[derive(Module, Debug)]
struct Residual {
    stem: Conv2d,
    conv1: Conv2d,
    conv2: Conv2d,
    bn: BatchNorm,
    down: Option<Conv2d>,
    head: Conv2d,
}

impl Residual {
    fn new(channels: usize) -> Self {
        Self {
            stem: conv(3, 4, 1),
            conv1: conv(4, 5, 1),
            conv2: conv(5, channels, 1),
            bn: norm(channels),
            down: (channels != 4).then(|| conv(4, channels, 1)),
            head: conv(channels, 2, 1),
        }
    }

    fn dummy() -> DummyInput<Self> {
        DummyInput::new(images(3), |model: &Self, x: Tensor<4>| {
            let x = relu(model.stem.forward(x));
            let y = model
                .bn
                .forward(model.conv2.forward(relu(model.conv1.forward(x.clone()))));
            let x = match &model.down {
                Some(down) => down.forward(x),
                None => x,
            };
            model.head.forward(relu(x + y))
        })
    }
}

#[test]
fn an_identity_joins_both_ends() {
    let (model, dummy) = (Residual::new(4), Residual::dummy());
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..2],
        [
            "4 channels of stem.weight[0] stem.bias[0] conv2.weight[0] conv2.bias[0] bn.gamma[0] \
             bn.beta[0] -> conv1.weight[1] head.weight[1]",
            "5 channels of conv1.weight[0] conv1.bias[0] -> conv2.weight[1]",
        ]
    );
    let mut removed = pick(&graph, 0, &[0, 3]);
    removed.extend(pick(&graph, 1, &[2]));
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

#[test]
fn a_projection_joins_the_branches_and_frees_the_stem() {
    let (model, dummy) = (Residual::new(6), Residual::dummy());
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..3],
        [
            "4 channels of stem.weight[0] stem.bias[0] -> conv1.weight[1] down.weight[1]",
            "5 channels of conv1.weight[0] conv1.bias[0] -> conv2.weight[1]",
            "6 channels of conv2.weight[0] conv2.bias[0] bn.gamma[0] bn.beta[0] down.weight[0] \
             down.bias[0] -> head.weight[1]",
        ]
    );
    let mut removed = pick(&graph, 0, &[1]);
    removed.extend(pick(&graph, 2, &[0, 4]));
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

#[derive(Module, Debug)]
struct Concat {
    a: Conv2d,
    b: Conv2d,
    bn: Option<BatchNorm>,
    head: Conv2d,
}

impl Concat {
    fn new(normalized: bool) -> Self {
        Self {
            a: conv(3, 2, 1),
            b: conv(3, 3, 1),
            bn: normalized.then(|| norm(5)),
            head: conv(5, 2, 1),
        }
    }

    fn dummy() -> DummyInput<Self> {
        DummyInput::new(images(3), |model: &Self, x: Tensor<4>| {
            let x = Tensor::cat(vec![model.a.forward(x.clone()), model.b.forward(x)], 1);
            let x = match &model.bn {
                Some(bn) => bn.forward(x),
                None => x,
            };
            model.head.forward(x)
        })
    }
}

#[test]
fn concatenation_keeps_the_branches_apart() {
    let (model, dummy) = (Concat::new(false), Concat::dummy());
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..2],
        [
            "2 channels of a.weight[0] a.bias[0] -> head.weight[1]",
            "3 channels of b.weight[0] b.bias[0] -> head.weight[1]",
        ]
    );
    assert_eq!(graph.groups()[0].consumers[0].positions, [[0], [1]]);
    assert_eq!(graph.groups()[1].consumers[0].positions, [[2], [3], [4]]);
    let plan = graph.slice_plan(&pick(&graph, 1, &[0])).unwrap();
    assert_eq!(plan.params["head.weight"].keep[&1], [0, 1, 3, 4]);
    assert_exact(&model, &dummy, &pick(&graph, 1, &[0, 2]), |_, _| {});
}

#[test]
fn a_norm_over_a_concatenation_makes_one_group() {
    let (model, dummy) = (Concat::new(true), Concat::dummy());
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[0],
        "5 channels of a.weight[0] a.bias[0] b.weight[0] b.bias[0] bn.gamma[0] bn.beta[0] \
         -> head.weight[1]"
    );
    let group = &graph.groups()[0];
    assert_eq!(
        group.members[2].positions,
        [vec![], vec![], vec![0], vec![1], vec![2]]
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[1, 2]), |_, _| {});
}

#[derive(Module, Debug)]
struct SqueezeExcite {
    conv: Conv2d,
    bn: BatchNorm,
    reduce: Linear,
    expand: Linear,
    up: ConvTranspose2d,
    head: Conv2d,
}

#[test]
fn a_gate_goes_with_what_it_gates() {
    let model = SqueezeExcite {
        conv: conv(3, 6, 1),
        bn: norm(6),
        reduce: LinearConfig::new(6, 4).init(&device()),
        expand: LinearConfig::new(4, 6).init(&device()),
        up: ConvTranspose2dConfig::new([6, 4], [2, 2]).init(&device()),
        head: conv(4, 2, 1),
    };
    let dummy = DummyInput::new(images(3), |model: &SqueezeExcite, x: Tensor<4>| {
        let x = relu(model.bn.forward(model.conv.forward(x)));
        let pooled: Tensor<2> = x.clone().mean_dim(3).mean_dim(2).flatten(1, 3);
        let gate = sigmoid(model.expand.forward(relu(model.reduce.forward(pooled))));
        let [batch, channels] = gate.dims();
        let x = x * gate.reshape([batch, channels, 1, 1]);
        model.head.forward(relu(model.up.forward(x)))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..3],
        [
            "6 channels of conv.weight[0] conv.bias[0] bn.gamma[0] bn.beta[0] expand.weight[1] \
             expand.bias[0] -> reduce.weight[0] up.weight[0]",
            "4 channels of reduce.weight[1] reduce.bias[0] -> expand.weight[0]",
            "4 channels of up.weight[1] up.bias[0] -> head.weight[1]",
        ]
    );
    let mut removed = pick(&graph, 0, &[0, 4]);
    removed.extend(pick(&graph, 1, &[3]));
    removed.extend(pick(&graph, 2, &[1]));
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

#[derive(Module, Debug)]
struct Shared {
    stem: Conv2d,
    twice: Conv2d,
    head: Conv2d,
}

#[test]
fn a_layer_that_is_called_twice_joins_its_inputs_and_outputs() {
    let model = Shared {
        stem: conv(3, 4, 1),
        twice: conv(4, 4, 1),
        head: conv(4, 2, 1),
    };
    let dummy = DummyInput::new(images(3), |model: &Shared, x: Tensor<4>| {
        let x = relu(model.stem.forward(x));
        model
            .head
            .forward(relu(model.twice.forward(relu(model.twice.forward(x)))))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[0],
        "4 channels of stem.weight[0] stem.bias[0] twice.weight[0] twice.bias[0] \
         -> twice.weight[1] head.weight[1]"
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[1]), |_, _| {});
}
