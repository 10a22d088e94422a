//! Errors of an analysis.

use std::path::PathBuf;

use burn_compress_core::Error;

/// An error of a sensitivity analysis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SensitivityError {
    /// Whatever keeps the analysis from beginning, all of it at once.
    #[error("the sensitivity analysis cannot begin:{}", lines(.0))]
    Refused(Vec<Refusal>),

    /// A result that was measured with another configuration, model or data.
    #[error(
        "the saved result does not belong to this analysis: {reason}. Begin anew, or resume with the \
         configuration, the model and the data that it was measured with"
    )]
    Other {
        /// Difference.
        reason: String,
    },

    /// The loss of the model as it is, which everything is compared with, is no number.
    #[error(
        "the loss of the model as it is is {loss}: check the model and the data for values that are \
         not finite"
    )]
    DenseLoss {
        /// The loss.
        loss: f64,
    },

    /// A result that no rules can be made of.
    #[error("no rules can be made of this result: {reason}")]
    NoRules {
        /// Reason and remedy.
        reason: &'static str,
    },

    /// A size that makes no sense.
    #[error("the budget is {found}: {reason}")]
    Budget {
        /// The budget.
        found: String,
        /// What is allowed.
        reason: &'static str,
    },

    /// A size that the measured sparsities do not reach.
    #[error(
        "the budget of {asked} {what} is out of reach: {least} are left where every unit has the \
         largest sparsity that was measured. Measure larger ones, or more layers"
    )]
    Unreachable {
        /// The number that was asked for.
        asked: u64,
        /// Parameters or MACs.
        what: &'static str,
        /// The least that can be had.
        least: u64,
    },

    /// A file that cannot be written or read.
    #[error("`{}`: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Reason.
        reason: String,
    },

    /// A figure that cannot be drawn.
    #[error("the figure cannot be drawn: {0}")]
    Figure(String),

    /// An error of model, data or a compressor.
    #[error(transparent)]
    Core(#[from] Error),
}

/// One reason why an analysis does not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Neither pruning nor quantization is asked for.
    #[error("nothing is to be measured: set layers with `with_pruning` or `with_quantization`")]
    Nothing,

    /// An empty list.
    #[error("`{builder}` is given an empty list, so that nothing would be measured")]
    Empty {
        /// The builder method.
        builder: &'static str,
    },

    /// A sparsity outside of its range.
    #[error("a sparsity is {0}, which is not between 0 and 1")]
    Sparsity(f64),

    /// A number of bits outside of its range.
    #[error("a number of bits is {0}, which is not from 1 to 8")]
    Bits(u8),

    /// The same twice.
    #[error("`{builder}` is given {value} twice")]
    Twice {
        /// The builder method.
        builder: &'static str,
        /// What is there twice.
        value: String,
    },

    /// No batches to measure on.
    #[error("`with_batches` is given 0: a loss needs at least 1")]
    NoBatches,

    /// A metric that nobody defines.
    #[error("`with_metric` is set, but the evaluator has no `with_evaluation`")]
    NoMetric,

    /// A setting that the analysis sets itself, or that means nothing to it.
    #[error("the {of} rule sets `{key}`: {advice}")]
    Setting {
        /// Pruning or quantization.
        of: &'static str,
        /// The key.
        key: &'static str,
        /// Remedy.
        advice: &'static str,
    },

    /// A rule that selects nothing, a missing part of the evaluator, or a graph that cannot be had.
    #[error("{0}")]
    Of(Error),

    /// Layers that cannot be pruned or quantized.
    #[error("`{}`: {error}", layers.join("`, `"))]
    Layers {
        /// The layers, which are measured together.
        layers: Vec<String>,
        /// Reason and remedy.
        error: Error,
    },
}

fn lines(refusals: &[Refusal]) -> String {
    let lines = refusals.iter().map(|refusal| format!("\n- {refusal}"));
    lines.collect()
}

impl From<SensitivityError> for Error {
    fn from(error: SensitivityError) -> Self {
        match error {
            SensitivityError::Core(error) => error,
            error => Self::other(error),
        }
    }
}
