//! Warnings, and what was left as it is.

use crate::page::{Block, Section};
use crate::report::Report;

pub(crate) fn section(report: &Report) -> Section {
    let mut section = Section::new("warnings", "Warnings");
    match &report.warnings {
        None => {}
        Some(warnings) if warnings.is_empty() => {
            let none = "No algorithm of the run has given a warning.";
            section = section.with(Block::Text(none.to_string()));
        }
        Some(warnings) => section = section.with_list("", warnings.clone()),
    }
    let skipped = report.skipped.iter().map(ToString::to_string);
    section = section.with_list("Selected and left as they are", skipped.collect());
    if let Some(cut) = &report.cut {
        let uncut = cut.report.uncut.iter().map(ToString::to_string);
        section = section.with_list("Masked and not cut", uncut.collect());
        if cut.report.lifted_channels > 0 {
            let channels = cut.report.lifted_channels;
            let lifted = format!("The masks of {channels} channels that stay were lifted.");
            section = section.with(Block::Text(lifted));
        }
    }
    section
}
