//! Rules for networks that run in integers where they are deployed.
//!
//! Which tensors have to be quantized, and how, follows from what a runtime executes in integers. A
//! [`Deployment`] reads the layers of a network and its forward pass and gives the complete
//! configuration of a quantizer:
//!
//! | | [`onnxruntime`](Deployment::onnxruntime) | [`tensorrt`](Deployment::tensorrt) |
//! |---|---|---|
//! | inputs of convolutions and linear layers | `uint8`, affine, one scale | `int8_full`, symmetric, one scale |
//! | their weights | `int8`, symmetric, one scale an output channel | the same |
//! | their biases, those of folded norms included | 32 bits | floating point |
//! | sums | both inputs as above | the one that no convolution makes |
//! | average pooling | its input as above | its input as above |
//! | concatenations | all inputs as above | floating point |
//! | what something reads in floating point | the output of the layer as above | floating point |
//!
//! One tensor has one grid, whoever reads it: the input of a convolution that a sum reads too is
//! quantized at both with the same settings, and so with the same scale.
//!
//! Weights are the same for all processors. Those without instructions for products of bytes (x86
//! without VNNI) need them as `uint8` with the zero point 128, which is for the exporter to write and
//! changes no value.

use std::collections::BTreeSet;

use burn::module::Module;
use burn_compress_core::config::{ConfigList, Rule, did_you_mean, named};
use burn_compress_core::graph::{Captured, DummyInput, FloatReader};
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::{Error, Obstacle, QuantDtype, QuantScheme, Target, TargetId, capture};
use indexmap::IndexMap;

use crate::bn_fusion::NORM;
use crate::{Granularity, QuantizationError, QuantizationSettings};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runtime {
    OnnxRuntime,
    TensorRt,
}

/// The complete configuration of a quantizer for a network that is to run in integers.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
/// use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor, activation::relu};
/// use burn_compress_core::graph::DummyInput;
/// use burn_compress_core::{Add, Wrapper};
/// use burn_compress_quantization::Deployment;
///
/// #[derive(Module, Debug)]
/// struct Net {
///     conv: Wrapper<Conv2d>,
///     bn: Wrapper<BatchNorm>,
///     add: Wrapper<Add>,
///     pool: Wrapper<AdaptiveAvgPool2d>,
///     head: Wrapper<Linear>,
/// }
///
/// impl Net {
///     fn forward(&self, x: Tensor<4>) -> Tensor<2> {
///         let y = self.bn.forward(self.conv.forward(x.clone()));
///         let y = relu(self.add.forward((y, x)));
///         self.head.forward(self.pool.forward(y).flatten(1, 3))
///     }
/// }
///
/// let device = Device::flex();
/// let net = Net {
///     conv: Conv2dConfig::new([4, 4], [1, 1]).with_bias(false).init(&device).into(),
///     bn: BatchNormConfig::new(4).init(&device).into(),
///     add: Add::new().into(),
///     pool: AdaptiveAvgPool2dConfig::new([1, 1]).init().into(),
///     head: LinearConfig::new(4, 2).init(&device).into(),
/// };
/// let dummy = DummyInput::new(Tensor::ones([1, 4, 8, 8], &device), Net::forward);
/// let rules = Deployment::onnxruntime().rules(&net, &dummy)?;
/// // conv and head with weight and bias, the sum, the pool: `QatQuantizer::new(net, rules, ..)`.
/// assert_eq!(rules.rules.len(), 3);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    runtime: Runtime,
    float: Vec<String>,
    float_operations: bool,
    int32_bias: bool,
}

impl Deployment {
    /// For ONNX Runtime on a CPU, of any kind.
    pub fn onnxruntime() -> Self {
        Self {
            runtime: Runtime::OnnxRuntime,
            float: Vec::new(),
            float_operations: false,
            int32_bias: true,
        }
    }

    /// For TensorRT.
    pub fn tensorrt() -> Self {
        Self {
            runtime: Runtime::TensorRt,
            int32_bias: false,
            ..Self::onnxruntime()
        }
    }

    /// Sets layers, by path, that stay in floating point, with all layers below them.
    #[must_use]
    pub fn with_float<T: Into<String>>(mut self, layers: impl IntoIterator<Item = T>) -> Self {
        self.float = layers.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether sums, means and concatenations that are no layers may stay in floating point,
    /// which is an error by default. What they read is quantized where a layer returns it.
    #[must_use]
    pub fn with_float_operations(mut self, allowed: bool) -> Self {
        self.float_operations = allowed;
        self
    }

    /// Sets whether the rounding of biases to 32 bits is simulated; by default where the runtime
    /// rounds them.
    #[must_use]
    pub fn with_int32_bias(mut self, simulated: bool) -> Self {
        self.int32_bias = simulated;
        self
    }

    /// The rules for `model`, whose forward pass `dummy` calls.
    ///
    /// They can be changed before they are used, and written to a file.
    ///
    /// # Errors
    ///
    /// - [`QuantizationError::NotDeployable`] with everything that is in the way: layers that are not
    ///   wrapped or not called, layers that the runtime has no integers for, sums, means and
    ///   concatenations that are no layers;
    /// - a forward pass that cannot be captured.
    pub fn rules<M: Module>(
        &self,
        model: &M,
        dummy: &DummyInput<M>,
    ) -> Result<ConfigList<QuantizationSettings>, Error> {
        let captured = capture(model, dummy)?;
        let mut placement = Placement {
            deployment: self,
            layers: &layers(model),
            captured: &captured,
            called: captured.port_targets().collect(),
            hosts: Vec::new(),
            ports: IndexMap::new(),
            obstacles: Vec::new(),
        };
        placement.check_names();
        placement.place_inputs();
        placement.place_outputs();
        match placement.obstacles.is_empty() {
            true => Ok(placement.rules()),
            false => Err(QuantizationError::NotDeployable {
                runtime: match self.runtime {
                    Runtime::OnnxRuntime => "ONNX Runtime",
                    Runtime::TensorRt => "TensorRT",
                },
                obstacles: placement.obstacles,
            }
            .into()),
        }
    }

    /// Settings of inputs and outputs.
    fn activation(&self) -> QuantizationSettings {
        let (dtype, scheme) = match self.runtime {
            Runtime::OnnxRuntime => (QuantDtype::UINT8, QuantScheme::Affine),
            Runtime::TensorRt => (QuantDtype::INT8_FULL, QuantScheme::Symmetric),
        };
        QuantizationSettings {
            quant_dtype: Some(dtype),
            quant_scheme: Some(scheme),
            ..QuantizationSettings::default()
        }
    }

    fn is_float(&self, layer: &LayerInfo) -> bool {
        let below = |name: &String| {
            let rest = layer.path.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.float.iter().any(below)
    }
}

/// The search for the targets of one network.
struct Placement<'a> {
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

    /// Whether a tensor that passes here is in integers, or in the accumulator of the runtime.
    fn is_quantized(&self, id: &TargetId) -> bool {
        let layer = self.layers.iter().find(|layer| layer.path == id.layer);
        let is_sum = layer.is_some_and(|layer| layer.kind == "Add");
        if is_sum && self.deployment.runtime == Runtime::TensorRt {
            return true;
        }
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

    fn rules(&self) -> ConfigList<QuantizationSettings> {
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

#[cfg(test)]
mod tests;
