//! What every registered pruner must do.

use burn::module::Module;
use burn_compress_core::Budget;
use burn_compress_pruning::registry::{Entry, Needs};
use burn_compress_pruning::{AgpConfig, AgpPruner, LinearConfig, LinearPruner, pruners};

use crate::nets::{Batch, Chain, Net, chain, count, removed, rules};

const CONVS: &str =
    r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "granularity": "out_channel"}]"#;
const WEIGHTS: [&str; 3] = ["stem.weight", "grouped.weight", "block.weight"];

fn all() -> Vec<Entry<Net, Batch>> {
    pruners()
}

fn fused(pruner: &Entry<Net, Batch>, rules_text: &str) -> Chain {
    (pruner.fuse)(chain(), &rules(rules_text), 2).unwrap()
}

#[test]
fn each_prunes_coupled_channels_to_the_ratio() {
    for pruner in all() {
        let chain = fused(&pruner, CONVS);
        assert_eq!(chain.algorithms(), [pruner.name]);
        let masks = chain.compress(Budget::steps(3)).unwrap().masks();
        let name = pruner.name;
        assert_eq!(count(&masks, "stem.weight"), 4, "{name}");
        // Of two groups of 6 channels, 3 each, and the same ones in the block that is added.
        let grouped = removed(&masks, "grouped.weight");
        assert_eq!(grouped[..6].iter().filter(|r| **r).count(), 3, "{name}");
        assert_eq!(grouped[6..].iter().filter(|r| **r).count(), 3, "{name}");
        assert_eq!(grouped, removed(&masks, "block.weight"), "{name}");
        assert_eq!(
            removed(&masks, "stem.weight"),
            removed(&masks, "norm.gamma"),
            "{name}"
        );
        for mask in masks.values() {
            assert!(
                mask.values().iter().all(|&m| m == 0.0 || m == 1.0),
                "{name}"
            );
        }
    }
}

#[test]
fn each_prunes_by_its_own_granularity() {
    let text = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;
    for pruner in all() {
        let masks = fused(&pruner, text)
            .compress(Budget::steps(3))
            .unwrap()
            .masks();
        let channels = WEIGHTS.iter().all(|weight| {
            let target = masks.keys().find(|id| id.to_string() == **weight).unwrap();
            let (mask, removed) = (&masks[target], removed(&masks, weight));
            let inner = mask.values().len() / removed.len();
            mask.removed() == inner * removed.iter().filter(|r| **r).count()
        });
        assert_eq!(channels, pruner.channels, "{}", pruner.name);
    }
}

#[test]
fn each_needs_training_or_none() {
    for pruner in all() {
        let none = fused(&pruner, CONVS).compress(Budget::none());
        assert_eq!(none.is_err(), pruner.needs.data(), "{}", pruner.name);
    }
}

#[test]
fn each_grows_its_masks_with_a_schedule() {
    for pruner in all()
        .into_iter()
        .filter(|pruner| pruner.needs.schedulable())
    {
        for linear in [true, false] {
            let chain = fused(&pruner, CONVS);
            let mut chain = match linear {
                true => LinearPruner::new(chain, LinearConfig::new(3, 4)).unwrap(),
                false => AgpPruner::new(chain, AgpConfig::new(3, 4)).unwrap(),
            };
            let budget = Budget::steps(13);
            let mut counts = vec![0];
            for step in 1..=13 {
                chain.advance(&budget, Some(step)).unwrap();
                let masks = chain.masks();
                let pruned = !masks.is_empty();
                counts.push(if pruned {
                    count(&masks, "stem.weight")
                } else {
                    0
                });
            }
            assert!(counts.is_sorted(), "{}: {counts:?}", pruner.name);
            assert_eq!(counts[13], 4, "{}: {counts:?}", pruner.name);
            assert!(counts.contains(&2), "{}: {counts:?}", pruner.name);
        }
    }
}

/// A pruned channel has no gradient and no output, so what collects them never brings one back.
#[test]
fn collected_scores_bring_no_channel_back() {
    let collects = |needs| matches!(needs, Needs::Gradients | Needs::Outputs);
    for pruner in all().into_iter().filter(|pruner| collects(pruner.needs)) {
        let mut chain = AgpPruner::new(fused(&pruner, CONVS), AgpConfig::new(3, 4)).unwrap();
        let mut before: Vec<Vec<bool>> = WEIGHTS.map(|_| Vec::new()).to_vec();
        for step in 1..=12 {
            chain.advance(&Budget::steps(12), Some(step)).unwrap();
            let masks = chain.masks();
            if masks.is_empty() {
                continue;
            }
            for (before, weight) in before.iter_mut().zip(WEIGHTS) {
                let now = removed(&masks, weight);
                let back = before.iter().zip(&now).any(|(before, now)| *before && !now);
                assert!(!back, "{}: {weight} after step {step}", pruner.name);
                *before = now;
            }
        }
        assert_eq!(before[0].iter().filter(|r| **r).count(), 4);
    }
}

/// Stopped in the middle of an interval, with half of a score collected.
#[test]
fn each_resumes_bit_for_bit() {
    for pruner in all() {
        let scheduled = || match pruner.needs.schedulable() {
            true => AgpPruner::new(fused(&pruner, CONVS), AgpConfig::new(3, 3)).unwrap(),
            false => fused(&pruner, CONVS),
        };
        let budget = Budget::steps(9);
        let through = scheduled().compress(budget.clone()).unwrap();

        let path = format!("{}/{}.checkpoint", env!("CARGO_TARGET_TMPDIR"), pruner.name);
        let mut stopped = scheduled();
        stopped.advance(&budget, Some(4)).unwrap();
        stopped.save_checkpoint(&path).unwrap();
        let resumed = scheduled().resume(&path).unwrap().compress(budget).unwrap();
        std::fs::remove_file(&path).unwrap();

        assert_eq!(through.masks(), resumed.masks(), "{}", pruner.name);
        let weights = |net: &Net| {
            net.block
                .weight
                .val()
                .into_data()
                .try_to_vec::<f32>()
                .unwrap()
        };
        let (through, resumed) = (through.unwrap_model(), resumed.unwrap_model());
        assert_eq!(
            weights(&through.valid()),
            weights(&resumed.valid()),
            "{}",
            pruner.name
        );
    }
}
