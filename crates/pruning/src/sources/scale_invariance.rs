//! Layers whose scale a batch norm behind them cancels.
//!
//! A batch norm divides by the standard deviation of what it reads, so multiplying a channel of the
//! layer in front by a number changes nothing. A value that is trained for such a channel has a
//! gradient of zero, and the order of its channels has no meaning. The value of the batch norm's
//! `gamma` takes its place.

use burn::module::Module;
use burn_compress_core::layer::{LayerInfo, channel_dims};
use burn_compress_core::{Chain, Target, TargetId};
use indexmap::IndexSet;

use super::source::Scored;

/// The targets that need no trained values of their own, as the `gamma` behind them is scored and
/// coupled with them. Warns of each target whose `gamma` is not.
pub(super) fn scale_invariant<M: Module + 'static, I: 'static>(
    scored: &Scored<'_, M, I>,
) -> IndexSet<TargetId> {
    let mut invariant = IndexSet::new();
    for (target, gamma) in normed_layers(scored.chain, scored.pruner, &scored.paths()) {
        match (scored.target(&target), scored.target(&gamma)) {
            (Some(layer), Some(norm)) => {
                if layer.is_coupled_with(norm) {
                    invariant.insert(target);
                }
            }
            _ => {
                let advice = advice(scored.by_graph, &target, &gamma);
                scored.chain.warn(scored.pruner, advice);
            }
        }
    }
    invariant
}

/// The remedy for a target whose scale the norm of `gamma` cancels.
pub(crate) fn advice(by_graph: bool, target: &TargetId, gamma: &TargetId) -> String {
    let (layer, norm) = (&target.layer, &gamma.layer);
    let remedy = match by_graph {
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
pub(crate) fn normed_layers<M: Module + 'static, I: 'static>(
    chain: &Chain<'_, M, I>,
    pruner: &'static str,
    sources: &IndexSet<String>,
) -> Vec<(TargetId, TargetId)> {
    let Ok(graph) = chain.graph(pruner) else {
        return Vec::new();
    };
    let group = |layer: &LayerInfo, name: &str| {
        let param = layer.param(name)?;
        let dim = channel_dims(&layer.kind, name, param.shape.len()).output?;
        graph.group_of(&layer.path, name, dim)
    };
    let with_params = chain.layers().iter().filter(|l| !l.params.is_empty());
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
