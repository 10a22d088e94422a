use burn::nn::Linear;
use burn_compress_core::{Budget, Compressor, Error, Wrapper};
use rstest::rstest;

use super::*;
use crate::sources::models::{
    Normed, alone, chain, close, columns, difference, effective, raw, removed, rules,
};
use crate::{AgpConfig, AgpPruner};

type Chain = Compressor<Wrapper<Linear>, ()>;

const HALF: &str = r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#;
const THRESHOLD: &str = r#"[{"op_types": ["Linear"], "sparse_threshold": 0.5}]"#;

fn movement(config: &str, options: MovementConfig) -> Chain {
    let options = options.with_pruner(alone());
    MovementPruner::from_compressor(chain(), rules(config), options).unwrap()
}

/// As the paper has it: scores and masks move in the cool-down as well.
fn going_on(warmup: usize, cooldown: usize) -> MovementConfig {
    MovementConfig::new(warmup, cooldown).with_train_after_masks(true)
}

fn scores(chain: &mut Chain) -> Vec<f32> {
    chain.chain().learnables()[0].values().unwrap()
}

#[test]
fn scores_follow_the_weights_by_hand() {
    let mut chain = movement(HALF, going_on(0, 1));
    let budget = Budget::steps(2);
    // The columns [1, 3] and [2, 4] have gradients of 1 and -1: the scores get 4 and -6.
    chain.advance(&budget, Some(1)).unwrap();
    close(&scores(&mut chain), &[-0.01, 0.01]);
    close(&raw(chain.model()), &[0.9, 2.1, 2.9, 4.1]);
    assert_eq!(chain.masks()[0].values(), [0.0, 1.0, 0.0, 1.0]);
    // The masked column does not move, its score does: the gradients are 0.9 + 2.9 and -6.2.
    // Adam: 0.74 / 0.19 / sqrt(0.030424 / 0.001999) = 0.998335 of the learning rate, and
    // 1.16 / 0.19 / sqrt(0.074404 / 0.001999) = 1.000720.
    chain.advance(&budget, None).unwrap();
    close(&scores(&mut chain), &[-0.019_983_35, 0.020_007_2]);
    close(&raw(chain.model()), &[0.9, 2.2, 2.9, 4.2]);
    let before = effective(chain.model());
    close(&before, &[0.0, 2.2, 0.0, 4.2]);
    let compressed = chain.finish().unwrap();
    assert_eq!(effective(compressed.model()), before);
    close(&raw(compressed.model()), &[0.9, 2.2, 2.9, 4.2]);
}

#[test]
fn nothing_is_masked_in_the_warm_up() {
    let mut chain = movement(HALF, MovementConfig::new(2, 4));
    let removed: Vec<usize> = (1..=5)
        .map(|step| {
            chain.advance(&Budget::steps(5), Some(step)).unwrap();
            chain
                .masks()
                .get_index(0)
                .map_or(0, |(_, mask)| mask.removed())
        })
        .collect();
    // 7/8 of the goal after step 3 is no whole column, int(2 * 0.4375). After step 4 one goes, of
    // two elements.
    assert_eq!(removed, [0, 0, 0, 2, 2]);
}

#[test]
fn a_block_comes_back_when_its_score_does() {
    let mut chain = movement(HALF, going_on(0, 1));
    let budget = Budget::steps(3);
    chain.advance(&budget, Some(1)).unwrap();
    assert_eq!(chain.masks()[0].values(), [0.0, 1.0, 0.0, 1.0]);
    chain.chain().learnables()[0]
        .set_values(vec![1.0, -1.0])
        .unwrap();
    chain.advance(&budget, Some(2)).unwrap();
    assert_eq!(chain.masks()[0].values(), [1.0, 0.0, 1.0, 0.0]);
}

#[test]
fn masks_settle_in_the_cool_down() {
    let mut chain = movement(HALF, MovementConfig::new(0, 1));
    let budget = Budget::steps(3);
    chain.advance(&budget, Some(1)).unwrap();
    assert_eq!(chain.masks()[0].values(), [0.0, 1.0, 0.0, 1.0]);
    chain.chain().learnables()[0]
        .set_values(vec![1.0, -1.0])
        .unwrap();
    chain.advance(&budget, None).unwrap();
    assert_eq!(scores(&mut chain), [1.0, -1.0]);
    assert_eq!(chain.masks()[0].values(), [0.0, 1.0, 0.0, 1.0]);
    // The masked column keeps its raw weights, the other goes on: 2 + 3 * 0.1 and 4 + 3 * 0.1.
    close(&raw(chain.model()), &[0.9, 2.3, 2.9, 4.3]);
}

#[test]
fn the_scores_of_a_batch_norm_decide_about_the_layer_in_front() {
    let config = rules(r#"[{"op_names": ["conv", "bn"], "sparse_ratio": 0.5}]"#);
    let options = MovementConfig::new(0, 1);
    let mut chain = MovementPruner::from_compressor(Normed::chain(), &config, options).unwrap();
    let learnables = chain.chain().learnables();
    assert_eq!(learnables.len(), 1);
    assert_eq!(learnables[0].name(), "bn.gamma");
    // A step moves each by 0.01.
    learnables[0].set_values(vec![0.2, -3.0, 1.0, 0.1]).unwrap();
    let compressed = chain.compress(Budget::steps(2)).unwrap();
    let expected = [false, true, false, true];
    for target in ["conv.weight", "conv.bias", "bn.gamma", "bn.beta"] {
        assert_eq!(removed(&compressed, target), expected, "{target}");
    }
}

#[test]
fn a_threshold_is_one_of_the_sigmoid_and_comes_with_a_penalty() {
    let mut chain = movement(THRESHOLD, going_on(0, 2).with_regular_scale(4.0));
    let budget = Budget::steps(3);
    chain.advance(&budget, Some(1)).unwrap();
    // No penalty before the first step; 7/8 of the threshold lies below both sigmoids after it.
    assert!((chain.history().steps[0].loss + 2.0).abs() < 1e-6);
    close(&scores(&mut chain), &[-0.01, 0.01]);
    assert_eq!(chain.masks()[0].removed(), 0);
    // The loss is 0.9 + 2.9 - 2.1 - 4.1, the penalty 4 * 7/8 of the mean of sigmoid(-0.01) and
    // sigmoid(0.01), which is 0.5. After step 2 the threshold lies between the two.
    chain.advance(&budget, Some(2)).unwrap();
    assert!((chain.history().steps[1].loss - (-2.4 + 1.75)).abs() < 1e-5);
    assert_eq!(chain.masks()[0].values(), [0.0, 1.0, 0.0, 1.0]);
    // -2.2 - 4.2 and the whole penalty.
    chain.advance(&budget, None).unwrap();
    let loss = chain.history().steps[2].loss;
    assert!((loss - (-6.4 + 2.0)).abs() < 1e-3, "{loss}");
}

#[test]
fn coupled_channels_leave_together() {
    let config = rules(r#"[{"op_names": ["conv"], "sparse_ratio": 0.5}]"#);
    let options = MovementConfig::new(1, 3);
    let chain = MovementPruner::from_compressor(Normed::chain(), &config, options).unwrap();
    let compressed = chain.compress(Budget::steps(4)).unwrap();
    let conv = removed(&compressed, "conv.weight");
    assert_eq!(conv.iter().filter(|removed| **removed).count(), 2);
    for target in ["conv.bias", "bn.gamma", "bn.beta"] {
        assert_eq!(removed(&compressed, target), conv, "{target}");
    }
}

#[rstest]
#[case(MovementConfig::new(3, 3), "warmup_step")]
#[case(MovementConfig::new(4, 3), "warmup_step")]
#[case(MovementConfig::new(0, 0), "warmup_step")]
#[case(MovementConfig::new(0, 1).with_regular_scale(-1.0), "regular_scale")]
#[case(MovementConfig::new(0, 1).with_regular_scale(f64::NAN), "regular_scale")]
#[case(MovementConfig::new(0, 1).with_learning_rate(f64::NAN), "learning_rate")]
fn bad_settings_are_named(#[case] config: MovementConfig, #[case] expected: &str) {
    let error = MovementPruner::new(columns(), rules(HALF), difference(), config).unwrap_err();
    match error.downcast_ref() {
        Some(PruningError::Setting { key, .. }) => assert_eq!(*key, expected),
        _ => panic!("{error}"),
    }
}

#[test]
fn only_parameters_that_are_multiplied_have_scores() {
    let refused = |config: &str| {
        let options = MovementConfig::new(0, 1).with_pruner(alone());
        let error = MovementPruner::from_compressor(chain(), rules(config), options).unwrap_err();
        error.to_string()
    };
    let error = refused(
        r#"[{"op_types": ["Linear"], "target_names": ["_output_0"], "sparse_ratio": 0.5}]"#,
    );
    assert!(error.contains("cannot be scored"), "{error}");
    let error =
        refused(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5, "apply_method": "add"}]"#);
    assert!(error.contains("apply_method"), "{error}");
    let error = refused(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5, "activation": "relu"}]"#);
    assert!(error.contains("activation"), "{error}");
}

#[test]
fn the_budget_reaches_the_cool_down() {
    let error = movement(HALF, MovementConfig::new(1, 4)).compress(Budget::steps(3));
    assert!(matches!(error, Err(Error::Budget { .. })));
}

#[test]
fn it_has_a_schedule_of_its_own() {
    let chain = movement(HALF, MovementConfig::new(0, 1));
    let error = AgpPruner::new(chain, AgpConfig::new(1, 1)).unwrap_err();
    let cause = error.downcast_ref();
    assert!(matches!(
        cause,
        Some(PruningError::NothingToSchedule { .. })
    ));
}

#[rstest]
#[case(HALF)]
#[case(THRESHOLD)]
fn a_resumed_run_goes_on_bit_for_bit(#[case] config: &str) {
    let file = format!("movement-{}-{}.ckpt", std::process::id(), config.len());
    let path = std::env::temp_dir().join(file);
    let start = || movement(config, MovementConfig::new(1, 4));
    let whole = start().compress(Budget::steps(6)).unwrap();
    for stop in 0..6 {
        let mut first = start();
        first.advance(&Budget::steps(6), Some(stop)).unwrap();
        first.save_checkpoint(&path).unwrap();
        let mut second = start().resume(&path).unwrap();
        assert_eq!(scores(&mut first), scores(&mut second));
        let resumed = second.compress(Budget::steps(6)).unwrap();
        assert_eq!(raw(resumed.model()), raw(whole.model()), "{stop}");
        assert_eq!(resumed.masks(), whole.masks(), "{stop}");
        assert_eq!(resumed.history().steps, whole.history().steps, "{stop}");
    }
    std::fs::remove_file(path).unwrap();
}
