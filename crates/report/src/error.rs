//! Errors of a report.

use std::path::PathBuf;

use burn_compress_core::Detail;

/// An error of a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A file that cannot be written.
    #[error("`{}`: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Reason.
        reason: String,
    },

    /// Curves of a report without steps.
    #[error(
        "the report has no steps to draw: give it the result of a run with `with_run`, or a history \
         with `with_history`"
    )]
    NoSteps,

    /// A figure that cannot be drawn.
    #[error("a figure cannot be drawn: {0}")]
    Figure(String),

    /// A page that cannot be put together.
    #[error("the page cannot be put together: {0}")]
    Page(String),
}

impl Detail for ReportError {}
