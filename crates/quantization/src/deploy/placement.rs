//! The search for the targets of a deployment.
//!
//! First the inputs: of layers with weights, of sums, pools and concatenations. Then the outputs that
//! something reads in floating point before they reach such an input.

use std::collections::BTreeSet;

use burn_compress_core::config::{ConfigList, Rule, did_you_mean, named};
use burn_compress_core::graph::{Captured, FloatReader};
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Obstacle, QuantDtype, QuantScheme, Target, TargetId};
use indexmap::IndexMap;

use super::{Deployment, Runtime};
use crate::bn_fusion::NORM;
use crate::{Granularity, QuantizationSettings};

/// Layers whose products run in integers.
const HOSTS: [&str; 3] = ["Conv1d", "Conv2d", "Linear"];
/// Layers with weights and products that do not.
const FLOAT_HOSTS: [&str; 4] = [
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
];
/// Means over positions.
const POOLS: [&str; 5] = [
    "AvgPool1d",
    "AvgPool2d",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
];

/// The search for the targets of one network.
pub(super) struct Placement<'a> {
    deployment: &'a Deployment,
    layers: &'a [LayerInfo],
    captured: &'a Captured,
    called: BTreeSet<&'a TargetId>,
    /// Layers with weights, in module order.
    hosts: Vec<&'a LayerInfo>,
    /// Inputs and outputs beyond the inputs of hosts, by layer.
    ports: IndexMap<&'a str, Vec<Target>>,
    obstacles: Vec<Obstacle>,
}

impl<'a> Placement<'a> {
    pub(super) fn new(
        deployment: &'a Deployment,
        layers: &'a [LayerInfo],
        captured: &'a Captured,
    ) -> Self {
        Self {
            deployment,
            layers,
            captured,
            called: captured.port_targets().collect(),
            hosts: Vec::new(),
            ports: IndexMap::new(),
            obstacles: Vec::new(),
        }
    }

    /// The rules of all targets.
    ///
    /// # Errors
    ///
    /// Everything that is in the way.
    pub(super) fn rules(mut self) -> Result<ConfigList<QuantizationSettings>, Vec<Obstacle>> {
        self.check_names();
        self.place_inputs();
        self.place_outputs();
        match self.obstacles.is_empty() {
            true => Ok(self.written()),
            false => Err(self.obstacles),
        }
    }

    /// Reports names that are none of layers.
    fn check_names(&mut self) {
        for name in &self.deployment.float {
            let alone = Deployment {
                float: vec![name.clone()],
                ..self.deployment.clone()
            };
            if !self.layers.iter().any(|layer| alone.is_float(layer)) {
                let near = did_you_mean(name, self.layers.iter().map(|l| l.path.as_str()));
                self.report(
                    TargetId::new(name, Target::Output(0)),
                    "",
                    "`with_float` names a layer that the model does not have",
                    format!("correct the name{near}"),
                );
            }
        }
    }

    fn report(
        &mut self,
        target: TargetId,
        kind: &str,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.obstacles.push(Obstacle {
            target,
            kind: kind.to_string(),
            reason: reason.into(),
            remedy: remedy.into(),
        });
    }

    /// Chooses the inputs that are quantized.
    fn place_inputs(&mut self) {
        let int32 = self.deployment.int32_bias;
        for layer in self.layers {
            if self.deployment.is_float(layer) {
                continue;
            }
            let (path, kind) = (layer.path.as_str(), layer.kind.as_str());
            let input = TargetId::new(path, Target::Input(0));
            let wrap = format!("make its field a `Wrapper<{kind}>`, or name it in `with_float`");
            if FLOAT_HOSTS.contains(&kind) {
                let reason = "the runtime computes such a layer in floating point";
                self.report(input, kind, reason, "name it in `with_float`");
            } else if HOSTS.contains(&kind) && !layer.wrapped {
                let reason = "it is not wrapped, so its input cannot be quantized";
                self.report(input, kind, reason, wrap);
            } else if kind == NORM && !layer.wrapped && int32 {
                let reason = "it is not wrapped, so the bias that it leaves when it is folded \
                              cannot be rounded";
                let remedy = format!("{wrap}, or leave the rounding out by `with_int32_bias`");
                self.report(input, kind, reason, remedy);
            } else if HOSTS.contains(&kind) && !self.called.contains(&input) {
                let reason = "the forward pass of the dummy input does not call it, or not by the \
                              `forward` of its wrapper";
                let remedy = "call its wrapper, or name it in `with_float`";
                self.report(input, kind, reason, remedy);
            } else if HOSTS.contains(&kind) {
                self.hosts.push(layer);
            } else if layer.wrapped {
                let inputs = self.inputs(layer);
                if !inputs.is_empty() {
                    self.ports.insert(path, inputs);
                }
            }
        }
    }

    /// The inputs of a layer without weights that are quantized.
    fn inputs(&self, layer: &LayerInfo) -> Vec<Target> {
        let called = self.called.iter().filter(|id| id.layer == layer.path);
        let inputs = called.map(|id| id.target.clone());
        let inputs = inputs.filter(|target| matches!(target, Target::Input(_)));
        let is_sum = layer.kind == "Add";
        match (layer.kind.as_str(), self.deployment.runtime) {
            ("Add", Runtime::TensorRt) => {
                let identity = |target: &Target| {
                    !self.is_made_by_weights(&TargetId::new(&layer.path, target.clone()))
                };
                let mut found: Vec<Target> = inputs.collect();
                match found.iter().position(identity) {
                    Some(at) => vec![found.swap_remove(at)],
                    None => found.pop().into_iter().collect(),
                }
            }
            ("Concat", Runtime::TensorRt) => Vec::new(),
            (kind, _) if is_sum || kind == "Concat" || POOLS.contains(&kind) => inputs.collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the tensor of an input comes from a layer with weights, or from the norm behind it.
    fn is_made_by_weights(&self, input: &TargetId) -> bool {
        self.captured.same_tensor(input).iter().any(|port| {
            let layer = self.layers.iter().find(|layer| layer.path == port.layer);
            let kind = layer.map_or("", |layer| layer.kind.as_str());
            matches!(port.target, Target::Output(_)) && (HOSTS.contains(&kind) || kind == NORM)
        })
    }

    fn is_quantized(&self, id: &TargetId) -> bool {
        let host = self.hosts.iter().any(|host| host.path == id.layer);
        let known = self.ports.get(id.layer.as_str());
        (host && id.target == Target::Input(0))
            || known.is_some_and(|targets| targets.contains(&id.target))
    }

    /// Chooses the outputs that are quantized because something reads them in floating point.
    fn place_outputs(&mut self) {
        let successors = self.captured.successors();
        let operations = self.ports.keys().copied();
        let hosts = self.hosts.iter().map(|host| host.path.as_str());
        let makers: Vec<&'a str> = hosts.chain(operations).collect();
        for path in makers {
            let output = TargetId::new(path, Target::Output(0));
            let readers = self
                .captured
                .float_readers(&output, |port| self.is_quantized(port));
            for reader in &readers {
                self.check_operation(&output, reader);
            }
            let layer = self.layers.iter().find(|layer| layer.path == path);
            let kind = layer.map_or("", |layer| layer.kind.as_str());
            let skipped = kind == "Linear" || self.deployment.runtime == Runtime::TensorRt;
            if readers.is_empty() || skipped {
                continue;
            }
            // A folded norm belongs to the layer.
            let next = successors.get(path).map(|next| next.layer.as_str());
            let norm = next.and_then(|next| self.layers.iter().find(|layer| layer.path == next));
            let norm = norm.filter(|norm| norm.kind == NORM && HOSTS.contains(&kind));
            let last = norm.or(layer).map_or(path, |layer| layer.path.as_str());
            let targets = self.ports.entry(last).or_default();
            if !targets.contains(&Target::Output(0)) {
                targets.push(Target::Output(0));
            }
        }
    }

    /// Reports an operation that reads `output` and belongs to no layer.
    fn check_operation(&mut self, output: &TargetId, reader: &FloatReader) {
        let needed = match self.deployment.runtime {
            Runtime::OnnxRuntime => reader.layer(),
            Runtime::TensorRt => reader.layer().filter(|_| *reader == FloatReader::Add),
        };
        let (Some(layer), false) = (needed, self.deployment.float_operations) else {
            return;
        };
        let what = match reader {
            FloatReader::Add => "a sum",
            FloatReader::Concat => "a concatenation",
            _ => "a mean",
        };
        self.report(
            output.clone(),
            "",
            format!(
                "{what} reads it that belongs to no layer, so what it reads cannot be quantized"
            ),
            format!(
                "make it a field `Wrapper<{layer}>` of the model, or let it stay in floating point \
                 by `with_float_operations`"
            ),
        );
    }

    /// What was placed, as rules.
    fn written(&self) -> ConfigList<QuantizationSettings> {
        let activation = self.deployment.activation();
        let mut rules: Vec<Rule<QuantizationSettings>> = Vec::new();
        if !self.hosts.is_empty() {
            let weight = QuantizationSettings {
                quant_dtype: Some(QuantDtype::INT8),
                quant_scheme: Some(QuantScheme::Symmetric),
                granularity: Some(Granularity::OutChannel),
                ..QuantizationSettings::default()
            };
            let settings = QuantizationSettings {
                int32_bias: self.deployment.int32_bias.then_some(true),
                ..QuantizationSettings::default()
            };
            let hosts = self.hosts.iter().map(|host| host.path.clone());
            let targets = [Target::Input(0), Target::param("weight")];
            let rule = named(hosts)
                .with_target_names(targets.clone())
                .with_settings(settings);
            let [input, parameter] = targets;
            rules.push(
                rule.with_target_settings(input, activation.clone())
                    .with_target_settings(parameter, weight),
            );
        }
        let mut groups: IndexMap<&Vec<Target>, Vec<&str>> = IndexMap::new();
        for (path, targets) in &self.ports {
            groups.entry(targets).or_default().push(path);
        }
        for (targets, paths) in groups {
            rules.push(
                named(paths)
                    .with_target_names(targets.iter().cloned())
                    .with_settings(activation.clone()),
            );
        }
        ConfigList { rules }
    }
}
