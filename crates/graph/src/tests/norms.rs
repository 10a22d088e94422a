//! Norms over channels as their wrappers record them.

use burn::nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::relu;
use indexmap::IndexMap;

use super::*;

#[derive(Module, Debug)]
struct Stream {
    first: Linear,
    norm: RmsNorm,
    last: Linear,
}

fn stream() -> (Stream, DummyInput<Stream>) {
    let model = Stream {
        first: LinearConfig::new(3, 4).init(&device()),
        norm: RmsNormConfig::new(4).init(&device()),
        last: LinearConfig::new(4, 2).init(&device()),
    };
    let x = Tensor::<2>::ones([5, 3], &device());
    let dummy = DummyInput::new(x, |model: &Stream, x: Tensor<2>| {
        let x = model.first.forward(x);
        let op = CustomOp::new(builtin::RMS_NORM).input(&x);
        let y = op.input(&model.norm.gamma.val()).output(x.dims());
        model.last.forward(x + y.expect("a capture"))
    });
    (model, dummy)
}

#[test]
fn gamma_joins_the_channels_that_are_normalized() {
    let (model, dummy) = stream();
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[0],
        "4 channels of first.weight[1] first.bias[0] norm.gamma[0] -> last.weight[0]"
    );
}

struct Entries(Vec<bool>, Vec<usize>);

impl ParamMask for Entries {
    fn shape(&self) -> &[usize] {
        &self.1
    }

    fn kept(&self) -> impl Iterator<Item = bool> {
        self.0.iter().copied()
    }
}

/// What nobody reads behind the norm is read by the norm.
#[test]
fn a_channel_that_is_not_read_stays_in_the_statistics() {
    let (model, dummy) = stream();
    let graph = analyze(&model, &dummy);
    let entries = ChannelEntries::new(&graph);
    let unread = Entries([vec![true; 6], vec![false; 2]].concat(), vec![4, 2]);
    let mut masks = IndexMap::from([("last.weight".to_string(), unread)]);
    assert!(entries.removable(&masks).unwrap().is_empty());
    let column = |at: usize| at % 4 != 3;
    for (param, shape) in [("first.weight", vec![3, 4]), ("first.bias", vec![4])] {
        let size = shape.iter().product::<usize>();
        let mask = Entries((0..size).map(column).collect(), shape);
        masks.insert(param.to_string(), mask);
    }
    // Zero, but not masked in the norm: its output is, the mean is not that of three channels.
    assert!(entries.removable(&masks).unwrap().is_empty());
    let gamma = Entries((0..4).map(column).collect(), vec![4]);
    masks.insert("norm.gamma".to_string(), gamma);
    assert_eq!(entries.removable(&masks).unwrap(), pick(&graph, 0, &[3]));
}

#[derive(Module, Debug)]
struct Images {
    first: Conv2d,
    norm: GroupNorm,
    last: Conv2d,
}

#[test]
fn groups_of_a_norm_lose_equally_many_and_its_number_of_channels_follows() {
    let model = Images {
        first: conv(1, 6, 1),
        norm: GroupNormConfig::new(2, 6).init(&device()),
        last: conv(6, 1, 1),
    };
    let dummy = DummyInput::new(images(1), |model: &Images, x: Tensor<4>| {
        let x = model.first.forward(x);
        let op = CustomOp::new(builtin::GROUP_NORM).input(&x).scalar(2.0);
        let vectors = [&model.norm.gamma, &model.norm.beta].map(|v| v.as_ref().unwrap().val());
        let op = op.input(&vectors[0]).input(&vectors[1]);
        model
            .last
            .forward(relu(op.output(x.dims()).expect("a capture")))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[0],
        "6 channels of first.weight[0] first.bias[0] norm.gamma[0] norm.beta[0] -> last.weight[1], in \
         2 equal blocks"
    );
    let uneven = graph.slice_plan(&pick(&graph, 0, &[0, 1])).unwrap_err();
    let expected = GraphError::UnequalBlocks {
        layer: "norm".into(),
        blocks: 2,
        kept: vec![1, 3],
    };
    assert_eq!(uneven, expected);
    let plan = graph.slice_plan(&pick(&graph, 0, &[0, 5])).unwrap();
    let expected = SizeSlice {
        layer: "norm".into(),
        field: "num_channels".into(),
        before: 6,
        after: 4,
    };
    assert_eq!(plan.sizes, [expected]);
}
