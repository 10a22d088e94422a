//! Channels that reshapes and slices take apart: shuffles, pixels, halves and parts of other sizes.

use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{relu, sigmoid, silu};

use super::*;

#[derive(Module, Debug)]
struct Pair {
    first: Conv2d,
    second: Conv2d,
}

fn pair(
    channels: [usize; 2],
    between: fn(Tensor<4>) -> Tensor<4>,
) -> (Pair, DummyInput<Pair>, ChannelGraph) {
    let model = Pair {
        first: conv(3, channels[0], 1),
        second: conv(channels[1], 2, 1),
    };
    let dummy = DummyInput::new(images(3), move |model: &Pair, x: Tensor<4>| {
        model.second.forward(between(model.first.forward(x)))
    });
    let graph = analyze(&model, &dummy);
    (model, dummy, graph)
}

fn shuffle(x: Tensor<4>, groups: usize) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, groups, c / groups, h, w])
        .swap_dims(1, 2)
        .reshape([b, c, h, w])
}

#[test]
fn shuffled_channels_go_together_in_all_groups() {
    let (model, dummy, graph) = pair([6, 6], |x| shuffle(x, 2));
    assert_eq!(
        lines(&graph)[0],
        "3 channels of first.weight[0] first.bias[0] -> second.weight[1]"
    );
    // Groups 0 1 2 and 3 4 5 become 0 3 1 4 2 5.
    let group = &graph.groups()[0];
    assert_eq!(group.members[0].positions, [[0, 3], [1, 4], [2, 5]]);
    assert_eq!(group.consumers[0].positions, [[0, 1], [2, 3], [4, 5]]);
    assert_exact(&model, &dummy, &pick(&graph, 0, &[1]), |_, _| {});
}

#[test]
fn the_pixels_of_a_channel_go_together() {
    let (model, dummy, graph) = pair([8, 2], |x| relu(pixels(x)));
    assert_eq!(
        lines(&graph)[0],
        "2 channels of first.weight[0] first.bias[0] -> second.weight[1]"
    );
    let positions = &graph.groups()[0].members[0].positions;
    assert_eq!(*positions, [[0, 1, 2, 3], [4, 5, 6, 7]]);
    assert_exact(&model, &dummy, &pick(&graph, 0, &[0]), |_, _| {});
}

/// `[b, 4 c, h, w]` to `[b, c, 2 h, 2 w]`.
fn pixels(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c / 4, 2, 2, h, w])
        .permute([0, 1, 4, 2, 5, 3])
        .reshape([b, c / 4, 2 * h, 2 * w])
}

#[test]
fn pixels_that_become_channels_again_go_together() {
    let (model, dummy, graph) = pair([12, 12], |x| {
        let x = relu(pixels(x));
        let [b, c, h, w] = x.dims();
        let x = x
            .reshape([b, c, h / 2, 2, w / 2, 2])
            .permute([0, 1, 3, 5, 2, 4]);
        x.reshape([b, 4 * c, h / 2, w / 2])
    });
    assert_eq!(
        lines(&graph)[0],
        "3 channels of first.weight[0] first.bias[0] -> second.weight[1]"
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[1]), |_, _| {});
}

#[derive(Module, Debug)]
struct Places {
    conv: Conv2d,
    embed: Linear,
    head: Linear,
}

#[test]
fn the_pixels_of_a_channel_go_together_into_a_linear_layer() {
    let model = Places {
        conv: conv(3, 8, 1),
        embed: LinearConfig::new(2, 5).init(&device()),
        head: LinearConfig::new(5, 2).init(&device()),
    };
    let dummy = DummyInput::new(images(3), |model: &Places, x: Tensor<4>| {
        let places: Tensor<3> = pixels(model.conv.forward(x)).flatten(2, 3);
        let x = model.embed.forward(places.swap_dims(1, 2));
        model.head.forward(x.mean_dim(1).squeeze_dim::<2>(1))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..2],
        [
            "2 channels of conv.weight[0] conv.bias[0] -> embed.weight[0]",
            "5 channels of embed.weight[1] embed.bias[0] -> head.weight[0]"
        ]
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[1]), |_, _| {});
}

#[test]
fn what_is_pooled_over_a_part_goes_as_a_part() {
    let (model, dummy, graph) = pair([8, 4], |x| {
        let [b, c, h, w] = x.dims();
        x.reshape([b, c / 2, 2, h, w])
            .max_dim(2)
            .squeeze_dim::<4>(2)
    });
    let positions = &graph.groups()[0].members[0].positions;
    assert_eq!(*positions, [[0, 1], [2, 3], [4, 5], [6, 7]]);
    assert_exact(&model, &dummy, &pick(&graph, 0, &[0, 2]), |_, _| {});
}

#[test]
fn every_part_keeps_equally_many() {
    // Each half is gated by its own mean over places.
    let (model, dummy, graph) = pair([6, 6], |x| {
        let [b, c, h, w] = x.dims();
        let halves = x.reshape([b, 2, c / 2, h, w]);
        let gate = sigmoid(halves.clone().mean_dim(4));
        (halves * gate).reshape([b, c, h, w])
    });
    assert_eq!(
        lines(&graph)[0],
        "6 channels of first.weight[0] first.bias[0] -> second.weight[1], in 2 equal blocks"
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[1, 3]), |_, _| {});
    let unequal = graph.slice_plan(&pick(&graph, 0, &[1, 2])).unwrap_err();
    assert_eq!(
        unequal,
        GraphError::UnequalBlocks {
            layer: "reshape".into(),
            blocks: 2,
            kept: vec![1, 3],
        }
    );
}

#[test]
fn a_part_of_another_size_keeps_the_same_share() {
    let (model, dummy, graph) = pair([6, 6], |x| {
        let third = x.dims()[1] / 3;
        let mut parts = x.split_with_sizes(vec![third, 2 * third], 1);
        parts.reverse();
        relu(Tensor::cat(parts, 1))
    });
    // A third and two thirds: of every two neighbours one stays.
    assert_eq!(graph.groups()[0].blocks, 3);
    assert_exact(&model, &dummy, &pick(&graph, 0, &[0, 3, 4]), |_, _| {});
    assert!(graph.slice_plan(&pick(&graph, 0, &[2, 4])).is_err());
}

#[derive(Module, Debug)]
struct Parts {
    stem: Conv2d,
    first: Conv2d,
    second: Conv2d,
}

/// `first` of so many channels, `second` of the others.
fn parts(channels: usize, first: usize) -> (Parts, DummyInput<Parts>) {
    let model = Parts {
        stem: conv(3, channels, 1),
        first: conv(first, 2, 1),
        second: conv(channels - first, 2, 1),
    };
    let dummy = DummyInput::new(images(3), |model: &Parts, x: Tensor<4>| {
        let x = relu(model.stem.forward(x));
        let (channels, split) = (x.dims()[1], model.first.weight.dims()[1]);
        let first = model.first.forward(x.clone().narrow(1, 0, split));
        let second = model.second.forward(x.narrow(1, split, channels - split));
        first + second
    });
    (model, dummy)
}

#[test]
fn parts_of_the_sizes_of_tensors_lose_as_many_as_they_like() {
    let (model, dummy) = parts(7, 3);
    let graph = analyze(&model, &dummy);
    let group = &graph.groups()[0];
    assert_eq!((group.blocks, group.protected.clone()), (1, None));
    let part = |channels: std::ops::Range<usize>, whole| SlicedPart {
        channels: channels.collect(),
        whole,
    };
    assert_eq!(
        group.slices,
        [
            part(0..3, true),
            part(3..7, false),
            part(0..3, false),
            part(3..7, true)
        ]
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[0, 1, 4]), |_, _| {});
    assert_exact(&model, &dummy, &pick(&graph, 0, &[3, 4, 6]), |_, _| {});
}

#[test]
fn a_part_of_one_channel_stays_and_the_others_go() {
    let (model, dummy) = parts(5, 1);
    let graph = analyze(&model, &dummy);
    let group = &graph.groups()[0];
    let protected: Vec<bool> = group
        .channels
        .iter()
        .map(|&channel| graph.protected(channel).is_some())
        .collect();
    assert_eq!(protected, [true, false, false, false, false]);
    let parts = group.slices.iter().map(|part| part.channels.clone());
    let parts: Vec<_> = parts.collect();
    assert_eq!(
        parts,
        [vec![0], vec![1, 2, 3, 4], vec![0], vec![1, 2, 3, 4]]
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[1, 3]), |_, _| {});
}

#[test]
fn channels_that_are_repeated_and_taken_apart_again() {
    let (model, dummy, graph) = pair([4, 8], |x| {
        let [b, c, h, w] = x.dims();
        let twice = x.repeat_dim(1, 2).reshape([b, 2, c, h, w]);
        (twice.clone() * sigmoid(twice)).reshape([b, 2 * c, h, w])
    });
    assert_eq!(graph.groups()[0].blocks, 1);
    assert_exact(&model, &dummy, &pick(&graph, 0, &[2]), |_, _| {});
}

#[derive(Module, Debug)]
struct Glu {
    wide: Linear,
    narrow: Linear,
}

#[test]
fn the_halves_of_a_gated_unit_go_in_pairs() {
    let model = Glu {
        wide: LinearConfig::new(3, 8).init(&device()),
        narrow: LinearConfig::new(4, 2).init(&device()),
    };
    let x = Tensor::<1, Int>::arange(0..12, &device())
        .float()
        .reshape([2, 2, 3]);
    let dummy = DummyInput::new(x, |model: &Glu, x: Tensor<3>| {
        let mut halves = model.wide.forward(x).chunk(2, 2);
        let (gate, x) = (halves.pop().unwrap(), halves.pop().unwrap());
        model.narrow.forward(silu(gate) * x)
    });
    let graph = analyze(&model, &dummy);
    let positions = &graph.groups()[0].members[0].positions;
    assert_eq!(*positions, [[0, 4], [1, 5], [2, 6], [3, 7]]);
    assert_exact(&model, &dummy, &pick(&graph, 0, &[1, 2]), |_, _| {});
}

#[derive(Module, Debug)]
struct Units {
    stem: Conv2d,
    branches: Vec<Conv2d>,
    head: Conv2d,
}

/// The units of a ShuffleNet, whose halves are blocks within blocks.
#[test]
fn units_that_split_and_shuffle() {
    let model = Units {
        stem: conv(3, 8, 1),
        branches: (0..2).map(|_| conv(4, 4, 1)).collect(),
        head: conv(8, 2, 1),
    };
    let dummy = DummyInput::new(images(3), |model: &Units, x: Tensor<4>| {
        let mut x = relu(model.stem.forward(x));
        for branch in &model.branches {
            let mut halves = x.chunk(2, 1);
            let mixed = relu(branch.forward(halves.pop().unwrap()));
            halves.push(mixed);
            x = shuffle(Tensor::cat(halves, 1), 2);
        }
        model.head.forward(x)
    });
    let graph = analyze(&model, &dummy);
    // stem 0 1 2 3 and the first branch are shuffled to 0 0 1 1 2 2 3 3: of these the first half
    // keeps as many as the second, and all of them as many as stem 4 5 6 7.
    assert_eq!(
        lines(&graph)[0],
        "8 channels of stem.weight[0] stem.bias[0] branches.0.weight[0] branches.0.bias[0] \
         branches.1.weight[0] branches.1.bias[0] -> branches.0.weight[1] branches.1.weight[1] \
         head.weight[1], in 4 equal blocks"
    );
    let removed = pick(&graph, 0, &[0, 3, 4, 7]);
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

#[derive(Module, Debug)]
struct Tokens {
    positions: Param<Tensor<3>>,
    project: Linear,
    head: Linear,
}

#[test]
fn a_token_is_picked_by_its_position() {
    let device = Device::flex();
    let model = Tokens {
        positions: Param::from_tensor(Tensor::ones([1, 3, 4], &device)),
        project: LinearConfig::new(2, 4).init(&device),
        head: LinearConfig::new(4, 2).init(&device),
    };
    let x = Tensor::<3>::ones([1, 3, 2], &device);
    let dummy = DummyInput::new(x, |model: &Tokens, x| {
        let x = model.project.forward(x) + model.positions.val();
        model.head.forward(x.narrow(1, 0, 1).squeeze_dim::<2>(1))
    });
    // The features of the positions go with those of the tokens, the positions stay.
    let graph = analyze(&model, &dummy);
    let group = graph.group_of("project", "weight", 1).unwrap();
    let group = &graph.groups()[group];
    assert_eq!((group.channels.len(), group.protected.clone()), (4, None));
    let members: Vec<_> = group
        .members
        .iter()
        .map(|member| member.param.as_str())
        .collect();
    assert!(members.contains(&"positions"), "{members:?}");
    assert_eq!(group.consumers[0].param, "head.weight");
}
