//! A result as a figure.

use std::path::Path;

use burn_compress_core::Error;
use burn_compress_core::file::write_whole;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::SensitivityError;
use crate::result::{Grid, Measured, Sensitivity, shown};

const ROW: i32 = 26;
const COLUMN: i32 = 84;
const HEAD: i32 = 64;
const MARGIN: i32 = 16;
/// Width of one letter of a name.
const LETTER: i32 = 7;
const FONT: &str = "sans-serif";
/// Distinguishable with any colour vision, and from the text on it.
const HIGH: RGBColor = RGBColor(213, 94, 0);
const LOW: RGBColor = RGBColor(0, 114, 178);

type DrawingError = DrawingAreaErrorKind<std::io::Error>;

impl Sensitivity {
    /// The changes of the loss as an SVG figure: a row for each unit or layer, a column for each
    /// sparsity or number of bits, the number in each cell and, as its colour, the size of it. Orange
    /// is a larger loss, blue a smaller one, each against the largest change in the figure on a
    /// logarithmic scale.
    ///
    /// # Errors
    ///
    /// [`SensitivityError::Figure`] where the drawing fails.
    pub fn figure(&self, title: &str) -> Result<String, Error> {
        let svg = self.draw(title);
        Ok(svg.map_err(|error| SensitivityError::Figure(error.to_string()))?)
    }

    /// Writes the [figure](Self::figure) to a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of [`figure`](Self::figure), and a file that cannot be written.
    pub fn save_figure(&self, title: &str, path: impl AsRef<Path>) -> Result<(), Error> {
        let (svg, path) = (self.figure(title)?, path.as_ref());
        write_whole(path, &[svg.as_bytes()]).map_err(|error| SensitivityError::File {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })?;
        Ok(())
    }

    fn draw(&self, title: &str) -> Result<String, DrawingError> {
        let grids = self.grids();
        let names = grids
            .iter()
            .flat_map(|grid| grid.rows.iter().map(|(name, ..)| name));
        let letters = names.map(|name| name.chars().count()).max().unwrap_or(0);
        let names = LETTER * i32::try_from(letters).unwrap_or(0) + 2 * MARGIN;
        let columns = grids
            .iter()
            .map(|grid| grid.columns.len())
            .max()
            .unwrap_or(0);
        let size = |count: usize, each: i32| i32::try_from(count).unwrap_or(0) * each;
        let title_width = size(title.chars().count(), 11) + 2 * MARGIN;
        let width = (names + size(columns, COLUMN) + MARGIN).max(title_width);
        let heights = grids.iter().map(|grid| HEAD + size(grid.rows.len(), ROW));
        let height = HEAD + heights.sum::<i32>() + MARGIN;
        let shades = Shades::of(self, &grids);

        let mut svg = String::new();
        {
            let size = (width.unsigned_abs(), height.unsigned_abs());
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            root.fill(&WHITE)?;
            let centred = |size: i32| {
                let style = TextStyle::from((FONT, size).into_font());
                style.pos(Pos::new(HPos::Center, VPos::Center))
            };
            let left = TextStyle::from((FONT, 13).into_font());
            let left = left.pos(Pos::new(HPos::Left, VPos::Center));
            let heading = TextStyle::from((FONT, 20).into_font());
            root.draw_text(title, &heading, (MARGIN, MARGIN))?;
            let mut top = HEAD;
            for grid in &grids {
                let caption = format!("{}: change of the loss", grid.title);
                root.draw_text(&caption, &left, (MARGIN, top + HEAD - 38))?;
                for (column, head) in grid.columns.iter().enumerate() {
                    let x = names + i32::try_from(column).unwrap_or(0) * COLUMN + COLUMN / 2;
                    root.draw_text(head, &centred(13), (x, top + HEAD - 14))?;
                }
                top += HEAD;
                for (name, _, points) in &grid.rows {
                    root.draw_text(name, &left, (MARGIN, top + ROW / 2))?;
                    for (column, point) in points.iter().enumerate() {
                        let x = names + i32::try_from(column).unwrap_or(0) * COLUMN;
                        let Some(measured) = point else { continue };
                        let change = self.increase(measured);
                        let cell = [(x + 1, top + 1), (x + COLUMN - 1, top + ROW - 1)];
                        root.draw(&Rectangle::new(cell, shades.colour(change).filled()))?;
                        let at = (x + COLUMN / 2, top + ROW / 2);
                        root.draw_text(&shown(change), &centred(13), at)?;
                    }
                    top += ROW;
                }
            }
            root.present()?;
        }
        Ok(svg)
    }
}

/// Colours of changes, the size of which spans several powers of ten.
struct Shades {
    largest: f64,
}

impl Shades {
    /// The powers of ten below the largest change that have a colour.
    const DECADES: f64 = 4.0;

    fn of(result: &Sensitivity, grids: &[Grid]) -> Self {
        let points = grids.iter().flat_map(|grid| &grid.rows);
        let points = points.flat_map(|(.., points)| points.iter().flatten());
        let changes = points.filter_map(|point: &Measured| result.increase(point));
        Self {
            largest: changes.fold(0.0, |largest, change| largest.max(change.abs())),
        }
    }

    fn colour(&self, change: Option<f64>) -> RGBAColor {
        let Some(change) = change else {
            return HIGH.mix(0.75);
        };
        let size = change.abs() / self.largest;
        let decades = (size.log10() / Self::DECADES + 1.0).clamp(0.0, 1.0);
        // Light enough for black text on all of them.
        let strength = if size > 0.0 { 0.75 * decades } else { 0.0 };
        match change > 0.0 {
            true => HIGH.mix(strength),
            false => LOW.mix(strength),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_span_four_decades() {
        let shades = Shades { largest: 2.0 };
        let strength = |change: f64| shades.colour(Some(change)).3;
        assert_eq!(
            [2.0, 0.02, -0.02, 2e-4, 1e-9, 0.0].map(strength),
            [0.75, 0.375, 0.375, 0.0, 0.0, 0.0]
        );
        assert_eq!(shades.colour(Some(2.0)).0, HIGH.0);
        assert_eq!(shades.colour(Some(-2.0)).0, LOW.0);
        assert_eq!(shades.colour(None).3, 0.75);
        let none = Shades { largest: 0.0 };
        assert_eq!(none.colour(Some(0.0)).3, 0.0);
    }
}
