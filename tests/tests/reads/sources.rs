//! Nothing reads a device past the functions that count.

use std::fs;
use std::path::{Path, PathBuf};

/// What reads a tensor of Burn.
const READS: [&str; 5] = [
    "into_data",
    "to_data",
    "into_scalar",
    "to_scalar",
    "Transaction",
];

/// Where that may stand, and how often. Only the first is part of a training run.
const PLACES: [(&str, usize); 7] = [
    // Counts its reads: one of a tensor, and a transaction with its import.
    ("core/src/run/reads/mod.rs", 3),
    // Whether a model is finite: before a run, at its end and where it is saved.
    ("core/src/run/finite.rs", 1),
    // The run in a record that is loaded.
    ("core/src/run/trainee/record.rs", 1),
    // The outputs of a model that was sped up, to be verified, and inputs that are brought to other
    // sizes for an export.
    ("graph/src/dummy.rs", 2),
    // The parameters of a model that is saved or exported.
    ("speedup/src/tensors.rs", 1),
    ("export/src/export.rs", 1),
    // Whole models that the test kit compares.
    ("testkit/src/nets.rs", 1),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !["tests.rs", "testing.rs"].contains(&&*name) {
            found.push(path);
        }
    }
}

/// The lines that run outside of tests: no comments, and nothing from the first test module on.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    let mut before_tests = lines.clone().zip(lines.skip(1)).take_while(|(line, next)| {
        let begins = |line: &str| line.contains("mod ") && line.ends_with('{');
        !(*line == "#[cfg(test)]" && begins(next))
    });
    std::iter::from_fn(move || before_tests.next().map(|(line, _)| line))
        .filter(|line| !line.starts_with("//"))
}

#[test]
fn reads_of_the_library_go_through_one_module() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut files = Vec::new();
    for entry in fs::read_dir(&crates).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut files);
    }
    assert!(files.len() > 100, "{} files", files.len());
    let mut seen = Vec::new();
    let mut elsewhere = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&crates).unwrap();
        let name = name.to_string_lossy().replace('\\', "/");
        // Reads of a crate's own tests, named after what they check.
        if name == "distillation/src/check.rs" || name.ends_with("/properties.rs") {
            continue;
        }
        let lines = code(&text).filter(|line| READS.iter().any(|read| line.contains(read)));
        let lines: Vec<&str> = lines.collect();
        match PLACES.iter().find(|(place, _)| *place == name) {
            Some(&(place, allowed)) => {
                assert_eq!(lines.len(), allowed, "{place}: {lines:?}");
                seen.push(place);
            }
            None => elsewhere.extend(lines.iter().map(|line| format!("{name}: {line}"))),
        }
    }
    assert_eq!(seen.len(), PLACES.len(), "{seen:?}");
    assert!(
        elsewhere.is_empty(),
        "these read a device past `burn_compress_core::reads`: {elsewhere:#?}"
    );
}
