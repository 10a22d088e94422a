//! Rounding, and groups with internal blocks.

use crate::mask::{MaskConfig, MaskTarget, generate};
use crate::{Blocks, PruningSettings};

fn settings(text: &str) -> PruningSettings {
    serde_json::from_str(text).unwrap()
}

fn target(key: &str, scores: &[f32], len: usize, text: &str) -> MaskTarget<String> {
    let blocks = Blocks::new(&[scores.len(), len], &[1, -1]).unwrap();
    MaskTarget::new(key.to_string(), blocks, settings(text)).with_scores(scores.to_vec())
}

fn bits(targets: &[MaskTarget<String>]) -> Vec<String> {
    let bit = |keep: &bool| if *keep { '1' } else { '0' };
    let masks = generate(targets, MaskConfig::new()).unwrap();
    let masks = masks.values();
    masks
        .map(|mask| mask.keep().iter().map(bit).collect())
        .collect()
}

#[test]
fn kept_blocks_are_rounded_up_to_a_multiple() {
    let scores = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
    let kept = |text: &str| {
        bits(&[target("a", &scores, 1, text)])[0]
            .matches('1')
            .count()
    };
    // int(10 * 0.5) = 5 go, 5 stay: 6 with a multiple of 3, 8 with 4, 10 with 16.
    for (multiple, expected) in [(1, 5), (3, 6), (4, 8), (5, 5), (16, 10)] {
        let ratio = format!(r#"{{"sparse_ratio": 0.5, "round_to": {multiple}}}"#);
        assert_eq!(kept(&ratio), expected, "{multiple}");
        let threshold = format!(r#"{{"sparse_threshold": 5.5, "round_to": {multiple}}}"#);
        assert_eq!(kept(&threshold), expected, "{multiple}");
    }
    // It wins over a minimum.
    let text = r#"{"sparse_ratio": 0.5, "min_sparse_ratio": 0.5, "round_to": 4}"#;
    assert_eq!(kept(text), 8);
}

#[test]
fn a_dependency_group_keeps_a_multiple_over_all_parts() {
    // Two parts of 5: int(5 * 0.5) = 2 go and 3 stay in each, 6 together. A multiple of 4 over
    // both is a multiple of 2 in each: 4.
    let text = |multiple: usize| {
        format!(
            r#"{{"sparse_ratio": 0.5, "dependency_group_id": 1, "internal_metric_block": 2,
                "round_to": {multiple}}}"#
        )
    };
    let scores = [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 4.0, 3.0, 2.0, 1.0];
    assert_eq!(bits(&[target("a", &scores, 1, &text(1))]), ["0011111100"]);
    assert_eq!(bits(&[target("a", &scores, 1, &text(4))]), ["0111111110"]);
    // The least common multiple of 2 and 4.
    let both = [
        target("a", &scores, 1, &text(2)),
        target("b", &scores, 1, &text(4)),
    ];
    assert_eq!(bits(&both), ["0111111110", "0111111110"]);
}

#[test]
fn members_of_a_global_group_are_rounded_after_the_ranking() {
    let text = r#"{"sparse_ratio": 0.5, "global_group_id": 1, "round_to": 2}"#;
    let targets = [
        target("a", &[1.0, 2.0, 3.0, 9.0], 1, text),
        target("b", &[4.0, 6.0, 7.0, 8.0], 1, text),
    ];
    // 1, 2, 3 and 4 would go: one and three stay, then two and four.
    assert_eq!(bits(&targets), ["0011", "1111"]);
}

#[test]
fn internal_blocks_are_ranked_globally_by_their_means() {
    let parts = r#"{"sparse_ratio": 0.5, "global_group_id": 1, "internal_metric_block": 2}"#;
    let plain = r#"{"sparse_ratio": 0.5, "global_group_id": 1}"#;
    // The n-th smallest of both parts of `a`: (1, 5) with mean 3, (2, 6) with mean 4. Of 8
    // elements 4 go: 2 of `b`, then the pair of mean 3.
    let targets = [
        target("a", &[1.0, 2.0, 6.0, 5.0], 1, parts),
        target("b", &[2.5, 2.0, 9.0, 3.5], 1, plain),
    ];
    assert_eq!(bits(&targets), ["0110", "0011"]);
    let error = generate(
        &[target("a", &[1.0, 2.0, 3.0], 1, parts)],
        MaskConfig::new(),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "a: group `1`: 3 scores cannot be split into 2 equal internal blocks; set \
         `internal_metric_block` to a divisor"
    );
}

#[test]
fn a_maximum_and_a_minimum_hold_among_the_ranked() {
    let text = r#"{"sparse_ratio": 0.5, "global_group_id": 1, "max_sparse_ratio": 0.75,
        "min_sparse_ratio": 0.25}"#;
    // The ranking alone would take all of `a`.
    let targets = [
        target("a", &[1.0, 2.0, 3.0, 4.0], 1, text),
        target("b", &[5.0, 6.0, 7.0, 8.0], 1, text),
    ];
    assert_eq!(bits(&targets), ["0001", "0111"]);
}

#[test]
fn a_goal_that_a_schedule_has_not_begun_to_raise_removes_nothing() {
    let text = r#"{"sparse_ratio": 0.5, "max_sparse_ratio": 0.5, "min_sparse_ratio": 0.25}"#;
    let mut started = target("a", &[1.0, 2.0], 1, text);
    started.settings = started.settings.scaled(0.0);
    assert_eq!(bits(&[started]), ["11"]);
}
