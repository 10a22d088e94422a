//! Cuts that a forward pass follows or does not follow.

use burn::nn::{
    GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, Linear, LinearConfig,
};
use burn::tensor::activation::relu;

use super::*;
use crate::simulate::sizes::set_sizes;
use crate::simulate::wrapper::Wrapper;

/// The first channel of every group that can lose one, of all blocks if there are several.
fn sets(graph: &ChannelGraph) -> Vec<BTreeSet<ChannelId>> {
    let free = |group: &ChannelGroup| {
        let size = group.channels.len() / group.blocks;
        let firsts = group.channels.chunks(size).map(|block| block[0]);
        let firsts: BTreeSet<ChannelId> = firsts.collect();
        let stays = firsts.iter().any(|c| graph.protected(*c).is_some());
        if stays { BTreeSet::new() } else { firsts }
    };
    graph.groups().iter().map(free).collect()
}

/// Why the forward pass does not follow, for each group that can lose channels.
fn failures<M: Module>(model: &M, dummy: &DummyInput<M>) -> Vec<Option<String>> {
    let graph = analyze(model, dummy);
    let sets: Vec<_> = sets(&graph).into_iter().filter(|s| !s.is_empty()).collect();
    let failures = Trial::new(model.valid(), dummy, &graph, set_sizes).failures(&sets);
    let text = |failure: Option<CutFailure>| failure.map(|failure| failure.to_string());
    failures.into_iter().map(text).collect()
}

#[derive(Module, Debug)]
struct Stack {
    conv1: Conv2d,
    norm1: Option<InstanceNorm>,
    conv2: Conv2d,
    norm2: Option<GroupNorm>,
    conv3: Conv2d,
}

impl Stack {
    fn new(instance: bool, group: bool) -> Self {
        let norm1 = InstanceNormConfig::new(4).with_affine(false);
        let norm2 = GroupNormConfig::new(4, 4).with_affine(false);
        Self {
            conv1: conv(3, 4, 1),
            norm1: instance.then(|| norm1.init(&device())),
            conv2: conv(4, 4, 1),
            norm2: group.then(|| norm2.init(&device())),
            conv3: conv(4, 2, 1),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv1.forward(x);
        let x = match &self.norm1 {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let x = self.conv2.forward(relu(x));
        let x = match &self.norm2 {
            Some(norm) => norm.forward(x),
            None => x,
        };
        self.conv3.forward(relu(x))
    }
}

#[test]
fn constants_of_norms_are_found_all_at_once() {
    let dummy = DummyInput::new(images(3), |model: &Stack, x| model.forward(x));
    assert_eq!(failures(&Stack::new(false, false), &dummy), [None, None]);
    let found = failures(&Stack::new(true, false), &dummy);
    let text = found[0].as_deref().unwrap();
    assert!(
        text.contains("at `reshape` to [2, 4, 36] behind `conv1`"),
        "{text}"
    );
    assert!(text.contains("expected 4, got 3"), "{text}");
    assert_eq!(found[1], None);
    let found = failures(&Stack::new(true, true), &dummy);
    assert!(found.iter().all(Option::is_some), "{found:?}");
    let text = found[1].as_deref().unwrap();
    assert!(text.contains("behind `conv2`"), "{text}");
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

/// `between` stands behind `fc1`.
fn mlp(between: fn(Tensor<2>) -> Tensor<2>) -> Vec<Option<String>> {
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(&device());
    let model = Mlp {
        fc1: linear(3, 8),
        fc2: linear(8, 6),
        fc3: linear(6, 2),
    };
    let dummy = DummyInput::new(
        Tensor::<2>::ones([2, 3], &device()),
        move |model: &Mlp, x: Tensor<2>| {
            let x = between(relu(model.fc1.forward(x)));
            model.fc3.forward(relu(model.fc2.forward(x)))
        },
    );
    failures(&model, &dummy)
}

#[test]
fn sizes_that_are_written_down_and_constants_of_a_width() {
    assert_eq!(mlp(|x| x), [None, None]);
    let dynamic = |x: Tensor<2>| {
        let [batch, channels] = x.dims();
        x.reshape([batch, 1, channels]).reshape([batch, channels])
    };
    assert_eq!(mlp(dynamic), [None, None]);
    let found = mlp(|x| x.reshape([2, 1, 8]).reshape([2, 8]));
    let text = found[0].as_deref().unwrap();
    assert!(
        text.contains("at `reshape` to [2, 1, 8] behind `fc1`"),
        "{text}"
    );
    assert_eq!(found[1], None);
    let found = mlp(|x| {
        let width = x.dims()[1] as f64;
        x / width.sqrt()
    });
    let expected = "`div_scalar` behind `fc1` depends on the number of channels";
    assert_eq!(found, [Some(expected.to_string()), None]);
    // The whole of a dimension, by whatever numbers.
    let whole = |x: Tensor<2>| {
        let [batch, channels] = x.dims();
        x.slice([0..batch, 0..channels])
    };
    assert_eq!(mlp(whole), [None, None]);
}

#[derive(Module, Debug)]
struct Depthwise {
    stem: Conv2d,
    plain: Conv2d,
    point: Conv2d,
    wrapped: Wrapper<Conv2d>,
    last: Conv2d,
}

#[test]
fn groups_of_depthwise_convolutions_follow_in_a_wrapper_alone() {
    let model = Depthwise {
        stem: conv(3, 4, 1),
        plain: conv(4, 4, 4),
        point: conv(4, 6, 1),
        wrapped: conv(6, 6, 6).into(),
        last: conv(6, 2, 1),
    };
    let dummy = DummyInput::new(images(3), |model: &Depthwise, x: Tensor<4>| {
        let x = model
            .point
            .forward(model.plain.forward(model.stem.forward(x)));
        model.last.forward(model.wrapped.forward(x))
    });
    let found = failures(&model, &dummy);
    let text = found[0].as_deref().unwrap();
    assert!(text.contains("depthwise convolution `plain`"), "{text}");
    assert_eq!(found[1], None);
}

#[test]
fn nothing_is_changed_and_the_halves_find_every_culprit() {
    // Seven layers, of which the second, fifth and last do not follow.
    #[derive(Module, Debug)]
    struct Deep {
        layers: Vec<Linear>,
    }
    let model = Deep {
        layers: (0..8)
            .map(|_| LinearConfig::new(4, 4).init(&device()))
            .collect(),
    };
    let dummy = DummyInput::new(
        Tensor::<2>::ones([2, 4], &device()),
        |model: &Deep, mut x: Tensor<2>| {
            for (index, layer) in model.layers.iter().enumerate() {
                x = relu(layer.forward(x));
                if [1, 4, 6].contains(&index) {
                    x = x.reshape([2, 4]);
                }
            }
            x
        },
    );
    let before = dummy.run(&model, &device());
    let found = failures(&model, &dummy);
    let culprits: Vec<usize> = (0..7).filter(|&i| found[i].is_some()).collect();
    assert_eq!(culprits, [1, 4, 6]);
    before[0].assert_eq(&dummy.run(&model, &device())[0], true);
}
