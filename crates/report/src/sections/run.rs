//! Curves of a run.

use burn_compress_core::{History, StepRecord};

use super::drawn_curve;
use crate::error::ReportError;
use crate::figure::Panel;
use crate::number::value;
use crate::page::{Block, Figure, Section, Table};
use crate::report::Report;

/// The most rows of the table, beside those with an evaluation.
const ROWS: usize = 100;

pub(crate) fn section(report: &Report) -> Result<Section, ReportError> {
    let section = Section::new("run", "The run");
    let Some(history) = &report.history else {
        return Ok(section);
    };
    if history.steps.is_empty() && history.evaluations.is_empty() {
        let none = "The run has no steps: nothing was trained.";
        return Ok(section.with(Block::Text(none.to_string())));
    }
    let last_step = last_step(history);
    let drawings = curves(history, report.metric_name())
        .iter()
        .map(|panel| drawn_curve(panel, last_step))
        .collect::<Result<_, _>>()?;
    Ok(section.with(Block::Figure(Figure {
        caption: caption(history),
        is_wide: false,
        drawings,
        table: table(history, report.metric_name()),
    })))
}

fn caption(history: &History) -> String {
    let differs = |record: &StepRecord| record.loss != record.task_loss;
    match history.steps.iter().any(differs) {
        true => "The loss is what was minimised, the parts of all compressors included; the task \
                 loss is the user's own. The sparsity is that of the masked parameters."
            .to_string(),
        false => "The loss is the user's own; no compressor has added to it. The sparsity is that \
                  of the masked parameters."
            .to_string(),
    }
}

/// The last step of the history.
pub(crate) fn last_step(history: &History) -> usize {
    let steps = history.steps.iter().map(|record| record.step);
    let evaluations = history.evaluations.iter().map(|(step, _)| *step);
    steps.chain(evaluations).max().unwrap_or(0)
}

/// A curve each for what the history holds.
pub(crate) fn curves(history: &History, metric: &str) -> Vec<Panel> {
    let steps = &history.steps;
    let curve = |name: &str, of: fn(&StepRecord) -> f64| {
        let points = steps.iter().map(|record| (record.step, of(record)));
        Panel::new(name, points.collect())
    };
    let mut curves = Vec::new();
    if !steps.is_empty() {
        curves.push(curve("loss", |record| record.loss));
        if steps.iter().any(|record| record.loss != record.task_loss) {
            curves.push(curve("task loss", |record| record.task_loss));
        }
        curves.push(curve("sparsity (%)", |record| 100.0 * record.sparsity));
    }
    if !history.evaluations.is_empty() {
        curves.push(Panel::new(metric, history.evaluations.clone()));
    }
    if !steps.is_empty() {
        curves.push(curve("learning rate", |record| record.learning_rate));
    }
    curves
}

fn table(history: &History, metric: &str) -> Table {
    let every = history.steps.len().div_ceil(ROWS).max(1);
    let evaluated = |step: usize| {
        let mut evaluations = history.evaluations.iter();
        evaluations
            .find(|(at, _)| *at == step)
            .map(|(_, metric)| *metric)
    };
    let last = history.steps.len().saturating_sub(1);
    let steps = history.steps.iter().enumerate();
    let shown = steps.filter(|(at, record)| {
        at.is_multiple_of(every) || *at == last || evaluated(record.step).is_some()
    });
    let rows = shown.map(|(_, record)| {
        vec![
            record.step.to_string(),
            value(record.loss),
            value(record.task_loss),
            value(record.learning_rate),
            value(100.0 * record.sparsity),
            evaluated(record.step).map_or_else(String::new, value),
        ]
    });
    // Evaluations before the first step, or of a run without records of steps.
    let known = |step: &usize| history.steps.iter().any(|record| record.step == *step);
    let others = history.evaluations.iter().filter(|(step, _)| !known(step));
    let others = others.map(|(step, metric)| {
        let mut row = vec![String::new(); 6];
        row[0] = step.to_string();
        row[5] = value(*metric);
        row
    });
    let caption = match every {
        1 => "Every step".to_string(),
        every => format!(
            "One step of {every}, and those with an evaluation; all of them are in the history of \
             the run"
        ),
    };
    let mut table = Table::new(caption)
        .with_numbers([
            "step",
            "loss",
            "task loss",
            "learning rate",
            "sparsity (%)",
            metric,
        ])
        .with_rows(others)
        .with_rows(rows);
    table.is_long = true;
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(steps: usize) -> History {
        let record = |step| StepRecord {
            step,
            loss: 1.0,
            task_loss: 1.0,
            learning_rate: 1e-3,
            sparsity: 0.5,
        };
        History {
            steps: (1..=steps).map(record).collect(),
            evaluations: vec![(0, 10.0), (7, 95.0)],
        }
    }

    #[test]
    fn a_short_table_has_every_step_and_a_long_one_those_with_an_evaluation() {
        let steps = |history: &History| {
            let table = table(history, "accuracy");
            assert!(
                table
                    .rows
                    .iter()
                    .all(|row| row.len() == table.columns.len())
            );
            let steps = table.rows.iter().map(|row| row[0].parse().unwrap());
            steps.collect::<Vec<usize>>()
        };
        assert_eq!(steps(&history(3)), [0, 7, 1, 2, 3]);
        let long = steps(&history(1_000));
        assert_eq!(&long[..5], [0, 1, 7, 11, 21]);
        assert_eq!((long.len(), long.last()), (103, Some(&1_000)));
    }

    #[test]
    fn the_task_loss_is_drawn_where_it_is_another_one() {
        let names = |history: &History| {
            let curves = curves(history, "accuracy (%)");
            curves
                .into_iter()
                .map(|panel| panel.label)
                .collect::<Vec<_>>()
        };
        let mut history = history(2);
        assert_eq!(
            names(&history),
            ["loss", "sparsity (%)", "accuracy (%)", "learning rate"]
        );
        history.steps[1].loss = 1.5;
        assert_eq!(names(&history)[..2], ["loss", "task loss"]);
        assert_eq!(last_step(&history), 7);
        assert!(curves(&History::default(), "metric").is_empty());
    }
}
