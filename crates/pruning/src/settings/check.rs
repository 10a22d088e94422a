//! Which values settings may have, alone and together.

use super::PruningSettings;
use crate::{Granularity, PruningError};

impl PruningSettings {
    /// Checks the values and their combination.
    ///
    /// # Errors
    ///
    /// When a value is out of range or NaN, two settings exclude each other, one has no effect
    /// without another, or there is no goal at all.
    pub fn check(&self) -> Result<(), PruningError> {
        self.check_ranges()?;
        let conflicts = [
            (
                ("sparse_ratio", self.sparse_ratio.is_some()),
                ("sparse_threshold", self.sparse_threshold.is_some()),
            ),
            (
                ("sparse_ratio", self.sparse_ratio.is_some()),
                ("align", self.align.is_some()),
            ),
            (
                ("global_group_id", self.global_group_id.is_some()),
                ("sparse_threshold", self.sparse_threshold.is_some()),
            ),
            (
                ("dependency_group_id", self.dependency_group_id.is_some()),
                ("align", self.align.is_some()),
            ),
        ];
        let granularity = (self.granularity.as_ref()).is_some_and(|g| *g != Granularity::Default);
        let pattern = [
            ("sparse_ratio", self.sparse_ratio.is_some()),
            ("sparse_threshold", self.sparse_threshold.is_some()),
            ("align", self.align.is_some()),
            ("max_sparse_ratio", self.max_sparse_ratio.is_some()),
            ("min_sparse_ratio", self.min_sparse_ratio.is_some()),
            ("global_group_id", self.global_group_id.is_some()),
            ("dependency_group_id", self.dependency_group_id.is_some()),
            ("round_to", self.round_to.is_some()),
            ("granularity", granularity),
        ];
        let pattern = pattern.map(|other| (("pattern", self.pattern.is_some()), other));
        let conflicts = conflicts.into_iter().chain(pattern);
        for ((first, has_first), (second, has_second)) in conflicts {
            if has_first && has_second {
                return Err(PruningError::Conflict { first, second });
            }
        }
        if !self.is_active() && self.align.is_none() {
            return Err(PruningError::NoGoal);
        }
        let ratio = "sparse_ratio";
        let goal = "sparse_ratio` or `sparse_threshold";
        let group = "dependency_group_id";
        let any_group = "dependency_group_id` or `global_group_id";
        let active = self.is_active();
        let requirements = [
            (
                "global_group_id",
                self.global_group_id.is_some(),
                ratio,
                self.sparse_ratio.is_some(),
            ),
            (group, self.dependency_group_id.is_some(), goal, active),
            (
                "max_sparse_ratio",
                self.max_sparse_ratio.is_some(),
                goal,
                active,
            ),
            (
                "min_sparse_ratio",
                self.min_sparse_ratio.is_some(),
                goal,
                active,
            ),
            (
                "internal_metric_block",
                self.internal_metric_block.is_some(),
                any_group,
                self.dependency_group_id.is_some() || self.global_group_id.is_some(),
            ),
            ("round_to", self.round_to.is_some(), goal, active),
            ("activation", self.activation.is_some(), goal, active),
        ];
        for (key, set, requires, met) in requirements {
            if set && !met {
                return Err(PruningError::Requires { key, requires });
            }
        }
        Ok(())
    }

    /// As [`check`](Self::check), but for settings that a schedule has scaled: before its first
    /// update a maximum is 0, as the goal is.
    pub(crate) fn check_scaled(&self) -> Result<(), PruningError> {
        let started = |max: &f64| *max != 0.0 || self.min_sparse_ratio.is_some_and(|min| min > 0.0);
        let max_sparse_ratio = self.max_sparse_ratio.filter(started);
        let settings = Self {
            max_sparse_ratio,
            ..self.clone()
        };
        settings.check()
    }

    fn check_ranges(&self) -> Result<(), PruningError> {
        let within = |key, value: Option<f64>, allowed: fn(f64) -> bool, expected| match value {
            Some(value) if !allowed(value) => Err(PruningError::Setting {
                key,
                value: value.to_string(),
                expected,
            }),
            _ => Ok(()),
        };
        within(
            "sparse_ratio",
            self.sparse_ratio,
            |r| (0.0..=1.0).contains(&r),
            "a number from 0 to 1",
        )?;
        within(
            "sparse_threshold",
            self.sparse_threshold,
            f64::is_finite,
            "a finite number",
        )?;
        within(
            "max_sparse_ratio",
            self.max_sparse_ratio,
            |r| r > 0.0 && r <= 1.0,
            "a number above 0, up to 1",
        )?;
        within(
            "min_sparse_ratio",
            self.min_sparse_ratio,
            |r| (0.0..1.0).contains(&r),
            "a number from 0 to below 1",
        )?;
        if let (Some(min), Some(max)) = (self.min_sparse_ratio, self.max_sparse_ratio)
            && min > max
        {
            return Err(PruningError::Setting {
                key: "min_sparse_ratio",
                value: min.to_string(),
                expected: "at most `max_sparse_ratio`",
            });
        }
        let counts = [
            ("internal_metric_block", self.internal_metric_block),
            ("round_to", self.round_to),
        ];
        match counts.into_iter().find(|(_, count)| *count == Some(0)) {
            Some((key, _)) => Err(PruningError::Setting {
                key,
                value: "0".to_string(),
                expected: "at least 1",
            }),
            None => Ok(()),
        }
    }
}
