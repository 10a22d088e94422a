//! Curves over the steps of a run, as an SVG file.

use std::io;
use std::path::Path;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;

use crate::file::write_whole;

const WIDTH: u32 = 900;
const TITLE_HEIGHT: u32 = 56;
const PANEL_HEIGHT: u32 = 260;
const FONT: &str = "sans-serif";
/// With so few points, each is marked.
const MARKED_POINTS: usize = 60;
/// Distinguishable with any colour vision: M. Okabe and K. Ito, *Color Universal Design*, 2008.
const PALETTE: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

type DrawingError = DrawingAreaErrorKind<io::Error>;

/// Panels under one title, with a common axis of steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    title: String,
    panels: Vec<Panel>,
}

/// Curves with a common vertical axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    label: String,
    curves: Vec<Curve>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Curve {
    name: String,
    points: Vec<(usize, f64)>,
}

impl Figure {
    /// A figure without a panel.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            panels: Vec::new(),
        }
    }

    /// The figure of a compression: the loss, the sparsity in percent and the test accuracy in
    /// percent, each as `(step, value)` points in a panel of its own.
    pub fn of_run(
        title: impl Into<String>,
        loss: Vec<(usize, f64)>,
        sparsity: Vec<(usize, f64)>,
        accuracy: Vec<(usize, f64)>,
    ) -> Self {
        Self::new(title)
            .with_panel(Panel::new("loss").with_curve("training loss", loss))
            .with_panel(Panel::new("sparsity (%)").with_curve("weights removed", sparsity))
            .with_panel(Panel::new("accuracy (%)").with_curve("test accuracy", accuracy))
    }

    /// Adds a panel below the others.
    pub fn with_panel(mut self, panel: Panel) -> Self {
        self.panels.push(panel);
        self
    }

    /// Draws the figure into an SVG file. Values that are not finite leave no mark.
    ///
    /// # Errors
    ///
    /// If `path` cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let svg = self
            .svg()
            .map_err(|error| anyhow!("cannot draw the figure: {error}"))?;
        write_whole(path, svg.as_bytes())
    }

    fn svg(&self) -> Result<String, DrawingError> {
        let mut svg = String::new();
        {
            let height = TITLE_HEIGHT + PANEL_HEIGHT * self.panels.len() as u32;
            let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            root.fill(&WHITE)?;
            let (title, below) = root.split_vertically(TITLE_HEIGHT);
            title.margin(14, 0, 0, 0).titled(&self.title, (FONT, 22))?;
            let last_step = self
                .panels
                .iter()
                .flat_map(Panel::points)
                .map(|p| p.0)
                .max();
            let steps = 0..last_step.unwrap_or(0).max(1);
            let areas = below.split_evenly((self.panels.len().max(1), 1));
            for (index, (panel, area)) in self.panels.iter().zip(&areas).enumerate() {
                panel.draw(area, steps.clone(), index + 1 == self.panels.len())?;
            }
            root.present()?;
        }
        Ok(svg)
    }
}

impl Panel {
    /// A panel without a curve; `label` names its vertical axis.
    pub fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            curves: Vec::new(),
        }
    }

    /// Adds a curve of `(step, value)` points, in the order of the steps.
    pub fn with_curve(mut self, name: impl Into<String>, points: Vec<(usize, f64)>) -> Self {
        self.curves.push(Curve {
            name: name.into(),
            points,
        });
        self
    }

    fn points(&self) -> impl Iterator<Item = (usize, f64)> {
        self.curves.iter().flat_map(Curve::finite)
    }

    /// The values with a margin of a twentieth.
    fn range(&self) -> std::ops::Range<f64> {
        let (low, high) = self.points().fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(low, high), (_, value)| (low.min(value), high.max(value)),
        );
        if low > high {
            return 0.0..1.0;
        }
        let margin = match high - low {
            0.0 => 0.5,
            spread => spread / 20.0,
        };
        low - margin..high + margin
    }

    fn draw<'a>(
        &self,
        area: &DrawingArea<SVGBackend<'a>, Shift>,
        steps: std::ops::Range<usize>,
        lowest: bool,
    ) -> Result<(), DrawingError> {
        let mut chart = ChartBuilder::on(area)
            .margin_left(12)
            .margin_right(28)
            .margin_bottom(8)
            .margin_top(8)
            .x_label_area_size(if lowest { 44 } else { 24 })
            .y_label_area_size(72)
            .build_cartesian_2d(steps, self.range())?;
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 15))
            .y_labels(6)
            .y_desc(&self.label);
        if lowest {
            mesh.x_desc("step");
        }
        mesh.draw()?;

        for (curve, colour) in self.curves.iter().zip(PALETTE.into_iter().cycle()) {
            chart
                .draw_series(LineSeries::new(curve.finite(), colour.stroke_width(2)))?
                .label(&curve.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
            if curve.points.len() <= MARKED_POINTS {
                let marks = curve
                    .finite()
                    .map(|point| Circle::new(point, 3, colour.filled()));
                chart.draw_series(marks)?;
            }
        }
        if !self.curves.is_empty() {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::MiddleRight)
                .background_style(WHITE.mix(0.85))
                .border_style(BLACK.mix(0.25))
                .label_font((FONT, 13))
                .draw()?;
        }
        Ok(())
    }
}

impl Curve {
    fn finite(&self) -> impl Iterator<Item = (usize, f64)> {
        self.points
            .iter()
            .copied()
            .filter(|(_, value)| value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        Figure::new("Pruning & distillation")
            .with_panel(Panel::new("loss").with_curve("cross entropy", vec![(0, 2.3), (50, 0.4)]))
            .with_panel(
                Panel::new("accuracy (%)")
                    .with_curve("test", vec![(0, 10.0), (50, 95.0)])
                    .with_curve("train", vec![(0, 11.0), (25, f64::NAN), (50, 99.0)]),
            )
    }

    #[test]
    fn every_name_is_drawn() {
        let svg = figure().svg().unwrap();
        let texts = [
            "Pruning &amp; distillation",
            "loss",
            "cross entropy",
            "accuracy (%)",
            "test",
            "train",
            "step",
        ];
        for text in texts {
            assert_eq!(
                svg.matches(&format!("\n{text}\n")).count(),
                1,
                "{text} in {svg}"
            );
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn a_run_has_three_panels() {
        let figure = Figure::of_run("run", vec![(1, 2.0)], vec![(1, 80.0)], vec![(1, 95.0)]);
        let labels: Vec<&str> = figure.panels.iter().map(|p| p.label.as_str()).collect();
        assert_eq!(labels, ["loss", "sparsity (%)", "accuracy (%)"]);
        assert!(figure.svg().is_ok());
    }

    #[test]
    fn range_has_a_margin_of_a_twentieth() {
        let panel = Panel::new("x").with_curve("y", vec![(0, 1.0), (1, 3.0), (2, f64::INFINITY)]);
        assert_eq!(panel.range(), 0.9..3.1);
        assert_eq!(
            Panel::new("x").with_curve("y", vec![(0, 2.0)]).range(),
            1.5..2.5
        );
        assert_eq!(Panel::new("x").range(), 0.0..1.0);
    }

    #[test]
    fn empty_figures_are_drawn() {
        assert!(Figure::new("nothing").svg().is_ok());
        let figure = Figure::new("nothing").with_panel(Panel::new("x").with_curve("y", vec![]));
        assert!(figure.svg().is_ok());
    }
}
