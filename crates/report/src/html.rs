//! The page and the figure of a report, and their files.

use std::path::Path;

use askama::Template;
use burn_compress_core::file::write_whole;

use crate::error::ReportError;
use crate::figure;
use crate::page::Page;
use crate::report::Report;
use crate::sections;

impl Report {
    /// The page, complete in itself: figures and styles are in it, and it has no script.
    ///
    /// # Errors
    ///
    /// A figure that cannot be drawn.
    pub fn html(&self) -> Result<String, ReportError> {
        let page = Page {
            title: &self.title,
            version: &self.version,
            sections: sections::sections(self)?,
        };
        let page = page.render();
        let page = page.map_err(|error| ReportError::Page(error.to_string()))?;
        Ok(printable(&page))
    }

    /// Writes the [page](Self::html) to a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of [`html`](Self::html), and [`ReportError::File`] with the reason why the file cannot be
    /// written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        write(path.as_ref(), &self.html()?)
    }

    /// The curves of the run alone, as an SVG figure.
    ///
    /// # Errors
    ///
    /// [`ReportError::NoSteps`], and a figure that cannot be drawn.
    pub fn curves(&self) -> Result<String, ReportError> {
        let history = self.history.as_ref().ok_or(ReportError::NoSteps)?;
        let panels = sections::curves(history, self.metric_name());
        match panels.is_empty() {
            true => Err(ReportError::NoSteps),
            false => {
                let last_step = sections::last_step(history);
                let svg = figure::figure(&self.title, &panels, last_step)?;
                Ok(printable(&svg))
            }
        }
    }

    /// Writes the [curves](Self::curves) to a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of [`curves`](Self::curves), and [`ReportError::File`] with the reason why the file cannot
    /// be written.
    pub fn save_curves(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        write(path.as_ref(), &self.curves()?)
    }
}

fn write(path: &Path, text: &str) -> Result<(), ReportError> {
    write_whole(path, &[text.as_bytes()]).map_err(|error| ReportError::File {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

/// Text without control characters, which neither HTML nor SVG can hold.
fn printable(text: &str) -> String {
    let is_allowed = |letter: char| matches!(letter, '\n' | '\t') || !letter.is_control();
    let letters = text.chars();
    let letters = letters.map(|letter| match is_allowed(letter) {
        true => letter,
        false => char::REPLACEMENT_CHARACTER,
    });
    letters.collect()
}
