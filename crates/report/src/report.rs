//! What a report is given.

use std::fmt::Display;

use burn::module::Module;
use burn_compress_core::{Calibration, Compressed, Error, History, Obstacle};
use burn_compress_sensitivity::Sensitivity;
use burn_compress_speedup::{CutPlan, Latency, Speedup, SpeedupReport};
use serde::{Deserialize, Serialize};

use crate::platform::Platform;

/// A report of a compression, as one HTML file.
///
/// Everything is optional: a section is there for what the report is given. It holds its data, so that
/// serde can keep it as JSON beside the page, and make the page of it elsewhere. Equal data give equal
/// files, byte for byte.
///
/// ```
/// use burn_compress_core::{History, StepRecord};
/// use burn_compress_report::{Platform, Report};
///
/// let first = StepRecord { step: 1, loss: 0.75, task_loss: 0.5, learning_rate: 1e-3, sparsity: 0.0 };
/// let second = StepRecord { step: 2, loss: 0.5, sparsity: 0.25, ..first };
/// let history = History { steps: vec![first, second], evaluations: vec![(2, 87.5)] };
///
/// let report = Report::new("Digits")
///     .with_metric_name("test accuracy (%)")
///     .with_history(&history) // of a run: `with_run(&compressed)?`, then `with_speedup(&small)`
///     .with_fact("training digits", 1437)
///     .with_seed(0)
///     .with_platform(Platform::new("flex"));
/// let path = std::env::temp_dir().join(format!("report-{}.html", std::process::id()));
/// report.save(&path)?;
/// assert!(std::fs::read_to_string(&path)?.contains("test accuracy"));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub(crate) title: String,
    /// Version of burn-compress.
    pub(crate) version: String,
    metric: Option<String>,
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) seed: Option<u64>,
    pub(crate) platform: Option<Platform>,
    pub(crate) history: Option<History>,
    /// Those of a run; none where the report has no run.
    pub(crate) warnings: Option<Vec<String>>,
    pub(crate) skipped: Vec<Obstacle>,
    calibration: Calibration,
    pub(crate) cut: Option<Cut>,
    pub(crate) plan: Option<CutPlan>,
    pub(crate) sensitivity: Option<Sensitivity>,
    pub(crate) latencies: Vec<NamedLatency>,
}

/// What a report keeps of a small model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cut {
    pub report: SpeedupReport,
    pub calibration: Calibration,
}

/// Times, and what they are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedLatency {
    pub name: String,
    pub latency: Latency,
}

impl Report {
    /// A report with this title, and nothing in it.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            metric: None,
            facts: Vec::new(),
            seed: None,
            platform: None,
            history: None,
            warnings: None,
            skipped: Vec::new(),
            calibration: Calibration::new(),
            cut: None,
            plan: None,
            sensitivity: None,
            latencies: Vec::new(),
        }
    }

    /// Adds the result of a run: its history, warnings, skipped targets, and the scales and ranges of
    /// its quantizers.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub fn with_run<M: Module + 'static>(self, compressed: &Compressed<M>) -> Result<Self, Error> {
        Ok(Self {
            history: Some(compressed.history().clone()),
            warnings: Some(compressed.warnings().to_vec()),
            skipped: compressed.skipped().to_vec(),
            calibration: compressed.calibration()?,
            ..self
        })
    }

    /// Sets the history of a run.
    pub fn with_history(mut self, history: &History) -> Self {
        self.history = Some(history.clone());
        self
    }

    /// Sets the name of what the evaluator's evaluation gives, `test accuracy (%)`. The default is
    /// `metric`.
    pub fn with_metric_name(mut self, name: impl Into<String>) -> Self {
        self.metric = Some(name.into());
        self
    }

    /// Adds a small model: the sizes of its layers before and after, and the scales and ranges of the
    /// quantizers that are left, which take the place of the run's.
    pub fn with_speedup<M: Module + 'static>(mut self, small: &Speedup<M>) -> Self {
        self.cut = Some(Cut {
            report: small.report.clone(),
            calibration: small.state.calibration.clone(),
        });
        self
    }

    /// Sets the plan of a cut.
    pub fn with_plan(mut self, plan: &CutPlan) -> Self {
        self.plan = Some(plan.clone());
        self
    }

    /// Sets the result of a sensitivity analysis.
    pub fn with_sensitivity(mut self, sensitivity: &Sensitivity) -> Self {
        self.sensitivity = Some(sensitivity.clone());
        self
    }

    /// Adds times of forward passes; `name` tells of which input, `batch of 64`.
    pub fn with_latency(mut self, name: impl Into<String>, latency: Latency) -> Self {
        let name = name.into();
        self.latencies.push(NamedLatency { name, latency });
        self
    }

    /// Adds a line to the summary: the accuracy of the small model, the name of the data.
    pub fn with_fact(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.facts.push((name.into(), value.to_string()));
        self
    }

    /// Sets the seed of the run.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets what the run was made on.
    pub fn with_platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    pub(crate) fn metric_name(&self) -> &str {
        self.metric.as_deref().unwrap_or("metric")
    }

    /// The quantizers of the small model; of the run where there is none.
    pub(crate) fn calibration(&self) -> &Calibration {
        self.cut
            .as_ref()
            .map_or(&self.calibration, |cut| &cut.calibration)
    }
}

#[cfg(test)]
mod tests;
