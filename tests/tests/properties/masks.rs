//! Masks remove exactly what is configured, and the small model does not notice.

use std::cell::Cell;

use burn::tensor::Device;
use burn_compress::graph::GraphError;
use burn_compress::layer::{LayerInfo, layers};
use burn_compress::prelude::*;
use burn_compress::speedup::SpeedupError;
use burn_compress::speedup::verify::TOLERANCE;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::comparison::{ROUNDED, check_equal, check_report, check_rounding, speed_up};
use crate::groups::{graph, kept, mask_of, sizes};
use crate::harness::check;
use crate::pruned::{evaluator, prune_coupled, ratios, weighted};
use crate::strategy;

#[test]
fn coupled_channels_are_removed_exactly() {
    let strategy = (strategy::nets(), ratios(), any::<bool>(), any::<bool>());
    let name = "small == simulated, coupled L1 and L2";
    let worst = Cell::new(0.0f64);
    let tally = check(
        name,
        600,
        strategy,
        |(spec, ratios, with_linear, l2), tally| {
            let device = Device::flex();
            let Some(pruned) = prune_coupled(&spec, &ratios, with_linear, l2, &device)? else {
                tally.add("networks without a removable channel", 1);
                return Ok(());
            };
            let masks = pruned.compressed.masks();
            let Some(small) = speed_up(&spec, &pruned.compressed, tally)? else {
                return Ok(());
            };
            let mut removed = 0;
            for group in &pruned.groups {
                // Every member loses the same channels, exactly as many as configured.
                let mut keeps = vec![true; group.protected.len()];
                for member in &group.members {
                    let mask = mask_of(&masks, &member.param);
                    prop_assert!(mask.is_some(), "`{}` is not masked", member.param);
                    let mask = mask.unwrap();
                    prop_assert!(
                        mask.values()
                            .iter()
                            .all(|&value| value == 0.0 || value == 1.0)
                    );
                    let gone = mask
                        .removed_along(member.dim)
                        .iter()
                        .filter(|gone| **gone)
                        .count();
                    let share = mask.values().len() / mask.shape()[member.dim];
                    prop_assert_eq!(mask.removed(), gone * share);
                    for (keep, kept) in keeps.iter_mut().zip(kept(&masks, member)) {
                        *keep &= kept.unwrap_or(true);
                    }
                }
                for member in &group.members {
                    for (keep, kept) in keeps.iter().zip(kept(&masks, member)) {
                        prop_assert!(kept.is_none_or(|kept| kept == *keep));
                    }
                }
                let lost = keeps.iter().filter(|keep| !**keep).count();
                if group.is_reachable() {
                    prop_assert_eq!(lost, group.goal());
                } else {
                    prop_assert!(lost <= group.goal());
                    tally.add("goals that would have emptied a branch", 1);
                }
                let stays = |branch: &Vec<usize>| branch.iter().any(|&channel| keeps[channel]);
                prop_assert!(group.branches.iter().all(stays));
                tally.add("branches", group.branches.len() as u64);
                prop_assert!(
                    keeps
                        .iter()
                        .zip(&group.protected)
                        .all(|(keep, fixed)| *keep || !fixed)
                );
                prop_assert!(keeps.contains(&true));
                let left: Vec<usize> = group
                    .members
                    .iter()
                    .map(|member| {
                        let left = member
                            .positions
                            .iter()
                            .zip(&keeps)
                            .filter(|(_, keep)| **keep);
                        let inside: usize = left.map(|(positions, _)| positions.len()).sum();
                        let all: usize = member.positions.iter().map(<[usize]>::len).sum();
                        let size = mask_of(&masks, &member.param).unwrap().shape()[member.dim];
                        size - all + inside
                    })
                    .collect();
                prop_assert_eq!(sizes(&small.model, &group.members), left);
                removed += lost;
                tally.add("groups", 1);
                tally.add(
                    "groups with protected channels",
                    u64::from(group.protected.contains(&true)),
                );
                tally.add("groups in blocks", u64::from(group.blocks > 1));
            }
            check_report(&spec, &pruned.dense, &small, &device)?;
            prop_assert_eq!(
                small.report.params.small < small.report.params.dense,
                removed > 0
            );
            let error = check_equal(&spec, &pruned.compressed, &small, tally)?;
            worst.set(worst.get().max(error));
            tally.add("networks that lost channels", u64::from(removed > 0));
            tally.add("channels removed", removed as u64);
            tally.add("bit-exact", u64::from(error == 0.0));
            Ok(())
        },
    );
    eprintln!("{name}: largest relative error {:.1e}", worst.get());
    assert!(tally.get("networks that lost channels") >= 500);
    assert!(tally.get("equal") >= 500);
    check_rounding(&tally);
    assert!(tally.get("groups in blocks") > 0);
}

#[test]
fn masked_elements_stay_exact() {
    let strategy = (strategy::nets(), 0.0..0.9);
    let tally = check(
        "small == simulated, elements",
        150,
        strategy,
        |(spec, ratio), tally| {
            let device = Device::flex();
            let dense = spec.build(&device);
            let rule = json!([{"op_names": weighted(&dense), "sparse_ratio": ratio}]);
            let config = ConfigList::from_json(&rule.to_string())?;
            let evaluator = evaluator(&spec, &device);
            let pruner = LevelPruner::new(dense.clone(), &config, evaluator, PrunerConfig::new())?;
            let compressed = pruner.compress(Budget::none())?;
            for layer in layers(&dense) {
                let weight = format!("{}.weight", layer.path);
                if let Some(mask) = mask_of(&compressed.masks(), &weight) {
                    let elements = mask.values().len();
                    prop_assert_eq!(
                        mask.removed(),
                        (elements as f64 * ratio) as usize,
                        "{}",
                        weight
                    );
                    tally.add("weights", 1);
                }
            }
            let small =
                ModelSpeedup::new(compressed.clone(), spec.dummy_input(&device)).speedup_model();
            let small = match small {
                Ok(small) => small,
                Err(refused) => {
                    // Nothing reaches the output any more.
                    if let Some(GraphError::NothingLeft { .. }) = refused.downcast_ref() {
                        tally.add("networks without a path to the output", 1);
                        return Ok(());
                    }
                    // Rounding, to judge by the size; `speed_up` knows masks of whole channels only.
                    match refused.downcast_ref() {
                        Some(SpeedupError::Differs { error, .. }) if *error <= 10.0 * TOLERANCE => {
                            tally.add(ROUNDED, 1);
                            return Ok(());
                        }
                        _ => return Err(refused.into()),
                    }
                }
            };
            check_report(&spec, &dense, &small, &device)?;
            check_equal(&spec, &compressed, &small, tally)?;
            let smaller = small.report.params.small < small.report.params.dense;
            tally.add("networks that lost channels", u64::from(smaller));
            Ok(())
        },
    );
    assert!(tally.get("networks without a path to the output") <= 15);
    assert!(tally.get("weights") > 0);
    check_rounding(&tally);
}

#[test]
fn independent_masks_keep_the_union() {
    let strategy = (strategy::nets(), ratios());
    let tally = check(
        "small == simulated, independent",
        300,
        strategy,
        |(spec, ratios), tally| {
            let device = Device::flex();
            let dense = spec.build(&device);
            let graph = graph(&spec, &dense, &device)?;
            // Of a single channel nothing could be removed, which is refused.
            let has_channels = |layer: &LayerInfo| {
                layer
                    .param("weight")
                    .is_some_and(|weight| weight.shape[0] > 1)
            };
            let convs: Vec<LayerInfo> = layers(&dense)
                .into_iter()
                .filter(|layer| layer.kind == "Conv2d" && has_channels(layer))
                .collect();
            if convs.is_empty() {
                return Ok(());
            }
            let rules: Vec<Value> = convs
                .iter()
                .zip(ratios.iter().cycle())
                .map(|(conv, ratio)| json!({"op_names": [conv.path], "sparse_ratio": ratio}))
                .collect();
            let config = ConfigList::from_json(&Value::from(rules).to_string())?;
            let options = PrunerConfig::new().with_coupled(false);
            let pruner =
                L1NormPruner::new(dense.clone(), &config, evaluator(&spec, &device), options)?;
            let compressed = pruner.compress(Budget::none())?;
            let masks = compressed.masks();
            for (conv, ratio) in convs.iter().zip(ratios.iter().cycle()) {
                let mask = mask_of(&masks, &format!("{}.weight", conv.path)).unwrap();
                let gone = mask.removed_along(0).iter().filter(|gone| **gone).count();
                prop_assert_eq!(
                    gone,
                    (mask.shape()[0] as f64 * ratio) as usize,
                    "{}",
                    conv.path
                );
            }
            let Some(small) = speed_up(&spec, &compressed, tally)? else {
                return Ok(());
            };
            for group in graph.groups() {
                let mut union: Vec<bool> = group
                    .channels
                    .iter()
                    .map(|&c| graph.protected(c).is_some())
                    .collect();
                for member in &group.members {
                    for (keep, kept) in union.iter_mut().zip(kept(&masks, member)) {
                        *keep |= kept.unwrap_or(false);
                    }
                }
                // The fullest block decides.
                let per_block = union.len() / group.blocks;
                let fullest = union
                    .chunks(per_block)
                    .map(|block| block.iter().filter(|k| **k).count())
                    .max();
                let left = group.blocks * fullest.unwrap_or(0);
                for member in &group.members {
                    if member
                        .positions
                        .iter()
                        .all(|positions| positions.len() == 1)
                    {
                        let expected = vec![left];
                        prop_assert_eq!(
                            sizes(&small.model, std::slice::from_ref(member)),
                            expected
                        );
                        tally.add("members", 1);
                    }
                }
                tally.add("channels removed", (union.len() - left) as u64);
            }
            check_report(&spec, &dense, &small, &device)?;
            check_equal(&spec, &compressed, &small, tally)?;
            Ok(())
        },
    );
    assert!(tally.get("channels removed") > 0);
    check_rounding(&tally);
}
