//! Sizes before and after, and what the numbers were made with.

use burn_compress_speedup::Change;

use crate::number::{count, percent, value};
use crate::page::{Block, Section, Table};
use crate::report::Report;

pub(crate) fn section(report: &Report) -> Section {
    let mut section = Section::new("summary", "Summary");
    let sizes = sizes(report);
    if !sizes.rows.is_empty() {
        section = section.with(Block::Table(sizes));
    }
    section.with(Block::Table(facts(report)))
}

fn sizes(report: &Report) -> Table {
    let table = Table::new("Size of the model")
        .with_texts(["size"])
        .with_numbers(["before", "after", "removed"]);
    let row = |name: &str, change: Change| {
        let Change { dense, small } = change;
        let cells = [count(dense), count(small), percent(change.saved())];
        std::iter::once(name.to_string()).chain(cells).collect()
    };
    if let Some(cut) = &report.cut {
        let report = &cut.report;
        let file = report.storage.map(|storage| Change {
            dense: report.bytes.dense,
            small: storage.file_bytes,
        });
        let rows = [
            ("parameters", Some(report.params)),
            ("multiply-accumulates", Some(report.macs)),
            ("bytes as f32", Some(report.bytes)),
            ("bytes: f32 before, file after", file),
        ];
        let rows = rows.into_iter();
        return table.with_rows(rows.filter_map(|(name, change)| Some(row(name, change?))));
    }
    match &report.plan {
        Some(plan) => table.with_rows([
            row("parameters, planned", plan.params),
            row("multiply-accumulates, planned", plan.macs),
            row("bytes as f32, planned", plan.bytes),
        ]),
        None => table,
    }
}

fn facts(report: &Report) -> Table {
    let mut rows: Vec<(String, String)> = report.facts.clone();
    let mut add = |name: &str, value: String| rows.push((name.to_string(), value));
    for latency in &report.latencies {
        let ratio = value(latency.latency.ratio());
        add(&format!("latency, small / dense, {}", latency.name), ratio);
    }
    if let Some(history) = &report.history {
        add("steps", history.steps.len().to_string());
        if let Some(last) = history.steps.last() {
            add("loss of the last step", value(last.loss));
        }
        if let Some(metric) = history.last_evaluation() {
            add(&format!("last {}", report.metric_name()), value(metric));
        }
    }
    if let Some(cut) = &report.cut {
        let error = cut.report.max_relative_error;
        add("largest relative error of the small model", value(error));
        let rounding = cut.report.rounding_boundary;
        if rounding.values > 0 {
            let moved = format!("{} of {}", rounding.differing, rounding.values);
            add("quantized outputs moved by rounding", moved);
        }
    }
    if let Some(seed) = report.seed {
        add("seed", seed.to_string());
    }
    if let Some(platform) = &report.platform {
        add("platform", platform.to_string());
    }
    add("burn-compress", report.version.clone());
    Table::new("The run")
        .with_texts(["fact", "value"])
        .with_rows(rows.into_iter().map(|(name, value)| vec![name, value]))
}
