//! Layers one after another.

use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, LinearLayout, PRelu, PReluConfig};
use burn::tensor::activation;

use super::*;

#[derive(Module, Debug)]
struct Plain {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    fc: Linear,
}

impl Plain {
    fn new() -> Self {
        Self {
            conv1: conv(3, 4, 1),
            bn1: norm(4),
            conv2: conv(4, 6, 1),
            bn2: norm(6),
            fc: LinearConfig::new(6, 5).init(&device()),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = activation::relu(self.bn1.forward(self.conv1.forward(x)));
        let x = activation::relu(self.bn2.forward(self.conv2.forward(x)));
        let x: Tensor<2> = x.mean_dim(3).mean_dim(2).flatten(1, 3);
        self.fc.forward(x)
    }
}

fn plain() -> (Plain, DummyInput<Plain>) {
    (
        Plain::new(),
        DummyInput::new(images(3), |model: &Plain, x| model.forward(x)),
    )
}

#[test]
fn a_chain_has_one_group_per_layer() {
    let (model, dummy) = plain();
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph),
        [
            "4 channels of conv1.weight[0] conv1.bias[0] bn1.gamma[0] bn1.beta[0] \
             -> conv2.weight[1]",
            "6 channels of conv2.weight[0] conv2.bias[0] bn2.gamma[0] bn2.beta[0] -> fc.weight[0]",
            "5 channels of fc.weight[1] fc.bias[0], 5 protected: reaches the model's output",
        ]
    );
    let first = &graph.groups()[0];
    assert_eq!(first.blocks, 1);
    assert_eq!(first.members[0].positions, [[0], [1], [2], [3]]);
    assert_eq!(graph.group_of("conv2", "bias", 0), Some(1));
    assert_eq!(graph.group_of("conv2", "weight", 1), None);
    assert_eq!(
        graph.param_channels("conv2.weight", 1),
        Some(first.channels.as_slice())
    );
    assert_eq!(
        graph.param_channels("bn1.running_var", 0),
        Some(first.channels.as_slice())
    );
    assert_eq!(graph.param_channels("conv2.weight", 2), None);
    let input = graph.param_channels("conv1.weight", 1).unwrap();
    assert_eq!(
        graph.protected(input[0]),
        Some("`conv1` reads it from the model's input")
    );
    let statistics: Vec<&str> = graph
        .params()
        .filter(|node| node.statistic)
        .map(|node| node.path.as_str())
        .collect();
    assert_eq!(
        statistics,
        [
            "bn1.running_mean",
            "bn1.running_var",
            "bn2.running_mean",
            "bn2.running_var"
        ]
    );
}

#[test]
fn a_chain_is_cut_exactly() {
    let (model, dummy) = plain();
    let graph = analyze(&model, &dummy);
    let mut removed = pick(&graph, 0, &[1, 2]);
    removed.extend(pick(&graph, 1, &[0, 5]));
    let plan = graph.slice_plan(&removed).unwrap();
    assert_eq!(plan.params["conv1.weight"].keep[&0], [0, 3]);
    assert_eq!(plan.params["conv1.weight"].shape, [2, 3, 3, 3]);
    assert_eq!(plan.params["conv2.weight"].keep[&0], [1, 2, 3, 4]);
    assert_eq!(plan.params["conv2.weight"].keep[&1], [0, 3]);
    assert_eq!(plan.params["bn2.running_mean"].keep[&0], [1, 2, 3, 4]);
    assert_eq!(plan.params["fc.weight"].keep[&0], [1, 2, 3, 4]);
    assert!(!plan.params["fc.weight"].keep.contains_key(&1));
    assert!(!plan.params.contains_key("fc.bias"));
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

#[test]
fn multiply_accumulates_are_counted_by_hand() {
    let (model, dummy) = plain();
    let graph = analyze(&model, &dummy);
    // 36 places: 4 * 3 * 9 * 36, 6 * 4 * 9 * 36, then 6 * 5.
    assert_eq!(graph.macs(), 3_888 + 7_776 + 30);
    let by_layer = graph.macs_by_operation(&pick(&graph, 0, &[0]));
    let counted: Vec<(&str, u64)> = by_layer
        .iter()
        .map(|op| (op.layer.as_str(), op.macs))
        .collect();
    assert_eq!(counted, [("conv1", 2_916), ("conv2", 5_832), ("fc", 30)]);
}

#[derive(Module, Debug)]
struct Flatten {
    conv: Conv2d,
    act: PRelu,
    pool: MaxPool2d,
    fc: Linear,
    out: Linear,
}

impl Flatten {
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(self.act.forward(self.conv.forward(x)));
        let x: Tensor<2> = x.flatten(1, 3);
        self.out.forward(activation::gelu(self.fc.forward(x)))
    }
}

fn flatten() -> (Flatten, DummyInput<Flatten>) {
    let model = Flatten {
        conv: conv(2, 3, 1),
        act: PReluConfig::new().with_num_parameters(3).init(&device()),
        pool: MaxPool2dConfig::new([3, 3]).with_strides([3, 3]).init(),
        fc: LinearConfig::new(12, 4)
            .with_layout(LinearLayout::Col)
            .init(&device()),
        out: LinearConfig::new(4, 2).with_bias(false).init(&device()),
    };
    (
        model,
        DummyInput::new(images(2), |model: &Flatten, x| model.forward(x)),
    )
}

#[test]
fn flatten_repeats_every_channel_over_its_places() {
    let (model, dummy) = flatten();
    let graph = analyze(&model, &dummy);
    let group = &graph.groups()[0];
    assert_eq!(
        lines(&graph)[0],
        "3 channels of conv.weight[0] conv.bias[0] act.alpha[0] -> fc.weight[0]"
    );
    assert_eq!(
        group.consumers[0].positions,
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    );
    let plan = graph.slice_plan(&pick(&graph, 0, &[1])).unwrap();
    assert_eq!(
        plan.params["fc.weight"].keep[&0],
        [0, 1, 2, 3, 8, 9, 10, 11]
    );
}

#[test]
fn flatten_is_cut_exactly() {
    let (model, dummy) = flatten();
    let graph = analyze(&model, &dummy);
    let mut removed = pick(&graph, 0, &[1]);
    removed.extend(pick(&graph, 1, &[0, 3]));
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

#[derive(Module, Debug)]
struct Activations {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: AdaptiveAvgPool2d,
    conv3: Conv2d,
    conv4: Conv2d,
    fc: Linear,
}

impl Activations {
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = activation::elu(activation::hard_swish(self.conv1.forward(x)), 1.0);
        let x = activation::silu(activation::leaky_relu(self.conv2.forward(x), 0.1));
        let x = self
            .conv3
            .forward(self.pool.forward(activation::gelu_approximate(x)));
        let x = activation::tanh(activation::mish(x))
            .clamp(-0.5, 6.0)
            .permute([0, 2, 3, 1]);
        let x = self.conv4.forward(x.swap_dims(1, 3).swap_dims(2, 3));
        self.fc
            .forward(x.mean_dim(3).mean_dim(2).squeeze_dims::<2>(&[2, 3]))
    }
}

#[test]
fn activations_that_keep_zero_let_channels_go() {
    let model = Activations {
        conv1: conv(3, 4, 1),
        conv2: conv(4, 5, 1),
        pool: AdaptiveAvgPool2dConfig::new([2, 2]).init(),
        conv3: conv(5, 4, 1),
        conv4: conv(4, 3, 1),
        fc: LinearConfig::new(3, 2).init(&device()),
    };
    let dummy = DummyInput::new(images(3), |model: &Activations, x| model.forward(x));
    let graph = analyze(&model, &dummy);
    let unprotected = graph
        .groups()
        .iter()
        .filter(|group| group.protected.is_none())
        .count();
    assert_eq!(unprotected, 4, "{graph}");
    let removed = (0..4)
        .flat_map(|group| pick(&graph, group, &[0, 2]))
        .collect();
    assert_exact(&model, &dummy, &removed, |_, _| {});
}
