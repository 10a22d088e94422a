//! Bars of the ratios, as an SVG file.

use std::io;
use std::path::Path;

use anyhow::anyhow;
use burn_compress_examples::file::write_whole;
use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;

use super::row::{LIBRARY, Row};
use super::variant::bound;

const WIDTH: u32 = 900;
const TITLE_HEIGHT: u32 = 84;
const PANEL_HEIGHT: u32 = 250;
const FONT: &str = "sans-serif";
/// Distinguishable with any colour vision: M. Okabe and K. Ito, *Color Universal Design*, 2008.
const PALETTE: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
/// What is drawn; the plain step is the line at 1.
const DRAWN: [&str; 6] = ["teacher", "P", "Q", "D", "P+Q", "P+Q+D"];

type DrawingError = DrawingAreaErrorKind<io::Error>;

/// Draws a panel for each case, with a bar for each variant and device.
///
/// # Errors
///
/// If `path` cannot be written.
pub fn save(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    let svg = svg(rows).map_err(|error| anyhow!("cannot draw the figure: {error}"))?;
    write_whole(path, svg.as_bytes())
}

/// Each of what `of` gives, once and in the order of the rows.
fn distinct<T: PartialEq>(rows: &[Row], of: impl Fn(&Row) -> T) -> Vec<T> {
    let mut found = Vec::new();
    for value in rows.iter().map(of) {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

fn svg(rows: &[Row]) -> Result<String, DrawingError> {
    let rows: Vec<Row> = rows
        .iter()
        .filter(|row| DRAWN.contains(&row.variant.as_str()) && row.ratio.median.is_finite())
        .cloned()
        .collect();
    let cases = distinct(&rows, |row| (row.model.clone(), row.batch));
    let series = distinct(&rows, |row| (row.library.clone(), row.device.clone()));
    let mut svg = String::new();
    {
        let height = TITLE_HEIGHT + PANEL_HEIGHT * cases.len().max(1) as u32;
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let (title, below) = root.split_vertically(TITLE_HEIGHT);
        title
            .margin(14, 0, 0, 0)
            .titled("Training step, plain step = 1", (FONT, 22))?;
        legend(&title, &series)?;
        let areas = below.split_evenly((cases.len().max(1), 1));
        for ((model, batch), area) in cases.iter().zip(&areas) {
            let of_case = |row: &&Row| row.model == *model && row.batch == *batch;
            let panel: Vec<&Row> = rows.iter().filter(of_case).collect();
            draw(area, &format!("{model}, batch {batch}"), &panel, &series)?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// The colour of each library and device, in a line below the title.
fn legend(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    series: &[(String, String)],
) -> Result<(), DrawingError> {
    let width = (WIDTH as usize - 40) / series.len().max(1);
    for (at, (library, device)) in series.iter().enumerate() {
        let (x, y) = ((20 + at * width) as i32, 58);
        let colour = PALETTE[at % PALETTE.len()];
        area.draw(&Rectangle::new([(x, y), (x + 12, y + 12)], colour.filled()))?;
        let text = format!("{library}, {device}");
        area.draw(&Text::new(text, (x + 18, y), (FONT, 13)))?;
    }
    Ok(())
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    label: &str,
    rows: &[&Row],
    series: &[(String, String)],
) -> Result<(), DrawingError> {
    let highest = rows.iter().map(|row| row.ratio.third).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(26)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..DRAWN.len() as f64, 0.0..1.1 * highest)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 15))
        .y_labels(6)
        .y_desc(label)
        .draw()?;
    let width = 0.8 / series.len().max(1) as f64;
    for row in rows {
        let of_row =
            |(library, device): &(String, String)| *library == row.library && *device == row.device;
        let place = DRAWN.iter().position(|name| *name == row.variant);
        let (Some(place), Some(index)) = (place, series.iter().position(of_row)) else {
            continue;
        };
        let left = place as f64 + 0.1 + index as f64 * width;
        let bar = [(left, 0.0), (left + 0.92 * width, row.ratio.median)];
        let colour = PALETTE[index % PALETTE.len()];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        let middle = left + 0.46 * width;
        let spread = [(middle, row.ratio.first), (middle, row.ratio.third)];
        chart.draw_series([PathElement::new(spread, BLACK.stroke_width(1))])?;
        let teacher = rows.iter().find(|other| {
            other.variant == "teacher" && other.library == row.library && other.device == row.device
        });
        let teacher = teacher.map(|teacher| teacher.ratio.median);
        let bound = bound(&row.variant, &row.model, row.batch, teacher);
        if let (Some(bound), true) = (bound, row.library == LIBRARY) {
            let line = [(left, bound), (left + 0.92 * width, bound)];
            chart.draw_series([PathElement::new(line, BLACK.stroke_width(2))])?;
        }
    }
    let line = [(0.0, 1.0), (DRAWN.len() as f64, 1.0)];
    chart.draw_series([PathElement::new(line, BLACK.mix(0.6).stroke_width(1))])?;
    let (left, top) = area.get_base_pixel();
    for (place, name) in DRAWN.iter().enumerate() {
        let (x, y) = chart
            .plotting_area()
            .map_coordinate(&(place as f64 + 0.5, 0.0));
        let at = (x - left - 4 * name.len() as i32, y - top + 6);
        area.draw(&Text::new(*name, at, (FONT, 13)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn_compress_examples::quartiles::Quartiles;

    use super::*;

    #[test]
    fn every_series_and_case_is_drawn() {
        let row = |library: &str, batch, variant: &str, ratio| Row {
            library: library.to_string(),
            device: "cpu".to_string(),
            model: "digits".to_string(),
            batch,
            variant: variant.to_string(),
            rounds: 1,
            wall: Quartiles::of(vec![1.0]),
            cpu: Quartiles::of(vec![1.0]),
            ratio: Quartiles::of(vec![ratio]),
            reads: None,
            memory: None,
        };
        let rows = [
            row(LIBRARY, 16, "teacher", 0.2),
            row(LIBRARY, 16, "P+Q+D", 1.5),
            row("NNI", 64, "P+Q+D", 2.5),
            row("NNI", 64, "LSQ", 2.5),
        ];
        let svg = svg(&rows).unwrap();
        for text in ["digits, batch 16", "digits, batch 64", "NNI, cpu"] {
            assert_eq!(
                svg.matches(&format!("\n{text}\n")).count(),
                1,
                "{text} in {svg}"
            );
        }
        assert_eq!(svg.matches("\nP+Q+D\n").count(), 2);
        assert!(!svg.contains("LSQ"));
    }
}
