//! Checkpoints that are damaged, belong elsewhere or are no files.

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Chain, HALF};
use burn_compress_tests::nets::{NetConfig, Outcome, evaluator};
use tempfile::TempDir;

use crate::fixtures::{DISTILL, NET, QUANTIZE, chain, prune, small};
use crate::table::{Attempt, Cases, ensure};

/// A run of pruner and quantizer.
fn fused() -> Result<Chain, Box<dyn std::error::Error>> {
    chains::quantize(prune(HALF)?, QUANTIZE, QatConfig::new())
}

/// Writes a checkpoint after a step.
fn written(path: &Path) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut chain = fused()?;
    chain.advance(&Budget::steps(3), Some(1))?;
    chain.save_checkpoint(path)?;
    Ok(fs::read(path)?)
}

/// What becomes of a resumed run, with the checkpoint changed before.
fn resumed(change: impl FnOnce(&Path) -> Attempt) -> Attempt {
    let folder = TempDir::new()?;
    let path = folder.path().join("run.checkpoint");
    written(&path)?;
    change(&path)?;
    fused()?.resume(&path)?;
    Ok(())
}

pub fn fill(cases: &mut Cases) {
    for part in [0, 1, 8, 16, 24, 100] {
        let parts = ["run.checkpoint"];
        cases.refused(
            format!("cut off after {part} bytes"),
            "Checkpoint",
            parts,
            move || resumed(|path| Ok(fs::write(path, &fs::read(path)?[..part])?)),
        );
    }
    for eighth in 1..8 {
        let parts = ["run.checkpoint"];
        cases.refused(
            format!("cut off after {eighth} eighths"),
            "Checkpoint",
            parts,
            move || {
                resumed(|path| {
                    let bytes = fs::read(path)?;
                    Ok(fs::write(path, &bytes[..bytes.len() * eighth / 8])?)
                })
            },
        );
    }
    for part in 0..12 {
        let name = format!("a bit flipped after {part} of 11 parts");
        cases.refused(name, "Checkpoint", ["run.checkpoint"], move || {
            resumed(|path| {
                let mut bytes = fs::read(path)?;
                let at = (bytes.len() - 1) * part / 11;
                bytes[at] ^= 16;
                Ok(fs::write(path, bytes)?)
            })
        });
    }
    cases.refused(
        "bytes behind the end",
        "Checkpoint",
        ["run.checkpoint"],
        || resumed(|path| Ok(fs::write(path, [fs::read(path)?, vec![0; 64]].concat())?)),
    );
    cases.refused(
        "twice in one file",
        "Checkpoint",
        ["run.checkpoint"],
        || resumed(|path| Ok(fs::write(path, fs::read(path)?.repeat(2))?)),
    );
    cases.refused("a missing file", "Checkpoint", ["run.checkpoint"], || {
        resumed(|path| Ok(fs::remove_file(path)?))
    });
    cases.refused("a folder", "Checkpoint", ["run.checkpoint"], || {
        resumed(|path| {
            fs::remove_file(path)?;
            Ok(fs::create_dir(path)?)
        })
    });
    for (name, content) in [
        ("an empty file", ""),
        ("text", "step 9 of 24\n"),
        ("JSON", r#"{"step": 9}"#),
    ] {
        cases.refused(name, "Checkpoint", ["run.checkpoint"], move || {
            resumed(|path| Ok(fs::write(path, content.repeat(40))?))
        });
    }
    cases.refused(
        "a record of Burn",
        "Checkpoint",
        ["not a checkpoint"],
        || resumed(|path| Ok(NET.init(1).save_file(path)?)),
    );
    cases.refused("a small model", "Checkpoint", ["not a checkpoint"], || {
        resumed(|path| {
            let small = small()?;
            save_small(&small.model, &small.state, path)?;
            Ok(())
        })
    });
    cases.right("a link to the file", || {
        let folder = TempDir::new()?;
        let (path, link) = (folder.path().join("run-1"), folder.path().join("latest"));
        written(&path)?;
        std::os::unix::fs::symlink(&path, &link)?;
        let chain = fused()?.resume(&link)?;
        ensure(chain.history().steps.len() == 1, "another step")
    });
    cases.refused("a link to nothing", "Checkpoint", ["latest"], || {
        let folder = TempDir::new()?;
        let link = folder.path().join("latest");
        std::os::unix::fs::symlink(folder.path().join("run-1"), &link)?;
        fused()?.resume(&link)?;
        Ok(())
    });
    others(cases);
    right(cases);
}

/// Checkpoints of other chains and models.
fn others(cases: &mut Cases) {
    type Make = fn() -> Result<Chain, Box<dyn std::error::Error>>;
    let chains: [(&str, Make, &[&str]); 6] = [
        (
            "an empty chain",
            || Ok(chain()),
            &["L1NormPruner", "this chain is"],
        ),
        (
            "a pruner alone",
            || prune(HALF),
            &["QatQuantizer", "this chain is"],
        ),
        (
            "another order",
            || {
                let chain = chains::quantize(chain(), QUANTIZE, QatConfig::new())?;
                chains::prune(chain, HALF, PrunerConfig::new())
            },
            &["L1NormPruner", "this chain is"],
        ),
        (
            "a distiller more",
            || chains::distill(fused()?, DISTILL, &NET.init(3), 1.0),
            &["DynamicLayerwiseDistiller"],
        ),
        (
            "fewer layers",
            || {
                let rules = r#"[{"op_names": ["stem"], "quant_dtype": "int8"}]"#;
                chains::quantize(prune(HALF)?, rules, QatConfig::new())
            },
            &["which is no target of this chain"],
        ),
        (
            "a wider model",
            || {
                let net = NetConfig { width: 6, ..NET }.init(1);
                let chain = Compressor::from_model(net, evaluator(4));
                let chain = chains::prune(chain, HALF, PrunerConfig::new())?;
                chains::quantize(chain, QUANTIZE, QatConfig::new())
            },
            &["block."],
        ),
    ];
    for (name, make, parts) in chains {
        cases.refused(
            format!("resumed by {name}"),
            "Checkpoint",
            parts,
            move || {
                let folder = TempDir::new()?;
                let path = folder.path().join("run.checkpoint");
                written(&path)?;
                make()?.resume(&path)?;
                Ok(())
            },
        );
    }
    cases.refused(
        "resumed with a shorter budget",
        "Budget",
        ["1", "0"],
        || {
            let folder = TempDir::new()?;
            let path = folder.path().join("run.checkpoint");
            let mut run = chain();
            run.advance(&Budget::steps(3), Some(1))?;
            run.save_checkpoint(&path)?;
            chain().resume(&path)?.compress(Budget::none())?;
            Ok(())
        },
    );
    for (name, path) in [
        ("a folder that does not exist", "none/run.checkpoint"),
        ("a folder", ""),
        ("a file as a folder", "file/run.checkpoint"),
    ] {
        cases.refused(format!("saved to {name}"), "Checkpoint", [""], move || {
            let folder = TempDir::new()?;
            fs::write(folder.path().join("file"), "")?;
            let outcome = fused()?.save_checkpoint(folder.path().join(path));
            let left = fs::read_dir(folder.path())?.count();
            ensure(left == 1, "something was left beside it")?;
            Ok(outcome?)
        });
    }
}

/// Stopping at unusual places.
fn right(cases: &mut Cases) {
    for stop in [0, 3] {
        cases.right(format!("stopped after {stop} of 3 steps"), move || {
            let budget = Budget::steps(3);
            let whole = Outcome::of(&fused()?.compress(budget.clone())?);
            let folder = TempDir::new()?;
            let path = folder.path().join("run.checkpoint");
            let mut run = fused()?;
            run.advance(&budget, Some(stop))?;
            run.save_checkpoint(&path)?;
            let again = Outcome::of(&fused()?.resume(&path)?.compress(budget)?);
            ensure(
                again == whole,
                format!("{:?} differ", again.difference(&whole)),
            )
        });
    }
    cases.right("saved before the first step", || {
        let folder = TempDir::new()?;
        let path = folder.path().join("run.checkpoint");
        fused()?.save_checkpoint(&path)?;
        let chain = fused()?.resume(&path)?;
        ensure(chain.history().steps.is_empty(), "there are steps")
    });
    cases.right(
        "a model with other weights takes those of the checkpoint",
        || {
            let folder = TempDir::new()?;
            let path = folder.path().join("run.checkpoint");
            let budget = Budget::steps(3);
            let whole = Outcome::of(&fused()?.compress(budget.clone())?);
            written(&path)?;
            let other = Compressor::from_model(NET.init(9), evaluator(4));
            let other = chains::prune(other, HALF, PrunerConfig::new())?;
            let other = chains::quantize(other, QUANTIZE, QatConfig::new())?;
            let again = Outcome::of(&other.resume(&path)?.compress(budget)?);
            ensure(
                again == whole,
                format!("{:?} differ", again.difference(&whole)),
            )
        },
    );
}
