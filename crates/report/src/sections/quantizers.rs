//! Types, scales and ranges of quantizers.

use burn_compress_core::{CalibrationEntry, IntegerType, TargetId};

use super::drawn;
use crate::error::ReportError;
use crate::figure::{Span, Spans};
use crate::number::{significant, value};
use crate::page::{Block, Figure, Section, Table};
use crate::report::Report;

pub(crate) fn section(report: &Report) -> Result<Section, ReportError> {
    let section = Section::new("quantizers", "Quantizers");
    let calibration = report.calibration();
    if calibration.is_empty() {
        return Ok(section);
    }
    let ranges = |label: &str, is_param: bool| {
        let of_kind = calibration.iter();
        spans(
            label,
            of_kind.filter(|(target, _)| target.target.is_param() == is_param),
        )
    };
    let drawings = [
        ranges("ranges of parameters", true),
        ranges("ranges of inputs and outputs", false),
    ];
    let drawings = drawings.iter().filter(|spans| !spans.rows.is_empty());
    let table = table(calibration.iter());
    let drawings: Vec<_> = drawings.map(drawn).collect::<Result<_, _>>()?;
    Ok(section.with(match drawings.is_empty() {
        true => Block::Table(table),
        false => Block::Figure(Figure {
            caption:
                "The wide bar is the range that the integers of a target stand for, the narrow \
                      bar inside of it the range of the values that were observed; of several \
                      scales, the union. Biases of 32 bits are in the table."
                    .to_string(),
            is_wide: false,
            drawings,
            table,
        }),
    }))
}

/// Values that the integers of an entry stand for, over all its scales.
fn represented(entry: &CalibrationEntry) -> Option<(f64, f64)> {
    let scales = entry.scale.as_ref()?;
    let zeros = entry.zero_point.as_deref().unwrap_or_default();
    let zeros = zeros.iter().copied().chain(std::iter::repeat(0.0));
    let ends = scales.iter().zip(zeros).flat_map(|(&scale, zero)| {
        [entry.qmin, entry.qmax].map(|end| f64::from(end - zero) * f64::from(scale))
    });
    bounds(ends)
}

/// Values that were observed.
fn observed(entry: &CalibrationEntry) -> Option<(f64, f64)> {
    let ends = [&entry.minimum, &entry.maximum];
    let ends = ends.into_iter().flatten().flatten();
    let both = entry.minimum.is_some() && entry.maximum.is_some();
    bounds(ends.map(|end| f64::from(*end))).filter(|_| both)
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |bounds, value| {
        let (low, high) = bounds.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

type Entry<'a> = (&'a TargetId, &'a CalibrationEntry);

/// Rows with the ranges that are known. The integers of a bias of 32 bits stand for far more than they
/// take on, so that it would leave no room for the others.
fn spans<'a>(label: &str, entries: impl Iterator<Item = Entry<'a>>) -> Spans {
    let drawn = entries.filter(|(_, entry)| entry.dtype != IntegerType::Int32);
    let drawn: Vec<Entry<'_>> = drawn.collect();
    let mut types = drawn.iter().map(|(_, entry)| &entry.dtype);
    let first = types.next();
    let of_all = first.filter(|first| types.all(|dtype| dtype == *first));
    let row = |(target, entry): &Entry<'_>| {
        let observed = observed(entry);
        let whole = represented(entry).or(observed)?;
        let [low, high] = [whole.0, whole.1].map(|end| significant(end, 2));
        Some(Span {
            name: target.to_string(),
            whole,
            part: observed,
            label: match of_all {
                Some(_) => format!("{low} to {high}"),
                None => format!("{}: {low} to {high}", entry.dtype),
            },
        })
    };
    let label = match of_all {
        Some(dtype) => format!("{label}, {dtype}"),
        None => label.to_string(),
    };
    Spans::new(label, drawn.iter().filter_map(row).collect())
}

fn table<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Table {
    let interval = |bounds: Option<(f64, f64)>| match bounds {
        None => String::new(),
        Some((low, high)) if low == high => value(low),
        Some((low, high)) => format!("{} to {}", value(low), value(high)),
    };
    let of = |values: &Option<Vec<f32>>| {
        let values = values.iter().flatten();
        interval(bounds(values.map(|value| f64::from(*value))))
    };
    let rows = entries.map(|(target, entry)| {
        vec![
            target.to_string(),
            entry.dtype.to_string(),
            entry.scheme.to_string(),
            if entry.enabled { "yes" } else { "no" }.to_string(),
            entry.scale.as_ref().map_or(0, Vec::len).to_string(),
            of(&entry.scale),
            of(&entry.zero_point),
            interval(represented(entry)),
            interval(observed(entry)),
        ]
    });
    Table::new("All quantized targets; of several scales, the smallest and the largest")
        .with_texts(["target", "type", "scheme", "acts"])
        .with_numbers(["scales", "scale", "zero point", "represented", "observed"])
        .with_rows(rows)
}

#[cfg(test)]
mod tests {
    use burn_compress_core::{Grid, QuantDtype, QuantScheme, Quantization};

    use super::*;

    fn entry() -> CalibrationEntry {
        let state = Quantization::of(QuantDtype::UINT8, QuantScheme::Affine);
        let state = state.with_grid(Grid::per_channel(2, 0, 2));
        CalibrationEntry {
            enabled: true,
            scale: Some(vec![0.5, 0.25]),
            zero_point: Some(vec![0.0, 128.0]),
            minimum: Some(vec![0.0, -30.0]),
            maximum: Some(vec![100.0, 30.0]),
            ..state.to_calibration().unwrap()
        }
    }

    #[test]
    fn ranges_are_those_of_all_scales() {
        // 0 to 255 * 0.5, and (0 - 128) * 0.25 to (255 - 128) * 0.25.
        assert_eq!(represented(&entry()), Some((-32.0, 127.5)));
        assert_eq!(observed(&entry()), Some((-30.0, 100.0)));
        let target: TargetId = "conv.weight".parse().unwrap();
        let table = table([(&target, &entry())].into_iter());
        let expected = [
            "conv.weight",
            "uint8",
            "affine",
            "yes",
            "2",
            "0.25 to 0.5",
            "0 to 128",
            "-32 to 127.5",
            "-30 to 100",
        ];
        assert_eq!(table.rows, [expected]);
        assert_eq!(table.columns.len(), expected.len());
    }

    #[test]
    fn what_is_known_is_drawn_with_its_type() {
        let target = |path: &str| -> TargetId { path.parse().unwrap() };
        let (weight, bias, input) = (target("a.weight"), target("a.bias"), target("b.weight"));
        let wide = CalibrationEntry {
            dtype: IntegerType::Int32,
            ..entry()
        };
        let without = CalibrationEntry {
            scale: None,
            minimum: None,
            ..entry()
        };
        let entries = [(&weight, &entry()), (&bias, &wide), (&input, &without)];
        let spans = |entries: &[Entry<'_>]| super::spans("ranges", entries.iter().copied());
        let one_type = spans(&entries);
        assert_eq!(one_type.label, "ranges, uint8");
        let labels = |spans: &Spans| -> Vec<String> {
            spans.rows.iter().map(|row| row.label.clone()).collect()
        };
        assert_eq!(labels(&one_type), ["-32 to 130"]);
        let int4 = CalibrationEntry {
            dtype: "int4".into(),
            ..entry()
        };
        let types = spans(&[entries[0], (&bias, &int4)]);
        assert_eq!(types.label, "ranges");
        assert_eq!(labels(&types), ["uint8: -32 to 130", "int4: -32 to 130"]);
    }
}
