//! From a compressed model to a small one.
//!
//! ```text
//! masks --removable--> channels --slice_plan--> plan --slice_module--> small model --verify-->
//! result
//! ```

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use burn::module::Module;
use burn::tensor::TensorData;
use burn_compress_core::erased::AnyModel;
use burn_compress_core::graph::{ChannelGraph, SlicePlan};
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::{Calibration, Compressed, DummyInput, Error, History, Masks};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::comparison::{self, Input, Outputs, RandomInputs, half, rounding};
use crate::content::{self, Stored};
use crate::counts::MacCounts;
use crate::cut::{Cut, CutState, divide, products};
use crate::decision::{Decision, heads};
use crate::partial::PartialChannels;
use crate::plan::{CutPlan, Planned};
use crate::report::{SpeedupReport, Storage, Verified};
use crate::save;
use crate::save_config::SaveConfig;
use crate::slice::float_shapes;
use crate::small::Small;
use crate::sparsity::Removal;
use crate::state::SmallState;
use crate::uncut::uncut;
use crate::verify::{self, TOLERANCE};
use crate::widen::Wide;

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
    /// The shapes of the parameters before.
    pub(crate) shapes: IndexMap<String, Vec<usize>>,
}

impl Speedup<AnyModel> {
    /// The same small model as an `M`.
    pub(crate) fn into_typed<M: Module + 'static>(self) -> Speedup<M> {
        Speedup {
            model: self.model.into_typed(),
            state: self.state,
            plan: self.plan,
            report: self.report,
            shapes: self.shapes,
        }
    }
}

impl<M: Module + 'static> Speedup<M> {
    /// Saves the small model in one file, quantized parameters as integers; [`Small::load`] reads
    /// it.
    ///
    /// # Errors
    ///
    /// Those of [`save_small`](crate::save_small).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Storage, Error> {
        self.save_with(path, &SaveConfig::new())
    }

    /// Saves the small model in one file with the options of `config`.
    ///
    /// # Errors
    ///
    /// Those of [`save_small`](crate::save_small).
    pub fn save_with(&self, path: impl AsRef<Path>, config: &SaveConfig) -> Result<Storage, Error> {
        Ok(save::save_small_with(
            &self.model,
            &self.state,
            path,
            config,
        )?)
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
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub trait SpeedupExt<M> {
    /// Removes the masked channels and verifies the result, as
    /// [`ModelSpeedup::speedup_model`] does.
    ///
    /// # Errors
    ///
    /// Those of [`ModelSpeedup::speedup_model`], and [`SpeedupError::NoDummyInput`] if the
    /// evaluator of the run had no dummy input.
    fn speedup(self) -> Result<Speedup<M>, Error>;
}

impl<M: Module + 'static> SpeedupExt<M> for Compressed<M> {
    fn speedup(self) -> Result<Speedup<M>, Error> {
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
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ModelSpeedup<M> {
    pub(crate) compressed: Compressed<M>,
    pub(crate) dummy_input: DummyInput<M>,
    pub(crate) partial_channels: PartialChannels,
    random_inputs: RandomInputs,
    decided: OnceLock<Decided>,
}

/// The graph that is cut, and what of it goes.
pub(crate) type Decided = (Arc<ChannelGraph>, Arc<Decision>);

impl<M: Module + 'static> ModelSpeedup<M> {
    /// Speeds `compressed` up, which `dummy_input` can be passed through.
    pub fn new(compressed: Compressed<M>, dummy_input: DummyInput<M>) -> Self {
        Self {
            compressed,
            dummy_input,
            partial_channels: PartialChannels::default(),
            random_inputs: RandomInputs::default(),
            decided: OnceLock::new(),
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
    /// # Ok::<(), burn_compress_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A mask of a target that the model does not have, and one of another shape than its target.
    pub fn from_masks(model: M, dummy_input: DummyInput<M>, masks: &Masks) -> Result<Self, Error> {
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

    /// Verifies the small model on `count` random inputs as well, which follow from `seed`: floats
    /// with the mean and the spread of the dummy input's, integers between the smallest and the
    /// largest of its.
    ///
    /// Each costs a forward pass of both models, two where values are quantized. The default is none.
    pub fn with_random_inputs(mut self, count: usize, seed: u64) -> Self {
        self.random_inputs = RandomInputs { count, seed };
        self
    }

    /// Cuts channels of this graph.
    pub(crate) fn with_graph(self, graph: Arc<ChannelGraph>) -> Result<Self, SpeedupError> {
        let decided = OnceLock::from(self.decided_of(graph)?);
        Ok(Self { decided, ..self })
    }

    /// This graph, and what the masks remove of it.
    pub(crate) fn decided_of(&self, graph: Arc<ChannelGraph>) -> Result<Decided, SpeedupError> {
        let decision = self.decide(&graph, &layers(self.compressed.model()))?;
        Ok((graph, Arc::new(decision)))
    }

    /// The graph, captured once; of whole heads, where the masks remove some of them. With it what the
    /// masks remove.
    pub(crate) fn decided(&self) -> Result<&Decided, SpeedupError> {
        if let Some(decided) = self.decided.get() {
            return Ok(decided);
        }
        let whole = self.compressed.graph(&self.dummy_input)?;
        let mut graph = whole.clone();
        let layers = layers(self.compressed.model());
        let heads = heads(&graph, &layers, &self.compressed.masks())?;
        if !heads.is_empty() {
            graph = (self.compressed).graph_of_heads(&self.dummy_input, &heads)?;
        }
        let mut decision = self.decide(&graph, &layers)?;
        let apart = whole.taken_apart();
        if !apart.is_empty() {
            let removed = &decision.removed;
            let of_heads = |(path, dim): &(String, usize)| {
                let channels = graph.param_channels(path, *dim).unwrap_or_default();
                channels.iter().any(|channel| removed.contains(channel))
            };
            let some = match heads.is_empty() {
                true => removed.iter().any(|channel| apart.contains_key(channel)),
                false => heads.iter().any(of_heads),
            };
            let failure = || (self.compressed).trial_cut(&self.dummy_input, &graph, removed);
            // What no cut follows stays, masked, and so do heads of which nothing goes.
            let stays = match some {
                true => failure().is_some(),
                false => !heads.is_empty(),
            };
            if stays {
                graph = Arc::new(whole.keep_taken_apart());
                decision = self.decide(&graph, &layers)?;
            }
        }
        Ok(self.decided.get_or_init(|| (graph, Arc::new(decision))))
    }

    /// The plan of the cut: which channels go, with kept indices, and what is left. Nothing is cut.
    ///
    /// # Errors
    ///
    /// A graph that cannot be captured, and a layer of which nothing would be left.
    pub fn plan(&self) -> Result<CutPlan, Error> {
        self.erased()?.cut_plan()
    }

    /// Removes the masked channels and verifies the result.
    ///
    /// # Errors
    ///
    /// A graph that cannot be captured, a layer of which nothing would be left, a depthwise
    /// convolution without a wrapper, and a small model that does not compute the same.
    pub fn speedup_model(&self) -> Result<Speedup<M>, Error> {
        Ok(self.erased()?.speedup()?.into_typed())
    }

    /// The same for a model whose type is not known, for which the rest is compiled once.
    fn erased(&self) -> Result<ModelSpeedup<AnyModel>, Error> {
        self.erased_with(self.decided()?.clone())
    }

    pub(crate) fn erased_with(&self, decided: Decided) -> Result<ModelSpeedup<AnyModel>, Error> {
        let dummy_input = AnyModel::dummy_input(&self.dummy_input);
        let erased = ModelSpeedup::new(self.compressed.erased(), dummy_input);
        Ok(ModelSpeedup {
            partial_channels: self.partial_channels,
            random_inputs: self.random_inputs,
            decided: OnceLock::from(decided),
            ..erased
        })
    }
}

impl ModelSpeedup<AnyModel> {
    fn speedup(&self) -> Result<Speedup<AnyModel>, Error> {
        let (graph, decision) = self.decided()?;
        let layers = layers(self.compressed.model());
        log::info!("removing {} channels", decision.removed.len());
        let plan = graph.slice_plan(&decision.removed)?;
        let calibration = self.compressed.calibration()?;
        let raw = self.compressed.unwrap_model();
        let shapes = float_shapes(&raw);
        let cut = CutState::new(&plan, (&layers, &shapes), &decision.masks, &calibration)?;
        let uncut = uncut(graph, &layers, decision, &cut.left, &plan);
        for mask in uncut.iter().filter(|mask| mask.channels > 0) {
            log::warn!("masked and not cut: {mask}");
        }
        let left = cut.left.clone();
        let cut = Cut::new(raw, &plan, cut)?;
        let lifted = self.without_lifted(decision)?;
        let simulated = lifted.as_ref().unwrap_or(&self.compressed);
        let (model, verified) = self.verify(graph, decision, simulated, &cut)?;
        let macs = MacCounts::new(
            graph.macs_by_operation(&BTreeSet::new()),
            graph.macs_by_operation(&decision.removed),
        );
        let removal = Removal {
            slices: &plan,
            left: &left,
            goals: self.compressed.goals(),
        };
        let mut report = SpeedupReport::of_cut(&layers, &shapes, &removal, &macs, verified)
            .with_lifted_channels(decision.lifted)
            .with_uncut(uncut);
        if let Some(stored) = stored(&cut) {
            report = report.with_storage(Some(stored.storage));
            if let Some(tensors) = &stored.tensors {
                report = report.with_stored(tensors);
            }
        }
        Ok(Speedup {
            model,
            state: cut.state,
            plan,
            report,
            shapes,
        })
    }

    fn cut_plan(&self) -> Result<CutPlan, Error> {
        let (graph, decision) = self.decided()?;
        let layers = layers(self.compressed.model());
        let shapes = float_shapes(self.compressed.model());
        let decided = IndexMap::new();
        let planned = Planned {
            graph,
            layers: &layers,
            shapes: &shapes,
            decision,
            goals: self.compressed.goals(),
            certainty: &decided,
        };
        Ok(planned.plan()?.with_skipped(self.compressed.skipped()))
    }
}

impl<M: Module + 'static> ModelSpeedup<M> {
    fn decide(&self, graph: &ChannelGraph, layers: &[LayerInfo]) -> Result<Decision, SpeedupError> {
        Decision::new(
            graph,
            layers,
            self.compressed.masks(),
            self.partial_channels,
        )
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

    /// The small model with what is left of its simulation, and how well it was verified; an error
    /// with the layer if it is another function.
    fn verify(
        &self,
        graph: &ChannelGraph,
        decision: &Decision,
        compressed: &Compressed<M>,
        cut: &Cut<M>,
    ) -> Result<(M, Verified), SpeedupError> {
        let (dummy_input, state) = (&self.dummy_input, &cut.state);
        let masked = with_state(cut.small.clone(), &state.masks, &Calibration::new())?;
        let mut verified = Verified::default();
        let simulated = compressed.masked_model();
        for input in self.random_inputs.all() {
            let outputs = comparison::compare(&simulated, &masked, dummy_input, input)?;
            let error = match outputs.error {
                Ok(error) => error,
                Err(error) => self.exact(graph, decision, cut, input, &outputs, error)?,
            };
            verified.max_relative_error = verified.max_relative_error.max(error);
        }
        if state.calibration.is_empty() {
            return Ok((masked, verified));
        }
        let model = with_state(masked, &Masks::new(), &state.calibration)?;
        for input in self.random_inputs.all() {
            let found = comparison::boundary(compressed.model(), &model, dummy_input, input)?;
            verified.rounding_boundary.values += found.values;
            verified.rounding_boundary.differing += found.differing;
        }
        Ok((model, verified))
    }

    /// The relative error in `f64` where that is small enough, after one in the model's own precision
    /// that is not: of the small model alone, which is cheaper, or else of both.
    fn exact(
        &self,
        graph: &ChannelGraph,
        decision: &Decision,
        cut: &Cut<M>,
        input: Input,
        outputs: &Outputs,
        error: f64,
    ) -> Result<f64, SpeedupError> {
        let none = Calibration::new();
        let small = Wide {
            model: with_state(cut.small.clone(), &cut.state.masks, &none)?,
            masks: IndexMap::new(),
            simulated: simulated(&cut.state.masks),
        };
        let small = small.run(&self.dummy_input, input);
        let beside = |whole: &[TensorData]| verify::relative_error(whole, small.as_ref()?).ok();
        if let Some(exact) = beside(&outputs.simulated).filter(|exact| *exact <= TOLERANCE) {
            return Ok(exact);
        }
        let raw = self.compressed.unwrap_model();
        let (masks, calibration) = (&decision.masks, self.compressed.calibration()?);
        let (baked, left) = divide(masks, &calibration, &layers(&raw));
        let whole = Wide {
            model: with_state(raw, &left, &none)?,
            masks: products(&baked),
            simulated: simulated(&left),
        };
        let whole = || whole.run(&self.dummy_input, input);
        match small.as_ref().and_then(|_| beside(&whole()?)) {
            Some(exact) if exact <= TOLERANCE => Ok(exact),
            None if error <= rounding(&outputs.simulated) => {
                let dtype = half(&outputs.simulated);
                let dtype = dtype.map_or_else(String::new, |dtype| format!("{dtype:?}"));
                Err(SpeedupError::Coarse { error, dtype })
            }
            _ => Err(SpeedupError::Differs {
                layer: self.locate(graph, decision, input, &outputs.simulated),
                error,
                tolerance: TOLERANCE,
            }),
        }
    }

    /// The layer whose channels are the first whose removal changes the function.
    ///
    /// Removes more and more of the channels, group by group in the order in which they were found.
    fn locate(
        &self,
        graph: &ChannelGraph,
        decision: &Decision,
        input: Input,
        simulated: &[TensorData],
    ) -> Option<String> {
        let (order, entries) = (&decision.order, graph.entries());
        let made_by: Vec<_> = order
            .iter()
            .map(|&channel| entries.layer_of(channel))
            .collect();
        let raw = self.compressed.unwrap_model();
        let (all, shapes, none) = (layers(&raw), float_shapes(&raw), Calibration::new());
        let calibration = self.compressed.calibration().ok()?;
        let ends = (1..=order.len()).filter(|&end| made_by.get(end) != Some(&made_by[end - 1]));
        for end in ends {
            let removed = order[..end].iter().copied().collect();
            // A prefix may leave blocks of different sizes, which only the whole makes equal.
            let Ok(plan) = graph.slice_plan(&removed) else {
                continue;
            };
            let differs = || -> Result<bool, SpeedupError> {
                let (of, masks) = ((&all[..], &shapes), &decision.masks);
                let state = CutState::new(&plan, of, masks, &calibration)?;
                let cut = Cut::new(raw.clone(), &plan, state)?;
                let small = with_state(cut.small, &cut.state.masks, &none)?;
                let small = comparison::run(&small, &self.dummy_input, input)?;
                Ok(verify::relative_error(simulated, &small)? > TOLERANCE)
            };
            if differs().unwrap_or(true) {
                return made_by[end - 1].map(str::to_string);
            }
        }
        None
    }
}

/// Storage of a small model, if it can be saved.
fn stored<M: Module>(cut: &Cut<M>) -> Option<Stored> {
    match content::storage(&cut.small, &cut.state, &SaveConfig::new()) {
        Ok(stored) => Some(stored),
        Err(error) => {
            log::warn!("the small model cannot be saved: {error}");
            None
        }
    }
}

/// The parameters whose masks stay simulated.
fn simulated(masks: &Masks) -> BTreeSet<String> {
    let params = masks.keys().filter(|target| target.target.is_param());
    params.map(ToString::to_string).collect()
}

fn with_state<M: Module + 'static>(
    model: M,
    masks: &Masks,
    calibration: &Calibration,
) -> Result<M, SpeedupError> {
    if masks.is_empty() && calibration.is_empty() {
        return Ok(model);
    }
    Ok(Compressed::from_parts(model, masks, calibration, History::default())?.into_model())
}

#[cfg(test)]
mod tests;
