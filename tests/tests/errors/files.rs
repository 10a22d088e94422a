//! Files of small models and checkpoints that are damaged or belong elsewhere.

use std::fs;
use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::LinearConfig;
use burn::tensor::{Device, TensorData};
use burn_compress::Error;
use burn_compress::prelude::*;
use burn_compress::speedup::SpeedupError;
use burn_compress_tests::chains::assert_says;
use burn_compress_tests::nets::{Net, NetConfig, bits};
use tempfile::TempDir;

use crate::fixtures::{chain, net, small};

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
