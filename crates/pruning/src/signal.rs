//! What a score is made of, and when it is complete.

use crate::Schedule;
use crate::learned::SharedScore;
use crate::metrics::Importance;
use crate::slim::Training;

/// A score and the values that it sees.
pub(crate) struct Signal {
    importance: Box<dyn Importance + Send>,
    source: Source,
}

/// Where the values of a score come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Source {
    /// The parameters at the time of a decision.
    Weights,
    /// Gradients, summed over so many training steps.
    Gradients(usize, GradientTerm),
    /// Outputs of wrapped layers, summed over so many training steps.
    Activations(usize, Statistic, Place),
    /// Factors that are trained beside the parameters.
    Factors(Training),
}

/// What a step adds for each weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GradientTerm {
    /// `(weight * gradient)^2`.
    WeightedGradient,
    /// `gradient^2`; the sum is multiplied by the squared weight at the time of a decision.
    Gradient,
}

/// What a step adds for each channel of an output: a mean over batch and positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statistic {
    /// The mean magnitude.
    Magnitude,
    /// The fraction of values that are not positive.
    NotPositive,
}

/// Which output scores a layer to which the configuration gives none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// That of the activation behind it.
    Activation,
    /// Its own.
    Layer,
}

impl Signal {
    /// A score of the parameters themselves.
    pub(crate) fn weights(importance: impl Importance + Send + 'static) -> Self {
        Self::new(importance, Source::Weights)
    }

    /// A score of gradients that are collected over `steps` training steps.
    pub(crate) fn gradients(
        importance: impl Importance + Send + 'static,
        steps: usize,
        term: GradientTerm,
    ) -> Self {
        Self::new(importance, Source::Gradients(steps, term))
    }

    /// A score of outputs that are observed over `steps` training steps.
    pub(crate) fn activations(
        importance: impl Importance + Send + 'static,
        steps: usize,
        statistic: Statistic,
        place: Place,
    ) -> Self {
        Self::new(importance, Source::Activations(steps, statistic, place))
    }

    /// A score of factors that are trained beside the parameters.
    pub(crate) fn factors(training: Training) -> Self {
        Self::new(SharedScore, Source::Factors(training))
    }

    fn new(importance: impl Importance + Send + 'static, source: Source) -> Self {
        let importance = Box::new(importance);
        Self { importance, source }
    }

    pub(crate) fn importance(&self) -> &dyn Importance {
        self.importance.as_ref()
    }

    pub(crate) const fn source(&self) -> Source {
        self.source
    }

    /// Whether the score is one of outputs.
    pub(crate) const fn observes(&self) -> bool {
        matches!(self.source, Source::Activations(..))
    }

    /// The training steps over which a score is collected; `None` for one that needs no training.
    pub(crate) const fn steps(&self) -> Option<usize> {
        match self.source {
            Source::Weights => None,
            Source::Gradients(steps, _) | Source::Activations(steps, ..) => Some(steps),
            Source::Factors(training) => Some(training.steps),
        }
    }

    /// The part of the goals for which masks are due after `step` optimizer steps.
    pub(crate) fn due(&self, schedule: Option<&Schedule>, step: usize) -> Option<f64> {
        match (self.steps(), schedule) {
            (None, None) => (step == 0).then_some(1.0),
            (None, Some(schedule)) => schedule.at(step),
            (Some(steps), None) => (step == steps).then_some(1.0),
            (Some(steps), Some(schedule)) => {
                let within = step > 0 && step <= schedule.last_step();
                // The scores of an interval are complete after its first `steps` steps. A last
                // decision at the end reaches the whole goal.
                let complete = step % schedule.interval() == steps % schedule.interval();
                let due = within && (complete || step == schedule.last_step());
                due.then(|| schedule.progress(step))
            }
        }
    }

    /// Whether the step after `step` completed ones belongs to a score.
    pub(crate) fn collects(&self, schedule: Option<&Schedule>, step: usize) -> bool {
        match (self.steps(), schedule) {
            (None, _) => false,
            (Some(steps), None) => step < steps,
            (Some(steps), Some(schedule)) => {
                step < schedule.last_step() && step % schedule.interval() < steps
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{L1Norm, Taylor};

    fn steps(test: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..20).filter(|&step| test(step)).collect()
    }

    #[test]
    fn weights_are_decided_about_before_training_or_at_every_update() {
        let signal = Signal::weights(L1Norm);
        assert_eq!(steps(|step| signal.due(None, step).is_some()), [0]);
        let schedule = Schedule::linear(4, 3).unwrap();
        let due = |step| signal.due(Some(&schedule), step).is_some();
        assert_eq!(steps(due), [4, 8, 12]);
        assert!(steps(|step| signal.collects(Some(&schedule), step)).is_empty());
    }

    #[test]
    fn the_first_steps_of_every_interval_are_collected() {
        let taylor = Taylor::new(2).unwrap();
        let signal = Signal::gradients(taylor, 2, GradientTerm::WeightedGradient);
        assert_eq!(steps(|step| signal.collects(None, step)), [0, 1]);
        assert_eq!(steps(|step| signal.due(None, step).is_some()), [2]);
        let schedule = Schedule::linear(5, 2).unwrap();
        let collects = |step| signal.collects(Some(&schedule), step);
        assert_eq!(steps(collects), [0, 1, 5, 6]);
        let due = |step| signal.due(Some(&schedule), step).is_some();
        assert_eq!(steps(due), [2, 7, 10]);
    }
}
