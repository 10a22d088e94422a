//! Checkpoints that are damaged or belong to another run.

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn_compress::Error;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Built, Chain, assert_says};
use burn_compress_tests::nets::{NetConfig, evaluator};

use crate::fixtures::{
    NET, Place, QUANTIZE, STEPS, distilled, fused, plain, pruned, quantized, written,
};

/// What a chain says about the checkpoint at `path`.
fn refusal(chain: Chain, path: &Path) -> String {
    match chain.resume(path) {
        Err(error @ Error::Checkpoint { .. }) => {
            assert_says(&error, &[&path.display().to_string()]);
            error.to_string()
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("the checkpoint was accepted"),
    }
}

#[test]
fn damaged_checkpoints_are_refused() {
    let place = Place::new();
    let bytes = written(&place.path);
    let chain = || fused(2);
    for length in [0, 1, 8, 16, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&place.path, &bytes[..length]).unwrap();
        refusal(chain(), &place.path);
    }
    // One bit anywhere: in the header, the metadata, the model, the optimizer, the masks.
    for part in 0..24 {
        let at = (bytes.len() - 1) * part / 23;
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        fs::write(&place.path, &damaged).unwrap();
        refusal(chain(), &place.path);
    }
    let mut longer = bytes.clone();
    longer.extend([0; 64]);
    fs::write(&place.path, &longer).unwrap();
    refusal(chain(), &place.path);
    fs::write(&place.path, &bytes).unwrap();
    assert!(chain().resume(&place.path).is_ok());
}

#[test]
fn foreign_and_missing_files_are_refused() {
    let place = Place::new();
    let missing = place.folder().join("none");
    refusal(fused(1), &missing);
    refusal(fused(1), place.folder());
    let text = place.folder().join("text");
    fs::write(&text, "step 9 of 24\n".repeat(40)).unwrap();
    refusal(fused(1), &text);
    let model = place.folder().join("model.bpk");
    NET.init(1).save_file(&model).unwrap();
    let text = refusal(fused(1), &model);
    assert_says(&text, &["not a checkpoint of a compression run"]);
}

#[test]
fn checkpoints_of_other_chains_are_refused_with_the_difference() {
    let place = Place::new();
    written(&place.path);

    let text = refusal(pruned(1).and_then(quantized).unwrap(), &place.path);
    let algorithms = r#"["AgpPruner", "QatQuantizer", "DynamicLayerwiseDistiller"]"#;
    assert_says(&text, &[algorithms, "this chain is"]);
    let other_order = pruned(1).and_then(distilled).and_then(quantized).unwrap();
    refusal(other_order, &place.path);

    // The same algorithms on fewer layers, then on more.
    let fewer = |chain: Chain| -> Built {
        let rules = r#"[{"op_names": ["stem"], "quant_dtype": "int8"}]"#;
        chains::quantize(chain, rules, QatConfig::new())
    };
    let text = refusal(
        pruned(1).and_then(fewer).and_then(distilled).unwrap(),
        &place.path,
    );
    assert_says(&text, &["which is no target of this chain"]);
    let mut small = pruned(1).and_then(fewer).and_then(distilled).unwrap();
    small.advance(&Budget::steps(STEPS), Some(1)).unwrap();
    small.save_checkpoint(&place.path).unwrap();
    let text = refusal(fused(1), &place.path);
    assert_says(&text, &["it lacks `"]);
}

#[test]
fn a_checkpoint_of_a_wider_model_is_refused() {
    let place = Place::new();
    let chain = |width: usize| {
        let net = NetConfig { width, ..NET }.init(1);
        let chain = Compressor::from_model(net, evaluator(STEPS));
        chains::quantize(chain, QUANTIZE, QatConfig::new()).unwrap()
    };
    let mut wide = chain(12);
    wide.advance(&Budget::steps(4), Some(2)).unwrap();
    wide.save_checkpoint(&place.path).unwrap();
    let text = refusal(chain(8), &place.path);
    assert_says(&text, &["block.conv1"]);
}

#[test]
fn a_shorter_budget_than_that_of_the_checkpoint_is_an_error() {
    let place = Place::new();
    written(&place.path);
    // The last update of the pruning schedule is after step 20.
    let error = fused(2)
        .resume(&place.path)
        .unwrap()
        .compress(Budget::steps(12))
        .unwrap_err();
    assert!(matches!(error, Error::Budget { .. }), "{error}");
    assert_says(&error, &["20"]);
    let advanced = |steps: usize| {
        let mut chain = plain(1);
        chain.advance(&Budget::steps(steps), None).unwrap();
        chain
    };
    advanced(9).save_checkpoint(&place.path).unwrap();
    let error = advanced(0)
        .resume(&place.path)
        .unwrap()
        .compress(Budget::steps(5))
        .unwrap_err();
    assert!(matches!(error, Error::Budget { .. }), "{error}");
    assert_says(&error, &["9", "5"]);
}
