//! Records of the steps of a run.

mod csv;

use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

use crate::Error;
use crate::file::write_whole;

/// The numbers of one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// Completed optimizer steps, the first record has 1.
    pub step: usize,
    /// The loss that was minimised, every compressor's part included.
    pub loss: f64,
    /// The user's own loss.
    pub task_loss: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Fraction of the masked parameters' elements that is removed after the step.
    pub sparsity: f64,
}

/// The course of a run.
///
/// It goes into a file as [CSV](Self::save_csv), for spreadsheets and plotting programs, or as
/// [JSON](Self::save_json), which serde reads back.
///
/// ```
/// use burn_compress_core::{History, StepRecord};
///
/// let first = StepRecord { step: 1, loss: 0.75, task_loss: 0.5, learning_rate: 1e-3, sparsity: 0.0 };
/// let second = StepRecord { step: 2, loss: 0.5, sparsity: 0.25, ..first };
/// let history = History { steps: vec![first, second], evaluations: vec![(2, 0.875)] };
/// let csv = history.to_csv();
/// assert_eq!(
///     csv,
///     "step,loss,task_loss,learning_rate,sparsity,metric\n\
///      1,0.75,0.5,0.001,0.0,\n\
///      2,0.5,0.5,0.001,0.25,0.875\n"
/// );
/// assert_eq!(History::from_csv(&csv)?, history);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// One record a step.
    #[serde(serialize_with = "finite_steps")]
    pub steps: Vec<StepRecord>,
    /// Completed steps and the metric that the evaluator's evaluation gave there.
    #[serde(serialize_with = "finite_evaluations")]
    pub evaluations: Vec<(usize, f64)>,
}

/// Text such as JSON has no number that is not finite and would hold a null in its place.
fn finite_steps<S: Serializer>(steps: &[StepRecord], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        let lost = steps.iter().flat_map(|record| {
            let numbers = [
                ("loss", record.loss),
                ("task loss", record.task_loss),
                ("learning rate", record.learning_rate),
                ("sparsity", record.sparsity),
            ];
            numbers.map(|(name, number)| (record.step, name, number))
        });
        require_finite(lost)?;
    }
    steps.serialize(serializer)
}

fn finite_evaluations<S: Serializer>(
    evaluations: &[(usize, f64)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        let evaluations = evaluations.iter();
        require_finite(evaluations.map(|&(step, metric)| (step, "evaluation", metric)))?;
    }
    evaluations.serialize(serializer)
}

fn require_finite<E: serde::ser::Error>(
    mut numbers: impl Iterator<Item = (usize, &'static str, f64)>,
) -> Result<(), E> {
    match numbers.find(|(.., number)| !number.is_finite()) {
        None => Ok(()),
        Some((step, name, number)) => Err(E::custom(format!(
            "the {name} after step {step} is {number}, which cannot be written"
        ))),
    }
}

impl History {
    /// The last metric of the evaluator's evaluation.
    pub fn last_evaluation(&self) -> Option<f64> {
        self.evaluations.last().map(|(_, metric)| *metric)
    }

    /// The history as comma-separated values, with the header
    /// `step,loss,task_loss,learning_rate,sparsity,metric`.
    ///
    /// `metric` is empty where the run was not evaluated. Numbers are written with as many digits as
    /// they need to come back to the last bit, those that are not finite as `NaN`, `inf` and `-inf`.
    pub fn to_csv(&self) -> String {
        csv::write(self)
    }

    /// Reads what [`to_csv`](Self::to_csv) gave.
    ///
    /// # Errors
    ///
    /// [`Error::History`] for another header, and the first line that is no step and no evaluation.
    pub fn from_csv(text: &str) -> Result<Self, Error> {
        csv::read(text)
    }

    /// Writes the history to a file as [comma-separated values](Self::to_csv), whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::History`] with the reason why the file cannot be written.
    pub fn save_csv(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        save(path.as_ref(), self.to_csv().as_bytes())
    }

    /// Writes the history to a file as JSON, whole or not at all.
    ///
    /// The file holds `steps`, an object each with `step`, `loss`, `task_loss`, `learning_rate` and
    /// `sparsity`, and `evaluations`, pairs of a step and a metric. What `serde_json` reads of it can
    /// differ in the last bit of a number; what [`save_csv`](Self::save_csv) writes comes back as it
    /// was.
    ///
    /// # Errors
    ///
    /// [`Error::History`] with the reason why the file cannot be written; a number that is not finite
    /// is one.
    pub fn save_json(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let text = serde_json::to_string_pretty(self).map_err(|error| unwritten(path, error))?;
        save(path, text.as_bytes())
    }
}

fn save(path: &Path, content: &[u8]) -> Result<(), Error> {
    write_whole(path, &[content]).map_err(|error| unwritten(path, error))
}

fn unwritten(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::History {
        reason: format!("`{}` cannot be written: {reason}", path.display()),
    }
}

#[cfg(test)]
mod tests;
