//! A plan of a cut, made before the cut.
//!
//! ```text
//! rules --chain.plan()--> CutPlan           how many channels of every group go, before the run
//! masks --ModelSpeedup::plan()--> CutPlan   which ones go, before the cut
//! CutPlan --apply(model, &dummy_input)--> small model
//! ```
//!
//! A plan holds what a person wants to know before a long run (what goes, what stays and why, what is
//! left of parameters, multiply-accumulates and memory), and what a program needs to cut a model in
//! another process: the kept indices.

mod apply;
mod build;
mod chain;
mod file;
mod table;
#[cfg(test)]
mod tests;

use burn_compress_core::graph::SlicePlan;
use burn_compress_core::{Certainty, Obstacle, TargetId};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::uncut::UncutMask;

pub(crate) use build::Planned;
pub use chain::PlanExt;

/// Plan of a cut: what it removes and what it leaves.
///
/// [`PlanExt::plan`] makes one of a chain, before its run, and
/// [`ModelSpeedup::plan`](crate::ModelSpeedup::plan) one of masks. Its `Display` is a table.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::prelude::*;
/// use burn::tensor::activation::relu;
/// use burn_compress_core::{DummyInput, Mask, Masks};
/// use burn_compress_speedup::{CutPlan, ModelSpeedup};
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
///
/// let plan = ModelSpeedup::from_masks(model.clone(), dummy_input.clone(), &masks)?.plan()?;
/// assert_eq!(plan.groups[0].keep, Some(vec![0, 2]));
/// assert_eq!((plan.params.dense, plan.params.small), (20, 14));
///
/// // In another process, to the same model.
/// let path = std::env::temp_dir().join(format!("cut-{}.plan", std::process::id()));
/// plan.save(&path)?;
/// let small = CutPlan::load(&path)?.apply(model, &dummy_input)?;
/// assert_eq!(small.model.first.weight.dims(), [4, 2]);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutPlan {
    /// The shapes of all parameters and running statistics of the model that the plan is of.
    pub shapes: IndexMap<String, Vec<usize>>,
    /// The groups of coupled channels, in module order.
    pub groups: Vec<GroupPlan>,
    /// The layers with parameters, in module order.
    pub layers: Vec<LayerPlan>,
    /// The kept indices of every parameter, input and output that loses some; absent as long as the
    /// run has not decided them.
    pub slices: Option<SlicePlan>,
    /// Parameters, without the running statistics of normalizations.
    pub params: Change,
    /// Multiply-accumulates of one forward pass for one element of the batch.
    pub macs: Change,
    /// Bytes of all values as `f32`, running statistics included.
    pub bytes: Change,
    /// Bytes of the activations that are in memory at once, where they are most, for the whole batch of
    /// the dummy input; see
    /// [`ChannelGraph::peak_activation_bytes`](burn_compress_core::graph::ChannelGraph::peak_activation_bytes).
    pub activation_bytes: Change,
    /// Batch size of the dummy input.
    pub batch: u64,
    /// The channels that no cut can remove, whatever is masked.
    pub fixed: Vec<FixedChannels>,
    /// The targets that will be masked in the small model as well: single values, and channels that
    /// are not masked everywhere.
    pub uncut: Vec<UncutMask>,
    /// Selected targets that the compressors leave as they are.
    pub skipped: Vec<Obstacle>,
}

/// Coupled channels, and how many of them go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupPlan {
    /// The number of channels.
    pub channels: usize,
    /// The number of those that go.
    pub removed: usize,
    /// The positions of those that stay; absent as long as the run has not decided them.
    pub keep: Option<Vec<usize>>,
    /// Certainty of this part.
    pub certainty: Certainty,
    /// The parameter dimensions that make the channels.
    pub members: Vec<ParamDim>,
    /// The parameter dimensions that read them.
    pub consumers: Vec<ParamDim>,
}

/// A dimension of a parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamDim {
    /// Path of the parameter, `conv1.weight`.
    pub param: String,
    /// The dimension.
    pub dim: usize,
}

/// Cut of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerPlan {
    /// The parameter that a pruner was asked to prune, or the largest of the layer.
    pub target: TargetId,
    /// Type of the layer, `Conv2d`.
    pub kind: String,
    /// Shape of the parameter.
    pub before: Vec<usize>,
    /// Shape behind the cut.
    pub after: Vec<usize>,
    /// The sparsity that was asked for.
    pub asked: Option<f64>,
    /// The fraction of its output channels that goes, or stays and is masked; of its values where
    /// single ones are masked.
    pub reached: f64,
    /// Certainty of this part.
    pub certainty: Certainty,
}

/// Channels of a group that must stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedChannels {
    /// The first parameter dimension that makes them.
    pub at: ParamDim,
    /// The number of channels that stay for this reason.
    pub channels: usize,
    /// The number of channels of the group.
    pub of: usize,
    /// Reason.
    pub reason: String,
}

impl CutPlan {
    pub(crate) fn with_skipped(mut self, skipped: &[Obstacle]) -> Self {
        self.skipped = skipped.to_vec();
        self
    }

    /// Certainty of the plan, that of its least certain group.
    pub fn certainty(&self) -> Certainty {
        let groups = self.groups.iter().map(|group| group.certainty.clone());
        let layers = self.layers.iter().map(|layer| layer.certainty.clone());
        groups
            .chain(layers)
            .fold(Certainty::Decided, Certainty::and)
    }
}
