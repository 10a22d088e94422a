//! Checks of the values of settings, alone and together.

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
        let granularity = self.granularity.as_ref();
        let ratio = ("sparse_ratio", self.sparse_ratio.is_some());
        let threshold = ("sparse_threshold", self.sparse_threshold.is_some());
        let max = ("max_sparse_ratio", self.max_sparse_ratio.is_some());
        let min = ("min_sparse_ratio", self.min_sparse_ratio.is_some());
        let global = ("global_group_id", self.global_group_id.is_some());
        let dependency = ("dependency_group_id", self.dependency_group_id.is_some());
        let parts = (
            "internal_metric_block",
            self.internal_metric_block.is_some(),
        );
        let round_to = ("round_to", self.round_to.is_some());
        let pattern = ("pattern", self.pattern.is_some());
        let blocks = (
            "granularity",
            granularity.is_some_and(|g| *g != Granularity::Default),
        );
        let align = ("align", self.align.is_some());
        let activation = ("activation", self.activation.is_some());
        let normalizer = ("normalizer", self.normalizer.is_some());

        let of_blocks = [
            ratio, threshold, align, max, min, global, dependency, round_to, blocks,
        ];
        let conflicts = [
            (ratio, threshold),
            (ratio, align),
            (global, threshold),
            (dependency, align),
            (dependency, normalizer),
        ];
        let conflicts = conflicts.into_iter();
        let conflicts = conflicts.chain(of_blocks.map(|other| (pattern, other)));
        for ((first, first_is_set), (second, second_is_set)) in conflicts {
            if first_is_set && second_is_set {
                return Err(PruningError::Conflict { first, second });
            }
        }
        if !self.is_active() && self.align.is_none() {
            return Err(PruningError::NoGoal);
        }
        let align = self.align.as_ref();
        if align.is_some_and(|align| align.dims.is_empty()) {
            return Err(PruningError::Setting {
                key: "align",
                value: "without `dims`".to_string(),
                expected: "the dims of the source that correspond to those of the target",
            });
        }
        let goal = ("sparse_ratio` or `sparse_threshold", self.is_active());
        let any_group = (
            "dependency_group_id` or `global_group_id",
            dependency.1 || global.1,
        );
        let requirements = [
            (global, ratio),
            (dependency, goal),
            (max, goal),
            (min, goal),
            (parts, any_group),
            (round_to, goal),
            (activation, goal),
            (normalizer, ratio),
        ];
        for ((key, is_set), (requires, met)) in requirements {
            if is_set && !met {
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

    pub(super) fn check_ranges(&self) -> Result<(), PruningError> {
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
