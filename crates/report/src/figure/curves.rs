//! Curves over the steps of a run.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{DrawingError, FONT, PART, TEXT, WIDTH, failed, text};
use crate::error::ReportError;
use crate::number;

const HEIGHT: u32 = 220;
const HEAD: u32 = 28;
const TITLE: u32 = 40;
/// With so few points, each is marked.
const MARKED_POINTS: usize = 40;
/// Of more points, those that stand out in each of this many parts are drawn.
const PARTS: usize = 300;

/// A curve with its own axes.
pub(crate) struct Panel {
    pub label: String,
    /// Steps and values, in the order of the steps; those that are not finite leave no mark.
    pub points: Vec<(usize, f64)>,
}

impl Panel {
    pub fn new(label: impl Into<String>, points: Vec<(usize, f64)>) -> Self {
        Self {
            label: label.into(),
            points,
        }
    }

    fn finite(&self) -> Vec<(usize, f64)> {
        let points = self.points.iter().copied();
        points.filter(|(_, value)| value.is_finite()).collect()
    }

    /// The last value.
    fn last(&self) -> Option<f64> {
        self.finite().last().map(|(_, value)| *value)
    }

    /// Course of the curve in a sentence.
    pub fn description(&self) -> String {
        let points = self.finite();
        let (Some((first, from)), Some((last, to))) = (points.first(), points.last()) else {
            return "no finite value".to_string();
        };
        let values = points.iter().map(|(_, value)| *value);
        let (low, high) = bounds(values).unwrap_or((*from, *to));
        let [from, to, low, high] = [*from, *to, low, high].map(number::value);
        format!("from {from} at step {first} to {to} at step {last}, between {low} and {high}")
    }

    /// Draws the curve over the steps 0 to `last_step`.
    pub fn svg(&self, last_step: usize) -> Result<String, ReportError> {
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
            self.draw(&root, last_step).map_err(failed)?;
            root.present().map_err(failed)?;
        }
        Ok(svg)
    }

    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        last_step: usize,
    ) -> Result<(), DrawingError> {
        let (head, area) = area.split_vertically(HEAD);
        let (width, _) = head.dim_in_pixel();
        let right = i32::try_from(width).unwrap_or(0) - 16;
        head.draw_text(&self.label, &text(HPos::Left, VPos::Center), (4, 14))?;
        if let Some(last) = self.last() {
            let ends = format!("{} at the end", number::value(last));
            head.draw_text(&ends, &text(HPos::Right, VPos::Center), (right, 14))?;
        }
        let mut chart = ChartBuilder::on(&area)
            .margin_right(16)
            .margin_top(6)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0..last_step.max(1), self.range())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .axis_style(BLACK.mix(0.4))
            .label_style((FONT, TEXT))
            .axis_desc_style((FONT, TEXT))
            .x_labels(5)
            .y_labels(5)
            .x_label_formatter(&|step| number::short(*step as f64))
            .y_label_formatter(&|value| number::significant(*value, 3))
            .x_desc("step")
            .draw()?;
        let points = self.finite();
        let curve = outline(&points);
        chart.draw_series(LineSeries::new(curve, PART.stroke_width(2)))?;
        if points.len() <= MARKED_POINTS {
            let marks = points.into_iter();
            chart.draw_series(marks.map(|point| Circle::new(point, 3, PART.filled())))?;
        }
        Ok(())
    }

    /// The values with a margin of a twentieth, which does not go below zero for values that do not.
    fn range(&self) -> Range<f64> {
        let values = self.finite().into_iter().map(|(_, value)| value);
        let Some((low, high)) = bounds(values) else {
            return 0.0..1.0;
        };
        let margin = match (high - low, low.abs()) {
            (0.0, 0.0) => 0.5,
            (0.0, size) => size / 2.0,
            (spread, _) => spread / 20.0,
        };
        let below = match low >= 0.0 {
            true => (low - margin).max(0.0),
            false => low - margin,
        };
        below..high + margin
    }
}

/// Curves below each other, in one file.
pub(crate) fn figure(
    title: &str,
    panels: &[Panel],
    last_step: usize,
) -> Result<String, ReportError> {
    let mut svg = String::new();
    {
        let count = u32::try_from(panels.len()).unwrap_or(1).max(1);
        let size = (2 * WIDTH, TITLE + HEIGHT * count);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let (head, below) = root.split_vertically(TITLE);
        let style = TextStyle::from((FONT, 20).into_font());
        head.draw_text(title, &style, (4, 10)).map_err(failed)?;
        let areas = below.split_evenly((panels.len().max(1), 1));
        for (panel, area) in panels.iter().zip(&areas) {
            panel.draw(area, last_step).map_err(failed)?;
        }
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |bounds, value| {
        let (low, high) = bounds.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// The points, or, of many, the smallest and the largest value of each part, so that no peak is lost.
fn outline(points: &[(usize, f64)]) -> Vec<(usize, f64)> {
    if points.len() <= 2 * PARTS {
        return points.to_vec();
    }
    let mut outline = Vec::with_capacity(2 * PARTS + 2);
    outline.extend(points.first());
    for part in points.chunks(points.len().div_ceil(PARTS)) {
        let by_value = |a: &&(usize, f64), b: &&(usize, f64)| a.1.total_cmp(&b.1);
        let low = part.iter().min_by(by_value);
        let high = part.iter().max_by(by_value);
        let mut ends: Vec<(usize, f64)> = low.into_iter().chain(high).copied().collect();
        ends.sort_by_key(|(step, _)| *step);
        outline.extend(ends);
    }
    outline.extend(points.last());
    outline.dedup();
    outline
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(values: &[f64]) -> Panel {
        let points = values.iter().copied().enumerate();
        Panel::new(
            "loss & more",
            points.map(|(at, value)| (at + 1, value)).collect(),
        )
    }

    #[test]
    fn ranges_have_a_margin_and_stay_above_zero() {
        assert_eq!(panel(&[1.0, 3.0, f64::INFINITY]).range(), 0.9..3.1);
        assert_eq!(panel(&[0.0, 2.0]).range(), 0.0..2.1);
        assert_eq!(panel(&[-1.0, 1.0]).range(), -1.1..1.1);
        assert_eq!(panel(&[0.5, 0.5]).range(), 0.25..0.75);
        assert_eq!(panel(&[0.0]).range(), 0.0..0.5);
        assert_eq!(panel(&[f64::NAN]).range(), 0.0..1.0);
    }

    #[test]
    fn a_curve_has_its_name_its_end_and_no_value_that_is_not_finite() {
        let panel = panel(&[2.0, f64::NAN, 0.25]);
        let svg = panel.svg(3).unwrap();
        for text in ["loss &amp; more", "0.25 at the end", "step"] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text} in {svg}");
        }
        assert!(!svg.contains("NaN"));
        assert_eq!(svg.matches("<circle").count(), 2);
        assert_eq!(
            panel.description(),
            "from 2 at step 1 to 0.25 at step 3, between 0.25 and 2"
        );
        assert!(Panel::new("empty", Vec::new()).svg(0).is_ok());
    }

    #[test]
    fn a_long_curve_keeps_its_peaks() {
        let mut points: Vec<(usize, f64)> = (0..10_000).map(|step| (step, 0.0)).collect();
        points[4_321].1 = 7.0;
        points[4_322].1 = -7.0;
        let outline = outline(&points);
        assert!(outline.len() <= 2 * PARTS + 2);
        assert!(outline.contains(&(4_321, 7.0)) && outline.contains(&(4_322, -7.0)));
        assert_eq!((outline[0].0, outline[outline.len() - 1].0), (0, 9_999));
        assert!(outline.is_sorted_by_key(|(step, _)| *step));
    }

    #[test]
    fn a_file_has_all_curves() {
        let svg = figure("Digits", &[panel(&[1.0]), panel(&[2.0])], 1).unwrap();
        assert_eq!(svg.matches("\nloss &amp; more\n").count(), 2);
        assert!(svg.contains("\nDigits\n") && svg.starts_with("<svg"));
        assert!(figure("nothing", &[], 0).is_ok());
    }
}
