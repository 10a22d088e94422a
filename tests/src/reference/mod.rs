//! The reference test: the library against numbers that Microsoft NNI 3.0 computed.
//!
//! A folder holds cases, each a description and its tensors ([`case`]). Every case belongs to a
//! family, and the module of that family under [`families`] runs it through the public API and
//! compares everything that the case expects. Nothing here knows a particular case: shapes, bit
//! widths, ratios and groups all come from the files.

pub mod activation;
mod adapter;
pub mod array;
pub mod case;
pub mod check;
pub mod config;
pub mod drive;
pub mod expression;
pub mod families;
pub mod layer;
pub mod layout;
pub mod model;
pub mod pruning;
pub mod report;
pub mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use case::{Case, CaseError, case_names};
use report::{Report, Verdict};

/// Environment variable that names another folder of cases.
pub const FOLDER_VARIABLE: &str = "BURN_COMPRESS_REFERENCE";

/// The folder named by [`FOLDER_VARIABLE`], by default the one beside this package's sources.
pub fn folder() -> PathBuf {
    match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("reference"),
    }
}

/// Runs every case of a folder.
///
/// # Errors
///
/// When the folder cannot be read. What goes wrong in a case is its verdict.
pub fn run(folder: &Path) -> Result<Report, CaseError> {
    let mut report = Report::default();
    for name in case_names(folder)? {
        match Case::load(folder, &name) {
            Ok(case) => report.add(&case.file.family, &name, verdict(&case)),
            Err(error) => report.add("?", &name, Verdict::Failed(vec![error.to_string()])),
        }
    }
    Ok(report)
}

/// Runs one case; a panic is a failure of that case only.
fn verdict(case: &Case) -> Verdict {
    verdict_of(|| {
        let checks = families::run(case)?;
        Ok((checks.len(), checks.finish(case)))
    })
}

/// The verdict of a case that gives the number of its comparisons and what failed; a panic is a
/// failure of that case only.
pub(crate) fn verdict_of(run: impl FnOnce() -> case::Result<(usize, Vec<String>)>) -> Verdict {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok((comparisons, failures))) => match failures.is_empty() {
            true => Verdict::Passed(comparisons),
            false => Verdict::Failed(failures),
        },
        Ok(Err(CaseError::NotCovered(reason))) => Verdict::NotCovered(reason),
        Ok(Err(CaseError::Failed(message))) => Verdict::Failed(vec![message]),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without a message");
            Verdict::Failed(vec![format!("panicked: {message}")])
        }
    }
}
