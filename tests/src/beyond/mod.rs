//! Algorithms that NNI does not have, against numbers of their papers and of other libraries.
//!
//! A folder holds files of cases ([`case`]), one for each algorithm. The module of that algorithm
//! runs a case and compares everything that it expects. Nothing here knows a particular case: shapes,
//! data and numbers of cases all come from the files.

mod activations;
mod adaround;
pub mod case;
pub mod check;
mod distillation;
mod learned_starts;
mod nets;
mod post_training;
mod pruning;
mod ranges;

use std::path::{Path, PathBuf};

use crate::reference::case::{CaseError, Result};
use crate::reference::report::{Report, Verdict};
use crate::reference::verdict_of;

use case::{Case, CaseFile, files};
use check::Checks;

/// Environment variable that names another folder of cases.
pub const FOLDER_VARIABLE: &str = "BURN_COMPRESS_REFERENCE_BEYOND";

/// The folder named by [`FOLDER_VARIABLE`], by default the one beside this package's sources.
pub fn folder() -> PathBuf {
    match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("reference-beyond"),
    }
}

/// Runs every case of a folder.
///
/// # Errors
///
/// When the folder cannot be read. What goes wrong in a case is its verdict.
pub fn run(folder: &Path) -> Result<Report> {
    let mut report = Report::new("algorithm");
    for path in files(folder)? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        match CaseFile::load(&path) {
            Ok(file) => {
                for case in &file.cases {
                    report.add(&stem, &case.name, verdict(&file, case));
                }
            }
            Err(error) => report.add(&stem, "?", Verdict::Failed(vec![error.to_string()])),
        }
    }
    Ok(report)
}

/// Runs one case; a panic is a failure of that case only.
fn verdict(file: &CaseFile, case: &Case) -> Verdict {
    verdict_of(|| {
        let mut checks = Checks::new(case, file.tolerance);
        compare(&file.algorithm, case, &mut checks)?;
        Ok((checks.len(), checks.finish()))
    })
}

/// Compares everything that a case expects of an algorithm.
fn compare(algorithm: &str, case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    match algorithm {
        "activations" => activations::run(case, checks),
        "adaround" => adaround::run(case, checks),
        "attention" => distillation::attention(case, checks),
        "bias_correction" => post_training::bias_correction(case, checks),
        "dkd" => distillation::dkd(case, checks),
        "fisher" => pruning::fisher(case, checks),
        "fitnets" => distillation::fitnets(case, checks),
        "folding" => post_training::folding(case, checks),
        "kd" => distillation::kd(case, checks),
        "lamp" => pruning::lamp(case, checks),
        "learned_starts" => learned_starts::run(case, checks),
        "patterns" => pruning::patterns(case, checks),
        "ranges" => ranges::run(case, checks),
        "relational" => distillation::relational(case, checks),
        "round_to" => pruning::round_to(case, checks),
        "teachers" => distillation::teachers(case, checks),
        other => Err(CaseError::NotCovered(format!("nothing runs `{other}`"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_algorithms_are_counted_and_wrong_numbers_fail() {
        let folder = std::env::temp_dir().join(format!("beyond-{}", std::process::id()));
        let cases = folder.join("cases");
        std::fs::create_dir_all(&cases).unwrap();
        let write = |name: &str, cases_of: serde_json::Value| {
            let file = json!({
                "algorithm": name, "tolerance": {"abs": 1e-6, "rel": 1e-5}, "cases": cases_of
            });
            std::fs::write(cases.join(format!("{name}.json")), file.to_string()).unwrap();
        };
        write(
            "oracle",
            json!([{"name": "a", "inputs": {}, "expected": {"x": 1}}]),
        );
        let rounded = |kept: usize| {
            json!({
                "name": format!("kept_{kept}"), "expected": {"kept": kept},
                "inputs": {"blocks": 16, "sparse_ratio": 0.3, "round_to": 4}
            })
        };
        // Of 16 blocks 0.3 leave 12, a multiple of 4.
        write("round_to", json!([rounded(12), rounded(8)]));
        let report = run(&folder).unwrap();
        let text = report.to_string();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            (report.len(), report.passed(), report.failed()),
            (3, 1, 1),
            "{text}"
        );
        for part in [
            "not covered: a: nothing runs `oracle`",
            "FAILED: kept_8",
            "/kept",
        ] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
    }
}
