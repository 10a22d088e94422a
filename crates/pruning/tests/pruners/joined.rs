//! Channels that several layers make together: summed changes of the loss, and concatenations.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::SgdConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressor, DummyInput, Error, Evaluator, Masks, TargetId};
use burn_compress_pruning::{
    FisherConfig, FisherPruner, FpgmPruner, L1NormPruner, L2NormPruner, PrunerConfig,
    PruningSettings, TaylorConfig, TaylorPruner,
};

use crate::nets::Random;

/// `head(scale * cat(one + two, three))` of ones, or `one + two` and `three` with a head each.
#[derive(Module, Debug)]
struct Sums {
    one: Linear,
    two: Linear,
    three: Linear,
    scale: Param<Tensor<1>>,
    head: Linear,
    beside: Linear,
    last: Linear,
}

fn sums() -> Sums {
    let device = Device::flex();
    let linear = |weight: Vec<f32>, inputs: usize| {
        let outputs = weight.len() / inputs;
        let mut linear = LinearConfig::new(inputs, outputs)
            .with_bias(false)
            .init(&device);
        let weight = TensorData::new(weight, [inputs, outputs]);
        linear.weight = Param::from_data(weight, &device);
        linear
    };
    let root = 6f32.sqrt();
    Sums {
        // The gradient of every weight is 1, so that the Taylor scores are 4 and 9 twice, 6 and 16.
        one: linear(vec![2.0, 3.0], 1),
        two: linear(vec![2.0, 3.0], 1),
        three: linear(vec![root, 4.0], 1),
        scale: Param::from_data(TensorData::from([1.0f32; 4]), &device),
        head: linear(vec![1.0; 4], 4),
        beside: linear(vec![1.0; 2], 2),
        last: linear(vec![1.0; 2], 2),
    }
}

type Forward = fn(&Sums, Tensor<2>) -> Tensor<2>;

fn joined(net: &Sums, x: Tensor<2>) -> Tensor<2> {
    let sum = net.one.forward(x.clone()) + net.two.forward(x.clone());
    let all = Tensor::cat(vec![sum, net.three.forward(x)], 1);
    net.head.forward(all * net.scale.val().unsqueeze())
}

fn stages(net: &Sums, x: Tensor<2>) -> Tensor<2> {
    let sum = net.one.forward(x.clone()) + net.two.forward(x.clone());
    net.beside.forward(sum) + net.last.forward(net.three.forward(x))
}

fn chain(forward: Forward) -> Compressor<Sums, ()> {
    let ones = |device: &Device| Tensor::<2>::ones([1, 1], device);
    let dummy = ones(&Device::flex());
    let evaluator = Evaluator::new()
        .with_dummy_input(DummyInput::new(dummy, move |net: &Sums, x| forward(net, x)))
        .with_data(|_| vec![()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.0)
        .with_loss(move |net: &Sums, _: &()| forward(net, ones(&net.scale.device())).sum());
    Compressor::from_model(sums(), evaluator)
}

fn rules(text: &str) -> ConfigList<PruningSettings> {
    ConfigList::from_json(text).unwrap()
}

/// The masks of Taylor and of Fisher, whose scores are half as large.
fn masks(forward: Forward, config: &str) -> [Masks; 2] {
    let config = rules(config);
    let taylor = TaylorConfig::new(1);
    let taylor = TaylorPruner::from_compressor(chain(forward), &config, taylor).unwrap();
    let fisher = FisherConfig::new(1);
    let fisher = FisherPruner::from_compressor(chain(forward), &config, fisher).unwrap();
    [taylor, fisher].map(|chain| chain.compress(Budget::steps(1)).unwrap().masks())
}

fn removed(masks: &Masks, target: &str) -> Vec<bool> {
    let mask = &masks[&target.parse::<TargetId>().unwrap()];
    mask.removed_along(mask.shape().len() - 1)
}

#[test]
fn changes_of_the_loss_add_up_over_the_layers_of_a_channel() {
    // 4 + 4 and 9 + 9 beside 6 and 16: the 6 is least.
    let config = r#"[{"op_names": ["one", "two", "three"], "sparse_ratio": 0.25}]"#;
    for masks in masks(joined, config) {
        assert_eq!(removed(&masks, "three.weight"), [true, false]);
        assert_eq!(removed(&masks, "one.weight"), [false, false]);
        assert_eq!(removed(&masks, "two.weight"), [false, false]);
    }
}

#[test]
fn a_stage_of_two_layers_counts_twice_in_a_global_ranking() {
    // Of 6 elements one may go: the first channel of `three`, and not that of the stage.
    let config = r#"[{
        "op_names": ["one", "two", "three"], "sparse_ratio": 0.17, "global_group_id": "all"
    }]"#;
    for masks in masks(stages, config) {
        assert_eq!(removed(&masks, "three.weight"), [true, false]);
        assert_eq!(removed(&masks, "one.weight"), [false, false]);
    }
}

#[test]
fn a_group_made_by_hand_keeps_the_mean() {
    let config =
        |more: &str| format!(r#"[{{"op_names": ["one", "two"], "sparse_threshold": 5.0{more}}}]"#);
    // By hand the mean of 4 and 4, below 5; by the graph their sum.
    let [by_hand, _] = masks(stages, &config(r#", "dependency_group_id": "by hand""#));
    assert_eq!(removed(&by_hand, "one.weight"), [true, false]);
    let [coupled, _] = masks(stages, &config(""));
    assert_eq!(removed(&coupled, "one.weight"), [false, false]);
}

/// Convolutions whose concatenations batch norms read, as in a DenseNet.
#[derive(Module, Debug)]
struct Dense {
    stem: Conv2d,
    layers: Vec<Layer>,
    norm: BatchNorm,
    head: Conv2d,
}

#[derive(Module, Debug)]
struct Layer {
    norm: BatchNorm,
    conv: Conv2d,
}

/// 1x1 and 3x3 side by side, one norm behind both.
#[derive(Module, Debug)]
struct Side {
    small: Conv2d,
    large: Conv2d,
    norm: BatchNorm,
    head: Conv2d,
}

fn conv(inputs: usize, outputs: usize, kernel: usize) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new([inputs, outputs], [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .init(&Device::flex())
}

fn norm(channels: usize) -> BatchNorm {
    BatchNormConfig::new(channels).init(&Device::flex())
}

/// Weights as PyTorch and Burn draw them, up to the root of the fan-in.
struct Uniform(Random);

impl ModuleMapper for Uniform {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.dims();
        if D < 4 {
            return param;
        }
        let count = shape.iter().product::<usize>();
        let bound = ((count / shape[0]) as f32).sqrt().recip();
        let values: Vec<f32> = (0..count).map(|_| bound * self.0.draw()).collect();
        param.map(|tensor| Tensor::from_data(TensorData::new(values, shape), &tensor.device()))
    }
}

impl Dense {
    fn new(seed: u64) -> Self {
        let layers = (0..4).map(|at| Layer {
            norm: norm(16 + 8 * at),
            conv: conv(16 + 8 * at, 8, 3),
        });
        let net = Self {
            stem: conv(1, 16, 7),
            layers: layers.collect(),
            norm: norm(48),
            head: conv(48, 1, 1),
        };
        net.map(&mut Uniform(Random::new(seed)))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = self.stem.forward(x);
        for layer in &self.layers {
            let new = layer.conv.forward(relu(layer.norm.forward(x.clone())));
            x = Tensor::cat(vec![x, new], 1);
        }
        self.head.forward(relu(self.norm.forward(x)))
    }
}

impl Side {
    fn new(seed: u64) -> Self {
        let net = Self {
            small: conv(4, 8, 1),
            large: conv(4, 8, 3),
            norm: norm(16),
            head: conv(16, 1, 1),
        };
        net.map(&mut Uniform(Random::new(seed)))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let both = vec![self.small.forward(x.clone()), self.large.forward(x)];
        self.head
            .forward(relu(self.norm.forward(Tensor::cat(both, 1))))
    }
}

fn images(channels: usize) -> Tensor<4> {
    Tensor::ones([1, channels, 6, 6], &Device::flex())
}

type Fuse<M> = fn(
    Compressor<M, ()>,
    &ConfigList<PruningSettings>,
    PrunerConfig,
) -> Result<Compressor<M, ()>, Error>;

fn norms<M: Module + 'static>() -> [Fuse<M>; 3] {
    [
        |chain, rules, config| L1NormPruner::from_compressor(chain, rules, config),
        |chain, rules, config| L2NormPruner::from_compressor(chain, rules, config),
        |chain, rules, config| FpgmPruner::from_compressor(chain, rules, config),
    ]
}

/// How many channels each of `layers` keeps.
fn kept<M: Module + 'static>(
    chain: Result<Compressor<M, ()>, Error>,
    layers: &[&str],
) -> Vec<usize> {
    let masks = chain.unwrap().compress(Budget::none()).unwrap().masks();
    let kept = layers.iter().map(|layer| {
        let id: TargetId = format!("{layer}.weight").parse().unwrap();
        let removed = masks[&id].removed_along(0);
        removed.iter().filter(|removed| !**removed).count()
    });
    kept.collect()
}

#[test]
fn layers_side_by_side_keep_the_ratio_each() {
    let chain = |seed| {
        let dummy = DummyInput::new(images(4), |net: &Side, x| net.forward(x));
        Compressor::from_model(Side::new(seed), Evaluator::new().with_dummy_input(dummy))
    };
    let config = |more: &str| {
        rules(&format!(
            r#"[{{"op_names": ["small", "large"], "sparse_ratio": 0.5{more}}}]"#
        ))
    };
    for seed in 1..6 {
        for fuse in norms::<Side>() {
            let names = ["small", "large"];
            let pruner = fuse(chain(seed), &config(""), PrunerConfig::new());
            assert_eq!(kept(pruner, &names), [4, 4]);
            let mean = config(r#", "normalizer": "mean""#);
            let kept = kept(fuse(chain(seed), &mean, PrunerConfig::new()), &names);
            assert_eq!(kept.iter().sum::<usize>(), 8);
            assert!(
                kept.iter().all(|kept| (2..=6).contains(kept)),
                "{seed}: {kept:?}"
            );
        }
    }
    // As they are, the norms of the larger fan-in win.
    let raw = config(r#", "normalizer": "none""#);
    let pruner = L1NormPruner::from_compressor(chain(1), &raw, PrunerConfig::new());
    assert_eq!(kept(pruner, &["small", "large"]), [1, 7]);
}

#[test]
fn a_dense_block_keeps_the_ratio_in_every_layer() {
    let names = [
        "stem",
        "layers.0.conv",
        "layers.1.conv",
        "layers.2.conv",
        "layers.3.conv",
    ];
    let chain = |seed| {
        let dummy = DummyInput::new(images(1), |net: &Dense, x| net.forward(x));
        Compressor::from_model(Dense::new(seed), Evaluator::new().with_dummy_input(dummy))
    };
    let list = serde_json::to_string(&names).unwrap();
    let config = |more: &str| {
        rules(&format!(
            r#"[{{"op_names": {list}, "sparse_ratio": 0.5{more}}}]"#
        ))
    };
    for seed in 1..4 {
        for fuse in norms::<Dense>() {
            let ranked = fuse(chain(seed), &config(""), PrunerConfig::new());
            assert_eq!(kept(ranked, &names), [8, 4, 4, 4, 4]);
            let mean = config(r#", "normalizer": "mean""#);
            let kept = kept(fuse(chain(seed), &mean, PrunerConfig::new()), &names);
            assert_eq!(kept.iter().sum::<usize>(), 24);
            assert!((5..=11).contains(&kept[0]), "{seed}: {kept:?}");
            assert!(
                kept[1..].iter().all(|kept| (2..=6).contains(kept)),
                "{seed}: {kept:?}"
            );
        }
    }
    let raw = config(r#", "normalizer": "none""#);
    let pruner = L1NormPruner::from_compressor(chain(1), &raw, PrunerConfig::new());
    assert_eq!(kept(pruner, &names)[0], 1);
}

#[test]
fn a_normalizer_without_effect_is_refused() {
    let config = rules(
        r#"[{"op_names": ["one", "two", "three"], "sparse_ratio": 0.25, "normalizer": "mean"}]"#,
    );
    let error = TaylorPruner::from_compressor(chain(joined), &config, TaylorConfig::new(1));
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("`normalizer` has no effect on `TaylorPruner`"),
        "{error}"
    );
    L1NormPruner::from_compressor(chain(joined), &config, PrunerConfig::new()).unwrap();
    let threshold = r#"[{"op_names": ["one"], "sparse_threshold": 1.0, "normalizer": "mean"}]"#;
    let error = ConfigList::from_json(threshold)
        .map_err(Error::from)
        .and_then(|config| {
            L1NormPruner::from_compressor(chain(joined), &config, PrunerConfig::new()).map(|_| ())
        });
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`normalizer` has no effect without `sparse_ratio`"),
        "{error}"
    );
}
