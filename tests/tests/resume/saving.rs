//! When checkpoints are written, and what a failed write leaves.

use std::fs;

use burn_compress::prelude::*;
use burn_compress::{Algorithm, AlgorithmState, BoxError, Error, Mode};
use burn_compress_tests::chains::{assert_says, outcome};
use burn_compress_tests::nets::{Batch, Net, Outcome, bits};

use crate::fixtures::{Place, STEPS, fused, written};

#[test]
fn checkpoints_are_left_at_every_interval() {
    let place = Place::new();
    let budget = Budget::epochs(3).with_checkpoint(&place.path, 5);
    let whole = outcome(fused(1), &budget);
    assert_eq!(
        fs::read_dir(place.folder()).unwrap().count(),
        1,
        "one file, replaced"
    );
    let without = outcome(fused(1), &Budget::epochs(3));
    assert_eq!(
        without.difference(&whole),
        [""; 0],
        "saving changes nothing"
    );
    // Three epochs are 21 steps: the last multiple of 5 is 20.
    let mut chain = fused(2).resume(&place.path).unwrap();
    let before = bits(chain.model());
    chain.advance(&budget, Some(20)).unwrap();
    assert!(
        before == bits(chain.model()),
        "the checkpoint is that of step 20"
    );
    let compressed = chain.compress(Budget::epochs(3)).unwrap();
    assert_eq!(compressed.history().steps.len(), 21);
    assert_eq!(Outcome::of(&compressed).difference(&whole), [""; 0]);
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let place = Place::new();
    let before = written(&place.path);
    let error = fused(1)
        .save_checkpoint(place.folder().join("none").join("file"))
        .unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");

    // A chain whose algorithm cannot tell its state.
    let mut chain = fused(1);
    chain.chain().push(Stateless);
    let error = chain.save_checkpoint(&place.path).unwrap_err();
    assert_says(&error, &["Stateless: no state today"]);
    assert_eq!(fs::read(&place.path).unwrap(), before);
    assert_eq!(fs::read_dir(place.folder()).unwrap().count(), 1);
    let nowhere = place.folder().join("none").join("file");
    let error = fused(1)
        .compress(Budget::steps(STEPS).with_checkpoint(nowhere, 5))
        .unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    // What is left over from a save that was killed does not stop the next one.
    fs::write(place.folder().join("run.checkpoint.tmp"), "half").unwrap();
    fused(1).save_checkpoint(&place.path).unwrap();
    assert!(fused(2).resume(&place.path).is_ok());
}

struct Stateless;

impl Algorithm<Net, Batch> for Stateless {
    fn name(&self) -> &'static str {
        "Stateless"
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        Err("no state today".into())
    }
}
