//! Timing of scores and of decisions about masks.

use burn_compress_core::BoxError;

use crate::{PruningError, Schedule, ScheduleKind};

/// The training steps after which the score of a [source](crate::ScoreSource) is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Immediate,
    Steps(usize),
    Growth(Growth),
}

/// Goals that grow without a schedule, with masks after every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Growth {
    /// The last step without masks.
    pub(crate) begin: usize,
    /// The step from which the goals are reached.
    pub(crate) end: usize,
    /// Whether masks are generated after that as well.
    pub(crate) continues: bool,
}

impl Growth {
    /// The part of the goals that is due after `step` completed optimizer steps.
    pub(crate) fn progress(&self, step: usize) -> f64 {
        let whole = self.end.saturating_sub(self.begin);
        match step.saturating_sub(self.begin) {
            0 => 0.0,
            grown => ScheduleKind::Agp.factor(grown, whole),
        }
    }

    /// Whether the masks stay as they are from the step after `step` completed ones on.
    pub(crate) fn ended(&self, step: usize) -> bool {
        step >= self.end && !self.continues
    }
}

/// The place of a training step in the schedule of a pruner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Whether the step counts for a score.
    pub collects: bool,
    /// Whether the last masks have been generated.
    pub decided: bool,
}

impl Timing {
    /// A score that is complete at any time, without training: masks are generated before the
    /// first step, or at each update of a schedule.
    pub const fn immediate() -> Self {
        Self(Kind::Immediate)
    }

    /// A score that is collected over `steps` training steps: masks are generated once after them,
    /// or after so many steps of each interval of a schedule.
    pub const fn after(steps: usize) -> Self {
        Self(Kind::Steps(steps))
    }

    pub(crate) const fn growth(growth: Growth) -> Self {
        Self(Kind::Growth(growth))
    }

    /// Whether the evaluator has to be able to train.
    pub(crate) fn trains(self) -> bool {
        self.0 != Kind::Immediate
    }

    /// Rejects a score over no steps.
    pub(crate) fn check(self) -> Result<(), PruningError> {
        match self.0 {
            Kind::Steps(steps) => require_steps(steps),
            _ => Ok(()),
        }
    }
}

/// Rejects a score over no steps.
pub(crate) fn require_steps(steps: usize) -> Result<(), PruningError> {
    match steps {
        0 => Err(PruningError::Setting {
            key: "training_steps",
            value: "0".to_string(),
            expected: "at least 1",
        }),
        _ => Ok(()),
    }
}

/// The decisions of one pruner: when masks are generated, and for which part of the goals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decisions {
    timing: Timing,
    schedule: Option<Schedule>,
}

impl Decisions {
    pub(crate) const fn new(timing: Timing) -> Self {
        let schedule = None;
        Self { timing, schedule }
    }

    /// Whether a schedule can drive them.
    pub(crate) fn can_be_scheduled(&self) -> bool {
        self.schedule.is_none() && !matches!(self.timing.0, Kind::Growth(_))
    }

    /// The decisions at the updates of a schedule.
    pub(crate) fn scheduled(self, schedule: Schedule) -> Result<Self, PruningError> {
        if matches!(self.timing.0, Kind::Steps(steps) if steps > schedule.interval()) {
            return Err(PruningError::Setting {
                key: "interval",
                value: schedule.interval().to_string(),
                expected: "at least the training steps of the pruner that it schedules",
            });
        }
        Ok(Self {
            schedule: Some(schedule),
            ..self
        })
    }

    /// The part of the goals for which masks are due after `step` optimizer steps.
    pub(crate) fn due(&self, step: usize) -> Option<f64> {
        match (self.timing.0, self.schedule) {
            (Kind::Immediate, None) => (step == 0).then_some(1.0),
            (Kind::Immediate, Some(schedule)) => schedule.at(step),
            (Kind::Steps(steps), None) => (step == steps).then_some(1.0),
            (Kind::Steps(steps), Some(schedule)) => {
                let within = step > 0 && step <= schedule.last_step();
                // The scores of an interval are complete after its first `steps` steps. A last
                // decision at the end reaches the whole goal.
                let complete = step % schedule.interval() == steps % schedule.interval();
                let due = within && (complete || step == schedule.last_step());
                due.then(|| schedule.progress(step))
            }
            (Kind::Growth(growth), _) => {
                let due = step > growth.begin && !growth.ended(step.saturating_sub(1));
                due.then(|| growth.progress(step))
            }
        }
    }

    /// The phase of the step after `step` completed ones.
    pub(crate) fn phase(&self, step: usize) -> Phase {
        let collects = match (self.timing.0, self.schedule) {
            (Kind::Steps(steps), None) => step < steps,
            (Kind::Steps(steps), Some(schedule)) => {
                step < schedule.last_step() && step % schedule.interval() < steps
            }
            _ => false,
        };
        let decided = match (self.timing.0, self.schedule) {
            (Kind::Growth(growth), _) => growth.ended(step),
            (_, Some(schedule)) => step >= schedule.last_step(),
            (Kind::Steps(steps), None) => step >= steps,
            (Kind::Immediate, None) => true,
        };
        Phase { collects, decided }
    }

    /// Whether an interval of the schedule ends with `step`.
    pub(crate) fn ends_interval(&self, step: usize) -> bool {
        let schedule = self.schedule;
        schedule.is_some_and(|schedule| step.is_multiple_of(schedule.interval()))
    }

    /// Rejects a run that ends before the last decision.
    pub(crate) fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        let (needed, what, or) = match (self.timing.0, self.schedule) {
            (_, Some(schedule)) => (
                schedule.last_step(),
                "the last update of the schedule is",
                "",
            ),
            (Kind::Steps(steps), None) => (steps, "the masks are generated", ""),
            (Kind::Growth(growth), None) => (
                growth.end,
                "the goals are reached",
                ", or an earlier `cooldown_begin_step`",
            ),
            (Kind::Immediate, None) => return Ok(()),
        };
        if total_steps < needed {
            let reason = format!(
                "{what} after step {needed}, the run has {total_steps} steps: give it at least \
                 {needed}{or}"
            );
            return Err(reason.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(test: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..20).filter(|&step| test(step)).collect()
    }

    fn due(decisions: Decisions) -> Vec<usize> {
        steps(|step| decisions.due(step).is_some())
    }

    fn collects(decisions: Decisions) -> Vec<usize> {
        steps(|step| decisions.phase(step).collects)
    }

    #[test]
    fn weights_are_decided_about_before_training_or_at_every_update() {
        let once = Decisions::new(Timing::immediate());
        assert_eq!(due(once), [0]);
        let scheduled = once.scheduled(Schedule::linear(4, 3).unwrap()).unwrap();
        assert_eq!(due(scheduled), [4, 8, 12]);
        assert!(collects(scheduled).is_empty());
    }

    #[test]
    fn the_first_steps_of_every_interval_are_collected() {
        let once = Decisions::new(Timing::after(2));
        assert_eq!(collects(once), [0, 1]);
        assert_eq!(due(once), [2]);
        let scheduled = once.scheduled(Schedule::linear(5, 2).unwrap()).unwrap();
        assert_eq!(collects(scheduled), [0, 1, 5, 6]);
        assert_eq!(due(scheduled), [2, 7, 10]);
        assert!(steps(|step| scheduled.phase(step).decided).starts_with(&[10, 11]));
    }

    #[test]
    fn a_growth_decides_after_every_step_up_to_its_end() {
        let growth = |continues| {
            Decisions::new(Timing::growth(Growth {
                begin: 2,
                end: 5,
                continues,
            }))
        };
        assert_eq!(due(growth(false)), [3, 4, 5]);
        assert_eq!(due(growth(true)).len(), 17);
        assert!(steps(|step| growth(false).phase(step).decided).starts_with(&[5, 6]));
        assert!(!growth(false).can_be_scheduled());
    }
}
