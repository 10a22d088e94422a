//! From a compressed model to a small one.
//!
//! ```text
//! masks --removable--> channels --slice_plan--> plan --slice_module--> small model --verify--> result
//! ```

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use burn_compress_core::graph::{ChannelEntries, ChannelGraph, ChannelId, SlicePlan};
use burn_compress_core::layer::layers;
use burn_compress_core::{
    Calibration, Compressed, DummyInput, History, Mask, MaskMethod, Masks, TargetId,
};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::outputs::parameter_masks;
use crate::partial::{self, PartialChannels};
use crate::report::{Change, SpeedupReport};
use crate::save::{self, SaveConfig};
use crate::slice::{float_shapes, slice_module};
use crate::state::{SmallState, reindex_state};
use crate::uncut::uncut;
use crate::verify::{self, RoundingBoundary, TOLERANCE};

/// A small model.
#[derive(Clone, Debug)]
pub struct Speedup<M> {
    /// The model: the same Rust type with smaller tensors. Masks are part of its parameters; only
    /// what is left in `state` is still simulated.
    pub model: M,
    /// What is left of the compression: scales and zero points, masks of inputs and outputs and of
    /// quantized parameters.
    pub state: SmallState,
    /// The kept indices of every parameter, input and output that lost some.
    pub plan: SlicePlan,
    /// What was saved, and how well it was verified.
    pub report: SpeedupReport,
}

/// Removes the masked channels of a compressed model for real.
///
/// The channels to remove follow from the masks and the model's graph (see
/// [`ChannelEntries::removable`](burn_compress_core::graph::ChannelEntries::removable)). Everything that lives on a removed channel goes with it:
/// parameters, running statistics, masks, scales and zero points. Single masked values that are not
/// a whole channel stay as zeros, and so do channels that only some of the layers that make them
/// mask, see [`with_partial_channels`](Self::with_partial_channels).
///
/// The small model is verified on the dummy input and returned only if it computes what the
/// simulated model does: relative error at most [`TOLERANCE`], compared without simulated
/// quantization. With quantization, values on a rounding boundary may move by one step; the report
/// counts them.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::prelude::*;
/// use burn::tensor::activation::relu;
/// use burn_compress_core::{Calibration, Compressed, DummyInput, History, Mask, Masks};
/// use burn_compress_speedup::ModelSpeedup;
///
/// #[derive(Module, Debug)]
/// struct Mlp {
///     first: Linear,
///     second: Linear,
/// }
///
/// let device = Device::flex();
/// let model = Mlp {
///     first: LinearConfig::new(4, 3).init(&device),
///     second: LinearConfig::new(3, 2).init(&device),
/// };
/// // What a pruner would have found: the second of three hidden features is masked.
/// let masks = Masks::from([
///     ("first.weight".parse()?, Mask::new([1.0, 0.0, 1.0].repeat(4), [4, 3])?),
///     ("first.bias".parse()?, Mask::new(vec![1.0, 0.0, 1.0], [3])?),
/// ]);
/// let compressed =
///     Compressed::from_parts(model, &masks, &Calibration::new(), History::default())?;
/// let dummy_input = DummyInput::new(Tensor::<2>::ones([1, 4], &device), |model: &Mlp, x| {
///     model.second.forward(relu(model.first.forward(x)))
/// });
///
/// let small = ModelSpeedup::new(compressed, dummy_input).speedup_model()?;
/// assert_eq!(small.model.first.weight.dims(), [4, 2]);
/// assert_eq!(small.model.second.weight.dims(), [2, 2]);
/// assert_eq!(small.report.macs.small, 4 * 2 + 2 * 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ModelSpeedup<M> {
    compressed: Compressed<M>,
    dummy_input: DummyInput<M>,
    partial_channels: PartialChannels,
}

impl<M: Module + 'static> ModelSpeedup<M> {
    /// Speeds `compressed` up, which `dummy_input` can be passed through.
    pub fn new(compressed: Compressed<M>, dummy_input: DummyInput<M>) -> Self {
        Self {
            compressed,
            dummy_input,
            partial_channels: PartialChannels::default(),
        }
    }

    /// Sets what becomes of channels that only some of the layers that make them mask, and that
    /// stay therefore. The default keeps their masks.
    ///
    /// With [`PartialChannels::Lift`] the small model is compared with the simulated one without
    /// the lifted masks.
    pub fn with_partial_channels(mut self, partial_channels: PartialChannels) -> Self {
        self.partial_channels = partial_channels;
        self
    }

    /// Removes the masked channels and verifies the result.
    ///
    /// # Errors
    ///
    /// A graph that cannot be captured, a layer of which nothing would be left, a depthwise
    /// convolution without a wrapper, and a small model that does not compute the same.
    pub fn speedup_model(&self) -> Result<Speedup<M>, SpeedupError> {
        let graph = self.compressed.graph(&self.dummy_input)?;
        let calibration = self.compressed.calibration()?;
        let entries = ChannelEntries::new(&graph);
        let (masks, order, lifted) = self.decide(&graph)?;
        let removed: BTreeSet<ChannelId> = order.iter().copied().collect();
        log::info!("removing {} channels", removed.len());
        let without_lifted = match lifted {
            0 => None,
            _ => {
                log::info!("lifting the masks of {lifted} channels that not all layers mask");
                let dense = self.compressed.unwrap_model();
                let history = History::default();
                Some(Compressed::from_parts(
                    dense,
                    &masks,
                    &calibration,
                    history,
                )?)
            }
        };
        let compressed = without_lifted.as_ref().unwrap_or(&self.compressed);

        let dense = self.compressed.unwrap_model();
        let is_baked = |target: &TargetId, mask: &Mask| {
            target.target.is_param()
                && mask.method() == MaskMethod::Mul
                && !calibration.contains_key(target)
        };
        let multiplied = masks
            .iter()
            .filter(|(_, mask)| mask.method() == MaskMethod::Mul)
            .map(named)
            .collect();
        let mut left = masks.clone();
        left.retain(|target, mask| !is_baked(target, mask));
        let baked = dense.clone().map(&mut Bake {
            path: Vec::new(),
            masks: multiplied,
        });

        let plan = graph.slice_plan(&removed)?;
        let plain = slice_module(baked.clone(), &plan)?;
        let state = reindex_state(&plan, &float_shapes(&dense), &left, &calibration)?;

        let simulated = self.run(&compressed.masked_model())?;
        let small = self.run(&with_state(
            plain.clone(),
            &state.masks,
            &Calibration::new(),
        )?)?;
        let error = match verify::verify(&simulated, &small, TOLERANCE) {
            Err(SpeedupError::Differs {
                error, tolerance, ..
            }) => match self.error_f64(&baked, &plain, &left, &state.masks) {
                Some(exact) if exact <= tolerance => exact,
                None if error <= rounding(&simulated) => {
                    let mut dtypes = simulated.iter().map(|data| data.dtype());
                    let half = dtypes.find(|dtype| is_half(*dtype));
                    let dtype = half.map_or_else(String::new, |dtype| format!("{dtype:?}"));
                    return Err(SpeedupError::Coarse { error, dtype });
                }
                _ => {
                    let layer = self.locate(&graph, &entries, &order, &baked, &left, &simulated);
                    return Err(SpeedupError::Differs {
                        layer,
                        error,
                        tolerance,
                    });
                }
            },
            result => result?,
        };
        let mut boundary = RoundingBoundary::default();
        let mut model = plain.clone();
        if !state.masks.is_empty() || !state.calibration.is_empty() {
            model = with_state(plain.clone(), &state.masks, &state.calibration)?;
        }
        if !state.calibration.is_empty() {
            let (simulated, small) = (self.run(compressed.model())?, self.run(&model)?);
            boundary = verify::rounding_boundary(&simulated, &small, TOLERANCE)?;
        }
        let macs = Change {
            dense: graph.macs(),
            small: graph.macs_after(&removed),
        };
        let layers = layers(self.compressed.model());
        let by_parameter = parameter_masks(&graph, &layers, &masks)?;
        let shapes = float_shapes(&dense);
        let uncut = uncut(&graph, &layers, &masks, &by_parameter, &plan, &shapes)?;
        for mask in uncut.iter().filter(|mask| mask.channels > 0) {
            log::warn!("masked and not cut: {mask}");
        }
        let report = SpeedupReport::new(&dense, &plain, macs, error, boundary);
        let storage = match save::pack(&plain, &state, Path::new(""), &SaveConfig::new()) {
            Ok((_, storage)) => Some(storage),
            Err(error) => {
                log::warn!("the small model cannot be saved: {error}");
                None
            }
        };
        Ok(Speedup {
            model,
            state,
            plan,
            report: report
                .with_lifted_channels(lifted)
                .with_uncut(uncut)
                .with_storage(storage),
        })
    }

    /// The masks that stay, the channels to remove, and of how many channels the masks were lifted.
    fn decide(&self, graph: &ChannelGraph) -> Result<(Masks, Vec<ChannelId>, usize), SpeedupError> {
        let (entries, layers) = (ChannelEntries::new(graph), layers(self.compressed.model()));
        let mut masks = self.compressed.masks();
        let mut lifted = BTreeSet::new();
        loop {
            let by_parameter = parameter_masks(graph, &layers, &masks)?;
            let order = entries.removal_order(&by_parameter)?;
            if self.partial_channels == PartialChannels::Keep {
                return Ok((masks, order, 0));
            }
            let removed = order.iter().copied().collect();
            let found = partial::lift(graph, &layers, &masks, &by_parameter, &removed)?;
            if found.channels.is_empty() {
                return Ok((masks, order, lifted.len()));
            }
            // Raw weights may read channels that only masked ones did not read: these stay now.
            lifted.extend(found.channels);
            masks = found.masks;
        }
    }

    fn run(&self, model: &M) -> Result<Vec<TensorData>, SpeedupError> {
        let device = model
            .devices()
            .first()
            .map_or_else(Device::default, Clone::clone);
        catch_unwind(AssertUnwindSafe(|| self.dummy_input.run(model, &device))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            SpeedupError::Forward {
                reason: text.unwrap_or_else(|| "it panicked".to_string()),
            }
        })
    }

    /// The relative error in `f64`, if the device and the dummy input can tell.
    fn error_f64(&self, simulated: &M, small: &M, left: &Masks, cut: &Masks) -> Option<f64> {
        let run = |model: &M, masks: &Masks| {
            let model = with_state(model.clone(), masks, &Calibration::new()).ok()?;
            let device = model.devices().first()?.clone();
            let widened = || self.dummy_input.run_f64(&model.map(&mut Widen), &device);
            catch_unwind(AssertUnwindSafe(widened)).ok()?
        };
        verify::relative_error(&run(simulated, left)?, &run(small, cut)?).ok()
    }

    /// The layer whose channels are the first whose removal changes the function.
    ///
    /// Removes more and more of the channels, group by group in the order in which they were found.
    fn locate(
        &self,
        graph: &ChannelGraph,
        entries: &ChannelEntries,
        order: &[ChannelId],
        baked: &M,
        masks: &Masks,
        simulated: &[TensorData],
    ) -> Option<String> {
        let shapes = float_shapes(baked);
        let layers: Vec<_> = order
            .iter()
            .map(|&channel| entries.layer_of(channel))
            .collect();
        let ends = (1..=order.len()).filter(|&end| layers.get(end) != Some(&layers[end - 1]));
        for end in ends {
            let removed = order[..end].iter().copied().collect();
            // A prefix may leave blocks of different sizes, which only the whole makes equal.
            let Ok(plan) = graph.slice_plan(&removed) else {
                continue;
            };
            let differs = || -> Result<bool, SpeedupError> {
                let state = reindex_state(&plan, &shapes, masks, &Calibration::new())?;
                let small = slice_module(baked.clone(), &plan)?;
                let small = self.run(&with_state(small, &state.masks, &Calibration::new())?)?;
                Ok(verify::relative_error(simulated, &small)? > TOLERANCE)
            };
            if differs().unwrap_or(true) {
                return layers[end - 1].map(str::to_string);
            }
        }
        None
    }
}

fn with_state<M: Module + 'static>(
    model: M,
    masks: &Masks,
    calibration: &Calibration,
) -> Result<M, SpeedupError> {
    Ok(Compressed::from_parts(model, masks, calibration, History::default())?.into_model())
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// What a few roundings can move an output in half precision by, relative to the largest; 0 where
/// no output is.
fn rounding(outputs: &[TensorData]) -> f64 {
    let step = |data: &TensorData| match data.dtype() {
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => 0.0,
    };
    let largest = outputs.iter().map(step).fold(0.0, f64::max);
    8.0 * largest
}

fn named((target, mask): (&TargetId, &Mask)) -> (String, Mask) {
    (target.to_string(), mask.clone())
}

/// Casts parameters and running statistics to `f64`.
struct Widen;

impl ModuleMapper for Widen {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(FloatDType::F64))
    }
}

/// Multiplies parameters by their masks.
struct Bake {
    path: Vec<String>,
    masks: IndexMap<String, Mask>,
}

impl ModuleMapper for Bake {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.masks.get(&self.path.join(".")) {
            Some(mask) => param.map(|tensor| {
                let data = TensorData::new(mask.values().to_vec(), mask.shape().to_vec());
                let mask = Tensor::<D>::from_data(data, &tensor.device());
                // A mask holds singles whatever the parameter holds.
                let dtype = FloatDType::from(tensor.dtype());
                tensor * mask.cast(dtype)
            }),
            None => param,
        }
    }
}

#[cfg(test)]
mod tests;
