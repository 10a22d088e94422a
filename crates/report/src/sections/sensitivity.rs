//! Sensitivity of units and layers.

use burn_compress_sensitivity::{Measured, Sensitivity};

use crate::error::ReportError;
use crate::figure::for_page;
use crate::number::{percent, signed, value};
use crate::page::{Block, Drawing, Figure, Section, Table};
use crate::report::Report;

const LABEL: &str = "Change of the loss";

pub(crate) fn section(report: &Report) -> Result<Section, ReportError> {
    let section = Section::new("sensitivity", "Sensitivity");
    let Some(sensitivity) = &report.sensitivity else {
        return Ok(section);
    };
    let svg = sensitivity.figure(LABEL);
    let svg = svg.map_err(|error| ReportError::Figure(error.to_string()))?;
    let table = table(sensitivity);
    let described = table
        .rows
        .iter()
        .map(|row| format!("{}, {}: {}", row[0], row[1], row[4]));
    let described = described.collect::<Vec<_>>().join("; ");
    let drawing = Drawing {
        is_tall: false,
        label: LABEL.to_string(),
        svg: for_page(&svg, LABEL, &described),
    };
    let points = (sensitivity.measured(), sensitivity.total());
    let incomplete = match sensitivity.is_complete() {
        true => String::new(),
        false => format!(" {} of {} points are measured.", points.0, points.1),
    };
    let batches = match sensitivity.batches {
        1 => "1 batch".to_string(),
        batches => format!("{batches} batches"),
    };
    let caption = format!(
        "How much the loss changes where one unit is pruned or one layer quantized, and all others \
         stay as they are, over {batches}. Orange is a larger loss, blue a smaller one.{incomplete}"
    );
    Ok(section.with(Block::Figure(Figure {
        caption,
        is_wide: true,
        drawings: vec![drawing],
        table,
    })))
}

fn table(sensitivity: &Sensitivity) -> Table {
    let cells = |names: &[String], what: String, removed: String, measured: &Measured| {
        let number = |number: Option<f64>| number.map_or_else(|| "not finite".to_string(), value);
        let change = sensitivity.increase(measured);
        let mut row = vec![
            names.join(", "),
            what,
            removed,
            number(measured.loss),
            change.map_or_else(|| "not finite".to_string(), signed),
        ];
        if sensitivity.dense.metric.is_some() {
            row.push(number(measured.metric));
        }
        row
    };
    let name = ["the model as it is".to_string()];
    let dense = cells(&name, String::new(), String::new(), &sensitivity.dense);
    let units = sensitivity.units.iter().flat_map(|unit| {
        unit.points.iter().map(|point| {
            let removed = format!("{} of {}", point.removed, unit.channels);
            let what = format!("pruned by {}", percent(point.sparsity));
            cells(&unit.layers, what, removed, &point.measured)
        })
    });
    let layers = sensitivity.layers.iter().flat_map(|layer| {
        let name = std::slice::from_ref(&layer.layer);
        layer.points.iter().map(move |point| {
            let bits = match point.bits {
                1 => "1 bit".to_string(),
                bits => format!("{bits} bits"),
            };
            cells(name, bits, String::new(), &point.measured)
        })
    });
    let table = Table::new("All measured points")
        .with_texts(["layers", "change"])
        .with_numbers(["channels removed", "loss", "change of the loss"]);
    let table = match sensitivity.dense.metric {
        Some(_) => table.with_numbers(["metric"]),
        None => table,
    };
    table.with_rows(std::iter::once(dense).chain(units).chain(layers))
}
