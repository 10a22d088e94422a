//! What happened at each step of a run.

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// One record a step.
    pub steps: Vec<StepRecord>,
    /// Completed steps and the metric that the evaluator's evaluation gave there.
    pub evaluations: Vec<(usize, f64)>,
}

impl History {
    /// The last metric of the evaluator's evaluation.
    pub fn last_evaluation(&self) -> Option<f64> {
        self.evaluations.last().map(|(_, metric)| *metric)
    }
}
