//! Contract of a pruner, quantizer or distiller in a fused run.

use std::any::Any;
use std::sync::Arc;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::BoxError;
use crate::run::configuration::Configuration;
use crate::run::learnable::Learnable;
use crate::run::planned_mask::PlannedMask;
use crate::simulate::flat::{FlatTensor, HostTensor};
use crate::target::{Mode, TargetId};

/// Model and position of the run, as given to an algorithm.
#[derive(Debug)]
pub struct Run<'a, M> {
    /// The model with its simulations attached.
    pub model: &'a M,
    /// Optimizer steps completed so far.
    pub step: usize,
    /// Optimizer steps of the whole run; 0 for a run without training.
    pub total_steps: usize,
}

impl<M> Clone for Run<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Run<'_, M> {}

/// One compressor of a chain.
///
/// The chain calls the hooks of all its algorithms in one training run. A step is: observe (oldest
/// first), forward, loss (newest first: its change acts first on the raw loss), backward, gradients
/// (oldest first), optimizers of the learnables and of the model, projections (newest first), after
/// step (newest first). At the end all finish and then all rewrite, newest first.
///
/// Implementations hold the [`TargetSpace`](crate::TargetSpace)s that they claimed and never walk
/// modules, save files or drive loops.
pub trait Algorithm<M: Module, I>: Any + Send {
    /// The name in messages, for example `TaylorPruner`.
    fn name(&self) -> &'static str;

    /// Mode of the algorithm.
    fn mode(&self) -> Mode;

    /// Rejects a run that is too short for the algorithm.
    ///
    /// # Errors
    ///
    /// Why the run does not fit.
    fn check(&self, _total_steps: usize) -> Result<(), BoxError> {
        Ok(())
    }

    /// Called once before the first step, also in a run without training.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm; ends the run.
    fn prepare(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(())
    }

    /// Called before each forward pass: the parameters may be observed.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm; ends the run.
    fn observe(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(())
    }

    /// Changes the loss of a batch, for example adds a distance to a teacher.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm; ends the run.
    fn loss(
        &mut self,
        loss: Tensor<1>,
        _batch: &I,
        _run: Run<'_, M>,
    ) -> Result<Tensor<1>, BoxError> {
        Ok(loss)
    }

    /// Called with the gradients of the raw parameters, before the optimizer uses them.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm; ends the run.
    fn gradients(
        &mut self,
        _gradients: &GradientsParams,
        _run: Run<'_, M>,
    ) -> Result<(), BoxError> {
        Ok(())
    }

    /// The tensors that the chain trains for the algorithm.
    ///
    /// Called after each loss, so a tensor whose shape follows from the first batch may be made
    /// there. In a resumed chain it is called after [`load_state`](Self::load_state), which must make the tensors
    /// that were there when the checkpoint was written; their values are then restored by name.
    fn learnables(&self) -> Vec<Arc<Learnable>> {
        Vec::new()
    }

    /// Raw values that parameters take right after each optimizer step, before
    /// [`after_step`](Self::after_step); `run.step` counts the step already.
    ///
    /// The newest algorithm projects first, and each works on the model as those before it left it:
    /// of several that give one parameter its values, those of the oldest stay.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm; ends the run.
    fn project(&mut self, _run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(IndexMap::new())
    }

    /// Called after each optimizer step; `run.step` counts it already. Masks move here.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm; ends the run.
    fn after_step(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(())
    }

    /// Called once after the last step.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm; ends the run.
    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(())
    }

    /// Raw values that parameters take after [`finish`](Self::finish), for what the algorithm
    /// learned beside them.
    ///
    /// The newest algorithm rewrites first, once all have finished, and each works on the model as
    /// those before it left it. Several can therefore change one parameter, if each makes its
    /// values of those that it finds in `run.model`: with `old` before `new` in the chain, the
    /// parameter becomes `old(new(value))`.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm; ends the run.
    fn rewrite(&mut self, _run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(IndexMap::new())
    }

    /// Warnings about the result, a sentence each: a goal that depends on the values and changed
    /// nothing, for example.
    ///
    /// Asked once, after [`finish`](Self::finish). Each is logged and kept in
    /// [`Compressed::warnings`](crate::Compressed::warnings).
    ///
    /// # Errors
    ///
    /// Any error of the algorithm; ends the run.
    fn warnings(&self) -> Result<Vec<String>, BoxError> {
        Ok(Vec::new())
    }

    /// The sparsity that each target is to have at the end of the run, 0.5 where half of it is to go.
    ///
    /// For plans and reports, which compare it with what was reached. Targets without a ratio, and
    /// those that follow others, have none.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm.
    fn goals(&self) -> Result<IndexMap<TargetId, f64>, BoxError> {
        Ok(IndexMap::new())
    }

    /// Masks that remove as much as the run is going to, for a plan before it begins.
    ///
    /// An algorithm that masks nothing has none. One that masks and gives none is cut as always; its
    /// channels are missing in plans that are made before the run.
    ///
    /// # Errors
    ///
    /// Any error of the algorithm.
    fn planned_masks(&self) -> Result<Vec<PlannedMask>, BoxError> {
        Ok(Vec::new())
    }

    /// State for a resumed run beyond masks, scales and learnables, which the chain saves itself.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    fn state(&self) -> Result<AlgorithmState, BoxError> {
        Ok(AlgorithmState::default())
    }

    /// Restores what [`state`](Self::state) gave.
    ///
    /// # Errors
    ///
    /// The state is that of another algorithm or configuration.
    fn load_state(&mut self, _state: &AlgorithmState) -> Result<(), BoxError> {
        Ok(())
    }

    /// Configuration of the algorithm: its settings, and those of each of its targets.
    ///
    /// A checkpoint holds it, and [`Compressor::resume`](crate::Compressor::resume) refuses a chain
    /// whose algorithms were made with another one. Settings without influence on the result are
    /// left out. An algorithm that gives none is resumed whatever it was made with.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(Configuration::default())
    }
}

/// The saved state of an algorithm: numbers by name and tensors by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmState {
    /// Counters and flags.
    #[serde(default)]
    pub values: IndexMap<String, f64>,
    /// Tensors; their numbers are saved in binary form.
    #[serde(skip)]
    pub tensors: IndexMap<String, HostTensor>,
}
