//! What holds for scores of weights, whatever the weights are.

use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressor, Error, Evaluator, Masks};
use burn_compress_pruning::registry::{Entry, Needs};
use burn_compress_pruning::scores::{Fpgm, L1Norm, L2Norm, Lamp, Level};
use burn_compress_pruning::{Blocks, Importance, pruners};
use proptest::prelude::*;

use crate::nets::cause;

/// Pruners of the weights.
fn entries() -> Vec<Entry<Linear, ()>> {
    let entries = pruners().into_iter();
    entries
        .filter(|entry| entry.needs == Needs::Weights)
        .collect()
}

/// The masks for a weight `[rows, columns]` with one more setting than a ratio of a half.
fn masks(
    pruner: &Entry<Linear, ()>,
    weight: &[f32],
    columns: usize,
    settings: &str,
) -> Result<Masks, Error> {
    let device = Device::flex();
    let rows = weight.len() / columns;
    let mut model = LinearConfig::new(rows, columns).init(&device);
    let data = TensorData::new(weight.to_vec(), [rows, columns]);
    model.weight = Param::from_tensor(Tensor::from_data(data, &device));
    let config =
        ConfigList::from_json(&format!(r#"[{{"op_types": ["Linear"], {settings}}}]"#)).unwrap();
    let chain = Compressor::from_model(model, Evaluator::new());
    let chain = (pruner.fuse)(chain, &config, 1)?;
    Ok(chain.compress(Budget::none())?.masks())
}

/// Channels that depend on nothing by hand, so that no graph is needed.
const CHANNELS: &str =
    r#""sparse_ratio": 0.5, "granularity": "out_channel", "dependency_group_id": "by hand""#;

/// Weights `[rows, columns]` with as many columns as are said, ties among them.
fn weights() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (1usize..6, 2usize..7).prop_flat_map(|(rows, columns)| {
        let value = (-12i8..12).prop_map(|v| f32::from(v) / 8.0);
        (Just(columns), prop::collection::vec(value, rows * columns))
    })
}

proptest! {
    #[test]
    fn scores_move_with_their_blocks((columns, weight) in weights(), turn in 0usize..6) {
        let rows = weight.len() / columns;
        let blocks = Blocks::new(&[rows, columns], &[-1, 1]).unwrap();
        let turn = turn % columns;
        let turned: Vec<f32> = weight.chunks(columns)
            .flat_map(|row| row[turn..].iter().chain(&row[..turn]).copied())
            .collect();
        let scores: [&dyn Importance; 4] = [&Level, &L1Norm, &L2Norm, &Fpgm];
        for score in scores {
            let mut expected = score.score(&weight, &blocks);
            expected.rotate_left(turn);
            for (found, expected) in score.score(&turned, &blocks).iter().zip(expected) {
                prop_assert!((found - expected).abs() <= 1e-6 * expected.abs());
            }
        }
        // Among equals the earlier is the smaller, so only the set of scores is the same.
        let sorted = |weight: &[f32]| {
            let mut scores = Lamp.score(weight, &blocks);
            scores.sort_by(f32::total_cmp);
            scores
        };
        for (found, expected) in sorted(&turned).iter().zip(sorted(&weight)) {
            prop_assert!((found - expected).abs() <= 1e-6 * expected.abs());
        }
    }

    #[test]
    fn the_scale_of_the_weights_changes_no_mask(
        (columns, weight) in weights(),
        power in -20i32..20,
    ) {
        let scaled: Vec<f32> = weight.iter().map(|w| w * 2f32.powi(power)).collect();
        for pruner in entries() {
            let before = masks(&pruner, &weight, columns, CHANNELS).unwrap();
            let after = masks(&pruner, &scaled, columns, CHANNELS).unwrap();
            prop_assert_eq!(before, after, "{}", pruner.name);
        }
    }

    #[test]
    fn a_threshold_removes_what_is_below_within_its_bounds(
        (columns, weight) in weights(),
        threshold in 0.0f64..3.0,
        bounds in prop::option::of((0.0f64..0.5, 0.5f64..=1.0)),
    ) {
        let blocks = Blocks::new(&[weight.len() / columns, columns], &[-1, 1]).unwrap();
        let bound = bounds.map(|(min, max)| {
            format!(r#", "min_sparse_ratio": {min}, "max_sparse_ratio": {max}"#)
        });
        let settings = CHANNELS.replace("ratio\": 0.5", &format!("threshold\": {threshold}"))
            + &bound.unwrap_or_default();
        let scores = L1Norm.score(&weight, &blocks);
        let below = scores.iter().filter(|&&s| s < threshold as f32).count();
        let count = |ratio: f64| (columns as f64 * ratio) as usize;
        let expected = match bounds {
            Some((min, _)) if (below as f64 / columns as f64) < min => count(min),
            Some((_, max)) if (below as f64 / columns as f64) > max => count(max),
            _ => below,
        };
        let l1 = entries().into_iter().find(|entry| entry.name == "L1NormPruner").unwrap();
        let masks = masks(&l1, &weight, columns, &settings).unwrap();
        let removed = masks[0].removed_along(1);
        prop_assert_eq!(removed.iter().filter(|r| **r).count(), expected.min(columns - 1));
        let largest = |gone: bool| {
            let scores = scores.iter().zip(&removed).filter(|(_, r)| **r == gone).map(|(s, _)| *s);
            let by = if gone { f32::max } else { f32::min };
            scores.reduce(by)
        };
        if let (Some(gone), Some(stays)) = (largest(true), largest(false)) {
            prop_assert!(gone <= stays);
        }
    }

    #[test]
    fn a_bias_loses_the_channels_that_its_weight_loses(
        (columns, weight) in weights(),
        ratio in 0.0f64..=1.0,
        granularity in prop::sample::select(vec!["[1, 1]", "[-1, 1]", "[1, -1]", "[-1, -1]"]),
    ) {
        let settings = format!(
            r#""sparse_ratio": {ratio}, "granularity": {granularity},
                "dependency_group_id": "by hand""#
        );
        for pruner in entries() {
            if pruner.name == "FpgmPruner" && granularity == "[1, 1]" {
                continue;
            }
            let rows = weight.len() / columns;
            let one_block = granularity == "[-1, -1]" || (granularity == "[1, -1]" && rows == 1);
            let masks = masks(&pruner, &weight, columns, &settings);
            // The only block stays, so that the goal is refused.
            prop_assert_eq!(masks.is_err(), one_block && ratio > 0.0, "{:?}", masks.err());
            let Ok(masks) = masks else {
                continue;
            };
            prop_assert_eq!(masks.len(), 2);
            prop_assert_eq!(masks[1].removed_along(0), masks[0].removed_along(1));
        }
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    for pruner in entries() {
        let weight = [1.0, 2.0, f32::NAN, 4.0, 5.0, 6.0];
        let error = masks(&pruner, &weight, 3, CHANNELS).unwrap_err();
        let error = cause(&error).to_string();
        assert!(
            error.starts_with("weight: value 2 is NaN"),
            "{}: {error}",
            pruner.name
        );
    }
}
