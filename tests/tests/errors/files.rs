//! Files of small models and checkpoints that are damaged or belong elsewhere.

use std::fs;
use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::LinearConfig;
use burn::tensor::{Device, TensorData};
use burn_compress::prelude::*;
use burn_compress::speedup::{SmallState, SpeedupError};
use burn_compress::{Error, simulated};
use burn_compress_tests::chains::{self, HALF, assert_says};
use burn_compress_tests::nets::{Net, NetConfig, bits, dummy_input};
use tempfile::TempDir;

use crate::fixtures::{QUANTIZE, chain, net, prune, quantize, small};

/// A small model in a file.
fn saved(path: &Path) -> Speedup<Net> {
    let small = small();
    save_small(&small.model, &small.state, path).unwrap();
    small
}

#[test]
fn damaged_files_of_small_models() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    saved(&path);
    let bytes = fs::read(&path).unwrap();
    let refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let error = load_small(net(), &path).unwrap_err();
        assert!(matches!(error, SpeedupError::Format { .. }), "{error}");
        assert_says(
            &error,
            &[&path.display().to_string(), "not a usable small model"],
        );
    };
    for length in [0, 5, 20, 28, 300, bytes.len() - 1] {
        refused(&bytes[..length]);
    }
    for part in 0..16 {
        let mut damaged = bytes.clone();
        damaged[(bytes.len() - 1) * part / 15] ^= 4;
        refused(&damaged);
    }
    refused(b"no model at all, but long enough to be one");
    let error = load_small(net(), folder.path().join("none")).unwrap_err();
    assert!(matches!(error, SpeedupError::Io { .. }), "{error}");
    assert_says(&error, &["none"]);
}

#[test]
fn files_of_other_models() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    saved(&path);
    // A network that is narrower than the small one.
    let narrow = NetConfig {
        width: 2,
        ..NetConfig::default()
    }
    .init(1);
    let error = load_small(narrow, &path).unwrap_err();
    assert!(
        matches!(error, SpeedupError::Architecture { .. }),
        "{error}"
    );
    assert_says(&error, &["block.", "does not belong to this model"]);
    let linear = LinearConfig::new(4, 4).init(&Device::flex());
    let error = load_small(linear, &path).unwrap_err();
    assert_says(&error, &["it has no `weight`"]);
    // A checkpoint of a run is no small model, and the other way round.
    let checkpoint = folder.path().join("checkpoint");
    chain().save_checkpoint(&checkpoint).unwrap();
    assert!(matches!(
        load_small(net(), &checkpoint),
        Err(SpeedupError::Format { .. })
    ));
    let error = chain().resume(&path).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    assert_says(&error, &[&path.display().to_string(), "not a checkpoint"]);
}

#[test]
fn an_ordinary_load_of_a_small_file_fails_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    let small = saved(&path);
    let full = net();
    let before = bits(&full);
    assert!(full.clone().try_load_file(&path).is_err());
    // A record of the small model does not fit either.
    let record = folder.path().join("record.bpk");
    small.model.clone().save_file(&record).unwrap();
    let error = full.clone().try_load_file(&record).unwrap_err();
    assert_says(&format!("{error:?}"), &["stem.weight"]);
    assert!(bits(&full) == before);
    let (loaded, state) = load_small(full, &path).unwrap();
    assert_eq!(bits(&loaded), bits(&small.model));
    assert_eq!(state, small.state);
}

#[test]
fn a_small_model_that_cannot_be_saved() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    let mut small = saved(&path);
    let before = fs::read(&path).unwrap();
    small.model.head.weight =
        Param::from_data(TensorData::from([[f32::INFINITY; 3]; 5]), &Device::flex());
    let error = save_small(&small.model, &small.state, &path).unwrap_err();
    assert!(matches!(error, SpeedupError::NotFinite { .. }), "{error}");
    assert_says(&error, &["`head.weight`", "nothing was saved"]);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_state_that_is_not_that_of_the_model() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small");
    let compressed = quantize(QUANTIZE).unwrap().compress(Budget::steps(2));
    let small = ModelSpeedup::new(compressed.unwrap(), dummy_input())
        .speedup_model()
        .unwrap();
    let refused = |state: &SmallState| {
        let error = save_small(&small.model, state, &path).unwrap_err();
        assert!(matches!(error, SpeedupError::State { .. }), "{error}");
        assert!(!path.exists());
        error.to_string()
    };
    let text = refused(&SmallState::default());
    assert_says(&text, &["a quantization of `stem.", "pass the state"]);
    // Scales of another run.
    let mut state = small.state.clone();
    for scale in state.calibration[0].scale.iter_mut().flatten() {
        *scale *= 2.0;
    }
    refused(&state);
    save_small(&small.model, &small.state, &path).unwrap();

    // A mask of a quantized weight is still simulated.
    let masked = chains::quantize(prune(HALF).unwrap(), QUANTIZE, QatConfig::new());
    let compressed = masked.unwrap().compress(Budget::steps(1)).unwrap();
    let (masks, calibration) = simulated(compressed.model()).unwrap();
    assert_eq!(masks, compressed.masks());
    assert_eq!(calibration, compressed.calibration().unwrap());
    let state = SmallState {
        calibration,
        ..SmallState::default()
    };
    let error = save_small(compressed.model(), &state, &path).unwrap_err();
    assert_says(&error, &["carries a mask of `stem."]);
}

#[cfg(unix)]
#[test]
fn files_are_written_through_links() {
    use std::os::unix::fs::symlink;

    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    symlink("run-3", at("latest")).unwrap();
    symlink("small-3", at("small")).unwrap();
    symlink("missing/file", at("broken")).unwrap();
    chain().save_checkpoint(at("latest")).unwrap();
    saved(&at("small"));
    assert!(at("latest").is_symlink() && at("small").is_symlink());
    assert!(chain().resume(at("run-3")).is_ok());
    assert!(load_small(net(), at("small-3")).is_ok());
    let error = chain().save_checkpoint(at("broken")).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    assert!(at("broken").is_symlink());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
}

#[test]
fn large_files_of_another_kind() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large");
    // Four terabytes that take no room on the disk, and more than fits into the memory.
    fs::write(&path, "a large file of another kind").unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(1 << 42).unwrap();
    let error = chain().resume(&path).unwrap_err();
    assert_says(&error, &["not a checkpoint"]);
    let error = load_small(net(), &path).unwrap_err();
    assert_says(&error, &["not a small model"]);
    let error = TeacherCache::open(&path, |_: &u64| Vec::new()).unwrap_err();
    assert_says(&error, &["not a cache of a teacher"]);
}

#[test]
fn a_place_for_checkpoints_that_does_not_exist() {
    let folder = TempDir::new().unwrap();
    let budget = Budget::steps(8).with_checkpoint(folder.path().join("none/run"), 5);
    let mut chain = chain();
    let error = chain.advance(&budget, None).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    assert!(chain.history().steps.is_empty(), "before the first step");
}
