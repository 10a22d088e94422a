//! Plans as tables that a person can read.

use std::fmt;

use burn_compress_core::{Certainty, write_table};

use super::{CutPlan, GroupPlan, LayerPlan, ParamDim};
use crate::report::{dims, percent};

impl fmt::Display for ParamDim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.param, self.dim)
    }
}

/// The coupled groups that lose channels, the layers, the sizes, and what stays and why. A group has
/// the number that it has in the display of a chain.
impl fmt::Display for CutPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_groups(f)?;
        self.write_layers(f)?;
        writeln!(f)?;
        self.params.write(f, "parameters")?;
        self.macs.write(f, "MACs")?;
        self.bytes.write(f, "bytes")?;
        self.activation_bytes.write(f, "activation")?;
        writeln!(
            f,
            "activations: most bytes in memory at once, batch of {}",
            self.batch
        )?;
        self.write_notes(f)
    }
}

impl CutPlan {
    fn write_groups(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbered = self.groups.iter().enumerate();
        let changing: Vec<(usize, &GroupPlan)> =
            numbered.filter(|(_, group)| group.removed > 0).collect();
        if changing.is_empty() {
            return writeln!(f, "no channel goes");
        }
        let mut rows = vec![
            ["group", "channels go", "made by", "read by"]
                .map(str::to_string)
                .to_vec(),
        ];
        for (at, group) in changing {
            let about = match group.certainty {
                Certainty::Estimated(_) => "about ",
                _ => "",
            };
            rows.push(vec![
                (at + 1).to_string(),
                format!("{about}{} of {}", group.removed, group.channels),
                list(&group.members),
                list(&group.consumers),
            ]);
        }
        write_table(f, &rows)
    }

    fn write_layers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = |layer: &&LayerPlan| {
            layer.before != layer.after || layer.asked.is_some() || layer.reached > 0.0
        };
        let title = ["layer", "type", "before", "after", "asked", "reached"];
        let mut rows = vec![title.map(str::to_string).to_vec()];
        for layer in self.layers.iter().filter(changes) {
            rows.push(vec![
                layer.target.to_string(),
                layer.kind.clone(),
                dims(&layer.before),
                dims(&layer.after),
                layer.asked.map_or_else(String::new, percent),
                percent(layer.reached),
            ]);
        }
        if rows.len() == 1 {
            return Ok(());
        }
        writeln!(f)?;
        write_table(f, &rows)
    }

    fn write_notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.slices, self.certainty()) {
            (Some(_), _) => {}
            (None, Certainty::Estimated(reason)) => writeln!(
                f,
                "the run decides which channels go, and of some groups how many: {reason}"
            )?,
            (None, _) => writeln!(f, "the run decides which channels go")?,
        }
        let fixed = self.fixed.iter().map(|fixed| {
            let (channels, of) = (fixed.channels, fixed.of);
            format!(
                "{}: {channels} of {of} channels: {}",
                fixed.at, fixed.reason
            )
        });
        write_list(f, "stay:", fixed)?;
        write_list(
            f,
            "masked and not cut:",
            self.uncut.iter().map(ToString::to_string),
        )?;
        write_list(f, "skipped:", self.skipped.iter().map(ToString::to_string))
    }
}

fn list(params: &[ParamDim]) -> String {
    let names: Vec<String> = params.iter().map(ToString::to_string).collect();
    names.join(" ")
}

fn write_list(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    lines: impl Iterator<Item = String>,
) -> fmt::Result {
    for (at, line) in lines.enumerate() {
        if at == 0 {
            writeln!(f, "\n{title}")?;
        }
        writeln!(f, "- {line}")?;
    }
    Ok(())
}
