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
        self.check_conflicts()?;
        if !self.is_active() && self.align.is_none() {
            return Err(PruningError::NoGoal);
        }
        if self
            .align
            .as_ref()
            .is_some_and(|align| align.dims.is_empty())
        {
            return Err(PruningError::Setting {
                key: "align",
                value: "without `dims`".to_string(),
                expected: "the dims of the source that correspond to those of the target",
            });
        }
        let active = self.is_active();
        let group = self.dependency_group_id.is_some() || self.global_group_id.is_some();
        let goal = "sparse_ratio` or `sparse_threshold";
        let any_group = "dependency_group_id` or `global_group_id";
        let requirements = [
            (
                "global_group_id",
                "sparse_ratio",
                self.sparse_ratio.is_some(),
            ),
            ("dependency_group_id", goal, active),
            ("max_sparse_ratio", goal, active),
            ("min_sparse_ratio", goal, active),
            ("internal_metric_block", any_group, group),
            ("round_to", goal, active),
            ("activation", goal, active),
            ("normalizer", "sparse_ratio", self.sparse_ratio.is_some()),
        ];
        for (key, requires, met) in requirements {
            if self.has(key) && !met {
                return Err(PruningError::Requires { key, requires });
            }
        }
        Ok(())
    }

    /// Refuses settings that exclude each other.
    fn check_conflicts(&self) -> Result<(), PruningError> {
        let of_pattern = [
            "sparse_ratio",
            "sparse_threshold",
            "align",
            "max_sparse_ratio",
            "min_sparse_ratio",
            "global_group_id",
            "dependency_group_id",
            "round_to",
            "granularity",
        ];
        let conflicts = [
            ("sparse_ratio", "sparse_threshold"),
            ("sparse_ratio", "align"),
            ("global_group_id", "sparse_threshold"),
            ("dependency_group_id", "align"),
            ("dependency_group_id", "normalizer"),
        ]
        .into_iter()
        .chain(of_pattern.map(|other| ("pattern", other)));
        for (first, second) in conflicts {
            if self.has(first) && self.has(second) {
                return Err(PruningError::Conflict { first, second });
            }
        }
        Ok(())
    }

    /// Whether the setting of this name is set; a default granularity is none.
    fn has(&self, key: &str) -> bool {
        let granularity = self.granularity.as_ref();
        match key {
            "sparse_ratio" => self.sparse_ratio.is_some(),
            "sparse_threshold" => self.sparse_threshold.is_some(),
            "max_sparse_ratio" => self.max_sparse_ratio.is_some(),
            "min_sparse_ratio" => self.min_sparse_ratio.is_some(),
            "global_group_id" => self.global_group_id.is_some(),
            "dependency_group_id" => self.dependency_group_id.is_some(),
            "internal_metric_block" => self.internal_metric_block.is_some(),
            "round_to" => self.round_to.is_some(),
            "pattern" => self.pattern.is_some(),
            "granularity" => granularity.is_some_and(|g| *g != Granularity::Default),
            "align" => self.align.is_some(),
            "activation" => self.activation.is_some(),
            "normalizer" => self.normalizer.is_some(),
            _ => false,
        }
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
