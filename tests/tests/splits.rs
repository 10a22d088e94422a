//! Channels that reshapes and slices take apart, pruned by half: the masked model equals its cut one,
//! saved and loaded, bit for bit, or an error names the line that does not follow before anything is
//! trained.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::{relu, sigmoid, silu};
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;

/// Two convolutions with something in between.
#[derive(Module, Debug)]
struct Net {
    first: Conv2d,
    second: Conv2d,
}

type Forward = fn(&Net, Tensor<4>) -> Tensor<4>;

fn conv(channels: [usize; 2]) -> Conv2d {
    Conv2dConfig::new(channels, [3, 3])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .init(&Device::flex())
}

fn images() -> Tensor<4> {
    Tensor::random([2, 3, 4, 4], Distribution::Default, &Device::flex())
}

fn chain(model: &Net, forward: Forward) -> Result<Compressor<Net, ()>, Error> {
    let evaluator = Evaluator::new().with_dummy_input(DummyInput::new(images(), forward));
    let rules = on(["Conv2d"])
        .with_exclude_op_names(["second"])
        .sparse_ratio(0.5);
    L1NormPruner::new(model.clone(), rules, evaluator, PrunerConfig::new())
}

fn values(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Prunes half of the channels of `first`, of which `second` reads so many, cuts, saves and loads.
/// Returns how many are left.
fn cut(channels: usize, read: usize, forward: Forward) -> usize {
    let model = Net {
        first: conv([3, channels]),
        second: conv([read, 2]),
    };
    let compressed = chain(&model, forward)
        .unwrap()
        .compress(Budget::none())
        .unwrap();
    let masked = compressed.masked_model();
    let small = compressed.speedup().unwrap();
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
    let new = images();
    let simulated = values(forward(&masked, new.clone()));
    let found = values(forward(&small.model, new.clone()));
    let largest = simulated.iter().fold(0f32, |max, x| max.max(x.abs()));
    for (x, y) in simulated.iter().zip(&found) {
        assert!((x - y).abs() <= 1e-6 * largest, "{x} {y}");
    }
    let unique = std::thread::current().name().unwrap().replace("::", "_");
    let path = std::env::temp_dir().join(format!("splits_{unique}_{}", std::process::id()));
    small.save(&path).unwrap();
    let loaded = Small::load(model, &path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(found, values(forward(&loaded.model, new)));
    small.model.first.weight.dims()[0]
}

fn refused(channels: usize, read: usize, forward: Forward) -> String {
    let model = Net {
        first: conv([3, channels]),
        second: conv([read, 2]),
    };
    let error = chain(&model, forward)
        .map(|chain| chain.algorithms())
        .unwrap_err();
    let Some(PruningError::Unprunable { obstacles }) = error.downcast_ref() else {
        panic!("{error}");
    };
    assert_eq!(obstacles.len(), 1);
    obstacles[0].reason.clone()
}

#[test]
fn a_channel_shuffle() {
    let left = cut(8, 8, |net, x| {
        let x = relu(net.first.forward(x));
        let [b, c, h, w] = x.dims();
        let x = x
            .reshape([b, 2, c / 2, h, w])
            .swap_dims(1, 2)
            .reshape([b, c, h, w]);
        net.second.forward(x)
    });
    assert_eq!(left, 4);
}

#[test]
fn a_pixel_shuffle() {
    let left = cut(16, 4, |net, x| {
        let x = relu(net.first.forward(x));
        let [b, c, h, w] = x.dims();
        let x = x
            .reshape([b, c / 4, 2, 2, h, w])
            .permute([0, 1, 4, 2, 5, 3]);
        net.second.forward(x.reshape([b, c / 4, 2 * h, 2 * w]))
    });
    assert_eq!(left, 8);
}

#[test]
fn a_pixel_unshuffle() {
    let left = cut(4, 16, |net, x| {
        let x = relu(net.first.forward(x));
        let [b, c, h, w] = x.dims();
        let x = x
            .reshape([b, c, h / 2, 2, w / 2, 2])
            .permute([0, 1, 3, 5, 2, 4]);
        net.second.forward(x.reshape([b, 4 * c, h / 2, w / 2]))
    });
    assert_eq!(left, 2);
}

#[test]
fn a_gate_by_chunk() {
    let left = cut(8, 4, |net, x| {
        let mut halves = net.first.forward(x).chunk(2, 1);
        let (gate, x) = (halves.pop().unwrap(), halves.pop().unwrap());
        net.second.forward(silu(gate) * x)
    });
    assert_eq!(left, 4);
}

#[test]
fn a_gate_by_numbers_that_are_written_down() {
    let reason = refused(8, 4, |net, x| {
        let x = net.first.forward(x);
        let (gate, x) = (x.clone().narrow(1, 0, 4), x.narrow(1, 4, 4));
        net.second.forward(silu(gate) * x)
    });
    assert_eq!(
        reason,
        "the slice 0..4 of 8 along dimension 1 behind `first` gives 0..4 with fewer channels, where \
         0..2 would follow"
    );
}

#[test]
fn parts_of_other_sizes() {
    let left = cut(12, 12, |net, x| {
        let x = relu(net.first.forward(x));
        let third = x.dims()[1] / 3;
        let mut parts = x.split_with_sizes(vec![third, 2 * third], 1);
        parts.reverse();
        net.second.forward(Tensor::cat(parts, 1))
    });
    assert_eq!(left, 6);
    let reason = refused(12, 12, |net, x| {
        let x = relu(net.first.forward(x));
        let parts = vec![x.clone().slice([0..2, 4..12]), x.slice([0..2, 0..4])];
        net.second.forward(Tensor::cat(parts, 1))
    });
    assert_eq!(
        reason,
        "the slice 4..12 of 12 along dimension 1 behind `first` gives 4..6 with fewer channels, where \
         2..6 would follow"
    );
}

/// Five of seven channels, which no common share of both parts leaves whole.
#[test]
fn a_part_of_a_size_of_its_own() {
    let left = cut(7, 5, |net, x| {
        let x = relu(net.first.forward(x));
        let read = net.second.weight.dims()[1];
        net.second.forward(x.narrow(1, 0, read))
    });
    assert_eq!(left, 4);
    // Of every fourth channel but one: right for 7 and for 4 channels, and wrong for others.
    let reason = refused(7, 5, |net, x| {
        let x = relu(net.first.forward(x));
        let read = 3 * x.dims()[1] / 4;
        net.second.forward(x.narrow(1, 0, read))
    });
    assert_eq!(
        reason,
        "the slice 0..5 of 7 along dimension 1 behind `first` gives 0..2 with fewer channels, where \
         0..1 would follow"
    );
    let reason = refused(7, 5, |net, x| {
        let x = relu(net.first.forward(x));
        net.second.forward(x.narrow(1, 0, 5))
    });
    assert!(
        reason.starts_with("the forward pass fails with fewer channels at `slice` behind `first`:"),
        "{reason}"
    );
}

#[test]
fn the_only_channel_stays() {
    let reason = refused(1, 1, |net, x| net.second.forward(net.first.forward(x)));
    assert_eq!(reason, "it has a single channel, which must stay");
    // Nobody reads the other one.
    let left = cut(2, 1, |net, x| {
        let x = relu(net.first.forward(x));
        let read = net.second.weight.dims()[1];
        net.second.forward(x.narrow(1, 0, read))
    });
    assert_eq!(left, 1);
}

#[test]
fn channels_that_are_repeated() {
    let left = cut(4, 8, |net, x| {
        let x = relu(net.first.forward(x));
        net.second.forward(x.repeat_dim(1, 2))
    });
    assert_eq!(left, 2);
    // Each channel twice in turn.
    let left = cut(4, 8, |net, x| {
        let x = relu(net.first.forward(x));
        let [b, c, h, w] = x.dims();
        let x: Tensor<5> = x.unsqueeze_dim(2);
        net.second
            .forward(x.repeat_dim(2, 2).reshape([b, 2 * c, h, w]))
    });
    assert_eq!(left, 2);
}

#[test]
fn a_reshape_to_numbers_that_are_written_down() {
    let reason = refused(8, 8, |net, x| {
        let x = relu(net.first.forward(x)).reshape([2, 2, 4, 4, 4]);
        let gate = sigmoid(x.clone().mean_dim(4));
        net.second.forward((x * gate).reshape([2, 8, 4, 4]))
    });
    assert!(
        reason.starts_with(
            "the forward pass fails with fewer channels at `reshape` to [2, 2, 4, 4, 4] behind `first`:"
        ),
        "{reason}"
    );
    // With the number of parts alone, or -1, it follows.
    let left = cut(8, 8, |net, x| {
        let x = relu(net.first.forward(x)).reshape([2, 2, -1, 4, 4]);
        let gate = sigmoid(x.clone().mean_dim(4));
        net.second.forward((x * gate).reshape([2, -1, 4, 4]))
    });
    assert_eq!(left, 4);
}

/// Squeeze and excitation with linear layers.
#[derive(Module, Debug)]
struct Excited {
    first: Conv2d,
    squeeze: Linear,
    excite: Linear,
    second: Conv2d,
    scale: Param<Tensor<1>>,
}

#[test]
fn squeeze_and_excitation_of_groups() {
    let device = Device::flex();
    let model = Excited {
        first: conv([3, 8]),
        squeeze: LinearConfig::new(4, 6).init(&device),
        excite: LinearConfig::new(6, 4).init(&device),
        second: conv([8, 2]),
        scale: Param::from_tensor(Tensor::ones([4], &device)),
    };
    // Two groups that share the layers of the excitation.
    let forward = |net: &Excited, x: Tensor<4>| {
        let x = relu(net.first.forward(x));
        let [b, c, h, w] = x.dims();
        let x = x.reshape([b, 2, c / 2, h * w]);
        let means: Tensor<3> = x.clone().mean_dim(3).squeeze_dim(3);
        let gate = net.excite.forward(relu(net.squeeze.forward(means)));
        let gate = sigmoid(gate) * net.scale.val().unsqueeze();
        let gate: Tensor<4> = gate.unsqueeze_dim(3);
        net.second.forward((x * gate).reshape([b, c, h, w]))
    };
    let dummy = DummyInput::new(images(), forward);
    let evaluator = Evaluator::<_, ()>::new().with_dummy_input(dummy);
    let rules = named(["first", "squeeze", "excite"]).sparse_ratio(0.5);
    let chain = L1NormPruner::new(model, rules, evaluator, PrunerConfig::new()).unwrap();
    let small = chain.compress(Budget::none()).unwrap().speedup().unwrap();
    assert_eq!(small.model.first.weight.dims(), [4, 3, 3, 3]);
    assert_eq!(small.model.squeeze.weight.dims(), [2, 3]);
    assert_eq!(small.model.scale.dims(), [2]);
}
