//! A cut of the captured forward pass, for a model whose code does not follow one.
//!
//! ```text
//! masks --removable--> channels --slice_plan--> plan --> parameters, masks, calibration
//!                                                   \--> captured forward pass with smaller tensors
//! ```
//!
//! The parameters are cut as those of a small model are; the forward pass of the model itself does not
//! run with them, and its operations are cut in its place. A program that carries out the operations,
//! an export for instance, has all that it needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::erased::AnyModel;
use burn_compress_core::graph::{
    Captured, ChannelGraph, ChannelId, GraphError, SlicePlan, capture,
};
use burn_compress_core::layer::layers;
use burn_compress_core::{DummyInput, Error};

use crate::change::Change;
use crate::cut::{CutState, multiply};
use crate::decision::heads;
use crate::slice::{float_shapes, slice_parameters};
use crate::speedup::ModelSpeedup;
use crate::state::SmallState;

/// A model whose captured forward pass is cut.
///
/// [`ModelSpeedup::cut_graph`] makes one; it is what an ONNX export of a model that cannot be cut by its
/// type starts from.
///
/// ```
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::prelude::*;
/// use burn_compress_core::{DummyInput, Mask, Masks};
/// use burn_compress_speedup::ModelSpeedup;
///
/// /// Plain layers, as a crate of somebody has them: `depth` holds its number of groups.
/// #[derive(Module, Debug)]
/// struct Separable {
///     stem: Conv2d,
///     depth: Conv2d,
///     point: Conv2d,
/// }
///
/// let device = Device::flex();
/// let model = Separable {
///     stem: Conv2dConfig::new([1, 4], [1, 1]).init(&device),
///     depth: Conv2dConfig::new([4, 4], [1, 1]).with_groups(4).with_bias(false).init(&device),
///     point: Conv2dConfig::new([4, 2], [1, 1]).init(&device),
/// };
/// let images = Tensor::<4>::ones([1, 1, 2, 2], &device);
/// let dummy_input = DummyInput::new(images, |model: &Separable, x| {
///     model.point.forward(model.depth.forward(model.stem.forward(x)))
/// });
/// let half = vec![1.0, 0.0, 1.0, 0.0];
/// let masks = Masks::from([
///     ("stem.weight".parse()?, Mask::new(half.clone(), [4, 1, 1, 1])?),
///     ("stem.bias".parse()?, Mask::new(half.clone(), [4])?),
///     ("depth.weight".parse()?, Mask::new(half, [4, 1, 1, 1])?),
/// ]);
/// let speedup = ModelSpeedup::from_masks(model, dummy_input, &masks)?;
/// assert!(speedup.speedup_model().is_err());
/// let cut = speedup.cut_graph()?;
/// assert_eq!((cut.macs().dense, cut.macs().small), (64, 32));
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GraphCut {
    /// The whole model, plain.
    whole: AnyModel,
    parameters: AnyModel,
    state: SmallState,
    dummy_input: DummyInput<AnyModel>,
    graph: Arc<ChannelGraph>,
    removed: BTreeSet<ChannelId>,
    plan: SlicePlan,
}

impl GraphCut {
    /// The parameters and running statistics that are left, as a model that holds them and whose forward
    /// pass does not run. Masks are part of them, but for those in [`state`](Self::state).
    pub fn parameters(&self) -> &AnyModel {
        &self.parameters
    }

    /// The masks that are left of inputs, outputs and quantized parameters, and the calibration.
    pub fn state(&self) -> &SmallState {
        &self.state
    }

    /// The kept indices of every parameter, input and output that loses some.
    pub fn plan(&self) -> &SlicePlan {
        &self.plan
    }

    /// Multiply-accumulates for one element of the batch, before and after.
    pub fn macs(&self) -> Change {
        Change {
            dense: self.graph.macs(),
            small: self.graph.macs_after(&self.removed),
        }
    }

    /// The dummy input of the model.
    pub fn dummy_input(&self) -> &DummyInput<AnyModel> {
        &self.dummy_input
    }

    /// The forward pass on `dummy_input`, which may have inputs of other sizes, without the removed
    /// channels.
    ///
    /// # Errors
    ///
    /// A forward pass that cannot be captured, and an operation that does not follow the cut.
    pub fn capture(&self, dummy_input: &DummyInput<AnyModel>) -> Result<Captured, GraphError> {
        let captured = capture(&self.whole, dummy_input)?;
        Ok(captured.without(&self.graph, &self.removed)?.0)
    }
}

impl<M: Module + 'static> ModelSpeedup<M> {
    /// Removes the masked channels from the captured forward pass and the parameters, not from the
    /// model, whose own code may hold the number of its channels: plain depthwise convolutions, reshapes
    /// to literal numbers.
    ///
    /// Nothing is run. What comes out computes what the masked model does, as
    /// [`speedup_model`](Self::speedup_model) has it verified, by the rules of the graph alone; the
    /// capture that is left is analyzed once more, and its multiply-accumulates have to be those of the
    /// cut.
    ///
    /// # Errors
    ///
    /// A graph that cannot be captured, a layer of which nothing would be left, and an operation whose
    /// numbers only its layer knows ([`GraphError::NotCut`]): a wrapped norm over channels, a recurrent
    /// layer.
    pub fn cut_graph(&self) -> Result<GraphCut, Error> {
        let decided = self.decided_of(self.graph_of_masks()?)?;
        self.erased_with(decided)?.cut_any()
    }

    /// The graph with whole heads as channels where the masks remove some.
    fn graph_of_masks(&self) -> Result<Arc<ChannelGraph>, Error> {
        let (compressed, dummy_input) = (&self.compressed, &self.dummy_input);
        let graph = compressed.graph(dummy_input)?;
        let layers = layers(compressed.model());
        let heads = heads(&graph, &layers, &compressed.masks())?;
        match heads.is_empty() {
            true => Ok(graph),
            false => compressed.graph_of_heads(dummy_input, &heads),
        }
    }
}

impl ModelSpeedup<AnyModel> {
    fn cut_any(&self) -> Result<GraphCut, Error> {
        let (graph, decision) = self.decided()?;
        let layers = layers(self.compressed.model());
        let plan = graph.slice_plan(&decision.removed)?;
        let calibration = self.compressed.calibration()?;
        let whole = self.compressed.unwrap_model();
        let shapes = float_shapes(&whole);
        let state = CutState::new(&plan, (&layers, &shapes), &decision.masks, &calibration)?;
        let parameters = multiply(slice_parameters(whole.clone(), &plan)?, &state.baked);
        let cut = GraphCut {
            whole,
            parameters,
            state: state.state,
            dummy_input: self.dummy_input.clone(),
            graph: graph.clone(),
            removed: decision.removed.clone(),
            plan,
        };
        let left = ChannelGraph::analyze(&cut.capture(&cut.dummy_input)?)?;
        let expected = cut.macs().small;
        match left.macs() == expected {
            true => Ok(cut),
            false => Err(crate::SpeedupError::Contradiction {
                what: "the captured forward pass".to_string(),
                reason: format!(
                    "{} multiply-accumulates are left of it in place of {expected}",
                    left.macs()
                ),
            }
            .into()),
        }
    }
}
