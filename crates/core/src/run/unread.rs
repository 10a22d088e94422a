//! Values of a run that are still on the device: losses and checks of its steps.

use burn::tensor::{DType, Tensor, TensorData};

use crate::Error;
use crate::run::history::{History, StepRecord};
use crate::run::reads::{Check, data};
use crate::simulate::attach::Spaces;
use crate::simulate::flat::in_dtype;
use crate::simulate::quantization::Quantization;
use crate::target::TargetId;

/// The losses and checks of a run that were not read yet.
///
/// The losses of all steps are kept. Of each checked value it is the first that fails its check, or
/// else the latest, so that what is kept on the device grows with the steps by two numbers each.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// Completed steps.
    steps: Vec<Step>,
    /// The step whose backward pass is done and whose optimizer step is not.
    current: Option<Step>,
    watched: Vec<Watched>,
}

/// A step and its losses.
#[derive(Clone, Debug)]
struct Step {
    record: StepRecord,
    /// The loss and that of the task, `[2]`, until they are read.
    losses: Option<Tensor<1>>,
}

/// Result of a read.
#[derive(Default)]
struct Outcome {
    steps: Vec<StepRecord>,
    current: Option<Step>,
    /// First error, with its step.
    error: Option<(usize, Error)>,
    /// Earlier states of the targets of failed checks.
    before: Vec<(TargetId, Quantization)>,
}

impl Outcome {
    /// Of several errors in one step the one that was found first counts.
    fn fails(&mut self, step: usize, error: Error) {
        let earlier = self.error.as_ref().map(|(step, _)| *step);
        if earlier.is_none_or(|earlier| step < earlier) {
            self.error = Some((step, error));
        }
    }
}

impl Unread {
    /// Adds a step after its forward pass, in place of an earlier pass of the same step.
    ///
    /// # Shapes
    ///
    /// - loss, task_loss: `[1]`
    pub(crate) fn begin(&mut self, step: usize, [loss, task_loss]: [Tensor<1>; 2]) {
        let losses = [loss, task_loss].map(|loss| loss.detach().without_autodiff());
        self.current = Some(Step {
            record: StepRecord {
                step: step + 1,
                loss: f64::NAN,
                task_loss: f64::NAN,
                learning_rate: 0.0,
                sparsity: 0.0,
            },
            losses: Some(packed(losses.to_vec())),
        });
    }

    /// Adds the checks of the step that follows `step` completed ones.
    pub(crate) fn watch(&mut self, step: usize, checks: Vec<Check>) {
        if checks.is_empty() {
            return;
        }
        match self.watched.iter_mut().find(|one| one.is_like(&checks)) {
            Some(watched) => watched.add(step, checks),
            None => self.watched.push(Watched {
                checks,
                kept: None,
                steps: vec![step],
            }),
        }
    }

    /// Completes the step at hand. It is recorded in `history` at once if its losses were read, or
    /// else with the next read.
    pub(crate) fn complete(&mut self, history: &mut History, learning_rate: f64, sparsity: f64) {
        if let Some(mut step) = self.current.take() {
            step.record.learning_rate = learning_rate;
            step.record.sparsity = sparsity;
            match step.losses {
                None => history.steps.push(step.record),
                Some(_) => self.steps.push(step),
            }
        }
    }

    /// Reads everything in one transfer, records the completed steps in `history` and finds out
    /// what failed. A target whose observer refused its values gets back the range that it had
    /// before.
    ///
    /// # Errors
    ///
    /// The first failed check or the first loss that is not finite, and a device that failed to
    /// hand over its values.
    pub(crate) fn read(&mut self, history: &mut History, spaces: &Spaces) -> Result<(), Error> {
        let unread = std::mem::take(self);
        let outcome = unread.outcome()?;
        history.steps.extend(outcome.steps);
        for (id, before) in outcome.before {
            if let Some(space) = spaces.get(&id) {
                let enabled = space.quantization().is_some_and(|now| now.enabled);
                space.set_quantization(Some(Quantization { enabled, ..before }));
            }
        }
        match outcome.error {
            Some((_, error)) => Err(error),
            None => {
                self.current = outcome.current;
                Ok(())
            }
        }
    }

    /// `history` with the completed steps that were not read yet.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read).
    pub(crate) fn complete_history(&self, history: &History) -> Result<History, Error> {
        let outcome = self.outcome()?;
        if let Some((_, error)) = outcome.error {
            return Err(error);
        }
        let mut whole = history.clone();
        whole.steps.extend(outcome.steps);
        Ok(whole)
    }

    fn current_step(&self) -> Option<usize> {
        self.current.as_ref().map(|step| step.record.step)
    }

    fn outcome(&self) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let steps = self.steps.iter().chain(&self.current);
        let mut parts: Vec<Tensor<1>> = self.watched.iter().flat_map(Watched::values).collect();
        parts.extend(steps.clone().filter_map(|step| step.losses.clone()));
        if parts.is_empty() {
            outcome.current = self.current.clone();
            return Ok(outcome);
        }
        let numbers: Vec<f64> = data(packed(parts))?.iter::<f64>().collect();
        let mut numbers = &numbers[..];
        for watched in &self.watched {
            watched.judge(&mut numbers, &mut outcome);
        }
        let mut fill = |step: &Step| {
            let mut step = step.clone();
            if step.losses.take().is_some() {
                let losses = next(&mut numbers, 2);
                (step.record.loss, step.record.task_loss) = (losses[0], losses[1]);
            }
            let (at, loss) = (step.record.step - 1, step.record.loss);
            match loss.is_finite() {
                true => Ok(step),
                false => Err((at, Error::LossNotFinite { step: at, loss })),
            }
        };
        for step in steps {
            match fill(step) {
                Ok(step) if Some(step.record.step) == self.current_step() => {
                    outcome.current = Some(step);
                }
                Ok(step) => outcome.steps.push(step.record),
                Err((at, error)) => {
                    outcome.fails(at, error);
                    break;
                }
            }
        }
        Ok(outcome)
    }
}

/// The same checks of one step or of several.
#[derive(Debug)]
struct Watched {
    /// Checks of the first step.
    checks: Vec<Check>,
    kept: Option<Kept>,
    /// Completed steps before each.
    steps: Vec<usize>,
}

/// Kept values of several steps, `[all values]` each.
#[derive(Debug)]
struct Kept {
    values: Tensor<1>,
    /// The steps before that in which a value was in its range.
    good: Tensor<1>,
    low: Tensor<1>,
    high: Tensor<1>,
}

impl Watched {
    fn is_like(&self, checks: &[Check]) -> bool {
        let mut pairs = self.checks.iter().zip(checks);
        self.checks.len() == checks.len() && pairs.all(|(a, b)| a.is_like(b))
    }

    fn add(&mut self, step: usize, checks: Vec<Check>) {
        let new = packed(checks.into_iter().map(|check| check.values).collect());
        let kept = self.kept.take().unwrap_or_else(|| self.begin());
        let above = kept.values.clone().greater_equal(kept.low.clone());
        let below = kept.values.clone().lower_equal(kept.high.clone());
        let fits = above.bool_and(below);
        let good = kept.good + in_dtype(fits.clone().float(), new.dtype());
        self.kept = Some(Kept {
            values: kept.values.mask_where(fits, new),
            good,
            ..kept
        });
        self.steps.push(step);
    }

    /// The values of the first step.
    fn begin(&self) -> Kept {
        let values = packed(
            self.checks
                .iter()
                .map(|check| check.values.clone())
                .collect(),
        );
        let bounds = |bound: fn(&Check) -> f32| {
            let of = |check| std::iter::repeat_n(bound(check), check.len());
            let bounds: Vec<f32> = self.checks.iter().flat_map(of).collect();
            let bounds = Tensor::from_data(TensorData::from(&bounds[..]), &values.device());
            in_dtype(bounds, values.dtype())
        };
        Kept {
            good: values.zeros_like(),
            low: bounds(|check| *check.range.start()),
            high: bounds(|check| *check.range.end()),
            values,
        }
    }

    fn values(&self) -> Vec<Tensor<1>> {
        match &self.kept {
            Some(kept) => vec![kept.values.clone(), kept.good.clone()],
            None => self
                .checks
                .iter()
                .map(|check| check.values.clone())
                .collect(),
        }
    }

    fn judge(&self, numbers: &mut &[f64], outcome: &mut Outcome) {
        let all = self.checks.iter().map(Check::len).sum();
        let mut values = next(numbers, all);
        let mut good = match self.kept {
            Some(_) => next(numbers, all),
            None => &[],
        };
        let mut before = Vec::new();
        for check in &self.checks {
            let values = next(&mut values, check.len());
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            let good = match self.kept {
                Some(_) => next(&mut good, check.len()),
                None => &[],
            };
            let Some(error) = check.judge(&values) else {
                continue;
            };
            before.extend(check.before());
            let failing = values.iter().zip(good);
            let failing = failing.filter(|(value, _)| !check.range.contains(value));
            let first = failing.map(|(_, &good)| good as usize).min().unwrap_or(0);
            let step = self.steps[first.min(self.steps.len() - 1)];
            let error = match self.kept {
                None => error,
                Some(_) => Error::Step {
                    step,
                    error: Box::new(error),
                },
            };
            outcome.fails(step, error);
        }
        // Of a target that was observed several times, the oldest range is set last.
        outcome.before.extend(before.into_iter().rev());
    }
}

fn next<'a>(numbers: &mut &'a [f64], count: usize) -> &'a [f64] {
    let (taken, rest) = numbers.split_at(count);
    *numbers = rest;
    taken
}

/// The tensors one after another, on one device and in the widest of their types.
fn packed(tensors: Vec<Tensor<1>>) -> Tensor<1> {
    let is_wide = |tensor: &Tensor<1>| tensor.dtype() == DType::F64;
    let dtype = match tensors.iter().any(is_wide) {
        true => DType::F64,
        false => DType::F32,
    };
    let device = tensors[0].device();
    let alike = tensors.into_iter();
    let alike = alike.map(|tensor| in_dtype(tensor.to_device(&device), dtype));
    Tensor::cat(alike.collect(), 0)
}

/// Reads checks that were collected outside of a run.
///
/// # Errors
///
/// The first that fails, and those of [`data`].
pub(crate) fn judge(checks: Vec<Check>) -> Result<(), Error> {
    let mut unread = Unread::default();
    unread.watch(0, checks);
    unread.read(&mut History::default(), &Spaces::new())
}

#[cfg(test)]
mod tests;
