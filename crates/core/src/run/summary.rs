//! Chains and their results as tables that a person can read.
//!
//! ```text
//! L1NormPruner + QatQuantizer, step 0 of 0
//!
//! layer  type       target  pruned                coupled  quantized                   distilled
//! stem   Conv2d     weight  4 of 8 along dim 0    1        int8 symmetric, 8 scales
//! ```

use std::fmt;

use burn::module::Module;

use crate::erased::AnyModel;
use crate::graph::ChannelGraph;
use crate::layer::{LayerInfo, layers};
use crate::run::any_chain::AnyChain;
use crate::run::compressed::Compressed;
use crate::run::compressor::Compressor;
use crate::run::obstacle::Obstacle;
use crate::simulate::attach::Spaces;
use crate::simulate::masks::removed;
use crate::simulate::space::TargetSpace;
use crate::table::write_table;
use crate::target::{Mode, Target, TargetId};

const COLUMNS: [&str; 7] = [
    "layer",
    "type",
    "target",
    "pruned",
    "coupled",
    "quantized",
    "distilled",
];
const NOT_YET: &str = "selected";

/// A line a target that something acts on, in the order of the model; columns without an entry are
/// left out.
fn write_targets(
    f: &mut fmt::Formatter<'_>,
    layers: &[LayerInfo],
    spaces: &Spaces,
    graph: Option<&ChannelGraph>,
) -> fmt::Result {
    let mut rows = Vec::new();
    for layer in layers {
        let of_layer = spaces
            .values()
            .filter(|space| space.id().layer == layer.path);
        let acting = of_layer.filter(|space| !space.modes().is_empty() || !space.is_idle());
        let mut acting: Vec<_> = acting.collect();
        acting.sort_by_cached_key(|space| place(layer, &space.id().target));
        rows.extend(acting.iter().map(|space| row(layer, space, graph)));
    }
    if rows.is_empty() {
        return Ok(());
    }
    rows.insert(0, COLUMNS.map(str::to_string).to_vec());
    let mut column = COLUMNS.len();
    while column > 0 {
        column -= 1;
        if rows[1..].iter().all(|row| row[column].is_empty()) {
            rows.iter_mut().for_each(|row| {
                row.remove(column);
            });
        }
    }
    writeln!(f)?;
    write_table(f, &rows)
}

/// Parameters in the order of the layer, then inputs and outputs by name.
fn place(layer: &LayerInfo, target: &Target) -> (usize, String) {
    let name = target.to_string();
    let params = layer.params.iter();
    let at = params.take_while(|param| param.name != name).count();
    (at, name)
}

fn row(layer: &LayerInfo, space: &TargetSpace, graph: Option<&ChannelGraph>) -> Vec<String> {
    let selected = |mode: Mode| match space.is_claimed(mode) {
        true => NOT_YET.to_string(),
        false => String::new(),
    };
    let mask = space.mask().map(|mask| removed(&mask));
    let quantization = space.quantization().map(|state| {
        let what = format!("{} {}", state.dtype, state.scheme);
        match (state.scale, state.grid.len()) {
            (None, _) => what,
            (Some(_), 1) => format!("{what}, 1 scale"),
            (Some(_), scales) => format!("{what}, {scales} scales"),
        }
    });
    vec![
        layer.path.clone(),
        layer.kind.clone(),
        space.id().target.to_string(),
        mask.unwrap_or_else(|| selected(Mode::Pruning)),
        graph.map_or_else(String::new, |graph| groups(graph, space.id())),
        quantization.unwrap_or_else(|| selected(Mode::Quantization)),
        match space.is_claimed(Mode::Distillation) {
            true => "yes".to_string(),
            false => String::new(),
        },
    ]
}

/// The numbers of the groups whose channels a parameter makes or reads, counted from 1.
fn groups(graph: &ChannelGraph, id: &TargetId) -> String {
    let param = id.to_string();
    let numbered = graph.groups().iter().enumerate();
    let makes = numbered.filter(|(_, group)| group.members.iter().any(|m| m.param == param));
    let numbers = makes.map(|(at, _)| (at + 1).to_string());
    numbers.collect::<Vec<_>>().join(", ")
}

fn write_list(f: &mut fmt::Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(f, "- {line}"))
}

fn written(obstacles: &[Obstacle]) -> Vec<String> {
    obstacles.iter().map(Obstacle::to_string).collect()
}

/// Table of the selected, coupled, masked, quantized and distilled targets by layer. The number of
/// a coupled group is that of a [`ChannelGroup`](crate::graph::ChannelGroup), from 1 on.
impl<M: Module + 'static, I: 'static> fmt::Display for Compressor<M, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_chain(f, &self.inner)
    }
}

fn write_chain(f: &mut fmt::Formatter<'_>, chain: &AnyChain) -> fmt::Result {
    let algorithms = match chain.algorithms() {
        none if none.is_empty() => "no algorithm".to_string(),
        names => names.join(" + "),
    };
    let (step, total) = (chain.progress.step, chain.progress.total_steps);
    match total {
        0 => writeln!(f, "{algorithms}")?,
        _ => writeln!(f, "{algorithms}, step {step} of {total}")?,
    }
    let graph = chain.graphs.known();
    let graph = graph.as_deref();
    write_targets(f, &chain.layers, &chain.spaces, graph)?;
    write_list(f, "skipped:", &written(&chain.skipped))
}

/// Table of masks and quantizations by layer, with skipped targets and warnings.
impl<M: Module + 'static> fmt::Display for Compressed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.history().steps.last() {
            None => writeln!(f, "not trained")?,
            Some(last) => {
                let steps = self.history().steps.len();
                writeln!(f, "{steps} steps, the last with a loss of {:.4}", last.loss)?;
            }
        }
        write_targets(
            f,
            &layers(&AnyModel::new(self.model().clone())),
            self.spaces(),
            None,
        )?;
        write_list(f, "skipped:", &written(self.skipped()))?;
        write_list(f, "warnings:", self.warnings())
    }
}
