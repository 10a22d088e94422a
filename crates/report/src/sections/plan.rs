//! The plan of a cut.

use burn_compress_core::Certainty;
use burn_compress_speedup::plan::{GroupPlan, ParamDim};
use burn_compress_speedup::{Change, CutPlan};

use super::drawn;
use crate::error::ReportError;
use crate::figure::{Span, Spans};
use crate::number::{count, percent};
use crate::page::{Block, Figure, Section, Table};
use crate::report::Report;

pub(crate) fn section(report: &Report) -> Result<Section, ReportError> {
    let mut section = Section::new("plan", "Plan of the cut");
    let Some(plan) = &report.plan else {
        return Ok(section);
    };
    section = section.with(Block::Table(sizes(plan)));
    if plan.certainty() != Certainty::Decided {
        let undecided = match plan.certainty() {
            Certainty::Estimated(reason) => {
                format!("The run decides which channels go, and of some groups how many: {reason}.")
            }
            _ => "The run decides which channels go.".to_string(),
        };
        section = section.with(Block::Text(undecided));
    }
    section = section.with(match plan.groups.is_empty() {
        true => Block::Text("No channels are coupled.".to_string()),
        false => Block::Figure(groups(plan)?),
    });
    let fixed = plan.fixed.iter().map(|fixed| {
        let (channels, of) = (fixed.channels, fixed.of);
        let at = &fixed.at;
        format!("{at}: {channels} of {of} channels: {}", fixed.reason)
    });
    section = section.with_list("Channels that must stay", fixed.collect());
    let uncut = plan.uncut.iter().map(ToString::to_string);
    section = section.with_list("Masked and not cut", uncut.collect());
    let skipped = plan.skipped.iter().map(ToString::to_string);
    Ok(section.with_list("Selected and left as they are", skipped.collect()))
}

fn sizes(plan: &CutPlan) -> Table {
    let rows = [
        ("parameters".to_string(), plan.params),
        ("multiply-accumulates".to_string(), plan.macs),
        ("bytes as f32".to_string(), plan.bytes),
        (
            format!("bytes of activations at once, batch of {}", plan.batch),
            plan.activation_bytes,
        ),
    ];
    let rows = rows.map(|(name, change)| {
        let Change { dense, small } = change;
        vec![name, count(dense), count(small), percent(change.saved())]
    });
    Table::new("Planned sizes")
        .with_texts(["size"])
        .with_numbers(["before", "after", "removed"])
        .with_rows(rows)
}

fn groups(plan: &CutPlan) -> Result<Figure, ReportError> {
    let numbered = || (1..).zip(&plan.groups);
    let row = |(number, group): (usize, &GroupPlan)| {
        let (channels, kept) = (group.channels, group.channels - group.removed);
        let first = group.members.first();
        let first = first.map_or_else(String::new, |member| format!(" {}", member.param));
        let about = match group.certainty {
            Certainty::Estimated(_) => "about ",
            _ => "",
        };
        let label = format!("{channels} → {about}{kept}");
        Span::of(
            format!("{number}{first}"),
            channels as f64,
            kept as f64,
            label,
        )
    };
    let cells = |(number, group): (usize, &GroupPlan)| {
        vec![
            number.to_string(),
            group.channels.to_string(),
            group.removed.to_string(),
            list(&group.members),
            list(&group.consumers),
        ]
    };
    let spans = Spans::new("channels of coupled groups", numbered().map(row).collect());
    Ok(Figure {
        caption: "Channels of a group are removed together, everywhere. The wide bar is what a \
                  group has, the narrow bar inside of it what stays."
            .to_string(),
        is_wide: false,
        drawings: vec![drawn(&spans)?],
        table: Table::new("Coupled groups")
            .with_texts(["group"])
            .with_numbers(["channels", "go"])
            .with_texts(["made by", "read by"])
            .with_rows(numbered().map(cells)),
    })
}

fn list(params: &[ParamDim]) -> String {
    let names: Vec<String> = params.iter().map(ToString::to_string).collect();
    names.join(", ")
}
