//! A pruner in a chain: values, decisions, masks.
//!
//! A pruner decides about groups: a target with its own blocks, or coupled channels, which is
//! everything that has to lose the same channels for a channel to be exactly zero wherever it is
//! read.

use std::any::Any;
use std::sync::Arc;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Chain, Configuration, Error, FlatTensor, Learnable, Mode,
    PlannedMask, Run, TargetId,
};
use indexmap::IndexMap;

use crate::groups::PruningGroups;
use crate::importance::{Scorer, Scores};
use crate::sources::{Collector, ScoredTarget};
use crate::timing::Decisions;
use crate::{PruningError, Schedule};

/// A pruner in a chain.
pub(crate) struct FusedPruner<M, I> {
    pub(crate) name: &'static str,
    pub(crate) scorer: Scorer,
    pub(crate) decisions: Decisions,
    pub(crate) collector: Box<dyn Collector<M, I>>,
    pub(crate) groups: PruningGroups,
    pub(crate) configuration: Configuration,
}

/// Attaches a schedule to the newest pruner of a chain.
impl FusedPruner<AnyModel, AnyBatch> {
    pub(crate) fn schedule(
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        name: &'static str,
        schedule: Schedule,
    ) -> Result<(), Error> {
        chain.evaluator().require_training(name)?;
        let nothing = |found| PruningError::NothingToSchedule {
            schedule: name,
            found,
        };
        let newest = chain.pop().ok_or_else(|| nothing("an empty chain"))?;
        let found = newest.name();
        let newest: Box<dyn Any> = newest;
        let mut pruner = newest.downcast::<Self>().map_err(|_| nothing(found))?;
        if !pruner.decisions.can_be_scheduled() {
            return Err(nothing(found).into());
        }
        pruner.decisions = pruner.decisions.scheduled(schedule)?;
        pruner.configuration = pruner
            .configuration
            .with("pruner", &pruner.name)
            .with("schedule", &schedule);
        pruner.name = name;
        chain.push(*pruner);
        Ok(())
    }
}

impl<M: Module + 'static, I: 'static> FusedPruner<M, I> {
    /// The scores of all parameters that have some at present.
    fn scores(&self, model: &M) -> Result<Scores, BoxError> {
        let targets = self.groups.scored()?;
        let by_path = targets
            .iter()
            .map(|target| (target.id().to_string(), target));
        let by_path: IndexMap<String, &ScoredTarget> = by_path.collect();
        let mut scores = Scores {
            scale: self.scorer.scale(),
            by_path: IndexMap::new(),
        };
        self.collector.for_each(model, &mut |path, values| {
            if let Some(target) = by_path.get(path) {
                let found = self.scorer.score(values, target.blocks(), target.id())?;
                scores.by_path.insert(path.to_string(), found);
            }
            Ok(())
        })?;
        Ok(scores)
    }

    /// Generates the masks that are due after `step` optimizer steps.
    fn update_masks(&self, model: &M, step: usize) -> Result<(), BoxError> {
        if let Some(factor) = self.decisions.due(step) {
            self.groups.update_masks(&self.scores(model)?, factor)?;
        }
        Ok(())
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for FusedPruner<M, I> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        self.decisions.check(total_steps)
    }

    fn prepare(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.update_masks(run.model, 0)
    }

    fn observe(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        let phase = self.decisions.phase(run.step);
        self.collector.observe(run, phase)
    }

    fn loss(&mut self, loss: Tensor<1>, batch: &I, run: Run<'_, M>) -> Result<Tensor<1>, BoxError> {
        let phase = self.decisions.phase(run.step);
        self.collector.loss(loss, batch, run, phase)
    }

    fn gradients(&mut self, grads: &GradientsParams, run: Run<'_, M>) -> Result<(), BoxError> {
        let phase = self.decisions.phase(run.step);
        self.collector.gradients(grads, run, phase)
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.collector.learnables()
    }

    fn after_step(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.update_masks(run.model, run.step)?;
        if self.decisions.ends_interval(run.step) {
            self.collector.clear();
        }
        Ok(())
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        self.collector.finish();
        Ok(())
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        self.collector.rewrite(run)
    }

    fn warnings(&self) -> Result<Vec<String>, BoxError> {
        Ok(self.groups.unchanged()?)
    }

    fn goals(&self) -> Result<IndexMap<TargetId, f64>, BoxError> {
        Ok(self.groups.goals())
    }

    fn planned_masks(&self) -> Result<Vec<PlannedMask>, BoxError> {
        Ok(self.groups.planned_masks()?)
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        self.collector.state()
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.collector.load_state(state)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.configuration.clone())
    }
}
