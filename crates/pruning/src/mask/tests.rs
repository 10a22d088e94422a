use super::*;
use crate::{Blocks, PruningSettings};

mod alignments;
mod properties;

type Test = Result<(), PruningError>;

fn rows(count: usize, len: usize) -> Blocks {
    Blocks::new(&[count, len], &[1, -1]).unwrap()
}

fn ratio(ratio: f64) -> PruningSettings {
    PruningSettings {
        sparse_ratio: Some(ratio),
        ..Default::default()
    }
}

fn threshold(threshold: f64) -> PruningSettings {
    PruningSettings {
        sparse_threshold: Some(threshold),
        ..Default::default()
    }
}

fn target(key: &str, scores: &[f32], len: usize, settings: PruningSettings) -> MaskTarget<String> {
    MaskTarget::new(key.to_string(), rows(scores.len(), len), settings).with_scores(scores.to_vec())
}

/// The kept blocks as a string of 0 and 1, for each target.
fn bits(targets: &[MaskTarget<String>], config: MaskConfig) -> Result<Vec<String>, PruningError> {
    let masks = generate(targets, config)?;
    let bit = |keep: &bool| if *keep { '1' } else { '0' };
    Ok(masks
        .values()
        .map(|mask| mask.keep().iter().map(bit).collect())
        .collect())
}

const DEFAULT: MaskConfig = MaskConfig {
    keep_at_least_one: true,
};
const NO_FLOOR: MaskConfig = MaskConfig {
    keep_at_least_one: false,
};

#[test]
fn a_ratio_removes_the_integer_part() -> Test {
    let scores = [5.0, 1.0, 4.0, 2.0, 3.0];
    // int(5 * 0.5) = 2, int(5 * 0.19) = 0.
    assert_eq!(
        bits(&[target("a", &scores, 1, ratio(0.5))], DEFAULT)?,
        ["10101"]
    );
    assert_eq!(
        bits(&[target("a", &scores, 1, ratio(0.19))], DEFAULT)?,
        ["11111"]
    );
    Ok(())
}

#[test]
fn a_ratio_stays_within_minimum_and_maximum() -> Test {
    let scores = [5.0, 1.0, 4.0, 2.0];
    let mut settings = ratio(1.0);
    settings.max_sparse_ratio = Some(0.5);
    assert_eq!(
        bits(&[target("a", &scores, 1, settings)], DEFAULT)?,
        ["1010"]
    );
    let mut settings = ratio(0.0);
    settings.min_sparse_ratio = Some(0.25);
    assert_eq!(
        bits(&[target("a", &scores, 1, settings)], DEFAULT)?,
        ["1011"]
    );
    Ok(())
}

#[test]
fn one_block_stays_unless_told_otherwise() -> Test {
    for settings in [ratio(1.0), threshold(100.0)] {
        let targets = [target("a", &[1.0, 3.0, 2.0], 1, settings)];
        assert_eq!(bits(&targets, DEFAULT)?, ["010"]);
        assert_eq!(bits(&targets, NO_FLOOR)?, ["000"]);
    }
    Ok(())
}

#[test]
fn a_threshold_keeps_what_reaches_it() -> Test {
    let scores = [0.1, 0.7, 0.3, 0.2];
    assert_eq!(
        bits(&[target("a", &scores, 1, threshold(0.3))], DEFAULT)?,
        ["0110"]
    );
    // 2 of 4 below 0.3: more than a maximum of 0.25, less than a minimum of 0.75.
    let mut settings = threshold(0.3);
    settings.max_sparse_ratio = Some(0.25);
    assert_eq!(
        bits(&[target("a", &scores, 1, settings)], DEFAULT)?,
        ["0111"]
    );
    let mut settings = threshold(0.3);
    settings.min_sparse_ratio = Some(0.75);
    assert_eq!(
        bits(&[target("a", &scores, 1, settings)], DEFAULT)?,
        ["0100"]
    );
    Ok(())
}

fn member(key: &str, scores: &[f32], block: Option<usize>) -> MaskTarget<String> {
    let settings = PruningSettings {
        dependency_group_id: Some("add".to_string()),
        internal_metric_block: block,
        ..ratio(0.5)
    };
    target(key, scores, 3, settings)
}

#[test]
fn a_dependency_group_averages_its_members() -> Test {
    // Means: 2, 3, 1.5, 4.
    let targets = [
        member("a", &[1.0, 2.0, 3.0, 4.0], None),
        member("b", &[3.0, 4.0, 0.0, 4.0], None),
        target("c", &[1.0, 2.0], 1, ratio(0.5)),
    ];
    assert_eq!(bits(&targets, DEFAULT)?, ["0101", "0101", "01"]);
    Ok(())
}

#[test]
fn internal_blocks_lose_equally_many() -> Test {
    // lcm(2, 1) = 2 parts of 3: one of three is removed in each, int(3 * 0.5) = 1.
    let scores = [1.0, 2.0, 3.0, 9.0, 7.0, 8.0];
    let targets = [member("a", &scores, Some(2)), member("b", &scores, None)];
    assert_eq!(bits(&targets, DEFAULT)?, ["011101", "011101"]);
    let error = bits(&[member("a", &scores, Some(4))], DEFAULT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a: group `add`: 6 scores cannot be split into 4 equal internal blocks; set \
         `internal_metric_block` to a divisor"
    );
    Ok(())
}

#[test]
fn a_dependency_group_honours_every_maximum() -> Test {
    let mut targets = [
        member("a", &[1.0, 2.0, 3.0, 4.0], None),
        member("b", &[1.0, 2.0, 3.0, 4.0], None),
    ];
    targets[1].settings.max_sparse_ratio = Some(0.25);
    assert_eq!(bits(&targets, DEFAULT)?, ["0111", "0111"]);
    targets[0].settings.min_sparse_ratio = Some(0.5);
    let error = bits(&targets, DEFAULT).unwrap_err().to_string();
    assert!(
        error.starts_with("a: group `add`: `min_sparse_ratio` is 0.5"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_threshold_in_a_dependency_group_removes_the_smallest_count_of_its_parts() -> Test {
    // Below 3: two in the first part, one in the second.
    let mut a = member("a", &[1.0, 2.0, 3.0, 9.0, 1.0, 8.0], Some(2));
    a.settings.sparse_ratio = None;
    a.settings.sparse_threshold = Some(3.0);
    assert_eq!(bits(&[a], DEFAULT)?, ["011101"]);
    Ok(())
}

#[test]
fn rows_can_depend_on_columns() -> Test {
    let mut b = member("b", &[1.0, 2.0, 3.0, 4.0], None);
    b.blocks = Blocks::new(&[7, 4], &[-1, 1]).unwrap();
    assert_eq!(
        bits(&[member("a", &[0.0; 4], None), b], DEFAULT)?,
        ["0011", "0011"]
    );
    Ok(())
}

#[test]
fn members_of_a_group_must_agree() {
    let mut other = member("b", &[1.0, 2.0], None);
    other.settings.sparse_ratio = Some(0.25);
    let error = bits(&[member("a", &[1.0, 2.0], None), other], DEFAULT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "b: group `add`: `sparse_ratio` is 0.25, but 0.5 for its member a; let the members agree, or \
         give them different groups"
    );
    let targets = [member("a", &[1.0, 2.0], None), member("b", &[1.0], None)];
    let error = bits(&targets, DEFAULT).unwrap_err();
    assert!(matches!(&error, PruningError::Target { target, source }
        if target == "b" && matches!(**source, PruningError::GroupShape { .. })));
}

fn ranked(
    key: &str,
    scores: &[f32],
    len: usize,
    wanted: f64,
    min: Option<f64>,
    max: Option<f64>,
) -> MaskTarget<String> {
    let settings = PruningSettings {
        global_group_id: Some("g".to_string()),
        min_sparse_ratio: min,
        max_sparse_ratio: max,
        ..ratio(wanted)
    };
    target(key, scores, len, settings)
}

#[test]
fn a_global_group_counts_elements() -> Test {
    // 4 * 1 + 2 * 3 = 10 elements, 5 to remove. In order: 0.1 (1), 0.2 (3), 0.3 (1), then 0.4 (3)
    // would exceed; 0.5 is not looked at.
    let a = ranked("a", &[0.1, 0.3, 0.5, 0.6], 1, 0.5, None, None);
    let b = ranked("b", &[0.2, 0.4], 3, 0.5, None, None);
    assert_eq!(bits(&[a, b], DEFAULT)?, ["0011", "01"]);
    Ok(())
}

#[test]
fn a_global_group_holds_each_maximum_and_minimum() -> Test {
    // 4 of 8. Without a maximum, `a` would lose all; with 0.5 it loses 2 and `b` the other 2.
    let a = ranked("a", &[0.1, 0.2, 0.3, 0.4], 1, 0.5, None, Some(0.5));
    let b = ranked("b", &[1.1, 1.2, 1.3, 1.4], 1, 0.5, None, None);
    assert_eq!(bits(&[a, b], DEFAULT)?, ["0011", "0011"]);
    // `b` must lose 3, which leaves 1 for `a`.
    let a = ranked("a", &[0.1, 0.2, 0.3, 0.4], 1, 0.5, None, None);
    let b = ranked("b", &[1.1, 1.2, 1.3, 1.4], 1, 0.5, Some(0.75), None);
    assert_eq!(bits(&[a, b], DEFAULT)?, ["0111", "0001"]);
    Ok(())
}

#[test]
fn a_global_group_beyond_its_bounds_stops_at_them() -> Test {
    let a = ranked("a", &[0.1, 0.2, 0.3, 0.4], 1, 0.25, Some(0.5), None);
    let b = ranked("b", &[1.1, 1.2, 1.3, 1.4], 1, 0.25, Some(0.25), None);
    assert_eq!(bits(&[a, b], DEFAULT)?, ["0011", "0111"]);
    let a = ranked("a", &[0.1, 0.2, 0.3, 0.4], 1, 1.0, None, Some(0.5));
    let b = ranked("b", &[1.1, 1.2], 1, 1.0, None, None);
    assert_eq!(bits(&[a.clone(), b.clone()], DEFAULT)?, ["0011", "01"]);
    assert_eq!(bits(&[a, b], NO_FLOOR)?, ["0011", "00"]);
    Ok(())
}

#[test]
fn a_global_group_counts_minima_in_elements() -> Test {
    // int(12 * 0.5) = 6 elements are the minimum of `a`, of which one block of 4 goes. 6 of 16 are
    // wanted: no more than the minima, so `b` loses nothing.
    let a = ranked("a", &[1.1, 1.2, 1.3], 4, 0.375, Some(0.5), None);
    let b = ranked("b", &[0.1, 0.2, 0.3, 0.4], 1, 0.375, None, None);
    assert_eq!(bits(&[a, b], DEFAULT)?, ["011", "1111"]);
    Ok(())
}

#[test]
fn a_global_group_leaves_one_block_in_each_member() -> Test {
    let a = ranked("a", &[0.1, 0.2], 1, 0.5, None, None);
    let b = ranked("b", &[1.1, 1.2], 1, 0.5, None, None);
    assert_eq!(bits(&[a.clone(), b.clone()], DEFAULT)?, ["01", "01"]);
    assert_eq!(bits(&[a, b], NO_FLOOR)?, ["00", "11"]);
    Ok(())
}

#[test]
fn a_dependency_group_goes_before_a_global_group() -> Test {
    let mut a = member("a", &[1.0, 2.0], None);
    a.settings.global_group_id = Some("g".to_string());
    let b = ranked("b", &[5.0, 6.0], 1, 0.5, None, None);
    assert_eq!(bits(&[a, b], DEFAULT)?, ["01", "01"]);
    Ok(())
}

#[test]
fn scores_must_be_there_and_be_numbers() {
    let check = |target: MaskTarget<String>, message: &str| {
        let error = bits(&[target], DEFAULT).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    };
    check(
        target("a", &[1.0, f32::NAN], 1, ratio(0.5)),
        "a: the score of block 1 is NaN",
    );
    let target = MaskTarget::new("a".to_string(), rows(2, 1), ratio(0.5));
    check(target.clone(), "a: found 0 scores, expected 2");
    check(
        target.with_scores(vec![1.0]),
        "a: found 1 scores, expected 2",
    );
    let twice = self::target("a", &[1.0], 1, ratio(0.5));
    let error = bits(&[twice.clone(), twice], DEFAULT).unwrap_err();
    assert_eq!(
        error.to_string(),
        PruningError::Duplicate.at("a").to_string()
    );
}

#[test]
fn scores_whose_mean_is_no_number_are_refused() {
    let opposite = [f32::NEG_INFINITY, 1.0, 2.0, 3.0];
    let text = |targets: &[MaskTarget<String>]| bits(targets, DEFAULT).unwrap_err().to_string();
    let targets = [
        member("a", &[f32::INFINITY, 1.0, 2.0, 3.0], None),
        member("b", &opposite, None),
    ];
    let found = text(&targets);
    assert!(
        found.starts_with("a: the score of block 0 is NaN"),
        "{found}"
    );
    let mut parts = ranked("a", &[f32::INFINITY, f32::NEG_INFINITY], 1, 0.5, None, None);
    parts.settings.internal_metric_block = Some(2);
    let found = bits(&[parts], NO_FLOOR).unwrap_err().to_string();
    assert!(
        found.starts_with("a: the score of block 0 is NaN"),
        "{found}"
    );
}

#[test]
fn a_tie_goes_against_the_block_that_is_pruned() -> Test {
    let tie = target("a", &[0.0, 0.0, 1.0], 1, ratio(0.34));
    assert_eq!(bits(std::slice::from_ref(&tie), DEFAULT)?, ["011"]);
    assert_eq!(
        bits(&[tie.with_current(&[true, false, true])], DEFAULT)?,
        ["101"]
    );
    Ok(())
}
