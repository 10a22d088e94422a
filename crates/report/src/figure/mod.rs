//! Figures as SVG, drawn for a page that sets their colours.
//!
//! The colours here are those of a figure in a file of its own; the style sheet of the page has
//! another one for each, so that figures follow the theme.

mod curves;
mod spans;

pub(crate) use curves::{Panel, figure};
pub(crate) use spans::{Span, Spans};

use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::ReportError;

/// Width of a drawing: readable on a telephone, and two fit beside each other on a desk.
pub(crate) const WIDTH: u32 = 400;
const FONT: &str = "sans-serif";
const TEXT: i32 = 14;
/// Width of one letter of a text, about.
const LETTER: f64 = 6.2;
/// Distinguishable with any colour vision: M. Okabe and K. Ito, *Color Universal Design*, 2008.
const PART: RGBColor = RGBColor(0, 114, 178);
const WHOLE: RGBColor = RGBColor(201, 209, 217);

type DrawingError = DrawingAreaErrorKind<std::io::Error>;

fn failed(error: DrawingError) -> ReportError {
    ReportError::Figure(error.to_string())
}

fn text(h_pos: HPos, v_pos: VPos) -> TextStyle<'static> {
    let style = TextStyle::from((FONT, TEXT).into_font());
    style.pos(Pos::new(h_pos, v_pos))
}

/// Width of a text, about.
fn width(text: &str) -> i32 {
    (LETTER * text.chars().count() as f64).ceil() as i32
}

/// The end of a text that is too long for `room`: the end of a path is what distinguishes it.
fn shortened(text: &str, room: i32) -> String {
    let fitting = (f64::from(room.max(0)) / LETTER) as usize;
    let letters = text.chars().count();
    match letters <= fitting {
        true => text.to_string(),
        false => {
            let end = text.chars().skip(letters + 1 - fitting.max(1));
            std::iter::once('…').chain(end).collect()
        }
    }
}

/// The SVG element of a drawing for a page: with what a screen reader reads, and without what only a
/// file of its own needs.
pub(crate) fn for_page(svg: &str, title: &str, description: &str) -> String {
    let named = format!(
        " role=\"img\">\n<title>{}</title>\n<desc>{}</desc>",
        escaped(title),
        escaped(description)
    );
    let svg = svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
    svg.replacen('>', &named, 1)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_keep_their_end() {
        // Ten letters have 62 points.
        assert_eq!(shortened("block.conv", 62), "block.conv");
        assert_eq!(shortened("block3.conv", 62), "…ock3.conv");
        assert_eq!(shortened("block3.conv", 0), "…");
    }

    #[test]
    fn a_drawing_on_a_page_has_a_name() {
        let svg =
            "<svg width=\"1\" xmlns=\"http://www.w3.org/2000/svg\">\n<text>\nx\n</text>\n</svg>\n";
        let named = for_page(svg, "a & b", "1 < 2");
        assert!(named.starts_with("<svg width=\"1\" role=\"img\">\n<title>a &amp; b</title>\n"));
        assert!(named.contains("<desc>1 &lt; 2</desc>\n<text>"));
    }
}
