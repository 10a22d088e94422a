//! From a model to a file.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use burn_compress_core::erased::AnyModel;
use burn_compress_core::graph::DummyInput;
use burn_compress_core::layer::layers;
use burn_compress_core::{Calibration, Compressed, Error, History, Masks, Target, TargetId};
use burn_compress_speedup::{GraphCut, SmallState};

use crate::graph::OnnxGraph;
use crate::lower::lower;
use crate::quantize::{Compression, quantize};
use crate::trace::Trace;
use crate::{ExportError, OnnxConfig, OnnxFile, QuantizationReport};

/// Exports a model as an ONNX file.
///
/// The forward pass of the dummy input is captured and its operations are written as ONNX operators.
/// The parameters are initializers under their paths, `block.conv1.weight`, a shared one once. The model
/// may be a plain one, a compressed one (`compressed.model()`), or a small one: masks act on the parameters
/// that are written, and what is quantized is quantized for the [target](OnnxConfig::target), as
/// [`OnnxReport::quantization`](crate::OnnxReport::quantization) tells.
///
/// Inputs and outputs have the types of the dummy input, integers as 64 bits. The file needs operator set
/// 18, or 21 where weights are stored in four bits.
///
/// # Errors
///
/// - Operations without an ONNX operator, all at once, each with its layer.
/// - Dynamic dimensions that the forward pass does not follow.
/// - Quantizers that the target cannot execute, all at once, each with its remedy.
/// - Masks that change the statistics of a norm.
/// - A forward pass that cannot be captured, and a file above 2 GiB.
///
/// ```
/// use burn::nn::{Linear, LinearConfig, Relu};
/// use burn::prelude::*;
/// use burn_compress_core::DummyInput;
/// use burn_compress_export::{OnnxConfig, export_onnx};
///
/// #[derive(Module, Debug)]
/// struct Mlp {
///     first: Linear,
///     second: Linear,
/// }
///
/// impl Mlp {
///     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
///         self.second.forward(Relu::new().forward(self.first.forward(x)))
///     }
/// }
///
/// let device = Device::flex();
/// let model = Mlp {
///     first: LinearConfig::new(4, 8).init(&device),
///     second: LinearConfig::new(8, 2).init(&device),
/// };
/// let dummy_input = DummyInput::new(Tensor::<2>::ones([1, 4], &device), Mlp::forward);
/// let config = OnnxConfig::new().with_input_names(["features"]).with_output_names(["logits"]);
/// let file = export_onnx(&model, &dummy_input, &config)?;
/// assert_eq!(file.report().inputs[0].to_string(), "features float[batch, 4]");
/// assert_eq!(file.report().operators["Gemm"], 2);
///
/// let path = std::env::temp_dir().join(format!("mlp-{}.onnx", std::process::id()));
/// file.save(&path)?;
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub fn export_onnx<M: Module + 'static>(
    model: &M,
    dummy_input: &DummyInput<M>,
    config: &OnnxConfig,
) -> Result<OnnxFile, ExportError> {
    let model = AnyModel::new(model.clone());
    export(model, &AnyModel::dummy_input(dummy_input), config)?.into_file()
}

/// A graph as it is written.
pub(crate) struct Exported {
    pub graph: OnnxGraph,
    pub notes: Vec<String>,
    /// Of a quantized model.
    pub quantization: Option<QuantizationReport>,
}

impl Exported {
    fn into_file(self) -> Result<OnnxFile, ExportError> {
        OnnxFile::of(&self.graph, self.notes, self.quantization)
    }
}

pub(crate) fn export(
    model: AnyModel,
    dummy_input: &DummyInput<AnyModel>,
    config: &OnnxConfig,
) -> Result<Exported, ExportError> {
    let compressed = with_nothing_new(model)?;
    refuse_masked_norms(&compressed)?;
    exported(compressed, config, |plain| {
        Trace::of(plain, dummy_input, config)
    })
}

/// Exports a model without its masked channels, cut in its captured forward pass.
///
/// For a model that cannot be cut by its type, since its code holds the number of its channels: plain
/// depthwise convolutions of somebody's crate, a reshape to a literal number. The file computes what the
/// masked model computes; otherwise it is as one of [`export_onnx`], quantizers included.
///
/// # Errors
///
/// Those of [`export_onnx`].
///
/// ```
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::prelude::*;
/// use burn_compress_core::{DummyInput, Mask, Masks};
/// use burn_compress_export::{OnnxConfig, export_graph_cut};
/// use burn_compress_speedup::ModelSpeedup;
///
/// #[derive(Module, Debug)]
/// struct Separable {
///     stem: Conv2d,
///     depth: Conv2d,
/// }
///
/// let device = Device::flex();
/// let model = Separable {
///     stem: Conv2dConfig::new([1, 4], [1, 1]).with_bias(false).init(&device),
///     depth: Conv2dConfig::new([4, 4], [1, 1]).with_groups(4).with_bias(false).init(&device),
/// };
/// let images = Tensor::<4>::ones([1, 1, 2, 2], &device);
/// let dummy_input = DummyInput::new(images, |model: &Separable, x| -> Tensor<4> {
///     model.depth.forward(model.stem.forward(x)).sum_dim(1)
/// });
/// let mask = Mask::new(vec![1.0, 0.0, 1.0, 0.0], [4, 1, 1, 1])?;
/// let masks = Masks::from([
///     ("stem.weight".parse()?, mask.clone()),
///     ("depth.weight".parse()?, mask),
/// ]);
/// let cut = ModelSpeedup::from_masks(model, dummy_input, &masks)?.cut_graph()?;
/// let file = export_graph_cut(&cut, &OnnxConfig::new())?;
/// assert_eq!(file.report().operators["Conv"], 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub fn export_graph_cut(cut: &GraphCut, config: &OnnxConfig) -> Result<OnnxFile, ExportError> {
    let SmallState {
        masks, calibration, ..
    } = cut.state();
    let parameters = cut.parameters().clone();
    let compressed = Compressed::from_parts(parameters, masks, calibration, History::default())?;
    let exported = exported(compressed, config, |_| {
        Trace::captured(&|dummy| cut.capture(dummy), cut.dummy_input(), config)
    })?;
    exported.into_file()
}

/// The graph of a simulated model whose plain one has the forward pass that `trace` gives.
fn exported(
    compressed: Compressed<AnyModel>,
    config: &OnnxConfig,
    trace: impl FnOnce(&AnyModel) -> Result<Trace, ExportError>,
) -> Result<Exported, ExportError> {
    let (masks, calibration) = (compressed.masks(), compressed.calibration()?);
    // Masks and rounding become part of the parameters.
    let simulated = compressed.into_model().materialize();
    let plain = with_nothing_new(simulated)?.unwrap_model();
    let trace = trace(&plain)?;
    let lowered = lower(&trace, &parameters(&plain, &trace), config)?;
    let is_plain = calibration.is_empty() && masks.keys().all(|id| id.target.is_param());
    if is_plain {
        return Ok(Exported {
            graph: lowered.graph,
            notes: lowered.notes,
            quantization: None,
        });
    }
    let compression = Compression {
        ports: &lowered.ports,
        calibration: &calibration,
        masks: &masks,
        packs_weights: config.four_bit_weights,
    };
    let target = config.target;
    let quantized = quantize(lowered.graph, &compression, target);
    let (graph, report) =
        quantized.map_err(|refusals| ExportError::NotExecutable { target, refusals })?;
    Ok(Exported {
        graph,
        notes: lowered.notes,
        quantization: Some(report),
    })
}

/// A model with the masks and the calibration that it carries.
fn with_nothing_new(model: AnyModel) -> Result<Compressed<AnyModel>, Error> {
    Compressed::from_parts(
        model,
        &Masks::new(),
        &Calibration::new(),
        History::default(),
    )
}

/// Types of norms whose wrappers compute their statistics from the channels that are not masked.
const NORMS_OVER_CHANNELS: [&str; 3] = ["LayerNorm", "RmsNorm", "GroupNorm"];

fn refuse_masked_norms(compressed: &Compressed<AnyModel>) -> Result<(), ExportError> {
    let masks = compressed.masks();
    let masked = |layer: &str, name: &str| -> Option<Vec<bool>> {
        let id = TargetId::new(layer, Target::Param(name.to_string()));
        Some(masks.get(&id)?.values().iter().map(|&x| x == 0.0).collect())
    };
    let model = compressed.model();
    let found = layers(model).into_iter().filter(|layer| {
        let over_channels = NORMS_OVER_CHANNELS.contains(&layer.kind.as_str());
        let Some(gamma) = masked(&layer.path, "gamma").filter(|_| over_channels) else {
            return false;
        };
        let has_beta = layer.params.iter().any(|param| param.name == "beta");
        match (masked(&layer.path, "beta"), has_beta) {
            (None, true) => false,
            (None, false) => gamma.contains(&true),
            (Some(beta), _) => gamma.iter().zip(&beta).any(|(gamma, beta)| *gamma && *beta),
        }
    });
    let layers: Vec<String> = found.map(|layer| layer.path.to_string()).collect();
    match layers.is_empty() {
        true => Ok(()),
        false => Err(ExportError::MaskedNorm { layers }),
    }
}

/// The values of the parameters that the forward pass reads.
fn parameters<M: Module>(model: &M, trace: &Trace) -> HashMap<String, TensorData> {
    let read = trace.operations.iter().flat_map(|op| op.inputs());
    let read = read
        .map(|tensor| tensor.id)
        .chain(trace.outputs.iter().copied());
    let paths = read.filter_map(|id| Some((trace.parameters.get(&id)?.0.clone(), None)));
    let mut values = Parameters {
        path: Vec::new(),
        values: paths.collect(),
    };
    model.visit(&mut values);
    let found = values.values.into_iter();
    found
        .filter_map(|(path, data)| Some((path, data?)))
        .collect()
}

/// Reads the values of parameters by path.
struct Parameters {
    path: Vec<String>,
    values: HashMap<String, Option<TensorData>>,
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(value) = self.values.get_mut(&self.path.join(".")) {
            *value = Some(param.val().to_data());
        }
    }
}
