//! The report: what it is given, and its file.

use std::fmt::Display;
use std::path::Path;

use askama::Template;
use burn::module::Module;
use burn_compress_core::file::write_whole;
use burn_compress_core::{Calibration, Compressed, Error, History, Obstacle};
use burn_compress_sensitivity::Sensitivity;
use burn_compress_speedup::{CutPlan, Latency, Speedup, SpeedupReport};
use serde::{Deserialize, Serialize};

use crate::error::ReportError;
use crate::figure;
use crate::page::Page;
use crate::platform::Platform;
use crate::sections;

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

    /// The page, complete in itself: figures and styles are in it, and it has no script.
    ///
    /// # Errors
    ///
    /// A figure that cannot be drawn.
    pub fn html(&self) -> Result<String, ReportError> {
        let page = Page {
            title: &self.title,
            version: &self.version,
            sections: sections::sections(self)?,
        };
        let page = page.render();
        let page = page.map_err(|error| ReportError::Page(error.to_string()))?;
        Ok(printable(&page))
    }

    /// Writes the [page](Self::html) to a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of [`html`](Self::html), and [`ReportError::File`] with the reason why the file cannot be
    /// written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        write(path.as_ref(), &self.html()?)
    }

    /// The curves of the run alone, as an SVG figure.
    ///
    /// # Errors
    ///
    /// [`ReportError::NoSteps`], and a figure that cannot be drawn.
    pub fn curves(&self) -> Result<String, ReportError> {
        let history = self.history.as_ref().ok_or(ReportError::NoSteps)?;
        let panels = sections::curves(history, self.metric_name());
        match panels.is_empty() {
            true => Err(ReportError::NoSteps),
            false => {
                let last_step = sections::last_step(history);
                let svg = figure::figure(&self.title, &panels, last_step)?;
                Ok(printable(&svg))
            }
        }
    }

    /// Writes the [curves](Self::curves) to a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of [`curves`](Self::curves), and [`ReportError::File`] with the reason why the file cannot
    /// be written.
    pub fn save_curves(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        write(path.as_ref(), &self.curves()?)
    }
}

fn write(path: &Path, text: &str) -> Result<(), ReportError> {
    write_whole(path, &[text.as_bytes()]).map_err(|error| ReportError::File {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

/// Text without control characters, which neither HTML nor SVG can hold.
fn printable(text: &str) -> String {
    let is_allowed = |letter: char| matches!(letter, '\n' | '\t') || !letter.is_control();
    let letters = text.chars();
    let letters = letters.map(|letter| match is_allowed(letter) {
        true => letter,
        false => char::REPLACEMENT_CHARACTER,
    });
    letters.collect()
}

#[cfg(test)]
mod tests;
