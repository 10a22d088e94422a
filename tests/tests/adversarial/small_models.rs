//! Files of small models: damaged, of other kinds, of other models, and models that cannot be saved.

use std::fs;
use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::LinearConfig;
use burn::tensor::{Device, TensorData};
use burn_compress::prelude::*;
use burn_compress::speedup::SaveConfig;
use burn_compress_tests::nets::{NetConfig, bits};
use tempfile::TempDir;

use crate::fixtures::{NET, chain, net, small};
use crate::table::{Attempt, Cases, ensure};

/// What becomes of a file that is loaded, changed before.
fn loaded(change: impl FnOnce(&Path) -> Attempt) -> Attempt {
    let folder = TempDir::new()?;
    let path = folder.path().join("net.small");
    let small = small()?;
    save_small(&small.model, &small.state, &path)?;
    change(&path)?;
    load_small(net(), &path)?;
    Ok(())
}

pub fn fill(cases: &mut Cases) {
    let parts = ["net.small", "not a usable small model"];
    for length in [0, 1, 7, 8, 12, 20, 28, 60] {
        cases.refused(
            format!("cut off after {length} bytes"),
            "Format",
            parts,
            move || loaded(|path| Ok(fs::write(path, &fs::read(path)?[..length])?)),
        );
    }
    for eighth in 1..8 {
        cases.refused(
            format!("cut off after {eighth} eighths"),
            "Format",
            parts,
            move || {
                loaded(|path| {
                    let bytes = fs::read(path)?;
                    Ok(fs::write(path, &bytes[..bytes.len() * eighth / 8])?)
                })
            },
        );
    }
    for part in 0..12 {
        cases.refused(
            format!("a bit flipped after {part} of 11 parts"),
            "Format",
            parts,
            move || {
                loaded(|path| {
                    let mut bytes = fs::read(path)?;
                    let at = (bytes.len() - 1) * part / 11;
                    bytes[at] ^= 16;
                    Ok(fs::write(path, bytes)?)
                })
            },
        );
    }
    cases.refused("bytes behind the end", "Format", parts, || {
        loaded(|path| Ok(fs::write(path, [fs::read(path)?, vec![0; 64]].concat())?))
    });
    cases.refused("another version", "Format", ["version"], || {
        loaded(|path| {
            let mut bytes = fs::read(path)?;
            bytes[8..12].copy_from_slice(&99_u32.to_le_bytes());
            Ok(fs::write(path, bytes)?)
        })
    });
    cases.refused("text", "Format", parts, || {
        loaded(|path| {
            Ok(fs::write(
                path,
                "no model at all, but long enough to be one",
            )?)
        })
    });
    cases.refused("a record of Burn", "Format", parts, || {
        loaded(|path| Ok(NET.init(1).save_file(path)?))
    });
    cases.refused("a checkpoint", "Format", parts, || {
        loaded(|path| Ok(chain().save_checkpoint(path)?))
    });
    cases.refused("a missing file", "Io", ["net.small"], || {
        loaded(|path| Ok(fs::remove_file(path)?))
    });
    cases.refused("a folder", "Io", ["net.small"], || {
        loaded(|path| {
            fs::remove_file(path)?;
            Ok(fs::create_dir(path)?)
        })
    });
    models(cases);
    saving(cases);
}

/// Files that are loaded into other models.
fn models(cases: &mut Cases) {
    for (name, config, part) in [
        ("a narrower stem", NetConfig { stem: 1, ..NET }, "stem"),
        ("a narrower block", NetConfig { width: 1, ..NET }, "block."),
    ] {
        let parts = ["net.small", "does not belong to this model", part];
        cases.refused(
            format!("loaded into {name}"),
            "Architecture",
            parts,
            move || {
                let folder = TempDir::new()?;
                let path = folder.path().join("net.small");
                let small = small()?;
                save_small(&small.model, &small.state, &path)?;
                load_small(config.init(1), &path)?;
                Ok(())
            },
        );
    }
    let parts = ["does not belong to this model", "`weight`"];
    cases.refused(
        "loaded into a model of another type",
        "Architecture",
        parts,
        || {
            let folder = TempDir::new()?;
            let path = folder.path().join("net.small");
            let small = small()?;
            save_small(&small.model, &small.state, &path)?;
            load_small(LinearConfig::new(4, 4).init(&Device::flex()), &path)?;
            Ok(())
        },
    );
    cases.right("an ordinary load of the file", || {
        let folder = TempDir::new()?;
        let path = folder.path().join("net.small");
        let small = small()?;
        save_small(&small.model, &small.state, &path)?;
        let full = net();
        let before = bits(&full);
        let refused = full.clone().try_load_file(&path).is_err();
        ensure(refused && bits(&full) == before, "it was accepted")
    });
    cases.right("saved and loaded", || {
        let folder = TempDir::new()?;
        let path = folder.path().join("net.small");
        let small = small()?;
        save_small(&small.model, &small.state, &path)?;
        let (model, state) = load_small(net(), &path)?;
        let same = bits(&model) == bits(&small.model) && state == small.state;
        ensure(same, "what was loaded differs")
    });
    cases.right("saved over an older file", || {
        let folder = TempDir::new()?;
        let path = folder.path().join("net.small");
        fs::write(&path, "something older")?;
        let small = small()?;
        save_small(&small.model, &small.state, &path)?;
        load_small(net(), &path)?;
        ensure(
            fs::read_dir(folder.path())?.count() == 1,
            "more than one file",
        )
    });
}

/// Models that hold what no file may hold, and places that take no file.
fn saving(cases: &mut Cases) {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for master in [false, true] {
            let name = format!("a weight of {value} is saved, raw weights kept: {master}");
            let parts = ["`head.weight`", "nothing was saved"];
            cases.refused(name, "NotFinite", parts, move || {
                let folder = TempDir::new()?;
                let path = folder.path().join("net.small");
                let mut small = small()?;
                let weight = TensorData::from([[value; 3]; 5]);
                small.model.head.weight = Param::from_data(weight, &Device::flex());
                let options = SaveConfig::new().with_master_weights(master);
                let outcome = burn_compress::speedup::save_small_with(
                    &small.model,
                    &small.state,
                    &path,
                    &options,
                );
                ensure(!path.exists(), "a file was written")?;
                outcome?;
                Ok(())
            });
        }
    }
    for (name, path) in [
        ("a folder that does not exist", "none/net.small"),
        ("a folder", ""),
        ("a file as a folder", "file/net.small"),
    ] {
        cases.refused(format!("saved to {name}"), "Io", [""], move || {
            let folder = TempDir::new()?;
            fs::write(folder.path().join("file"), "")?;
            let small = small()?;
            let outcome = save_small(&small.model, &small.state, folder.path().join(path));
            let left = fs::read_dir(folder.path())?.count();
            ensure(left == 1, "something was left beside it")?;
            outcome?;
            Ok(())
        });
    }
}
