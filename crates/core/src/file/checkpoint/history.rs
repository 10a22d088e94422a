//! The history of a run as tensors, so that its numbers come back to the last bit.

use burn_pack::Tensor as PackTensor;

use super::tensors::{Tensors, doubles};
use crate::Error;
use crate::run::history::{History, StepRecord};

const STEPS: &str = "history/steps";
const EVALUATIONS: &str = "history/evaluations";

pub(super) fn write(history: &History) -> [PackTensor; 2] {
    let steps = history.steps.iter().flat_map(|record| {
        let StepRecord {
            step,
            loss,
            task_loss,
            learning_rate,
            sparsity,
        } = *record;
        [step as f64, loss, task_loss, learning_rate, sparsity]
    });
    let evaluations = history
        .evaluations
        .iter()
        .flat_map(|&(step, metric)| [step as f64, metric]);
    [
        doubles(STEPS, &steps.collect::<Vec<_>>(), [history.steps.len(), 5]),
        doubles(
            EVALUATIONS,
            &evaluations.collect::<Vec<_>>(),
            [history.evaluations.len(), 2],
        ),
    ]
}

pub(super) fn read(tensors: &mut Tensors) -> Result<History, Error> {
    let steps = tensors.doubles(STEPS)?;
    let evaluations = tensors.doubles(EVALUATIONS)?;
    let record = |&[step, loss, task_loss, learning_rate, sparsity]: &[f64; 5]| StepRecord {
        step: step as usize,
        loss,
        task_loss,
        learning_rate,
        sparsity,
    };
    let evaluation = |&[step, metric]: &[f64; 2]| (step as usize, metric);
    Ok(History {
        steps: steps.as_chunks().0.iter().map(record).collect(),
        evaluations: evaluations.as_chunks().0.iter().map(evaluation).collect(),
    })
}
