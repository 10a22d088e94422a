//! From a compressed model to a small one.
//!
//! ```text
//! masks --removable--> channels --slice_plan--> plan --slice_module--> small model --verify-->
//! result
//! ```

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use burn_compress_core::graph::{ChannelEntries, ChannelGraph, ChannelId, SlicePlan};
use burn_compress_core::layer::layers;
use burn_compress_core::{Calibration, Compressed, DummyInput, History, Masks};

use crate::SpeedupError;
use crate::cut::Cut;
use crate::outputs::parameter_masks;
use crate::partial::{self, PartialChannels};
use crate::report::{Change, SpeedupReport, Storage};
use crate::save::{self, SaveConfig};
use crate::slice::{float_shapes, slice_module};
use crate::small::Small;
use crate::state::{SmallState, reindex_state};
use crate::uncut::uncut;
use crate::verify::{self, RoundingBoundary, TOLERANCE};

/// A small model.
#[derive(Clone, Debug)]
pub struct Speedup<M> {
    /// The model: the same Rust type with smaller tensors. Masks are part of its parameters; only
    /// what is left in `state` is still simulated.
    pub model: M,
    /// The rest of the compression: scales and zero points, masks of inputs and outputs and of
    /// quantized parameters.
    pub state: SmallState,
    /// The kept indices of every parameter, input and output that lost some.
    pub plan: SlicePlan,
    /// The sizes before and after, and how well it was verified.
    pub report: SpeedupReport,
}

impl<M: Module> Speedup<M> {
    /// Saves the small model in one file, quantized parameters as integers; [`Small::load`] reads
    /// it.
    ///
    /// # Errors
    ///
    /// Those of [`save_small`](crate::save_small).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Storage, SpeedupError> {
        self.save_with(path, &SaveConfig::new())
    }

    /// Saves the small model in one file with the options of `config`.
    ///
    /// # Errors
    ///
    /// Those of [`save_small`](crate::save_small).
    pub fn save_with(
        &self,
        path: impl AsRef<Path>,
        config: &SaveConfig,
    ) -> Result<Storage, SpeedupError> {
        save::save_small_with(&self.model, &self.state, path, config)
    }

    /// The small model with its state, without plan and report.
    pub fn into_small(self) -> Small<M> {
        Small {
            model: self.model,
            state: self.state,
        }
    }
}

/// The speedup of a compressed model with the dummy input that it remembers.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::{Calibration, Compressed, DummyInput, History, Masks};
/// use burn_compress_speedup::SpeedupExt;
///
/// let device = Device::flex();
/// let model = LinearConfig::new(4, 3).init(&device);
/// let (masks, calibration) = (Masks::new(), Calibration::new());
/// let dummy = DummyInput::new(Tensor::<2>::ones([1, 4], &device), |model: &Linear, x| {
///     model.forward(x)
/// });
/// // A run does this with the dummy input of its evaluator.
/// let compressed = Compressed::from_parts(model, &masks, &calibration, History::default())?
///     .with_dummy_input(dummy);
/// assert_eq!(compressed.speedup()?.report.macs.small, 12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait SpeedupExt<M> {
    /// Removes the masked channels and verifies the result, as
    /// [`ModelSpeedup::speedup_model`] does.
    ///
    /// # Errors
    ///
    /// Those of [`ModelSpeedup::speedup_model`], and [`SpeedupError::NoDummyInput`] if the
    /// evaluator of the run had no dummy input.
    fn speedup(self) -> Result<Speedup<M>, SpeedupError>;
}

impl<M: Module + 'static> SpeedupExt<M> for Compressed<M> {
    fn speedup(self) -> Result<Speedup<M>, SpeedupError> {
        let dummy_input = self.dummy_input().cloned();
        let dummy_input = dummy_input.ok_or(SpeedupError::NoDummyInput)?;
        ModelSpeedup::new(self, dummy_input).speedup_model()
    }
}

/// Removes the masked channels of a compressed model for real.
///
/// The channels to remove follow from the masks and the model's graph (see
/// [`ChannelEntries::removable`](burn_compress_core::graph::ChannelEntries::removable)). Everything
/// that lives on a removed channel goes with it: parameters, running statistics, masks, scales and
/// zero points. Single masked values that are not a whole channel stay as zeros, and so do channels
/// that only some of the layers that make them mask, see [`with_partial_channels`](Self::with_partial_channels).
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

    /// Speeds up a plain model by masks that come from elsewhere, without a chain.
    ///
    /// Whatever else is simulated on the model stays.
    ///
    /// ```
    /// use burn::nn::{Linear, LinearConfig};
    /// use burn::prelude::*;
    /// use burn::tensor::activation::relu;
    /// use burn_compress_core::{DummyInput, Mask, Masks};
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
    ///     first: LinearConfig::new(4, 3).with_bias(false).init(&device),
    ///     second: LinearConfig::new(3, 2).init(&device),
    /// };
    /// let dummy_input = DummyInput::new(Tensor::<2>::ones([1, 4], &device), |model: &Mlp, x| {
    ///     model.second.forward(relu(model.first.forward(x)))
    /// });
    /// let mask = Mask::new([1.0, 0.0, 1.0].repeat(4), [4, 3])?;
    /// let masks = Masks::from([("first.weight".parse()?, mask)]);
    /// let small = ModelSpeedup::from_masks(model, dummy_input, &masks)?.speedup_model()?;
    /// assert_eq!(small.model.first.weight.dims(), [4, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A mask of a target that the model does not have, and one of another shape than its target.
    pub fn from_masks(
        model: M,
        dummy_input: DummyInput<M>,
        masks: &Masks,
    ) -> Result<Self, SpeedupError> {
        let (calibration, history) = (Calibration::new(), History::default());
        let compressed = Compressed::from_parts(model, masks, &calibration, history)?;
        Ok(Self::new(compressed, dummy_input))
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
        let decision = self.decide(&graph)?;
        log::info!("removing {} channels", decision.removed.len());
        let cut = Cut::new(
            self.compressed.unwrap_model(),
            &graph.slice_plan(&decision.removed)?,
            &decision.masks,
            &self.compressed.calibration()?,
        )?;
        let compressed = self.without_lifted(&decision)?;
        let simulated = compressed.as_ref().unwrap_or(&self.compressed);
        let error = self.verify(&graph, &decision.order, simulated, &cut)?;
        let (model, boundary) = self.simulate(simulated, &cut)?;
        let report = self.report(&graph, &decision, &cut, error, boundary)?;
        Ok(Speedup {
            model,
            state: cut.state,
            plan: cut.plan,
            report,
        })
    }

    /// The compressed model without the masks that were lifted, if any were.
    fn without_lifted(&self, decision: &Decision) -> Result<Option<Compressed<M>>, SpeedupError> {
        let lifted = decision.lifted;
        if lifted == 0 {
            return Ok(None);
        }
        log::info!("lifting the masks of {lifted} channels that not all layers mask");
        let (dense, history) = (self.compressed.unwrap_model(), History::default());
        let calibration = self.compressed.calibration()?;
        let parts = Compressed::from_parts(dense, &decision.masks, &calibration, history)?;
        Ok(Some(parts))
    }

    /// The relative error of the cut model, without simulated quantization; an error with the layer
    /// if it is another function.
    fn verify(
        &self,
        graph: &ChannelGraph,
        order: &[ChannelId],
        compressed: &Compressed<M>,
        cut: &Cut<M>,
    ) -> Result<f64, SpeedupError> {
        let simulated = self.run(&compressed.masked_model())?;
        let small = with_state(cut.small.clone(), &cut.state.masks, &Calibration::new())?;
        let (error, tolerance) = match verify::verify(&simulated, &self.run(&small)?, TOLERANCE) {
            Err(SpeedupError::Differs {
                error, tolerance, ..
            }) => (error, tolerance),
            result => return result,
        };
        match self.error_f64(&cut.dense, &cut.small, &cut.left, &cut.state.masks) {
            Some(exact) if exact <= tolerance => Ok(exact),
            None if error <= rounding(&simulated) => {
                let mut dtypes = simulated.iter().map(|data| data.dtype());
                let half = dtypes.find(|dtype| is_half(*dtype));
                let dtype = half.map_or_else(String::new, |dtype| format!("{dtype:?}"));
                Err(SpeedupError::Coarse { error, dtype })
            }
            _ => Err(SpeedupError::Differs {
                layer: self.locate(graph, order, cut, &simulated),
                error,
                tolerance,
            }),
        }
    }

    /// The small model with what is left of its simulation, and how its quantized outputs differ.
    fn simulate(
        &self,
        compressed: &Compressed<M>,
        cut: &Cut<M>,
    ) -> Result<(M, RoundingBoundary), SpeedupError> {
        let (small, state) = (cut.small.clone(), &cut.state);
        if state.masks.is_empty() && state.calibration.is_empty() {
            return Ok((small, RoundingBoundary::default()));
        }
        let model = with_state(small, &state.masks, &state.calibration)?;
        if state.calibration.is_empty() {
            return Ok((model, RoundingBoundary::default()));
        }
        let (simulated, small) = (self.run(compressed.model())?, self.run(&model)?);
        let boundary = verify::rounding_boundary(&simulated, &small, TOLERANCE)?;
        Ok((model, boundary))
    }

    fn report(
        &self,
        graph: &ChannelGraph,
        decision: &Decision,
        cut: &Cut<M>,
        error: f64,
        boundary: RoundingBoundary,
    ) -> Result<SpeedupReport, SpeedupError> {
        let (dense, masks) = (self.compressed.unwrap_model(), &decision.masks);
        let macs = Change {
            dense: graph.macs(),
            small: graph.macs_after(&decision.removed),
        };
        let layers = layers(self.compressed.model());
        let by_parameter = parameter_masks(graph, &layers, masks)?;
        let shapes = float_shapes(&dense);
        let uncut = uncut(graph, &layers, masks, &by_parameter, &cut.plan, &shapes)?;
        for mask in uncut.iter().filter(|mask| mask.channels > 0) {
            log::warn!("masked and not cut: {mask}");
        }
        let content = save::content(&cut.small, &cut.state, Path::new(""), &SaveConfig::new());
        let storage = match content {
            Ok((_, storage)) => Some(storage),
            Err(error) => {
                log::warn!("the small model cannot be saved: {error}");
                None
            }
        };
        Ok(
            SpeedupReport::new(&dense, &cut.small, macs, error, boundary)
                .with_lifted_channels(decision.lifted)
                .with_uncut(uncut)
                .with_storage(storage),
        )
    }

    fn decide(&self, graph: &ChannelGraph) -> Result<Decision, SpeedupError> {
        let (entries, layers) = (ChannelEntries::new(graph), layers(self.compressed.model()));
        let mut masks = self.compressed.masks();
        let mut lifted = BTreeSet::new();
        loop {
            let by_parameter = parameter_masks(graph, &layers, &masks)?;
            let order = entries.removal_order(&by_parameter)?;
            let removed = order.iter().copied().collect();
            let found = match self.partial_channels {
                PartialChannels::Keep => None,
                PartialChannels::Lift => {
                    let found = partial::lift(graph, &layers, &masks, &by_parameter, &removed)?;
                    (!found.channels.is_empty()).then_some(found)
                }
            };
            let Some(found) = found else {
                return Ok(Decision {
                    masks,
                    order,
                    removed,
                    lifted: lifted.len(),
                });
            };
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

    /// Relative error in `f64`, if device and dummy input allow a run in it.
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
        order: &[ChannelId],
        cut: &Cut<M>,
        simulated: &[TensorData],
    ) -> Option<String> {
        let (entries, shapes) = (ChannelEntries::new(graph), float_shapes(&cut.dense));
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
                let state = reindex_state(&plan, &shapes, &cut.left, &Calibration::new())?;
                let small = slice_module(cut.dense.clone(), &plan)?;
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

/// The channels to remove and the masks that stay.
struct Decision {
    masks: Masks,
    /// In the order in which they were found.
    order: Vec<ChannelId>,
    removed: BTreeSet<ChannelId>,
    /// The number of channels whose masks were lifted.
    lifted: usize,
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

/// The error that a few roundings can make in half precision, relative to the largest output; 0
/// where no output is.
fn rounding(outputs: &[TensorData]) -> f64 {
    let step = |data: &TensorData| match data.dtype() {
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => 0.0,
    };
    let largest = outputs.iter().map(step).fold(0.0, f64::max);
    8.0 * largest
}

/// Casts parameters and running statistics to `f64`.
struct Widen;

impl ModuleMapper for Widen {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(FloatDType::F64))
    }
}

#[cfg(test)]
mod tests;
