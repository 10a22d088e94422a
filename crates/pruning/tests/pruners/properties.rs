//! Random shapes, ratios, granularities, groups and settings.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressor, Error, Evaluator, Mask, Masks, TargetId};
use burn_compress_pruning::{
    AgpConfig, AgpPruner, FpgmPruner, L1NormPruner, L2NormPruner, LampPruner, LevelPruner,
    PrunerConfig, PruningError, PruningSettings, TaylorConfig, TaylorPruner,
};
use proptest::prelude::*;

use crate::nets::{Fill, Random, cause};

/// Independent layers.
#[derive(Module, Debug)]
struct Net {
    layers: Vec<Linear>,
}

type Chain = Compressor<Net, ()>;

fn chain(shapes: &[[usize; 2]], seed: u64, learning_rate: f64) -> Chain {
    let device = Device::flex();
    let layer = |&[input, output]: &[usize; 2]| LinearConfig::new(input, output).init(&device);
    let layers = shapes.iter().map(layer).collect();
    let net = Net { layers }.map(&mut Fill(Random::new(seed)));
    let evaluator = Evaluator::new()
        .with_data(|_| [()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(learning_rate)
        .with_loss(|net: &Net, ()| {
            let outputs = net.layers.iter().map(|layer| {
                let [input, _] = layer.weight.dims();
                let x = Tensor::<2>::ones([1, input], &layer.weight.val().device());
                layer.forward(x).square().mean()
            });
            outputs.reduce(|a, b| a + b).unwrap()
        });
    Compressor::from_model(net, evaluator)
}

/// Fuses one of the pruners that need no data.
fn fuse(pruner: usize, chain: Chain, config: &ConfigList<PruningSettings>) -> Result<Chain, Error> {
    let options = PrunerConfig::new().with_coupled(false);
    match pruner {
        0 => LevelPruner::from_compressor(chain, config, options),
        1 => L1NormPruner::from_compressor(chain, config, options),
        2 => L2NormPruner::from_compressor(chain, config, options),
        3 => LampPruner::from_compressor(chain, config, options),
        _ => FpgmPruner::from_compressor(chain, config, options),
    }
}

/// The chain, or none where the goals are refused: where `possible` is false.
fn unless_refused(
    fused: Result<Chain, Error>,
    possible: bool,
) -> Result<Option<Chain>, TestCaseError> {
    fn removes_nothing(error: &PruningError) -> bool {
        match error {
            PruningError::RemovesNothing { .. } => true,
            PruningError::Target { source, .. } => removes_nothing(source),
            PruningError::Several(errors) => errors.iter().all(removes_nothing),
            _ => false,
        }
    }
    match fused {
        Ok(chain) => {
            prop_assert!(possible, "accepted, though nothing can be removed");
            Ok(Some(chain))
        }
        Err(error) => {
            prop_assert!(removes_nothing(cause(&error)) && !possible, "{error}");
            Ok(None)
        }
    }
}

fn rules(text: &str) -> ConfigList<PruningSettings> {
    ConfigList::from_json(text).unwrap()
}

fn mask_of(masks: &Masks, layer: usize) -> &Mask {
    &masks[&format!("layers.{layer}.weight")
        .parse::<TargetId>()
        .unwrap()]
}

/// Sizes that 2 and 4 divide.
fn shape() -> impl Strategy<Value = [usize; 2]> {
    let size = || prop::sample::select(vec![4usize, 8, 12, 20]);
    [size(), size()]
}

/// Granularities of a linear weight, as written and as the shape of a block.
fn granularity([input, output]: [usize; 2]) -> [(&'static str, [usize; 2]); 5] {
    [
        ("\"out_channel\"", [input, 1]),
        ("\"in_channel\"", [1, output]),
        ("[2, -1]", [2, output]),
        ("[4, 2]", [4, 2]),
        ("[-1, 4]", [input, 4]),
    ]
}

/// The number of removed blocks, or why the mask is none of whole blocks.
fn removed_blocks(mask: &Mask, block: [usize; 2]) -> Result<usize, TestCaseError> {
    let [rows, columns] = [mask.shape()[0], mask.shape()[1]];
    let mut removed = 0;
    for row in (0..rows).step_by(block[0]) {
        for column in (0..columns).step_by(block[1]) {
            let first = mask.values()[row * columns + column];
            prop_assert!(first == 0.0 || first == 1.0);
            for i in 0..block[0] {
                for j in 0..block[1] {
                    prop_assert_eq!(mask.values()[(row + i) * columns + column + j], first);
                }
            }
            removed += usize::from(first == 0.0);
        }
    }
    Ok(removed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_layer_reaches_its_ratio_within_one_block(
        shape in shape(),
        kind in 0usize..5,
        pruner in 0usize..5,
        ratio in 0.0f64..=1.0,
        round_to in 1usize..7,
        seed in 1u64..1000,
    ) {
        let (name, block) = granularity(shape)[kind];
        let config = rules(&format!(
            r#"[{{"op_types": ["Linear"], "sparse_ratio": {ratio}, "granularity": {name},
                "round_to": {round_to}}}]"#
        ));
        let count = shape[0] * shape[1] / (block[0] * block[1]);
        let wanted = ((count as f64 * ratio) as usize).min(count - 1);
        let kept = (count - wanted).div_ceil(round_to) * round_to;
        let expected = count.saturating_sub(kept);
        // Refused where the only block stays, and where what goes is rounded away.
        let possible = ratio == 0.0 || (count > 1 && (expected > 0 || wanted == 0));
        let fused = fuse(pruner, chain(&[shape], seed, 0.0), &config);
        let Some(chain) = unless_refused(fused, possible)? else {
            return Ok(());
        };
        let compressed = chain.compress(Budget::none()).unwrap();
        prop_assert_eq!(removed_blocks(mask_of(&compressed.masks(), 0), block)?, expected);
        let silent = expected > 0 || ratio == 0.0;
        prop_assert_eq!(compressed.warnings().is_empty(), silent);
    }

    #[test]
    fn a_global_rule_reaches_its_ratio_and_keeps_every_bound(
        shapes in prop::collection::vec(shape(), 2..4),
        kind in 0usize..5,
        pruner in 0usize..5,
        ratio in 0.0f64..=1.0,
        bounds in (0.0f64..0.5, 0.5f64..=1.0),
        seed in 1u64..1000,
    ) {
        let name = granularity([4, 4])[kind].0;
        let (min, max) = bounds;
        let config = rules(&format!(
            r#"[{{"op_types": ["Linear"], "sparse_ratio": {ratio}, "granularity": {name},
                "global_group_id": "model", "min_sparse_ratio": {min},
                "max_sparse_ratio": {max}}}]"#
        ));
        let several = shapes.iter().all(|&shape| {
            let block = granularity(shape)[kind].1;
            shape[0] * shape[1] > block[0] * block[1]
        });
        let fused = fuse(pruner, chain(&shapes, seed, 0.0), &config);
        let Some(chain) = unless_refused(fused, several)? else {
            return Ok(());
        };
        let masks = chain.compress(Budget::none()).unwrap().masks();
        let (mut elements, mut total, mut largest) = (0, 0, 0);
        let (mut least, mut most) = (0, 0);
        for (layer, &shape) in shapes.iter().enumerate() {
            let block = granularity(shape)[kind].1;
            let len = block[0] * block[1];
            let count = shape[0] * shape[1] / len;
            let removed = removed_blocks(mask_of(&masks, layer), block)?;
            let low = ((count as f64 * min) as usize).min(count - 1);
            let high = ((count as f64 * max) as usize).min(count - 1);
            prop_assert!((low..=high).contains(&removed), "{low} {removed} {high}");
            elements += removed * len;
            least += low * len;
            most += high * len;
            total += count * len;
            largest = largest.max(len);
        }
        let goal = (total as f64 * ratio) as usize;
        // A layer whose minimum is below one block has none.
        prop_assert!(elements <= goal.max(least));
        prop_assert!(elements + largest > goal.min(most) || goal <= least + largest * shapes.len());
    }

    #[test]
    fn dependent_layers_lose_the_same_blocks(
        shape in shape(),
        layers in 2usize..4,
        pruner in 1usize..3,
        ratio in 0.0f64..=1.0,
        parts in prop::sample::select(vec![1usize, 2, 4]),
        seed in 1u64..1000,
    ) {
        let config = rules(&format!(
            r#"[{{"op_types": ["Linear"], "sparse_ratio": {ratio}, "granularity": "out_channel",
                "dependency_group_id": "add", "internal_metric_block": {parts}}}]"#
        ));
        let size = shape[1] / parts;
        let fused = fuse(pruner, chain(&vec![shape; layers], seed, 0.0), &config);
        let Some(chain) = unless_refused(fused, size > 1 || ratio == 0.0)? else {
            return Ok(());
        };
        let masks = chain.compress(Budget::none()).unwrap().masks();
        let first = mask_of(&masks, 0).removed_along(1);
        let wanted = ((size as f64 * ratio) as usize).min(size - 1);
        for part in first.chunks(size) {
            prop_assert_eq!(part.iter().filter(|removed| **removed).count(), wanted);
        }
        for layer in 1..layers {
            prop_assert_eq!(mask_of(&masks, layer).removed_along(1), first.clone());
        }
    }

    #[test]
    fn every_group_of_a_pattern_keeps_its_number(
        shape in shape(),
        pattern in prop::sample::select(vec![(1usize, 2usize), (2, 4), (1, 4), (3, 4)]),
        pruner in 0usize..4,
        seed in 1u64..1000,
    ) {
        let (kept, of) = pattern;
        let config = rules(&format!(
            r#"[{{"op_types": ["Linear"], "pattern": "{kept}:{of}"}}]"#
        ));
        let chain = fuse(pruner, chain(&[shape], seed, 0.0), &config).unwrap();
        let weight = chain.model().layers[0].weight.val().into_data();
        let weight = weight.try_to_vec::<f32>().unwrap();
        let masks = chain.compress(Budget::none()).unwrap().masks();
        let mask = mask_of(&masks, 0).values();
        let [rows, columns] = shape;
        for column in 0..columns {
            for group in (0..rows).step_by(of) {
                let at = |i: usize| (group + i) * columns + column;
                let (mut stay, mut go) = (Vec::new(), Vec::new());
                for i in 0..of {
                    let side = if mask[at(i)] == 1.0 { &mut stay } else { &mut go };
                    side.push(weight[at(i)].abs());
                }
                prop_assert_eq!(stay.len(), kept);
                let smallest = stay.iter().copied().fold(f32::INFINITY, f32::min);
                prop_assert!(go.iter().all(|&w| w <= smallest));
            }
        }
    }

    /// Weights that stand still, and gradients on weights that move.
    #[test]
    fn masks_only_grow_under_agp(
        shapes in prop::collection::vec(shape(), 1..3),
        pruner in 0usize..6,
        goal in prop::sample::select(vec![
            r#""sparse_ratio": 0.7"#,
            r#""sparse_ratio": 0.9, "global_group_id": 1"#,
            r#""sparse_ratio": 0.6, "global_group_id": 1, "max_sparse_ratio": 0.6"#,
            r#""sparse_ratio": 0.7, "round_to": 3"#,
            r#""pattern": "1:4""#,
        ]),
        seed in 1u64..1000,
    ) {
        prop_assume!(!(goal.contains("pattern") && pruner == 4));
        let config = rules(&format!(r#"[{{"op_types": ["Linear"], {goal}}}]"#));
        let chain = match pruner {
            5 => {
                let options =
                    TaylorConfig::new(1).with_pruner(PrunerConfig::new().with_coupled(false));
                TaylorPruner::from_compressor(chain(&shapes, seed, 1e-4), &config, options).unwrap()
            }
            _ => fuse(pruner, chain(&shapes, seed, 0.0), &config).unwrap(),
        };
        let mut chain = AgpPruner::new(chain, AgpConfig::new(2, 4)).unwrap();
        let mut before: Masks = Masks::new();
        for step in 1..=8 {
            chain.advance(&Budget::steps(8), Some(step)).unwrap();
            let now = chain.masks();
            for (id, old) in &before {
                let back = old.values().iter().zip(now[id].values()).any(|(a, b)| a < b);
                prop_assert!(!back, "{id} after step {step}");
            }
            before = now;
        }
        let removed: usize = before.values().map(Mask::removed).sum();
        prop_assert!(removed > 0 || goal.contains("round_to"));
    }

    /// Whatever is written: a pruned model or a typed error, never a panic.
    #[test]
    fn any_settings_prune_or_are_refused(
        shapes in prop::collection::vec(shape(), 1..3),
        ratio in prop::option::of(-0.2f64..1.2),
        threshold in prop::option::weighted(0.2, -1.0f64..5.0),
        min in prop::option::weighted(0.3, -0.1f64..1.1),
        max in prop::option::weighted(0.3, -0.1f64..1.1),
        groups in (prop::option::weighted(0.3, 0u8..2), prop::option::weighted(0.3, 0u8..2)),
        counts in (
            prop::option::weighted(0.3, 0usize..5),
            prop::option::weighted(0.3, 0usize..5),
        ),
        texts in (
            prop::option::weighted(0.2, prop::sample::select(vec!["2:4", "4:2", "1:8", "x"])),
            prop::option::weighted(0.3, prop::sample::select(vec![
                "\"out_channel\"", "\"in_channel\"", "\"per_channel\"", "[3, 1]", "[0]", "[-1, 2]",
            ])),
        ),
        pruner in 0usize..5,
        seed in 1u64..1000,
    ) {
        let mut keys: Vec<String> = Vec::new();
        let mut set = |key: &str, value: Option<String>| {
            keys.extend(value.map(|value| format!("\"{key}\": {value}")));
        };
        set("sparse_ratio", ratio.map(|v| v.to_string()));
        set("sparse_threshold", threshold.map(|v| v.to_string()));
        set("min_sparse_ratio", min.map(|v| v.to_string()));
        set("max_sparse_ratio", max.map(|v| v.to_string()));
        set("global_group_id", groups.0.map(|v| v.to_string()));
        set("dependency_group_id", groups.1.map(|v| v.to_string()));
        set("round_to", counts.0.map(|v| v.to_string()));
        set("internal_metric_block", counts.1.map(|v| v.to_string()));
        set("pattern", texts.0.map(|v| format!("\"{v}\"")));
        set("granularity", texts.1.map(str::to_string));
        let text = format!("{{{}}}", keys.join(", "));
        // A malformed pattern is found while the settings are read.
        let Ok(settings) = serde_json::from_str::<PruningSettings>(&text) else {
            prop_assert!(matches!(texts.0, Some("4:2" | "x")), "{text}");
            return Ok(());
        };
        let in_range = |value: Option<f64>, low: f64, high: f64| {
            value.is_none_or(|value| (low..=high).contains(&value))
        };
        if !in_range(ratio, 0.0, 1.0) || counts.0 == Some(0) {
            let typed = matches!(settings.check(), Err(PruningError::Setting { .. }));
            prop_assert!(typed, "{text}");
        }
        let config = rules(&format!(
            "[{{\"op_types\": [\"Linear\"], \"target_settings\": {{\"weight\": {text}}}}}]"
        ));
        let options = PrunerConfig::new().with_coupled(false);
        let chain = chain(&shapes, seed, 0.0);
        let fused = match pruner {
            0 => LevelPruner::from_compressor(chain, &config, options),
            1 => L1NormPruner::from_compressor(chain, &config, options),
            2 => L2NormPruner::from_compressor(chain, &config, options),
            3 => LampPruner::from_compressor(chain, &config, options),
            _ => FpgmPruner::from_compressor(chain, &config, options),
        };
        match fused.map(|chain| chain.compress(Budget::none())) {
            Ok(Ok(compressed)) => {
                prop_assert!(settings.check().is_ok());
                let masks = compressed.masks();
                for layer in 0..shapes.len() {
                    let values = mask_of(&masks, layer).values();
                    prop_assert!(values.iter().all(|&m| m == 0.0 || m == 1.0));
                    prop_assert!(values.contains(&1.0));
                }
            }
            Ok(Err(error)) => prop_assert!(!error.to_string().is_empty()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
