//! The output that scores a layer.
//!
//! A layer that a rule names by `activation`: its output. Where it is called several times, it is the
//! calls that are behind the scored layer.
//!
//! Otherwise it is the activation behind the layer in the captured forward pass. Normalizations,
//! pooling, additions of other values and concatenations on the way keep the channels apart. Where
//! another layer mixes them before there is an activation, it is the output of the normalizations
//! that directly follow, or of the layer itself. An activation that is called as a function is
//! observed where a wrapped layer reads it, or computed from what wrapped layers return.

use burn_compress_core::config::Selected;
use burn_compress_core::graph::{Captured, Flow, Follow, Function, Observed, Stop};
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Target, TargetId};

use crate::PruningSettings;

/// The search for the outputs that score layers.
pub(super) struct Search<'a> {
    flow: Option<Flow<'a>>,
    layers: &'a [LayerInfo],
    /// Whether a layer to which the configuration names none is scored by its own output.
    own_output: bool,
    /// Whether values are counted that are not positive.
    counts_zeros: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        captured: Option<&'a Captured>,
        layers: &'a [LayerInfo],
        own_output: bool,
        counts_zeros: bool,
    ) -> Self {
        Self {
            flow: captured.map(|captured| Flow::new(captured, layers)),
            layers,
            own_output,
            counts_zeros,
        }
    }

    /// The outputs that score a target, or what stands in the way, as the rest of a sentence about
    /// the target.
    pub(super) fn outputs(
        &self,
        item: &Selected<PruningSettings>,
        param: &str,
        channels_first: bool,
    ) -> Result<Vec<Stop>, String> {
        let own = &item.layer.path;
        let Some(flow) = &self.flow else {
            let layer = item.settings.activation.as_ref().unwrap_or(own);
            return Ok(vec![uncaptured(layer)]);
        };
        let follow = flow.follow(&item.layer, param, channels_first.then_some(1));
        if follow.own.is_empty() {
            return Err("is not called in the forward pass of the dummy input".to_string());
        }
        if let Some(layer) = &item.settings.activation {
            return self.named(flow, &follow, layer);
        }
        let stops = match (self.own_output, follow.activations.len()) {
            // It is observed where the next layer is wrapped, if it is not itself.
            (true, _) if item.layer.wrapped || follow.own.iter().all(|s| s.observed.is_some()) => {
                follow.own
            }
            (true, _) => return Ok(vec![uncaptured(own)]),
            (false, 0) => follow.normalized,
            (false, 1) => follow.activations,
            (false, _) => return Err(format!("is followed by {}", listed(&follow.activations))),
        };
        match stops.iter().find(|stop| stop.observed.is_none()) {
            Some(stop) => Err(format!(
                "is followed by {}, which neither a wrapped layer reads nor returns (make the field \
                 of a layer there a `Wrapper`)",
                stop.name
            )),
            None => self.checked(stops),
        }
    }

    /// The calls of a named layer that count.
    fn named(&self, flow: &Flow<'_>, follow: &Follow, layer: &str) -> Result<Vec<Stop>, String> {
        let is_wrapped = |known: &&LayerInfo| known.path == layer && known.wrapped;
        if self.layers.iter().find(is_wrapped).is_none() {
            // The tap tells how to wrap it, or that there is none.
            return Ok(vec![uncaptured(layer)]);
        }
        let calls = flow.calls_of(layer);
        let mut behind = follow.returned.clone();
        behind.retain(|stop| stop.layer.as_deref() == Some(layer));
        match (calls.len(), behind.is_empty()) {
            (0, _) => Err(format!(
                "names `{layer}`, which is not called in the forward pass of the dummy input"
            )),
            (_, false) => self.checked(behind),
            (1, true) => self.checked(calls),
            (times, true) => Err(format!(
                "names `{layer}`, which is called {times} times, but nowhere behind it before the \
                 channels are mixed"
            )),
        }
    }

    /// Rejects outputs that have no zeros to count.
    fn checked(&self, stops: Vec<Stop>) -> Result<Vec<Stop>, String> {
        let counted = |stop: &&Stop| self.counts_zeros && self.has_one_sign(stop);
        match stops.iter().find(counted) {
            Some(stop) => Err(format!(
                "is followed by {}, whose values all have one sign, so that none is a zero",
                stop.name
            )),
            None => Ok(stops),
        }
    }

    fn has_one_sign(&self, stop: &Stop) -> bool {
        let layer = self
            .layers
            .iter()
            .find(|layer| Some(&layer.path) == stop.layer.as_ref());
        let kind = layer.map_or("", |layer| layer.kind.as_str());
        let function = matches!(
            stop.observed,
            Some(Observed::Function(
                Function::Sigmoid | Function::LogSigmoid,
                _
            ))
        );
        let operation = stop.operation.as_deref();
        function || kind == "Softplus" || matches!(operation, Some("sigmoid" | "log_sigmoid"))
    }
}

/// The names of the first stops, and how many more there are.
fn listed(stops: &[Stop]) -> String {
    const SHOWN: usize = 4;
    let names: Vec<&str> = stops
        .iter()
        .take(SHOWN)
        .map(|stop| stop.name.as_str())
        .collect();
    let names = names.join(", ");
    match stops.len().checked_sub(SHOWN) {
        None | Some(0) => names,
        Some(more) => format!("{names} and {more} more"),
    }
}

/// The output of a layer that is called once, where no forward pass shows it.
fn uncaptured(layer: &str) -> Stop {
    Stop {
        name: format!("`{layer}`"),
        layer: Some(layer.to_string()),
        operation: None,
        shape: Vec::new(),
        first: None,
        observed: Some(Observed::Port {
            target: TargetId::new(layer, Target::Output(0)),
            call: 0,
            calls: 1,
        }),
    }
}
