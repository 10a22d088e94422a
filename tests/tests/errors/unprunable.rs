//! What a cut cannot follow is found when the chain is built, all of it at once.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, InstanceNorm, InstanceNormConfig, Linear, LinearConfig,
    PaddingConfig2d,
};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress::Obstacle;
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;
use burn_compress_tests::chains::assert_says;
use rstest::rstest;

/// A network of which `free` alone can lose output channels with the rules of [`WEIGHTS`].
#[derive(Module, Debug)]
struct Mixed {
    /// An instance norm follows, which knows the number of its channels.
    normed: Conv2d,
    norm: InstanceNorm,
    free: Conv2d,
    /// A plain depthwise convolution follows.
    spread: Conv2d,
    depthwise: Conv2d,
    /// A reshape to written sizes follows.
    flat: Linear,
    /// A division by the root of its width follows.
    scaled: Linear,
    /// Never called.
    idle: Linear,
    /// The output.
    head: Linear,
}

const WEIGHTS: &str = r#""op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5"#;
const STUCK: [&str; 7] = [
    "normed",
    "spread",
    "depthwise",
    "flat",
    "scaled",
    "idle",
    "head",
];

impl Mixed {
    fn new(device: &Device) -> Self {
        let conv = |channels: [usize; 2], groups: usize| {
            Conv2dConfig::new(channels, [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_groups(groups)
                .init(device)
        };
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        Self {
            normed: conv([1, 4], 1),
            norm: InstanceNormConfig::new(4).with_affine(false).init(device),
            free: conv([4, 6], 1),
            spread: conv([6, 8], 1),
            depthwise: conv([8, 8], 8),
            flat: linear(8, 6),
            scaled: linear(6, 4),
            idle: linear(4, 4),
            head: linear(4, 2),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.normed.forward(x)));
        let x = relu(self.free.forward(x));
        let x = relu(self.depthwise.forward(relu(self.spread.forward(x))));
        let x: Tensor<2> = x.mean_dim(3).mean_dim(2).flatten(1, 3);
        let x = relu(self.flat.forward(x))
            .reshape([2, 1, 6])
            .reshape([2, 6]);
        let x = relu(self.scaled.forward(x));
        let width = x.dims()[1] as f64;
        self.head.forward(x / width.sqrt())
    }
}

fn mixed() -> (Mixed, Evaluator<Mixed, ()>, DummyInput<Mixed>) {
    let device = Device::flex();
    let x = Tensor::random([2, 1, 5, 5], Distribution::Default, &device);
    let dummy = DummyInput::new(x, |net: &Mixed, x| net.forward(x));
    let evaluator = Evaluator::new().with_dummy_input(dummy.clone());
    (Mixed::new(&device), evaluator, dummy)
}

fn prune<M: Module + 'static>(
    model: M,
    evaluator: Evaluator<M, ()>,
    rules: &str,
) -> Result<Compressor<M, ()>, Error> {
    let config = ConfigList::from_json(rules).unwrap();
    L1NormPruner::new(model, &config, evaluator, PrunerConfig::new())
}

/// The obstacles of a refusal.
#[track_caller]
fn obstacles(error: &Error) -> &[Obstacle] {
    match error.downcast_ref() {
        Some(PruningError::Unprunable { obstacles }) => obstacles,
        _ => panic!("{error}"),
    }
}

#[test]
fn one_error_lists_every_layer_with_type_reason_and_remedy() {
    let (model, evaluator, _) = mixed();
    let error = prune(model, evaluator, &format!("[{{{WEIGHTS}}}]")).unwrap_err();
    let found = obstacles(&error);
    let layers: Vec<&str> = found.iter().map(|o| o.target.layer.as_str()).collect();
    assert_eq!(layers, STUCK);
    let kinds: Vec<&str> = found.iter().map(|o| o.kind.as_str()).collect();
    assert_eq!(kinds[..4], ["Conv2d", "Conv2d", "Conv2d", "Linear"]);
    let reasons = [
        "behind `normed`",
        "`groups` of the depthwise convolution `depthwise`",
        "`groups` of the depthwise convolution `depthwise`",
        "at `reshape` to [2, 1, 6] behind `flat`",
        "`div_scalar` behind `scaled` depends on the number of channels",
        "never calls its layer",
        "reaches the model's output",
    ];
    for (obstacle, reason) in found.iter().zip(reasons) {
        assert_says(&obstacle.reason, &[reason]);
        assert!(obstacle.remedy.contains("exclude"), "{obstacle}");
    }
    assert_says(&found[1].remedy, &["`depthwise` a `Wrapper<Conv2d>`"]);
    assert_says(
        &error,
        &[
            "7 selected targets cannot be pruned",
            "`normed.weight` (Conv2d): ",
            r#""exclude_op_names": ["normed", "spread", "depthwise", "flat", "scaled", "idle", "head"]"#,
            r#""on_unprunable": "skip""#,
        ],
    );
}

#[test]
fn goals_that_remove_nothing_are_listed_with_the_layers_that_cannot_be_pruned() {
    let (model, evaluator, _) = mixed();
    let error = prune(
        model,
        evaluator,
        &format!("[{{{WEIGHTS}, \"round_to\": 16}}]"),
    )
    .unwrap_err();
    let found = obstacles(&error);
    let layers: Vec<&str> = found.iter().map(|o| o.target.layer.as_str()).collect();
    let mut all = STUCK.to_vec();
    all.insert(1, "free");
    assert_eq!(layers, all);
    assert_eq!(found[1].kind, "Conv2d");
    assert_eq!(
        found[1].reason,
        "`sparse_ratio` 0.5 removes none of its 6 channels: it keeps 3, which `round_to` 16 rounds \
         up to all of them"
    );
    assert_says(&found[1].remedy, &["set `round_to` to", "exclude it"]);
}

#[test]
fn a_target_is_listed_once_whatever_is_wrong_with_it() {
    // Blocks of two channels, which no cut follows, and of which none would go.
    let rule = r#"[{"op_names": ["flat", "head"], "granularity": [-1, 2], "sparse_ratio": 0.5,
        "round_to": 9}]"#;
    let (model, evaluator, _) = mixed();
    let error = prune(model, evaluator, rule).unwrap_err();
    let found = obstacles(&error);
    let layers: Vec<&str> = found.iter().map(|o| o.target.layer.as_str()).collect();
    assert_eq!(layers, ["flat", "head"]);
}

#[test]
fn what_is_listed_is_all_that_has_to_be_excluded() {
    let (model, evaluator, dummy) = mixed();
    let rules = format!("[{{{WEIGHTS}, \"exclude_op_names\": {STUCK:?}}}]");
    let chain = prune(model, evaluator, &rules).unwrap();
    assert!(chain.skipped().is_empty());
    let compressed = chain.compress(Budget::none()).unwrap();
    let small = ModelSpeedup::new(compressed, dummy)
        .speedup_model()
        .unwrap();
    assert_eq!(small.model.free.weight.dims(), [3, 4, 3, 3]);
}

#[test]
fn skipping_prunes_the_rest_and_lists_skipped_targets() {
    let (model, evaluator, dummy) = mixed();
    let rules = format!("[{{{WEIGHTS}, \"on_unprunable\": \"skip\"}}]");
    let chain = prune(model, evaluator, &rules).unwrap();
    let left: Vec<&str> = chain
        .skipped()
        .iter()
        .map(|o| o.target.layer.as_str())
        .collect();
    assert_eq!(left, STUCK);
    let skipped = chain.skipped().to_vec();
    let compressed = chain.compress(Budget::none()).unwrap();
    assert_eq!(compressed.skipped(), skipped);
    let masked: Vec<String> = compressed.masks().keys().map(ToString::to_string).collect();
    assert_eq!(masked, ["free.weight", "free.bias"]);
    let small = ModelSpeedup::new(compressed, dummy)
        .speedup_model()
        .unwrap();
    assert_eq!(small.model.free.weight.dims(), [3, 4, 3, 3]);
    assert_eq!(small.model.normed.weight.dims(), [4, 1, 3, 3]);
    assert!(small.report.uncut.is_empty());
}

#[test]
fn skipping_counts_only_where_it_is_written_and_never_skips_everything() {
    let (model, evaluator, _) = mixed();
    let rules = r#"[
        {"op_types": ["Conv2d"], "sparse_ratio": 0.5, "on_unprunable": "skip"},
        {"op_types": ["Linear"], "sparse_ratio": 0.5}
    ]"#;
    let error = prune(model, evaluator, rules).unwrap_err();
    let layers: Vec<&str> = obstacles(&error)
        .iter()
        .map(|o| o.target.layer.as_str())
        .collect();
    assert_eq!(layers, ["flat", "scaled", "idle", "head"]);

    let (model, evaluator, _) = mixed();
    let rules = r#"[{"op_names": ["head"], "sparse_ratio": 0.5, "on_unprunable": "skip"}]"#;
    let error = prune(model, evaluator, rules).unwrap_err();
    assert_eq!(obstacles(&error).len(), 1);

    let rules = r#"[{"op_names": ["head"], "sparse_ratio": 0.5, "on_unprunable": "ignore"}]"#;
    let error = ConfigList::<PruningSettings>::from_json(rules).unwrap_err();
    assert_says(&error, &["`on_unprunable`", "`error`", "`skip`"]);
}

/// Attention of two heads of 8 features over a sequence, then two linear layers.
#[derive(Module, Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        let heads = |x: Tensor<3>| x.reshape([batch, length, 2, 8]).swap_dims(1, 2);
        let (q, k) = (
            heads(self.q.forward(x.clone())),
            heads(self.k.forward(x.clone())),
        );
        let v = heads(self.v.forward(x));
        let weights = softmax(q.matmul(k.swap_dims(2, 3)) / 8f64.sqrt(), 3);
        let x = weights
            .matmul(v)
            .swap_dims(1, 2)
            .reshape([batch, length, 16]);
        self.down
            .forward(relu(self.up.forward(self.out.forward(x))))
    }
}

fn attention() -> (Attention, Evaluator<Attention, ()>, DummyInput<Attention>) {
    let device = Device::flex();
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(&device);
    let x = Tensor::random([2, 3, 16], Distribution::Default, &device);
    let dummy = DummyInput::new(x, |net: &Attention, x| net.forward(x));
    let model = Attention {
        q: linear(16, 16),
        k: linear(16, 16),
        v: linear(16, 16),
        out: linear(16, 16),
        up: linear(16, 32),
        down: linear(32, 4),
    };
    let evaluator = Evaluator::new().with_dummy_input(dummy.clone());
    (model, evaluator, dummy)
}

const HEADS: &str = r#""op_names": ["q", "k", "v"], "granularity": [-1, 8], "sparse_ratio": 0.5"#;

#[rstest]
#[case::alone("")]
#[case::by_hand(r#", "dependency_group_id": "heads""#)]
fn heads_that_no_cut_can_follow(#[case] group: &str) {
    let (model, evaluator, _) = attention();
    let error = prune(model, evaluator, &format!("[{{{HEADS}{group}}}]")).unwrap_err();
    let found = obstacles(&error);
    let targets: Vec<String> = found.iter().map(|o| o.target.to_string()).collect();
    assert_eq!(targets, ["q.weight", "k.weight", "v.weight"]);
    assert_says(
        &error,
        &[
            "`q.weight` (Linear): its blocks are whole channels that no cut can follow",
            "reshape [2, 3, 16] -> [2, 3, 2, 8]",
            "N:M `pattern`",
            "`coupled` of the `PrunerConfig` to `false`",
        ],
    );
}

#[test]
fn heads_that_are_masked_on_purpose_are_in_the_report() {
    let (model, evaluator, dummy) = attention();
    let config = ConfigList::from_json(&format!("[{{{HEADS}}}]")).unwrap();
    let options = PrunerConfig::new().with_coupled(false);
    let chain = L1NormPruner::new(model, &config, evaluator, options).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let small = ModelSpeedup::new(compressed, dummy)
        .speedup_model()
        .unwrap();
    assert_eq!(small.report.params.small, small.report.params.dense);
    let lines: Vec<(String, usize)> = (small.report.uncut.iter())
        .map(|uncut| (uncut.target.to_string(), uncut.channels))
        .collect();
    let expected = [
        "q.weight", "q.bias", "k.weight", "k.bias", "v.weight", "v.bias",
    ];
    assert_eq!(lines, expected.map(|target| (target.to_string(), 8)));
    assert_says(
        &small.report,
        &["masked and not cut\n  q.weight  128 of 256 values, 8 whole channels: is taken apart"],
    );
}

#[rstest]
#[case::elements(r#"{"op_names": ["q", "k", "v"], "granularity": [1, 1], "sparse_ratio": 0.5}"#)]
#[case::pattern(r#"{"op_names": ["q", "k", "v"], "pattern": "2:4"}"#)]
#[case::parts_of_channels(
    r#"{"op_names": ["q", "k", "v"], "granularity": [8, 1], "sparse_ratio": 0.5}"#
)]
fn masks_that_promise_no_cut(#[case] rule: &str) {
    let (model, evaluator, dummy) = attention();
    let chain = prune(model, evaluator, &format!("[{rule}]")).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let small = ModelSpeedup::new(compressed, dummy)
        .speedup_model()
        .unwrap();
    let uncut = small.report.uncut.iter();
    let weights = uncut.filter(|uncut| uncut.target.target == Target::param("weight"));
    let masked: Vec<(String, usize)> = weights
        .map(|uncut| (uncut.target.layer.clone(), uncut.masked))
        .collect();
    assert_eq!(
        masked,
        ["q", "k", "v"].map(|layer| (layer.to_string(), 128))
    );
}

#[test]
fn blocks_of_channels_that_a_cut_follows() {
    let (model, evaluator, dummy) = attention();
    let rule = r#"[{"op_names": ["up"], "granularity": [-1, 8], "sparse_ratio": 0.5}]"#;
    let chain = prune(model, evaluator, rule).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let small = ModelSpeedup::new(compressed, dummy)
        .speedup_model()
        .unwrap();
    assert_eq!(small.model.up.weight.dims(), [16, 16]);
    assert!(small.report.uncut.is_empty());
}

/// Two convolutions, each with its norm, that are added.
#[derive(Module, Debug)]
struct Sum {
    one: Conv2d,
    norm: BatchNorm,
    other: Conv2d,
    last: Conv2d,
}

fn sum() -> (Sum, Evaluator<Sum, ()>) {
    let device = Device::flex();
    let conv = |channels| Conv2dConfig::new(channels, [1, 1]).init(&device);
    let x = Tensor::random([1, 3, 4, 4], Distribution::Default, &device);
    let dummy = DummyInput::new(x, |net: &Sum, x: Tensor<4>| {
        let sum = net.norm.forward(net.one.forward(x.clone())) + net.other.forward(x);
        net.last.forward(relu(sum))
    });
    let model = Sum {
        one: conv([3, 8]),
        norm: BatchNormConfig::new(8).init(&device),
        other: conv([3, 8]),
        last: conv([8, 2]),
    };
    (model, Evaluator::new().with_dummy_input(dummy))
}

#[test]
fn channels_grouped_by_hand_that_something_else_makes_too() {
    let rule = |settings: &str| {
        let (model, evaluator) = sum();
        prune(
            model,
            evaluator,
            &format!("[{{{settings}, \"sparse_ratio\": 0.5}}]"),
        )
    };
    let by_hand = r#""op_names": ["one", "other"], "dependency_group_id": 1"#;
    let error = rule(by_hand).unwrap_err();
    assert_eq!(obstacles(&error).len(), 2);
    assert_says(
        &error,
        &[
            "`norm.gamma` makes the same channels and is not masked with it",
            "without `dependency_group_id`",
        ],
    );
    let alone = r#""op_names": ["other"], "granularity": [4, -1, -1, -1]"#;
    assert_says(&rule(alone).unwrap_err(), &["`one.weight` makes"]);
    let all = r#""op_names": ["one", "norm", "other"], "dependency_group_id": 1"#;
    rule(all).unwrap();
    let coupled = r#""op_names": ["one", "other"]"#;
    rule(coupled).unwrap();
}

#[test]
fn a_mask_that_is_added_to_a_weight() {
    let (model, evaluator) = sum();
    let rules = r#"[{"op_names": ["one", "other"], "sparse_ratio": 0.5, "apply_method": "add"}]"#;
    let error = prune(model, evaluator, rules).unwrap_err();
    let Some(PruningError::Target { source, .. }) = error.downcast_ref() else {
        panic!("{error}")
    };
    let is_setting = matches!(
        **source,
        PruningError::Setting {
            key: "apply_method",
            ..
        }
    );
    assert!(is_setting, "{error}");
    assert_says(&error, &["one.weight", "`apply_method` is add", "`mul`"]);
}
