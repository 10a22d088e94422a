//! The line on the terminal while a run trains.

use std::fmt::Write as _;

use indicatif::{ProgressBar, ProgressStyle};

use crate::run::observer::{EvaluationEvent, MasksEvent, RunObserver, StepEvent};

/// Step, time left, losses, sparsity and the latest metric in one line, which a bar fills up; nothing where
/// the output is not a terminal.
///
/// With some ten thousand steps the line fits into 80 columns. What is wider wraps.
pub(crate) struct ProgressLine {
    bar: ProgressBar,
    step: Option<StepEvent>,
    sparsity: f64,
    metric: Option<f64>,
}

const TEMPLATE: &str = "{pos}/{len}, {eta} left{msg} {wide_bar}";

impl ProgressLine {
    /// The line of a run of which `done` steps are done.
    pub(crate) fn new(done: usize, total: usize, metric: Option<f64>) -> Self {
        let bar = ProgressBar::new(total as u64).with_position(done as u64);
        let style = ProgressStyle::with_template(TEMPLATE);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.reset_eta();
        Self {
            bar,
            step: None,
            sparsity: 0.0,
            metric,
        }
    }

    /// Sets the number of completed steps, whose losses may not be read yet.
    pub(crate) fn set_step(&self, step: usize) {
        self.bar.set_position(step as u64);
    }

    /// Takes the line off the terminal.
    pub(crate) fn clear(self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        let mut message = String::new();
        // Writing to a string does not fail.
        if let Some(event) = &self.step {
            let (loss, task) = (event.record.loss, event.record.task_loss);
            let _ = write!(message, ", loss {}", number(loss));
            if task != loss {
                let _ = write!(message, ", task {}", number(task));
            }
        }
        if self.sparsity > 0.0 {
            let _ = write!(message, ", sparsity {:.1} %", 100.0 * self.sparsity);
        }
        if let Some(metric) = self.metric {
            let _ = write!(message, ", metric {}", number(metric));
        }
        self.bar.set_message(message);
    }
}

impl RunObserver for ProgressLine {
    fn on_step(&mut self, event: &StepEvent) {
        self.step = Some(*event);
        self.sparsity = event.record.sparsity;
        self.show();
    }

    fn on_masks(&mut self, event: &MasksEvent) {
        self.sparsity = event.sparsity;
        self.show();
    }

    fn on_evaluation(&mut self, event: &EvaluationEvent) {
        self.metric = Some(event.metric);
        self.show();
    }
}

/// A number with three or four digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        size if (1e-2..1e-1).contains(&size) => format!("{value:.4}"),
        size if (1e-1..10.0).contains(&size) || size == 0.0 || !size.is_finite() => {
            format!("{value:.3}")
        }
        size if (10.0..1e4).contains(&size) => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::history::StepRecord;

    #[test]
    fn numbers_of_all_sizes() {
        let numbers = [0.0, 0.25, -3.0, 0.0567, 97.22222, 1234.5, f64::NAN];
        let expected = [
            "0.000", "0.250", "-3.000", "0.0567", "97.22", "1234.50", "NaN",
        ];
        assert_eq!(numbers.map(number), expected);
        assert_eq!([0.00123456, 1234567.0].map(number), ["1.23e-3", "1.23e6"]);
    }

    #[test]
    fn everything_is_in_the_line() {
        let mut line = ProgressLine::new(3, 10, None);
        assert_eq!(
            (line.bar.position(), line.bar.message()),
            (3, String::new())
        );
        let record = StepRecord {
            step: 4,
            loss: 0.5,
            task_loss: 0.5,
            learning_rate: 0.1,
            sparsity: 0.0,
        };
        let total_steps = 10;
        line.set_step(4);
        line.on_step(&StepEvent {
            record,
            total_steps,
        });
        assert_eq!(
            (line.bar.position(), line.bar.message()),
            (4, ", loss 0.500".to_string())
        );
        let record = StepRecord {
            task_loss: 0.25,
            sparsity: 0.125,
            ..record
        };
        line.on_step(&StepEvent {
            record,
            total_steps,
        });
        line.on_evaluation(&EvaluationEvent {
            step: 4,
            total_steps,
            metric: 97.5,
        });
        line.on_masks(&MasksEvent {
            step: 4,
            total_steps,
            changed: Vec::new(),
            sparsity: 0.5,
        });
        let expected = ", loss 0.500, task 0.250, sparsity 50.0 %, metric 97.50";
        assert_eq!(line.bar.message(), expected);
        let step = "12345/56789, 12m left";
        assert!(step.len() + expected.len() < 80);
        line.clear();
    }
}
