//! Grouped and depthwise convolutions, and splits into equal parts.

use burn::nn::conv::Conv1d;
use burn::nn::conv::Conv1dConfig;
use burn::tensor::activation::relu;

use super::*;

#[derive(Module, Debug)]
struct Grouped {
    stem: Conv2d,
    grouped: Conv2d,
    head: Conv2d,
}

fn grouped() -> (Grouped, DummyInput<Grouped>) {
    let model = Grouped {
        stem: conv(3, 6, 1),
        grouped: conv(6, 8, 2),
        head: conv(8, 2, 1),
    };
    let dummy = DummyInput::new(images(3), |model: &Grouped, x: Tensor<4>| {
        let x = relu(model.grouped.forward(relu(model.stem.forward(x))));
        model.head.forward(x)
    });
    (model, dummy)
}

#[test]
fn the_groups_of_a_convolution_are_blocks() {
    let (model, dummy) = grouped();
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..2],
        [
            "6 channels of stem.weight[0] stem.bias[0], in 2 equal blocks",
            "8 channels of grouped.weight[0] grouped.bias[0] -> head.weight[1], \
             in 2 equal blocks",
        ]
    );
    assert_eq!(graph.param_channels("grouped.weight", 1), None);
    let conv = &graph.grouped()[0];
    assert_eq!((conv.layer.as_str(), conv.groups), ("grouped", 2));
    let input: Vec<ChannelId> = conv.input.iter().flatten().copied().collect();
    assert_eq!(input, graph.groups()[0].channels);
}

#[test]
fn every_group_of_rows_keeps_its_own_columns() {
    let (model, dummy) = grouped();
    let graph = analyze(&model, &dummy);
    let mut removed = pick(&graph, 0, &[1, 3]);
    removed.extend(pick(&graph, 1, &[0, 2, 5, 6]));
    let plan = graph.slice_plan(&removed).unwrap();
    let slice = &plan.params["grouped.weight"];
    assert_eq!(slice.columns.as_ref().unwrap().keep, [[0, 2], [1, 2]]);
    assert_eq!(slice.keep[&0], [1, 3, 4, 7]);
    assert_eq!(slice.shape, [4, 2, 3, 3]);
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

#[test]
fn groups_must_lose_equally_many() {
    let (model, dummy) = grouped();
    let graph = analyze(&model, &dummy);
    let unequal = |removed| graph.slice_plan(&removed).unwrap_err();
    assert_eq!(
        unequal(pick(&graph, 0, &[1])),
        GraphError::UnequalBlocks {
            layer: "grouped".into(),
            blocks: 2,
            kept: vec![2, 3],
        }
    );
    assert!(matches!(
        unequal(pick(&graph, 1, &[4, 5])),
        GraphError::UnequalBlocks { kept, .. } if kept == [4, 2]
    ));
}

#[derive(Module, Debug)]
struct Separable {
    stem: Conv2d,
    bn: BatchNorm,
    depth: Conv2d,
    bn2: BatchNorm,
    point: Conv2d,
    head: Conv2d,
}

#[test]
fn a_depthwise_convolution_goes_with_its_input() {
    let model = Separable {
        stem: conv(3, 4, 1),
        bn: norm(4),
        depth: conv(4, 8, 4),
        bn2: norm(8),
        point: conv(8, 6, 1),
        head: conv(6, 2, 1),
    };
    let dummy = DummyInput::new(images(3), |model: &Separable, x: Tensor<4>| {
        let x = relu(model.bn.forward(model.stem.forward(x)));
        let x = relu(model.bn2.forward(model.depth.forward(x)));
        model.head.forward(relu(model.point.forward(x)))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..2],
        [
            "4 channels of stem.weight[0] stem.bias[0] bn.gamma[0] bn.beta[0] depth.weight[0] \
             depth.bias[0] bn2.gamma[0] bn2.beta[0] -> point.weight[1]",
            "6 channels of point.weight[0] point.bias[0] -> head.weight[1]",
        ]
    );
    let depth = &graph.groups()[0].members[4];
    assert_eq!(depth.positions, [[0, 1], [2, 3], [4, 5], [6, 7]]);
    let removed = pick(&graph, 0, &[0, 2, 3]);
    let plan = graph.slice_plan(&removed).unwrap();
    let expected = SizeSlice {
        layer: "depth".into(),
        field: "groups".into(),
        before: 4,
        after: 1,
    };
    assert_eq!(plan.sizes, [expected]);
    assert_eq!(plan.params["depth.weight"].keep[&0], [2, 3]);
    assert_exact(&model, &dummy, &pick(&graph, 0, &[0, 2]), |model, plan| {
        model.depth.groups = plan.sizes[0].after;
    });
    // A reader of eight channels is not in the way of the wider bn2.
    assert_eq!(graph.param_channels("bn2.gamma", 0).unwrap().len(), 8);
}

#[derive(Module, Debug)]
struct Split {
    wide: Conv1d,
    head: Conv1d,
}

fn split(joined: bool) -> (Split, DummyInput<Split>) {
    let inputs = if joined { 3 } else { 6 };
    let model = Split {
        wide: Conv1dConfig::new(2, 6, 1).init(&device()),
        head: Conv1dConfig::new(inputs, 2, 1).init(&device()),
    };
    let x = Tensor::<1, Int>::arange(0..20, &device())
        .float()
        .reshape([2, 2, 5]);
    let dummy = DummyInput::new(x, move |model: &Split, x: Tensor<3>| {
        let mut halves = model.wide.forward(x).chunk(2, 1);
        let (b, a) = (halves.pop().unwrap(), halves.pop().unwrap());
        let x = match joined {
            true => a * b,
            false => Tensor::cat(vec![b, a], 1),
        };
        model.head.forward(x)
    });
    (model, dummy)
}

#[test]
fn halves_that_are_multiplied_go_in_pairs() {
    let (model, dummy) = split(true);
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[0],
        "3 channels of wide.weight[0] wide.bias[0] -> head.weight[1]"
    );
    let group = &graph.groups()[0];
    assert_eq!(group.members[0].positions, [[0, 3], [1, 4], [2, 5]]);
    assert_exact(&model, &dummy, &pick(&graph, 0, &[1]), |_, _| {});
}

#[test]
fn halves_that_stay_apart_must_lose_equally_many() {
    let (model, dummy) = split(false);
    let graph = analyze(&model, &dummy);
    assert_eq!(graph.groups()[0].blocks, 2);
    assert_eq!(
        graph.groups()[0].consumers[0].positions,
        [[3], [4], [5], [0], [1], [2]]
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[0, 5]), |_, _| {});
    assert!(graph.slice_plan(&pick(&graph, 0, &[0])).is_err());
}

#[derive(Module, Debug)]
struct Beside {
    left: Conv2d,
    right: Conv2d,
    grouped: Conv2d,
}

/// Groups that hold channels of two layers are blocks of both together.
#[test]
fn the_groups_of_a_convolution_over_a_concatenation() {
    let model = Beside {
        left: conv(3, 4, 1),
        right: conv(3, 5, 1),
        grouped: conv(9, 3, 3),
    };
    let dummy = DummyInput::new(images(3), |model: &Beside, x: Tensor<4>| {
        let both = vec![model.left.forward(x.clone()), model.right.forward(x)];
        model.grouped.forward(relu(Tensor::cat(both, 1)))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[0],
        "9 channels of left.weight[0] left.bias[0] right.weight[0] right.bias[0], in 3 equal blocks"
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[0, 5, 7]), |_, _| {});
    assert!(graph.slice_plan(&pick(&graph, 0, &[0, 1, 5])).is_err());
}
