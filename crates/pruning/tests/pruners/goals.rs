//! Goals that can remove nothing are refused before the training, and those that are less than one
//! block or removed nothing are reported after it.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::optim::SgdConfig;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};
use burn_compress_core::{Budget, DummyInput, Error, Evaluator};
use burn_compress_pruning::{
    AgpConfig, AgpPruner, CutOf, L1NormPruner, LevelPruner, MovementConfig, MovementPruner,
    PrunerConfig, PruningError,
};
use rstest::rstest;

use crate::nets::{Chain, cause, chain, count, net, rules};

fn prune(text: &str, options: PrunerConfig) -> Result<Chain, Error> {
    L1NormPruner::from_compressor(chain(), rules(text), options)
}

fn alone() -> PrunerConfig {
    PrunerConfig::new().with_coupled(false)
}

/// The error of a goal that removes nothing.
fn refused(text: &str, options: PrunerConfig) -> String {
    let error = prune(text, options).unwrap_err();
    match cause(&error) {
        PruningError::Target { target, source } => {
            assert!(
                matches!(**source, PruningError::RemovesNothing { .. }),
                "{source}"
            );
            format!("{target}: {source}")
        }
        other => panic!("{text}: {other}"),
    }
}

#[rstest]
// `stem` has 8 channels, which the grouped convolution behind it reads in 2 parts.
#[case::round_to(
    r#"{"op_names": ["stem"], "sparse_ratio": 0.5, "round_to": 16}"#,
    "stem.weight: `sparse_ratio` 0.5 removes none of its 8 channels: it keeps 4, which `round_to` \
     16 rounds up to all of them; set `round_to` to 6, or exclude it from the configuration"
)]
#[case::round_to_and_ratio(
    r#"{"op_names": ["grouped", "block"], "sparse_ratio": 0.2, "round_to": 8}"#,
    "grouped.weight: `sparse_ratio` 0.2 removes none of its 12 channels: it keeps 10, which \
     `round_to` 8 rounds up to all of them; set `round_to` to 5 or `sparse_ratio` to at \
     least 0.334, or exclude `grouped.weight`, `block.weight` from the configuration"
)]
#[case::round_to_of_a_threshold(
    r#"{"op_names": ["stem"], "sparse_threshold": 9.0, "round_to": 16}"#,
    "stem.weight: `sparse_threshold` 9 removes none of its 8 channels: it keeps at least 2, which \
     `round_to` 16 rounds up to all of them; set `round_to` to 6, or exclude it from the \
     configuration"
)]
#[case::threshold(
    r#"{"op_names": ["stem"], "sparse_threshold": 0.0}"#,
    "stem.weight: `sparse_threshold` 0 removes none of its 8 channels: no score is below it; set it \
     above 0"
)]
fn coupled_channels_are_refused(#[case] rule: &str, #[case] expected: &str) {
    let text = format!("[{rule}]");
    assert_eq!(refused(&text, PrunerConfig::new()), expected);
    // A schedule changes nothing about the last goal.
    let pruner = prune(&text, PrunerConfig::new());
    let scheduled = pruner.and_then(|chain| AgpPruner::new(chain, AgpConfig::new(1, 4)));
    assert_eq!(cause(&scheduled.unwrap_err()).to_string(), expected);
}

#[rstest]
#[case::one_block(
    r#"{"op_names": ["head"], "sparse_ratio": 0.5, "granularity": [-1, -1]}"#,
    "head.weight: `sparse_ratio` 0.5 removes none of its 1 block: one always stays; give a \
     `granularity` of smaller blocks, or exclude it from the configuration"
)]
#[case::round_to(
    r#"{"op_names": ["stem"], "sparse_ratio": 0.5, "round_to": 9}"#,
    "stem.weight: `sparse_ratio` 0.5 removes none of its 8 blocks: it keeps 4, which `round_to` 9 \
     rounds up to all of them; set `round_to` to 7, or exclude it from the configuration"
)]
#[case::round_to_in_a_global_group(
    r#"{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "global_group_id": 1, "round_to": 12,
        "exclude_op_names": ["grouped", "block"]}"#,
    "stem.weight: `sparse_ratio` 0.5 removes none of its 8 blocks: it keeps at least 1, which \
     `round_to` 12 rounds up to all of them; set `round_to` to 7, or exclude it from the \
     configuration"
)]
fn single_targets_are_refused(#[case] rule: &str, #[case] expected: &str) {
    assert_eq!(refused(&format!("[{rule}]"), alone()), expected);
}

/// Channels that are grouped by hand need no graph, and without a dummy input there is none.
#[test]
fn channels_whose_cut_nobody_has_checked_are_reported() {
    let chain = Chain::from_model(net(1), Evaluator::new());
    let by_hand = r#"[{"op_names": ["stem"], "sparse_ratio": 0.5, "dependency_group_id": 1}]"#;
    let pruner = L1NormPruner::from_compressor(chain, rules(by_hand), PrunerConfig::new()).unwrap();
    let compressed = pruner.compress(Budget::none()).unwrap();
    assert_eq!(count(&compressed.masks(), "stem.weight"), 4);
    assert_eq!(
        compressed.warnings(),
        [
            "L1NormPruner: whole channels are masked, but no dummy input tells whether a cut can follow"
        ]
    );
}

/// What is logged when the pruner is made stands in the result too.
#[rstest]
#[case::ratio(
    r#"{"op_names": ["grouped", "block"], "sparse_ratio": 0.05}"#,
    "grouped.weight: `sparse_ratio` 0.05 removes none of its 12 channels: 0.05 of the 6 in each of 2 \
     parts is less than one; set `sparse_ratio` to at least 0.167, or exclude `grouped.weight`, `block.weight` from the configuration"
)]
#[case::minimum(
    r#"{"op_names": ["stem"], "sparse_ratio": 0.0, "min_sparse_ratio": 0.2}"#,
    "stem.weight: `min_sparse_ratio` 0.2 removes none of its 8 channels: 0.2 of the 4 in each of 2 \
     parts is less than one; set `min_sparse_ratio` to at least 0.25, or exclude it from the \
     configuration"
)]
#[case::maximum_of_a_global_group(
    r#"{"op_names": ["stem"], "sparse_ratio": 0.5, "global_group_id": 1, "max_sparse_ratio": 0.2}"#,
    "stem.weight: `max_sparse_ratio` 0.2 removes none of its 8 channels: 0.2 of the 4 in each of 2 \
     parts is less than one; set `max_sparse_ratio` to at least 0.25, or exclude it from the \
     configuration"
)]
fn less_than_one_coupled_channel_is_reported(#[case] rule: &str, #[case] expected: &str) {
    let pruner = prune(&format!("[{rule}]"), PrunerConfig::new()).unwrap();
    let compressed = pruner.compress(Budget::none()).unwrap();
    let removed = compressed
        .masks()
        .values()
        .map(|mask| mask.removed())
        .sum::<usize>();
    assert_eq!(removed, 0);
    assert_eq!(compressed.warnings(), [format!("L1NormPruner: {expected}")]);
}

#[rstest]
#[case::maximum(
    r#"{"op_names": ["stem"], "sparse_ratio": 0.5, "max_sparse_ratio": 0.1}"#,
    "stem.weight: `max_sparse_ratio` 0.1 removes none of its 8 blocks: 0.1 of 8 is less than one; \
     set `max_sparse_ratio` to at least 0.125, or exclude it from the configuration"
)]
#[case::maximum_of_a_threshold(
    r#"{"op_names": ["stem"], "sparse_threshold": 9.0, "max_sparse_ratio": 0.1}"#,
    "stem.weight: `max_sparse_ratio` 0.1 removes none of its 8 blocks: 0.1 of 8 is less than one; \
     set `max_sparse_ratio` to at least 0.125, or exclude it from the configuration"
)]
#[case::dependency_group(
    r#"{"op_names": ["grouped", "block"], "sparse_ratio": 0.2, "dependency_group_id": 1,
        "internal_metric_block": 3}"#,
    "grouped.weight: `sparse_ratio` 0.2 removes none of its 12 blocks: 0.2 of the 4 in each of 3 \
     parts is less than one; set `sparse_ratio` to at least 0.25, or exclude `grouped.weight`, `block.weight` from the configuration"
)]
// 72 + 48 + 144 elements, 72 / 8 = 9, 48 / 12 = 4 and 144 / 12 = 12 in a channel.
#[case::ratio_of_a_global_group(
    r#"{"op_types": ["Conv2d"], "sparse_ratio": 0.01, "global_group_id": 1}"#,
    "stem.weight: `sparse_ratio` 0.01 removes none of its 264 elements of global group `1`: that is \
     2, and the smallest part that can go has 4; set it to at least 0.0152"
)]
fn less_than_one_block_is_reported(#[case] rule: &str, #[case] expected: &str) {
    let pruner = prune(&format!("[{rule}]"), alone()).unwrap();
    let compressed = pruner.compress(Budget::none()).unwrap();
    let removed = compressed
        .masks()
        .values()
        .map(|mask| mask.removed())
        .sum::<usize>();
    assert_eq!(removed, 0);
    assert_eq!(compressed.warnings(), [format!("L1NormPruner: {expected}")]);
}

#[test]
fn all_of_them_are_named_at_once() {
    let text = r#"[{"op_types": ["Conv2d", "Linear"], "target_names": ["weight"],
        "sparse_ratio": 0.5, "round_to": 9}]"#;
    let error = prune(text, alone()).unwrap_err();
    let error = cause(&error);
    let PruningError::Several(errors) = error else {
        panic!("{error}");
    };
    assert_eq!(errors.len(), 2);
    let text = error.to_string();
    assert!(
        text.starts_with("2 targets cannot be pruned as they are configured:\n- stem.weight: "),
        "{text}"
    );
    assert!(text.contains("\n- head.weight: "), "{text}");
}

#[rstest]
#[case::zero(r#""sparse_ratio": 0.0"#, 0)]
#[case::the_least(r#""sparse_ratio": 0.125"#, 1)]
#[case::fits(r#""sparse_ratio": 0.5, "round_to": 7"#, 1)]
#[case::minimum(r#""sparse_threshold": 0.0, "min_sparse_ratio": 0.25"#, 2)]
fn what_removes_something_or_is_zero_is_accepted(#[case] goal: &str, #[case] removed: usize) {
    let text = format!(r#"[{{"op_names": ["stem"], {goal}}}]"#);
    let compressed = prune(&text, alone()).unwrap().compress(Budget::none());
    let compressed = compressed.unwrap();
    assert_eq!(count(&compressed.masks(), "stem.weight"), removed);
    assert!(compressed.warnings().is_empty());
}

#[test]
fn a_single_block_may_go_where_none_must_stay() {
    let warnings = |ratio: f64| {
        let text = format!(
            r#"[{{"op_names": ["stem"], "sparse_ratio": {ratio}, "granularity": [-1, -1, -1, -1]}}]"#
        );
        let pruner = prune(&text, alone().with_keep_at_least_one(false)).unwrap();
        pruner.compress(Budget::none()).unwrap().warnings().to_vec()
    };
    assert!(warnings(1.0).is_empty());
    assert_eq!(
        warnings(0.9),
        [
            "L1NormPruner: stem.weight: `sparse_ratio` 0.9 removes none of its 1 block: 0.9 of 1 is \
             less than one; set `sparse_ratio` to at least 1, or exclude it from the configuration"
        ]
    );
}

/// Two convolutions.
#[derive(Module, Debug)]
struct Gated {
    conv: Conv2d,
    head: Conv2d,
}

#[test]
fn channels_that_the_first_one_gates_go_but_for_that_one() {
    let device = Device::flex();
    let net = Gated {
        conv: Conv2dConfig::new([1, 6], [1, 1]).init(&device),
        head: Conv2dConfig::new([6, 2], [1, 1]).init(&device),
    };
    let input = Tensor::<4>::ones([1, 1, 2, 2], &device);
    let evaluator: Evaluator<Gated, ()> =
        Evaluator::new().with_dummy_input(DummyInput::new(input, |net: &Gated, x: Tensor<4>| {
            let x = net.conv.forward(x);
            let gate = sigmoid(x.clone().narrow(1, 0, 1));
            net.head.forward(x * gate)
        }));
    let text = r#"[{"op_names": ["conv"], "sparse_ratio": 0.9}]"#;
    let pruner = L1NormPruner::new(net, rules(text), evaluator, PrunerConfig::new()).unwrap();
    let compressed = pruner.compress(Budget::none()).unwrap();
    let masked = compressed.masked_model().conv.weight.val().into_data();
    let kept = masked.try_to_vec::<f32>().unwrap();
    let kept: Vec<bool> = kept.iter().map(|value| *value != 0.0).collect();
    assert_eq!(kept, [true, false, false, false, false, false]);
}

#[test]
fn the_only_output_of_a_group_cannot_go() {
    let device = Device::flex();
    let grouped = Conv2dConfig::new([4, 2], [1, 1]).with_groups(2);
    let net = Gated {
        conv: grouped.init(&device),
        head: Conv2dConfig::new([2, 1], [1, 1]).init(&device),
    };
    let input = Tensor::<4>::ones([1, 4, 2, 2], &device);
    let evaluator: Evaluator<Gated, ()> = Evaluator::new()
        .with_dummy_input(DummyInput::new(input, |net: &Gated, x: Tensor<4>| {
            net.head.forward(net.conv.forward(x))
        }));
    let text = r#"[{"op_names": ["conv"], "sparse_ratio": 0.5}]"#;
    let error = L1NormPruner::new(net, rules(text), evaluator, PrunerConfig::new());
    assert_eq!(
        cause(&error.unwrap_err()).to_string(),
        "conv.weight: `sparse_ratio` 0.5 removes none of its 2 channels: they are 2 parts that lose \
         equally many, and the only one of each stays; exclude it from the configuration"
    );
}

#[test]
fn a_threshold_below_every_score_is_reported_after_the_run() {
    let text = r#"[{"op_names": ["stem"], "sparse_threshold": 1e-3},
        {"op_names": ["grouped", "block"], "sparse_threshold": 1e3}]"#;
    let compressed = prune(text, PrunerConfig::new()).unwrap();
    let compressed = compressed.compress(Budget::none()).unwrap();
    assert_eq!(
        compressed.warnings(),
        [
            "L1NormPruner: stem.weight: `sparse_threshold` 0.001 removed none of its 8 channels: too \
             few scores are below it"
        ]
    );
}

#[test]
fn the_report_of_a_schedule_is_that_of_its_last_masks() {
    let text = r#"[{"op_names": ["stem"], "sparse_threshold": 1e-3}]"#;
    let options = alone();
    let pruner = LevelPruner::from_compressor(chain(), rules(text), options).unwrap();
    let pruner = AgpPruner::new(pruner, AgpConfig::new(1, 2)).unwrap();
    let compressed = pruner.compress(Budget::steps(3)).unwrap();
    assert_eq!(
        compressed.warnings(),
        [
            "AgpPruner: stem.weight: `sparse_threshold` 0.001 removed none of its 72 blocks: too few \
             scores are below it"
        ]
    );
    // The sigmoid of a score that has not moved is 0.5.
    let text = r#"[{"op_names": ["stem"], "sparse_threshold": 1e-3}]"#;
    let options = MovementConfig::new(0, 2).with_pruner(options);
    let pruner = MovementPruner::from_compressor(chain(), rules(text), options).unwrap();
    let compressed = pruner.compress(Budget::steps(3)).unwrap();
    let expected = [
        "MovementPruner: the batch norm `norm` behind `stem` cancels the scale",
        "MovementPruner: stem.weight: `sparse_threshold` 0.001 removed none",
    ];
    assert_eq!(compressed.warnings().len(), expected.len());
    for (warning, expected) in compressed.warnings().iter().zip(expected) {
        assert!(warning.starts_with(expected), "{warning}");
    }
}

/// What an evaluator needs to train, with a loss that is always finite.
fn training(device: &Device) -> Evaluator<Conv2d, Tensor<4>> {
    let input = Tensor::<4>::ones([1, 1, 2, 2], device);
    let batch = input.clone();
    Evaluator::new()
        .with_dummy_input(DummyInput::new(input, |net: &Conv2d, x| net.forward(x)))
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(1e-3)
        .with_loss(|net: &Conv2d, x: &Tensor<4>| net.forward(x.clone()).square().mean())
}

#[test]
fn a_ratio_is_no_more_than_a_number_of_blocks_needs() {
    // int(49 * (1 / 49)) is 0 in double precision: the ratio that is named has to work.
    let device = Device::flex();
    let prune = |ratio: f64| {
        let net = Conv2dConfig::new([1, 49], [1, 1]).init(&device);
        let text = format!(r#"[{{"op_types": ["Conv2d"], "sparse_ratio": {ratio}}}]"#);
        L1NormPruner::new(net, rules(&text), training(&device), alone())
    };
    let warnings = |ratio: f64| {
        let compressed = prune(ratio).unwrap().compress(Budget::none()).unwrap();
        compressed.warnings().to_vec()
    };
    let text = warnings(0.02).concat();
    assert!(
        text.contains("set `sparse_ratio` to at least 0.021,"),
        "{text}"
    );
    assert!(warnings(0.021).is_empty());
}

#[test]
fn a_cut_of_the_graph_needs_coupled_masks() {
    let options = alone().with_cut_of(CutOf::Graph);
    let error = prune(r#"[{"op_names": ["stem"], "sparse_ratio": 0.5}]"#, options).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`cut_of` is graph; expected `coupled`"),
        "{text}"
    );
}
