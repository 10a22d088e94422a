//! Layers whose scale a batch norm behind them cancels.
//!
//! A batch norm divides by the standard deviation of what it reads, so multiplying a channel of the
//! layer in front by a number changes nothing. A value that is trained for such a channel has a
//! gradient of zero, and which channels go says nothing. The value of the batch norm's `gamma` takes
//! its place.

use burn::module::Module;
use burn_compress_core::layer::{LayerInfo, channel_dims};
use burn_compress_core::{Compressor, Target, TargetId};
use indexmap::IndexSet;

use crate::units::Units;

/// The targets that need no trained values of their own, as the `gamma` behind them is scored and
/// coupled with them. Warns of each target whose `gamma` is not.
pub(crate) fn cancelled<M: Module + 'static, I: 'static>(
    compressor: &Compressor<M, I>,
    pruner: &'static str,
    units: &Units,
) -> IndexSet<TargetId> {
    let mut cancelled = IndexSet::new();
    for (target, gamma) in behind(compressor, pruner, units.sources()) {
        if !units.sources().contains(&gamma.to_string()) {
            log::warn!("{pruner}: {}", advice(units, &target, &gamma));
        } else if units.are_coupled(&target, &gamma) {
            cancelled.insert(target);
        }
    }
    cancelled
}

/// What to do about a target whose scale the norm of `gamma` cancels.
pub(crate) fn advice(units: &Units, target: &TargetId, gamma: &TargetId) -> String {
    let (layer, norm) = (&target.layer, &gamma.layer);
    let remedy = match units.are_by_graph() {
        // The graph does not let either go without the other.
        true => format!(
            "select `{norm}` as well, with the same goal and groups as `{layer}`, so that its \
             `gamma` decides for both"
        ),
        false => format!("select `{norm}` in place of `{layer}`"),
    };
    format!(
        "the batch norm `{norm}` behind `{layer}` cancels the scale of its channels, so that what is \
         trained for them tells nothing; {remedy}"
    )
}

/// The layers with a score whose channels a batch norm reads next, and its `gamma`.
///
/// Next means next in the order of the model's fields and with the same channels in the graph.
/// Without a graph nothing is known.
pub(crate) fn behind<M: Module + 'static, I: 'static>(
    compressor: &Compressor<M, I>,
    pruner: &'static str,
    sources: &IndexSet<String>,
) -> Vec<(TargetId, TargetId)> {
    let Ok(graph) = compressor.graph(pruner) else {
        return Vec::new();
    };
    let group = |layer: &LayerInfo, name: &str| {
        let param = layer.param(name)?;
        let dim = channel_dims(&layer.kind, name, param.shape.len()).output?;
        graph.group_of(&layer.path, name, dim)
    };
    let with_params = compressor.layers().iter().filter(|l| !l.params.is_empty());
    let layers: Vec<&LayerInfo> = with_params.collect();
    let pairs = layers.windows(2).filter_map(|pair| {
        let [layer, norm] = [pair[0], pair[1]];
        let target = TargetId::new(layer.path.clone(), Target::param("weight"));
        let gamma = TargetId::new(norm.path.clone(), Target::param("gamma"));
        let behind = norm.kind.starts_with("BatchNorm")
            && sources.contains(&target.to_string())
            && group(layer, "weight").is_some_and(|own| Some(own) == group(norm, "gamma"));
        behind.then_some((target, gamma))
    });
    pairs.collect()
}
