//! Small models that are quantized, saved or made smaller again.

use burn::tensor::Device;
use burn_compress::layer::layers;
use burn_compress::prelude::*;
use burn_compress::speedup::verify::{
    RoundingBoundary, TOLERANCE, relative_error, rounding_boundary,
};
use burn_compress::speedup::{SaveConfig, save_small_with};
use burn_compress::{Calibration, History, Masks};
use burn_compress_tests::random_net::NetSpec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::comparison::{check_rounding, outputs, speed_up, values};
use crate::groups::{Group, mask_of};
use crate::harness::{Tally, check};
use crate::pruned::{Quantized, prune_and_quantize, prune_coupled, quantized, ratios};
use crate::strategy;

#[test]
fn quantized_models_differ_on_rounding_boundaries_only() {
    let name = "small == simulated, quantized";
    let tally = quantized_models(name, false, 150);
    assert!(tally.get("networks that quantization changes") >= 140);
    assert!(tally.get("networks that lost channels") >= 60);
}

#[test]
fn folded_models_differ_on_rounding_boundaries_only() {
    let name = "small == simulated, quantized with folded norms";
    let tally = quantized_models(name, true, 150);
    assert!(tally.get("folded norms") >= 150);
    assert!(tally.get("networks that lost channels") >= 60);
}

/// Cuts quantized networks and compares them with what was simulated.
fn quantized_models(name: &str, folds: bool, cases: u32) -> Tally {
    let strategy = (strategy::nets(), ratios(), quantized(folds));
    let tally = check(name, cases, strategy, |(spec, ratios, quantized), tally| {
        let device = Device::flex();
        let pruned = prune_and_quantize(&spec, &ratios, quantized, &device)?;
        let Some(pruned) = pruned else {
            tally.add("networks without a removable channel", 1);
            return Ok(());
        };
        tally.add("folded norms", pruned.folded as u64);
        let masks = pruned.compressed.masks();
        let calibration = pruned.compressed.calibration()?;
        let Some(small) = speed_up(&spec, &pruned.compressed, tally)? else {
            return Ok(());
        };
        prop_assert_eq!(small.state.calibration.len(), calibration.len());
        // Scales go with their channels, in order. Only convolutions of one group of channels a
        // row keep exactly the rows that their mask keeps.
        for layer in layers(&pruned.dense)
            .iter()
            .filter(|layer| layer.kind == "Conv2d")
        {
            let mask = mask_of(&masks, &format!("{}.weight", layer.path));
            let Some(rows) = mask.map(|mask| mask.removed_along(0)) else {
                continue;
            };
            for target in ["weight", "_output_0"] {
                let id: TargetId = format!("{}.{target}", layer.path).parse()?;
                let Some(before) = calibration.get(&id) else {
                    // That of a folded layer is the output of its norm or activation.
                    prop_assert!(folds && target == "_output_0", "{}", id);
                    continue;
                };
                let after = &small.state.calibration[&id];
                let (Some(before), Some(after)) = (&before.scale, &after.scale) else {
                    return Err(TestCaseError::fail(format!("`{id}` has no scale")));
                };
                if before.len() == 1 {
                    prop_assert_eq!(before, after);
                    continue;
                }
                let left: Vec<f32> = before
                    .iter()
                    .zip(&rows)
                    .filter(|(_, removed)| !**removed)
                    .map(|(scale, _)| *scale)
                    .collect();
                prop_assert_eq!(&left, after, "{}", id);
                tally.add("re-indexed targets", 1);
            }
        }
        let images = spec.images(4, 16, &device);
        let RoundingBoundary { values, differing } = rounding_boundary(
            &outputs(pruned.compressed.model(), &images),
            &outputs(&small.model, &images),
            TOLERANCE,
        )?;
        let unquantized = outputs(&pruned.compressed.masked_model(), &images);
        let effect = relative_error(&unquantized, &outputs(&small.model, &images))?;
        tally.add(
            "networks that quantization changes",
            u64::from(effect > TOLERANCE),
        );
        tally.add("values", values);
        tally.add("values that differ", differing);
        tally.add("networks with values that differ", u64::from(differing > 0));
        let removed: usize = pruned.groups.iter().map(Group::goal).sum();
        tally.add("networks that lost channels", u64::from(removed > 0));
        Ok(())
    });
    let fraction = tally.get("values that differ") as f64 / tally.get("values") as f64;
    eprintln!("{name}: {:.4} % of the values differ", 100.0 * fraction);
    assert!(fraction < 1e-3);
    check_rounding(&tally);
    tally
}

#[test]
fn small_models_survive_saving_bit_for_bit() {
    let strategy = (strategy::nets(), ratios(), any::<bool>());
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join("small.bcs");
    check(
        "saving and loading",
        100,
        strategy,
        |(spec, ratios, quantize), tally| {
            let device = Device::flex();
            let quantized = Quantized {
                affine: true,
                per_channel: true,
                folds: false,
            };
            let pruned = match quantize {
                true => prune_and_quantize(&spec, &ratios, quantized, &device)?,
                false => prune_coupled(&spec, &ratios, true, false, &device)?,
            };
            let Some(pruned) = pruned else { return Ok(()) };
            let Some(small) = speed_up(&spec, &pruned.compressed, tally)? else {
                return Ok(());
            };
            let other = NetSpec {
                seed: spec.seed ^ 1,
                ..spec.clone()
            };
            let images = spec.images(5, 3, &device);
            for master_weights in [false, true] {
                let config = SaveConfig::new().with_master_weights(master_weights);
                let storage = save_small_with(&small.model, &small.state, &path, &config)?;
                prop_assert_eq!(storage.file_bytes, std::fs::metadata(&path)?.len());
                let (loaded, state) = load_small(other.build(&device), &path)?;
                prop_assert_eq!(&state, &small.state);
                prop_assert!(outputs(&loaded, &images) == outputs(&small.model, &images));
                if master_weights || !quantize {
                    prop_assert!(values(&loaded) == values(&small.model));
                    prop_assert_eq!(storage.integers, 0);
                } else {
                    tally.add("values stored as integers", storage.integers);
                    prop_assert_eq!(small.report.storage, Some(storage));
                }
            }
            tally.add("quantized", u64::from(quantize));
            Ok(())
        },
    );
}

#[test]
fn nothing_is_left_to_remove_in_a_small_model() {
    let strategy = (strategy::nets(), ratios());
    check(
        "speedup of a small model",
        100,
        strategy,
        |(spec, ratios), tally| {
            let device = Device::flex();
            let Some(pruned) = prune_coupled(&spec, &ratios, true, true, &device)? else {
                return Ok(());
            };
            let dummy_input = spec.dummy_input(&device);
            let Some(small) = speed_up(&spec, &pruned.compressed, tally)? else {
                return Ok(());
            };
            let again = Compressed::from_parts(
                small.model.clone(),
                &Masks::new(),
                &Calibration::new(),
                History::default(),
            )?;
            let again = ModelSpeedup::new(again, dummy_input).speedup_model()?;
            prop_assert!(values(&again.model) == values(&small.model));
            prop_assert_eq!(again.report.params.dense, again.report.params.small);
            prop_assert_eq!(again.report.params.dense, small.report.params.small);
            prop_assert_eq!(again.report.macs.dense, small.report.macs.small);
            tally.add("networks", 1);
            Ok(())
        },
    );
}
