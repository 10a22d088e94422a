//! Times of forward passes.

use burn_compress_speedup::Quartiles;

use super::drawn;
use crate::error::ReportError;
use crate::figure::{Span, Spans};
use crate::number::{duration, value};
use crate::page::{Block, Figure, Section, Table};
use crate::report::{NamedLatency, Report};

pub(crate) fn section(report: &Report) -> Result<Section, ReportError> {
    let section = Section::new("latency", "Latency");
    if report.latencies.is_empty() {
        return Ok(section);
    }
    let drawings = report.latencies.iter().map(|measured| {
        let row = |name: &str, times: Quartiles| {
            Span::of(name, times.upper, times.median, duration(times.median))
        };
        let latency = &measured.latency;
        let rows = vec![row("dense", latency.dense), row("small", latency.small)];
        drawn(&Spans::new(measured.name.as_str(), rows))
    });
    Ok(section.with(Block::Figure(Figure {
        caption:
            "Time of a forward pass, inputs and outputs included: the narrow bar is the median, \
                  the wide one goes on to the upper quartile."
                .to_string(),
        is_wide: false,
        drawings: drawings.collect::<Result<_, _>>()?,
        table: table(&report.latencies),
    })))
}

fn table(latencies: &[NamedLatency]) -> Table {
    let rows = latencies.iter().flat_map(|NamedLatency { name, latency }| {
        let row = |model: &str, times: Quartiles, ratio: String| {
            let times = [times.lower, times.median, times.upper].map(duration);
            let cells = [name.clone(), model.to_string()].into_iter();
            let cells = cells.chain(times);
            cells.chain([latency.rounds.to_string(), ratio]).collect()
        };
        let ratio = value(latency.ratio());
        [
            row("dense", latency.dense, String::new()),
            row("small", latency.small, ratio),
        ]
    });
    Table::new("Times of the forward pass")
        .with_texts(["input", "model"])
        .with_numbers(["lower quartile", "median", "upper quartile", "rounds"])
        .with_numbers(["small / dense"])
        .with_rows(rows)
}
