//! Random scores and goals.

use proptest::prelude::*;

use super::*;
use crate::Schedule;

/// One of a few values, so that ties are frequent.
fn scores(len: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((0u8..12).prop_map(|v| f32::from(v) / 4.0), len)
}

proptest! {
    #[test]
    fn a_ratio_is_reached_within_one_block(
        scores in (1usize..60).prop_flat_map(scores),
        wanted in 0.0f64..=1.0,
    ) {
        let count = scores.len() as f64;
        let masks = generate(&[target("a", &scores, 4, ratio(wanted))], DEFAULT).unwrap();
        let mask = &masks["a"];
        prop_assert!(mask.sparsity() <= wanted);
        let floor = (count - 1.0) / count;
        prop_assert!(mask.sparsity() > wanted.min(floor) - 1.0 / count);
        prop_assert!(mask.expand().iter().all(|&m| m == 0.0 || m == 1.0));
        let smallest_kept = scores.iter().zip(mask.keep()).filter(|(_, k)| **k).map(|(s, _)| *s)
            .fold(f32::INFINITY, f32::min);
        for (&score, &keep) in scores.iter().zip(mask.keep()) {
            prop_assert!(keep || score <= smallest_kept);
        }
    }

    #[test]
    fn a_global_ratio_is_reached_within_one_block(
        a in (2usize..40).prop_flat_map(scores),
        b in (2usize..40).prop_flat_map(scores),
        lens in (1usize..5, 1usize..5),
        wanted in 0.0f64..=1.0,
    ) {
        let targets = [
            ranked("a", &a, lens.0, wanted, None, None),
            ranked("b", &b, lens.1, wanted, None, None),
        ];
        let masks = generate(&targets, NO_FLOOR).unwrap();
        let removed: usize = masks.values()
            .map(|m| m.expand().iter().filter(|&&v| v == 0.0).count()).sum();
        let total = a.len() * lens.0 + b.len() * lens.1;
        let goal = total as f64 * wanted;
        prop_assert!(removed as f64 <= goal);
        prop_assert!(removed as f64 > goal - 1.0 - lens.0.max(lens.1) as f64);
    }

    #[test]
    fn a_rising_goal_brings_no_block_back(
        rounds in prop::collection::vec(prop::collection::vec(scores(20), 2), 6),
        goal in 0.0f64..=1.0,
        kind in 0usize..3,
    ) {
        let schedule = Schedule::agp(1, rounds.len()).unwrap();
        let mut keeps = [vec![true; 20], vec![true; 20]];
        for (round, scores) in rounds.iter().enumerate() {
            let factor = schedule.at(round + 1).unwrap();
            let targets: Vec<_> = scores.iter().zip(&keeps).enumerate().map(|(i, (s, keep))| {
                // A pruned block has no gradient.
                let s: Vec<f32> =
                    s.iter().zip(keep).map(|(&s, &keep)| if keep { s } else { 0.0 }).collect();
                let mut settings = ratio(goal);
                match kind {
                    0 => {}
                    1 => settings.global_group_id = Some("g".to_string()),
                    _ => settings.dependency_group_id = Some("d".to_string()),
                }
                target(&i.to_string(), &s, 2, settings.scaled(factor)).with_current(keep)
            }).collect();
            let masks = generate(&targets, DEFAULT).unwrap();
            for (old, mask) in keeps.iter_mut().zip(masks.values()) {
                prop_assert!(mask.keep().iter().zip(old.iter()).all(|(new, old)| *old || !new));
                *old = mask.keep().to_vec();
            }
        }
    }
}
