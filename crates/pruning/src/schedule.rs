//! Schedules: how the goals of pruning grow during training.
//!
//! Removing everything at once is hard to recover from. A schedule raises the goals in `times`
//! updates, one after every `interval` optimizer steps, and reaches them exactly with the last.
//!
//! ```text
//! t = step / interval, T = times
//! linear:  goal * t / T
//! AGP:     goal * (1 - (1 - t / T)^3)
//! ```
//!
//! A score that is collected over fewer steps than the interval is complete after the first steps of
//! each interval, and masks are generated then: the goals of an update act so many steps later, those
//! of the last update at once, on the score of the interval that ends.
//!
//! AGP prunes fast while redundant weights abound and slowly near the end, and is the usual choice.
//!
//! # References
//!
//! Zhu, Gupta: To prune, or not to prune: exploring the efficacy of pruning for model compression,
//! 2017, <https://arxiv.org/abs/1710.01878>, equation 1 with initial sparsity 0 and the updates
//! counted from the first step. The paper schedules a sparsity; here every goal of a target follows
//! the schedule, see [`PruningSettings::scaled`](crate::PruningSettings::scaled).

use serde::{Deserialize, Serialize};

use crate::PruningError;

/// The curve on which goals grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// In equal parts.
    Linear,
    /// Automated gradual pruning: cubic, fast at first.
    Agp,
}

impl ScheduleKind {
    /// The part of the goal that is due after `t` of `times` updates: 0 before the first, 1 from
    /// the last on.
    pub fn factor(self, t: usize, times: usize) -> f64 {
        if t >= times {
            return 1.0;
        }
        let done = t as f64 / times as f64;
        match self {
            Self::Linear => done,
            Self::Agp => {
                let left = 1.0 - done;
                1.0 - left * left * left
            }
        }
    }
}

/// Growth of the goals over optimizer steps.
///
/// # Example
///
/// ```
/// use burn_compress_pruning::Schedule;
///
/// // 4 updates, after steps 100, 200, 300 and 400.
/// let schedule = Schedule::agp(100, 4)?;
/// assert_eq!(schedule.at(99), None);
/// assert_eq!(schedule.at(200), Some(0.875));
/// assert_eq!(schedule.at(400), Some(1.0));
/// assert_eq!(schedule.at(500), None);
/// # Ok::<(), burn_compress_pruning::PruningError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Schedule {
    kind: ScheduleKind,
    interval: usize,
    times: usize,
}

impl Schedule {
    /// A schedule of `times` updates, one after every `interval` optimizer steps.
    ///
    /// # Errors
    ///
    /// When one of the numbers is 0.
    pub fn new(kind: ScheduleKind, interval: usize, times: usize) -> Result<Self, PruningError> {
        if interval == 0 || times == 0 {
            return Err(PruningError::Schedule { interval, times });
        }
        Ok(Self {
            kind,
            interval,
            times,
        })
    }

    /// A schedule in equal parts.
    ///
    /// # Errors
    ///
    /// When one of the numbers is 0.
    pub fn linear(interval: usize, times: usize) -> Result<Self, PruningError> {
        Self::new(ScheduleKind::Linear, interval, times)
    }

    /// Automated gradual pruning.
    ///
    /// # Errors
    ///
    /// When one of the numbers is 0.
    pub fn agp(interval: usize, times: usize) -> Result<Self, PruningError> {
        Self::new(ScheduleKind::Agp, interval, times)
    }

    /// Optimizer steps between two updates.
    pub const fn interval(&self) -> usize {
        self.interval
    }

    /// Number of updates.
    pub const fn times(&self) -> usize {
        self.times
    }

    /// The optimizer step after which the goals are reached: `interval * times`.
    pub const fn last_step(&self) -> usize {
        self.interval.saturating_mul(self.times)
    }

    /// The part of the goals that an update after optimizer step `step` (counted from 1) sets, or
    /// `None` when there is no update after that step.
    pub fn at(&self, step: usize) -> Option<f64> {
        let fires = step > 0 && step <= self.last_step() && step.is_multiple_of(self.interval);
        fires.then(|| self.progress(step))
    }

    /// The part of the goals in force after optimizer step `step`: 0 before the first update.
    pub fn progress(&self, step: usize) -> f64 {
        self.kind.factor(step / self.interval, self.times)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    kind: ScheduleKind,
    interval: usize,
    times: usize,
}

impl TryFrom<Written> for Schedule {
    type Error = PruningError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        Self::new(written.kind, written.interval, written.times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_fires_at_multiples_of_the_interval_up_to_the_last_update() {
        let schedule = Schedule::linear(3, 4).unwrap();
        let fired: Vec<usize> = (0..30).filter(|&s| schedule.at(s).is_some()).collect();
        assert_eq!(fired, [3, 6, 9, 12]);
    }

    #[test]
    fn goals_by_hand() {
        let linear = Schedule::linear(1, 4).unwrap();
        let agp = Schedule::agp(1, 4).unwrap();
        let factors = |schedule: Schedule| -> Vec<f64> {
            (1..=4).map(|step| schedule.at(step).unwrap()).collect()
        };
        assert_eq!(factors(linear), [0.25, 0.5, 0.75, 1.0]);
        // 1 - 27/64, 1 - 8/64, 1 - 1/64, 1.
        assert_eq!(factors(agp), [0.578125, 0.875, 0.984375, 1.0]);
    }

    #[test]
    fn goals_stay_between_updates() {
        let schedule = Schedule::linear(5, 2).unwrap();
        let progress: Vec<f64> = [0, 4, 5, 9, 10, 100]
            .map(|step| schedule.progress(step))
            .to_vec();
        assert_eq!(progress, [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn an_empty_schedule_is_refused_in_code_and_in_a_file() {
        assert!(matches!(
            Schedule::agp(0, 3),
            Err(PruningError::Schedule {
                interval: 0,
                times: 3
            })
        ));
        let read = |text: &str| serde_json::from_str::<Schedule>(text);
        assert!(read(r#"{"kind": "agp", "interval": 5, "times": 0}"#).is_err());
        assert!(read(r#"{"kind": "agp", "interval": 5, "times": 2, "step": 1}"#).is_err());
        let schedule = read(r#"{"kind": "agp", "interval": 5, "times": 2}"#).unwrap();
        assert_eq!(schedule, Schedule::agp(5, 2).unwrap());
    }

    proptest! {
        #[test]
        fn factors_rise_to_exactly_one(
            agp in any::<bool>(),
            interval in 1usize..50,
            times in 1usize..200,
            goal in 0.0f64..1.0,
        ) {
            let kind = if agp { ScheduleKind::Agp } else { ScheduleKind::Linear };
            let schedule = Schedule::new(kind, interval, times).unwrap();
            let factors: Vec<f64> =
                (0..=schedule.last_step() + interval).filter_map(|s| schedule.at(s)).collect();
            prop_assert_eq!(factors.len(), times);
            prop_assert!(factors[0] > 0.0);
            prop_assert!(factors.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert_eq!((goal * factors[times - 1]).to_bits(), goal.to_bits());
        }
    }
}
