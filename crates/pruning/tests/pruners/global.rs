//! One rule over a whole model, ranked together.

use burn::tensor::Tensor;
use burn_compress_core::{Budget, Masks};
use burn_compress_pruning::{
    AgpConfig, AgpPruner, L1NormPruner, LampPruner, PrunerConfig, TaylorConfig, TaylorPruner,
};
use rstest::rstest;

use crate::nets::{cause, chain, count, net, removed, rules};

/// The elements of one channel of the stem and of the channels that the convolutions share.
const STEM: usize = 9;
const SHARED: usize = 4 + 12;

fn pruned(settings: &str) -> Masks {
    let text = format!(r#"[{{"op_types": ["Conv2d"], "global_group_id": "model", {settings}}}]"#);
    let pruner = L1NormPruner::from_compressor(chain(), rules(&text), PrunerConfig::new());
    pruner.unwrap().compress(Budget::none()).unwrap().masks()
}

/// The channels that are lost, after a check that both halves of each group lose equally many.
fn lost(masks: &Masks) -> [usize; 2] {
    for weight in ["stem.weight", "grouped.weight", "block.weight"] {
        let removed = removed(masks, weight);
        let (left, right) = removed.split_at(removed.len() / 2);
        let count = |half: &[bool]| half.iter().filter(|r| **r).count();
        assert_eq!(count(left), count(right), "{weight}");
    }
    assert_eq!(
        removed(masks, "grouped.weight"),
        removed(masks, "block.weight")
    );
    assert_eq!(removed(masks, "stem.weight"), removed(masks, "norm.beta"));
    [count(masks, "stem.weight"), count(masks, "grouped.weight")]
}

/// The channels that a ranking over the model removes, by hand: pairs of channels, one of each
/// half, smallest mean first, until the next pair would exceed the ratio.
fn expected(ratio: f64) -> [usize; 2] {
    let net = net(1);
    let norms = |weight: Tensor<4>| -> Vec<f32> {
        let norms: Tensor<1> = weight.abs().flatten::<2>(1, 3).sum_dim(1).squeeze();
        norms.into_data().try_to_vec().unwrap()
    };
    let pairs = |norms: Vec<f32>| -> Vec<f32> {
        let mut halves = norms.chunks(norms.len() / 2).map(|half| {
            let mut half = half.to_vec();
            half.sort_by(f32::total_cmp);
            half
        });
        let (left, right) = (halves.next().unwrap(), halves.next().unwrap());
        // One channel stays in each half.
        let pairs = left.iter().zip(&right).map(|(a, b)| (a + b) / 2.0);
        pairs.take(left.len() - 1).collect()
    };
    let grouped = norms(net.grouped.weight.val());
    let block = norms(net.block.weight.val());
    let shared = grouped.iter().zip(&block).map(|(a, b)| (a + b) / 2.0);
    let stem = pairs(norms(net.stem.weight.val()));
    let mut all: Vec<(f32, usize)> = stem.into_iter().map(|score| (score, 0)).collect();
    all.extend(pairs(shared.collect()).into_iter().map(|score| (score, 1)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut elements, mut removed) = (0, [0, 0]);
    let goal = ratio * (8 * STEM + 12 * SHARED) as f64;
    for (_, unit) in all {
        elements += 2 * [STEM, SHARED][unit];
        if elements as f64 > goal {
            break;
        }
        removed[unit] += 2;
    }
    removed
}

#[rstest]
#[case(0.1)]
#[case(0.2)]
#[case(0.4)]
#[case(0.5)]
#[case(0.7)]
fn coupled_groups_are_ranked_to_the_ratio_within_one_block(#[case] ratio: f64) {
    let [stem, shared] = lost(&pruned(&format!(r#""sparse_ratio": {ratio}"#)));
    assert_eq!([stem, shared], expected(ratio));
    let goal = ratio * (8 * STEM + 12 * SHARED) as f64;
    let elements = (stem * STEM + shared * SHARED) as f64;
    assert!(elements <= goal && elements > goal - 1.0 - (2 * SHARED) as f64);
}

#[test]
fn every_layer_keeps_its_minimum_and_maximum() {
    let [stem, shared] = lost(&pruned(
        r#""sparse_ratio": 0.5, "max_sparse_ratio": 0.5, "min_sparse_ratio": 0.25"#,
    ));
    assert!((2..=4).contains(&stem) && shared <= 6, "{stem} {shared}");
    // 0.5 of all is what both maxima together allow, less the pair that would exceed it.
    assert_eq!([stem, shared], [4, 6]);
    let [stem, shared] = lost(&pruned(r#""sparse_ratio": 0.9, "max_sparse_ratio": 0.34"#));
    // int(4 * 0.34) = 1 of each half of the stem, int(6 * 0.34) = 2 of the others.
    assert_eq!([stem, shared], [2, 4]);
    let [stem, shared] = lost(&pruned(r#""sparse_ratio": 0.1, "min_sparse_ratio": 0.5"#));
    assert_eq!([stem, shared], [4, 6]);
}

#[test]
fn parts_that_are_asked_for_hold_beside_those_of_the_graph() {
    // The graph asks for 2 parts, the configuration for 4 and 3: 4 and 6 together.
    for (parts, all) in [(4, 4), (3, 6)] {
        let text = format!(
            r#"[{{"op_names": ["grouped", "block"], "global_group_id": 1, "sparse_ratio": 0.6,
                "internal_metric_block": {parts}}}]"#
        );
        let pruner = L1NormPruner::from_compressor(chain(), rules(&text), PrunerConfig::new());
        let masks = pruner.unwrap().compress(Budget::none()).unwrap().masks();
        let removed = removed(&masks, "block.weight");
        let counts: Vec<usize> = removed
            .chunks(12 / all)
            .map(|part| part.iter().filter(|removed| **removed).count())
            .collect();
        assert!(
            counts[0] > 0 && counts.iter().all(|count| *count == counts[0]),
            "{counts:?}"
        );
    }
    let text = r#"[{"op_names": ["grouped", "block"], "global_group_id": 1, "sparse_ratio": 0.6,
        "internal_metric_block": 5}]"#;
    let pruner = L1NormPruner::from_compressor(chain(), rules(text), PrunerConfig::new());
    let error = pruner.map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("12 scores cannot be split into 10 equal"),
        "{error}"
    );
}

#[test]
fn kept_channels_are_rounded_in_coupled_groups() {
    let text = |more: &str| format!(r#"[{{"op_types": ["Conv2d"], "sparse_ratio": 0.5{more}}}]"#);
    for (more, expected) in [
        (r#", "round_to": 1"#, [4, 6]),
        // 4 and 6 stay: 4 and 8 are multiples of 4, 8 and 12 of 6 and of 8.
        (r#", "round_to": 4"#, [4, 4]),
        (r#", "round_to": 6"#, [2, 6]),
    ] {
        let pruner =
            L1NormPruner::from_compressor(chain(), rules(&text(more)), PrunerConfig::new());
        let masks = pruner.unwrap().compress(Budget::none()).unwrap().masks();
        assert_eq!(lost(&masks), expected, "{more}");
    }
    // `stem` has no multiple of 8 or 5 below 8 that its two parts can share; the others have.
    for (multiple, expected) in [(8, 4), (5, 2)] {
        let more = format!(r#", "round_to": {multiple}"#);
        let prune =
            |text: &str| L1NormPruner::from_compressor(chain(), rules(text), PrunerConfig::new());
        let error = prune(&text(&more)).unwrap_err();
        let error = cause(&error).to_string();
        assert!(
            error.starts_with("stem.weight: `sparse_ratio` 0.5 removes none of its 8 channels"),
            "{error}"
        );
        let pruner = prune(&text(&format!(r#"{more}, "exclude_op_names": ["stem"]"#)));
        let masks = pruner.unwrap().compress(Budget::none()).unwrap().masks();
        assert_eq!(count(&masks, "grouped.weight"), expected, "{multiple}");
    }
    let [stem, shared] = lost(&pruned(r#""sparse_ratio": 0.5, "round_to": 4"#));
    assert!((8 - stem).is_multiple_of(4) && (12 - shared).is_multiple_of(4));
}

#[test]
fn elements_of_the_whole_model_are_ranked_by_lamp() {
    let text = r#"[{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.6,
        "global_group_id": "model"}]"#;
    let pruner = LampPruner::from_compressor(chain(), rules(text), PrunerConfig::new());
    let masks = pruner.unwrap().compress(Budget::none()).unwrap().masks();
    let weights: Vec<_> = masks
        .iter()
        .filter(|(id, _)| id.to_string().ends_with("weight"))
        .collect();
    assert_eq!(weights.len(), 4);
    let all: usize = weights.iter().map(|(_, mask)| mask.values().len()).sum();
    let removed: usize = weights.iter().map(|(_, mask)| mask.removed()).sum();
    assert_eq!(removed, (all as f64 * 0.6) as usize);
    assert!(
        weights
            .iter()
            .all(|(_, mask)| mask.removed() < mask.values().len())
    );
}

#[test]
fn a_schedule_raises_a_global_goal() {
    let text = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.6, "global_group_id": 1,
        "max_sparse_ratio": 0.67}]"#;
    let chain = TaylorPruner::from_compressor(chain(), rules(text), TaylorConfig::new(1)).unwrap();
    let chain = AgpPruner::new(chain, AgpConfig::new(2, 3)).unwrap();
    let masks = chain.compress(Budget::steps(6)).unwrap().masks();
    let [stem, shared] = lost(&masks);
    let goal = 0.6 * (8 * STEM + 12 * SHARED) as f64;
    let elements = (stem * STEM + shared * SHARED) as f64;
    assert!(
        elements <= goal && elements > goal - 1.0 - (2 * SHARED) as f64,
        "{stem} {shared}"
    );
    assert!(stem <= 5 && shared <= 8);
}
