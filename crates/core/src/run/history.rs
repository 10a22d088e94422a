//! Records of the steps of a run.

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};

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
    #[serde(serialize_with = "finite")]
    pub evaluations: Vec<(usize, f64)>,
}

/// Text such as JSON has no number that is not finite and would hold a null in its place.
fn finite<S: Serializer>(evaluations: &[(usize, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut lost = evaluations.iter().filter(|(_, metric)| !metric.is_finite());
    match lost.next().filter(|_| serializer.is_human_readable()) {
        Some((step, metric)) => Err(S::Error::custom(format!(
            "the evaluation after step {step} is {metric}, which cannot be written"
        ))),
        None => evaluations.serialize(serializer),
    }
}

impl History {
    /// The last metric of the evaluator's evaluation.
    pub fn last_evaluation(&self) -> Option<f64> {
        self.evaluations.last().map(|(_, metric)| *metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_json_cannot_hold_is_an_error() {
        let mut history = History {
            steps: Vec::new(),
            evaluations: vec![(5, 0.5)],
        };
        let written = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<History>(&written).unwrap(), history);
        history.evaluations.push((10, f64::NAN));
        let error = serde_json::to_string(&history).unwrap_err();
        assert!(
            error.to_string().contains("after step 10 is NaN"),
            "{error}"
        );
    }
}
