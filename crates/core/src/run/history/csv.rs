//! A history as comma-separated values.

use std::fmt::Write as _;

use super::{History, StepRecord};
use crate::Error;

const HEADER: &str = "step,loss,task_loss,learning_rate,sparsity,metric";

pub(super) fn write(history: &History) -> String {
    let mut rows = format!("{HEADER}\n");
    let mut evaluations = history.evaluations.iter().peekable();
    for record in &history.steps {
        while let Some(evaluation) = evaluations.next_if(|(step, _)| *step < record.step) {
            add(&mut rows, None, Some(evaluation));
        }
        let evaluation = evaluations.next_if(|(step, _)| *step == record.step);
        add(&mut rows, Some(record), evaluation);
    }
    evaluations.for_each(|evaluation| add(&mut rows, None, Some(evaluation)));
    rows
}

/// Adds the row of a step, of an evaluation, or of both.
fn add(rows: &mut String, record: Option<&StepRecord>, evaluation: Option<&(usize, f64)>) {
    let step = record.map(|record| record.step);
    let step = step.or(evaluation.map(|(step, _)| *step)).unwrap_or(0);
    // `Debug` writes as many digits as a number needs to come back, and powers of ten.
    let numbers = record.map_or_else(
        || ",,,".to_string(),
        |record| {
            let StepRecord {
                step: _,
                loss,
                task_loss,
                learning_rate,
                sparsity,
            } = record;
            format!("{loss:?},{task_loss:?},{learning_rate:?},{sparsity:?}")
        },
    );
    let metric = evaluation.map_or_else(String::new, |(_, metric)| format!("{metric:?}"));
    // Writing to a string does not fail.
    let _ = writeln!(rows, "{step},{numbers},{metric}");
}

pub(super) fn read(text: &str) -> Result<History, Error> {
    let mut lines = text.lines();
    let found = lines.next().unwrap_or_default();
    if found != HEADER {
        return Err(Error::History {
            reason: format!("its first line is `{found}`, expected `{HEADER}`"),
        });
    }
    let mut history = History::default();
    for (index, line) in lines.enumerate() {
        read_row(line, &mut history).map_err(|reason| Error::History {
            reason: format!("line {}, `{line}`: {reason}", index + 2),
        })?;
    }
    Ok(history)
}

fn read_row(line: &str, history: &mut History) -> Result<(), String> {
    let fields: Vec<&str> = line.split(',').collect();
    let [step, numbers @ .., metric] = &fields[..] else {
        return Err(format!("one field, expected {}", HEADER.split(',').count()));
    };
    let Ok(numbers) = <[&str; 4]>::try_from(numbers) else {
        let expected = HEADER.split(',').count();
        return Err(format!("{} fields, expected {expected}", fields.len()));
    };
    let step = step
        .parse()
        .map_err(|_| format!("`{step}` is no number of steps"))?;
    let is_record = numbers.iter().any(|number| !number.is_empty());
    if is_record {
        let [loss, task_loss, learning_rate, sparsity] = numbers;
        history.steps.push(StepRecord {
            step,
            loss: number(loss)?,
            task_loss: number(task_loss)?,
            learning_rate: number(learning_rate)?,
            sparsity: number(sparsity)?,
        });
    }
    if !metric.is_empty() {
        history.evaluations.push((step, number(metric)?));
    } else if !is_record {
        return Err("neither a step nor an evaluation".to_string());
    }
    Ok(())
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}
