//! Channels, multiply-accumulates and bytes of each layer, before and after.

use burn_compress_speedup::{Change, LayerChange};

use super::{drawn, layer_name};
use crate::error::ReportError;
use crate::figure::{Span, Spans};
use crate::number::{count, percent, shape, short};
use crate::page::{Block, Figure, Section, Table};
use crate::report::Report;

pub(crate) fn section(report: &Report) -> Result<Section, ReportError> {
    let section = Section::new("layers", "Layers before and after");
    let Some(cut) = &report.cut else {
        return Ok(section);
    };
    let layers = &cut.report.layers;
    if layers.is_empty() {
        return Ok(section);
    }
    let drawings = [
        Spans::new("output channels", rows(layers, channels)),
        Spans::new("multiply-accumulates", rows(layers, |layer| layer.macs)),
        Spans::new(bytes_name(layers), rows(layers, bytes)),
    ];
    let drawings = drawings.iter().filter(|spans| !spans.rows.is_empty());
    Ok(section.with(Block::Figure(Figure {
        caption: "The wide bar is a layer before the cut, the narrow bar inside of it what is \
                  left. Norms have the channels of the layer before them and are in the table."
            .to_string(),
        is_wide: false,
        drawings: drawings.map(drawn).collect::<Result<_, _>>()?,
        table: table(layers, cut.report.macs),
    })))
}

/// The channels of a layer that makes them, which has a weight of two dimensions or more.
fn channels(layer: &LayerChange) -> Option<Change> {
    layer.channels.filter(|_| layer.before.len() > 1)
}

fn bytes_name(layers: &[LayerChange]) -> &'static str {
    match layers.iter().all(|layer| layer.stored.is_some()) {
        true => "bytes: as f32, and after in the file",
        false => "bytes as f32",
    }
}

/// Of a layer that is in the figure of the channels: norms have few.
fn bytes(layer: &LayerChange) -> Option<Change> {
    let small = layer.stored.unwrap_or(layer.bytes.small);
    let dense = layer.bytes.dense;
    (layer.before.len() > 1).then_some(Change { dense, small })
}

/// The layers that have any.
fn rows(layers: &[LayerChange], of: impl Fn(&LayerChange) -> Option<Change>) -> Vec<Span> {
    let rows = layers.iter().filter_map(|layer| {
        let Change { dense, small } = of(layer).filter(|change| change.dense > 0)?;
        let [dense, small] = [dense, small].map(|count| count as f64);
        let label = format!("{} → {}", short(dense), short(small));
        Some(Span::of(layer_name(&layer.layer), dense, small, label))
    });
    rows.collect()
}

fn table(layers: &[LayerChange], macs: Change) -> Table {
    let stored = layers.iter().any(|layer| layer.stored.is_some());
    let mut table = Table::new("All layers with parameters")
        .with_texts(["layer", "type", "weight before", "weight after"])
        .with_numbers(["asked", "reached", "channels before", "channels after"])
        .with_numbers([
            "MACs before",
            "MACs after",
            "f32 bytes before",
            "f32 bytes after",
        ]);
    if stored {
        table = table.with_numbers(["bytes in the file"]);
    }
    let counted = |change: Option<Change>| match change {
        Some(Change { dense, small }) => [count(dense), count(small)],
        None => Default::default(),
    };
    let row = |layer: &LayerChange| {
        let mut row = vec![
            layer_name(&layer.layer),
            layer.kind.clone(),
            shape(&layer.before),
            shape(&layer.after),
            layer.asked.map_or_else(String::new, percent),
            percent(layer.reached),
        ];
        row.extend(counted(layer.channels));
        row.extend(counted(layer.macs));
        row.extend(counted(Some(layer.bytes)));
        if stored {
            row.push(layer.stored.map_or_else(String::new, count));
        }
        row
    };
    table = table.with_rows(layers.iter().map(row));
    // Products of two activations, which belong to no layer.
    let of_layers = |of: fn(&Change) -> u64| -> u64 {
        let counted = layers.iter().filter_map(|layer| layer.macs);
        counted.map(|change| of(&change)).sum()
    };
    let left = Change {
        dense: macs.dense.saturating_sub(of_layers(|change| change.dense)),
        small: macs.small.saturating_sub(of_layers(|change| change.small)),
    };
    if left.dense > 0 && layers.iter().any(|layer| layer.macs.is_some()) {
        let mut row = vec![String::new(); table.columns.len()];
        row[0] = "products of activations".to_string();
        row[8..10].clone_from_slice(&counted(Some(left)));
        table = table.with_rows([row]);
    }
    table
}
