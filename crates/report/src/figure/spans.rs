//! Rows with a part of a whole: channels before and after, quantiles, ranges.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{DrawingError, PART, WHOLE, WIDTH, failed, shortened, text, width};
use crate::error::ReportError;

const HEAD: i32 = 30;
const ROW: i32 = 22;
const GAP: i32 = 8;
const MARGIN: i32 = 4;
/// The least that is left for the bars.
const BARS: i32 = 110;
/// Taller drawings are scrolled.
const TALL: i32 = 640;

/// A row: an interval, and one inside of it, which is drawn over it.
pub(crate) struct Span {
    pub name: String,
    pub whole: (f64, f64),
    pub part: Option<(f64, f64)>,
    /// Text behind the bar.
    pub label: String,
}

impl Span {
    /// A size and a part of it.
    pub fn of(name: impl Into<String>, whole: f64, part: f64, label: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            whole: (0.0, whole),
            part: Some((0.0, part)),
            label: label.into(),
        }
    }
}

/// Rows with a common axis, each interval a bar.
pub(crate) struct Spans {
    pub label: String,
    pub rows: Vec<Span>,
}

impl Spans {
    pub fn new(label: impl Into<String>, rows: Vec<Span>) -> Self {
        Self {
            label: label.into(),
            rows,
        }
    }

    pub fn is_tall(&self) -> bool {
        self.height() > TALL
    }

    fn height(&self) -> i32 {
        HEAD + ROW * i32::try_from(self.rows.len()).unwrap_or(0) + MARGIN
    }

    /// The smallest and the largest finite end of all intervals, and zero.
    fn bounds(&self) -> (f64, f64) {
        let rows = self.rows.iter();
        let ends = rows.flat_map(|row| std::iter::once(row.whole).chain(row.part));
        let ends = ends.flat_map(|(low, high)| [low, high]);
        let finite = ends.filter(|end| end.is_finite());
        finite.fold((0.0, 0.0), |(low, high), end| (end.min(low), end.max(high)))
    }

    pub fn svg(&self) -> Result<String, ReportError> {
        let mut svg = String::new();
        {
            let size = (WIDTH, self.height().unsigned_abs());
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            self.draw(&root).map_err(failed)?;
            root.present().map_err(failed)?;
        }
        Ok(svg)
    }

    fn draw(&self, root: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), DrawingError> {
        let right = i32::try_from(WIDTH).unwrap_or(0) - MARGIN;
        let widest = |of: fn(&Span) -> &str| {
            let widths = self.rows.iter().map(|row| width(of(row)));
            widths.max().unwrap_or(0) + GAP
        };
        let labels = widest(|row| &row.label);
        let names = widest(|row| &row.name).min(right - MARGIN - labels - BARS);
        let (left, end) = (MARGIN + names, right - labels);
        let (low, high) = self.bounds();
        let scale = f64::from(end - left) / (high - low).max(f64::MIN_POSITIVE);
        let x = |value: f64| left + ((value - low) * scale).round() as i32;

        let (at_left, at_right) = (
            text(HPos::Left, VPos::Center),
            text(HPos::Right, VPos::Center),
        );
        root.draw_text(&self.label, &at_left, (MARGIN, HEAD / 2 - 2))?;
        if self.is_tall() {
            let rows = format!("{} rows", self.rows.len());
            root.draw_text(&rows, &at_right, (right, HEAD / 2 - 2))?;
        }
        for (index, row) in (0..).zip(&self.rows) {
            let top = HEAD + index * ROW;
            let middle = top + ROW / 2;
            let name = shortened(&row.name, names - GAP);
            root.draw_text(&name, &at_left, (MARGIN, middle))?;
            root.draw_text(&row.label, &at_right, (right, middle))?;
            for (interval, inset, colour) in [(Some(row.whole), 3, WHOLE), (row.part, 7, PART)] {
                let Some((from, to)) = interval else { continue };
                if !from.is_finite() || !to.is_finite() {
                    continue;
                }
                // What is there is seen, however small.
                let (from, to) = (x(from), x(to).max(x(from) + i32::from(to > from)));
                let bar = [(from, top + inset), (to, top + ROW - inset)];
                root.draw(&Rectangle::new(bar, colour.filled()))?;
            }
        }
        let bottom = self.height() - MARGIN;
        let zero = [(x(0.0), HEAD), (x(0.0), bottom)];
        root.draw(&PathElement::new(zero, BLACK.mix(0.4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(svg: &str) -> Vec<(i32, i32)> {
        let attribute = |line: &str, name: &str| -> i32 {
            let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        let bars = svg.lines().filter(|line| line.starts_with("<rect"));
        bars.map(|line| (attribute(line, "x"), attribute(line, "width")))
            .collect()
    }

    #[test]
    fn bars_begin_at_zero_and_are_to_scale() {
        let rows = vec![
            Span::of("stem", 8.0, 4.0, "8 to 4"),
            Span::of("head", 4.0, 4.0, "4"),
        ];
        let svg = Spans::new("channels", rows).svg().unwrap();
        let bars = bars(&svg);
        let (left, whole) = bars[0];
        assert!(bars.iter().all(|(x, _)| *x == left));
        let widths: Vec<i32> = bars.iter().map(|(_, width)| *width).collect();
        let half = whole / 2;
        assert!(
            widths[1..].iter().all(|width| width.abs_diff(half) <= 1),
            "{widths:?}"
        );
        assert!(svg.contains("\nchannels\n") && svg.contains("\n8 to 4\n"));
    }

    #[test]
    fn ranges_have_both_signs_and_nothing_infinite_is_drawn() {
        let row = |whole, part| Span {
            name: "a.very.long.path.of.a.layer.that.has.no.room.in.its.row".to_string(),
            whole,
            part,
            label: String::new(),
        };
        let rows = vec![
            row((-1.0, 3.0), Some((-1.0, 1.0))),
            row((f64::NEG_INFINITY, 1.0), None),
        ];
        let spans = Spans::new("ranges", rows);
        assert_eq!(spans.bounds(), (-1.0, 3.0));
        let svg = spans.svg().unwrap();
        let bars = bars(&svg);
        assert_eq!(bars.len(), 2);
        assert!(bars[0].1.abs_diff(2 * bars[1].1) <= 1, "{bars:?}");
        assert!(svg.contains("…"));
    }

    #[test]
    fn a_small_part_of_a_large_whole_is_seen() {
        let svg = Spans::new("bytes", vec![Span::of("x", 1e9, 1.0, "")])
            .svg()
            .unwrap();
        assert_eq!(bars(&svg)[1].1, 1);
        assert!(Spans::new("none", Vec::new()).svg().is_ok());
        let rows = vec![Span::of("x", 0.0, 0.0, "0")];
        assert_eq!(bars(&Spans::new("zero", rows).svg().unwrap())[0].1, 0);
    }
}
