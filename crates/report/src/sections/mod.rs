//! What a report shows, one section a file.

mod latency;
mod layers;
mod notes;
mod plan;
mod quantizers;
mod run;
mod sensitivity;
mod summary;

use crate::error::ReportError;
use crate::figure::{Panel, Spans, for_page};
use crate::page::{Drawing, Section};
use crate::report::Report;

pub(crate) use run::{curves, last_step};

/// The sections that the report has something for.
pub(crate) fn sections(report: &Report) -> Result<Vec<Section>, ReportError> {
    let sections = [
        summary::section(report),
        notes::section(report),
        run::section(report)?,
        layers::section(report)?,
        quantizers::section(report)?,
        latency::section(report)?,
        plan::section(report)?,
        sensitivity::section(report)?,
    ];
    let sections = sections.into_iter();
    Ok(sections
        .filter(|section| !section.blocks.is_empty())
        .collect())
}

fn drawn(spans: &Spans) -> Result<Drawing, ReportError> {
    let rows = spans.rows.iter();
    let described = rows.map(|row| format!("{}: {}", row.name, row.label));
    let description = described.collect::<Vec<_>>().join("; ");
    Ok(Drawing {
        is_tall: spans.is_tall(),
        label: spans.label.clone(),
        svg: for_page(&spans.svg()?, &spans.label, &description),
    })
}

fn drawn_curve(panel: &Panel, last_step: usize) -> Result<Drawing, ReportError> {
    Ok(Drawing {
        is_tall: false,
        label: panel.label.clone(),
        svg: for_page(&panel.svg(last_step)?, &panel.label, &panel.description()),
    })
}

/// The path of a layer; that of the model itself is empty.
fn layer_name(path: &str) -> String {
    match path {
        "" => "(the model)".to_string(),
        path => path.to_string(),
    }
}
