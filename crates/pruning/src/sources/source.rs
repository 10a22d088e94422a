//! The contracts of a source of scores and of its collector in a run.

use std::sync::Arc;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_compress_core::config::Selected;
use burn_compress_core::{
    AlgorithmState, BoxError, Chain, FlatTensor, Learnable, Run, TargetId, TargetSpace,
};
use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use crate::timing::{Phase, Timing};
use crate::{Blocks, PruningError, PruningSettings};

/// The source of a score: weights, gradients, outputs of layers, values that are trained.
///
/// [`Pruner::over`](crate::Pruner::over) makes a pruner of a source and an
/// [`Importance`](crate::Importance). The fields of a source, as serde has them, become part of
/// every checkpoint's configuration.
///
/// # Example
///
/// The weights without their sign.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{BoxError, Budget, Evaluator, Method};
/// use burn_compress_pruning::sources::{Collector, ScoreSource, Scored, read_weights};
/// use burn_compress_pruning::{Pruner, PrunerConfig, PruningError, scores::L1Norm};
/// use indexmap::{IndexMap, IndexSet};
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Magnitudes;
///
/// impl ScoreSource for Magnitudes {
///     fn collector<M: Module + 'static, I: 'static>(
///         &self,
///         scored: &Scored<'_, M, I>,
///     ) -> Result<Box<dyn Collector<M, I>>, PruningError> {
///         Ok(Box::new(Read(scored.paths())))
///     }
/// }
///
/// struct Read(IndexSet<String>);
///
/// impl<M: Module, I> Collector<M, I> for Read {
///     fn values(&self, model: &M) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
///         let mut values = read_weights(model, &self.0)?;
///         values.values_mut().flatten().for_each(|value| *value = value.abs());
///         Ok(values)
///     }
/// }
///
/// let model = LinearConfig::new(4, 6).init(&Device::flex());
/// let rules = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let pruner = Pruner::over(Magnitudes, L1Norm)
///     .with_config(PrunerConfig::new().with_coupled(false))
///     .new(model, &rules, Evaluator::<Linear, ()>::new())?;
/// assert_eq!(pruner.compress(Budget::none())?.masks()[0].sparsity(), 0.5);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub trait ScoreSource: Serialize + Send + 'static {
    /// The steps after which the score is complete: none by default.
    fn timing(&self) -> Timing {
        Timing::immediate()
    }

    /// Whether the values are those of outputs, one number a channel. Then a target may name the
    /// `activation` that scores it, and only whole output channels can be scored.
    fn observes_outputs(&self) -> bool {
        false
    }

    /// The collector of one chain, which is made when the pruner is added to it.
    ///
    /// # Errors
    ///
    /// What makes the values impossible to collect, for all targets at once.
    fn collector<M: Module + 'static, I: 'static>(
        &self,
        scored: &Scored<'_, M, I>,
    ) -> Result<Box<dyn Collector<M, I>>, PruningError>;
}

/// Takes the numbers of the parameter at a path, one an element, row-major.
pub type Visit<'a> = dyn FnMut(&str, &[f32]) -> Result<(), BoxError> + 'a;

/// A source in a run: it collects values during the training steps and gives them to the score.
///
/// What is collected over steps is part of the checkpoint ([`state`](Self::state)), so that a run
/// that is stopped goes on bit for bit; an [`Accumulator`](super::Accumulator) does both.
pub trait Collector<M: Module, I>: Send {
    /// Acts before the forward pass of a training step.
    ///
    /// # Errors
    ///
    /// Any error ends the run.
    fn observe(&mut self, _run: Run<'_, M>, _phase: Phase) -> Result<(), BoxError> {
        Ok(())
    }

    /// Collects from a batch, and returns the loss with what is added to it.
    ///
    /// # Errors
    ///
    /// Any error ends the run.
    fn loss(
        &mut self,
        loss: Tensor<1>,
        _batch: &I,
        _run: Run<'_, M>,
        _phase: Phase,
    ) -> Result<Tensor<1>, BoxError> {
        Ok(loss)
    }

    /// Collects from the gradients of a step.
    ///
    /// # Errors
    ///
    /// Any error ends the run.
    fn gradients(
        &mut self,
        _gradients: &GradientsParams,
        _run: Run<'_, M>,
        _phase: Phase,
    ) -> Result<(), BoxError> {
        Ok(())
    }

    /// The tensors that the chain trains for the source.
    fn learnables(&self) -> Vec<Arc<Learnable>> {
        Vec::new()
    }

    /// The numbers of each scored parameter by its path, one an element, row-major. A parameter
    /// that is coupled with others may be left out; they score its channels then.
    ///
    /// # Errors
    ///
    /// Any error ends the run.
    fn values(&self, model: &M) -> Result<IndexMap<String, Vec<f32>>, BoxError>;

    /// Shows `visit` what [`values`](Self::values) gives, each parameter once. A source that can read
    /// one after another has not all of them in memory at once.
    ///
    /// # Errors
    ///
    /// Those of [`values`](Self::values) and of `visit`.
    fn for_each(&self, model: &M, visit: &mut Visit<'_>) -> Result<(), BoxError> {
        let values = self.values(model)?;
        let mut values = values.iter();
        values.try_for_each(|(path, values)| visit(path, values))
    }

    /// Forgets what was collected, at the end of each interval of a schedule.
    fn clear(&mut self) {}

    /// Ends what the source does to the model, when the run has ended.
    fn finish(&mut self) {}

    /// The parameters with what the source has trained folded in, after [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// Any error ends the run.
    fn rewrite(&mut self, _run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(IndexMap::new())
    }

    /// The collected values, for a checkpoint.
    ///
    /// # Errors
    ///
    /// When it cannot be read from its device.
    fn state(&self) -> Result<AlgorithmState, BoxError> {
        Ok(AlgorithmState::default())
    }

    /// Restores what [`state`](Self::state) gave.
    ///
    /// # Errors
    ///
    /// When it does not fit: [`PruningError::State`].
    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        match state.tensors.first() {
            None => Ok(()),
            Some((path, tensor)) => Err(PruningError::State {
                path: path.clone(),
                found: tensor.shape.clone(),
            }
            .into()),
        }
    }
}

/// The parameters that a pruner scores, in the model of a chain.
#[derive(Debug)]
pub struct Scored<'a, M, I> {
    pub(crate) pruner: &'static str,
    pub(crate) chain: &'a Chain<'a, M, I>,
    pub(crate) targets: Vec<ScoredTarget>,
    pub(crate) selected: &'a [Selected<PruningSettings>],
    /// Whether the graph couples channels that nobody has grouped by hand.
    pub(crate) by_graph: bool,
}

/// A parameter that has a score.
#[derive(Debug, Clone)]
pub struct ScoredTarget {
    pub(crate) space: Arc<TargetSpace>,
    pub(crate) blocks: Blocks,
    pub(crate) settings: PruningSettings,
    /// The group of coupled channels that it is part of.
    pub(crate) group: Option<usize>,
}

impl<'a, M: Module + 'static, I: 'static> Scored<'a, M, I> {
    /// The name of the pruner, for errors.
    pub fn pruner(&self) -> &'static str {
        self.pruner
    }

    /// The chain, with its model and its evaluator.
    pub fn chain(&self) -> &'a Chain<'a, M, I> {
        self.chain
    }

    /// The parameters, coupled ones first.
    pub fn targets(&self) -> &[ScoredTarget] {
        &self.targets
    }

    /// The paths of the parameters.
    pub fn paths(&self) -> IndexSet<String> {
        let ids = self.targets.iter().map(|target| target.id().to_string());
        ids.collect()
    }

    /// The first device of the model, without gradients.
    pub fn device(&self) -> Device {
        let device = self.chain.model().devices().first().cloned();
        device.unwrap_or_default().without_autodiff()
    }

    /// The target at a path, if it is scored.
    pub(crate) fn target(&self, id: &TargetId) -> Option<&ScoredTarget> {
        self.targets.iter().find(|target| target.id() == id)
    }

    /// The selected targets that are scored, in the order of the selection.
    pub(crate) fn selected(&self) -> Vec<&'a Selected<PruningSettings>> {
        let paths = self.paths();
        let selected = self.selected.iter();
        let scored = selected.filter(|item| paths.contains(&item.id().to_string()));
        scored.collect()
    }
}

impl ScoredTarget {
    /// The parameter.
    pub fn id(&self) -> &TargetId {
        self.space.id()
    }

    /// The state that all compressors of the chain share.
    pub fn space(&self) -> &Arc<TargetSpace> {
        &self.space
    }

    /// The blocks that get a score.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The settings; those of the whole group where channels are coupled.
    pub fn settings(&self) -> &PruningSettings {
        &self.settings
    }

    /// Whether the channels of two parameters are decided together.
    pub fn is_coupled_with(&self, other: &Self) -> bool {
        self.group.is_some() && self.group == other.group
    }
}
