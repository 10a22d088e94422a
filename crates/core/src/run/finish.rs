//! The run of a chain, from its first step to its result.

use burn::module::Module;

use crate::Error;
use crate::erased::AnyModel;
use crate::run::any_chain::AnyChain;
use crate::run::budget::Budget;
use crate::run::compressed::Compressed;
use crate::run::compressor::Compressor;
use crate::run::evaluator::Evaluator;
use crate::run::{finite, training};
use crate::simulate::params::with_parameters;

impl<M: Module + 'static, I: 'static> Compressor<M, I> {
    /// Runs all compressors of the chain and returns the model with everything they learned.
    ///
    /// With [`Budget::none`] nothing is trained: pruners that need no gradients generate their
    /// masks. Otherwise one training run drives all compressors. After
    /// [`resume`](Self::resume), the run goes on where the checkpoint was written; the budget is
    /// that of the whole run.
    ///
    /// # Errors
    ///
    /// A missing evaluator, a budget that is too short for a schedule, a loss, parameter or running
    /// statistic that is not finite, a simulated layer that the model never calls, or the error of
    /// an algorithm.
    pub fn compress(mut self, budget: Budget) -> Result<Compressed<M>, Error> {
        self.advance(&budget, None)?;
        self.finish()
    }

    /// Runs until `stop` completed steps of the budget, or to its end, without finishing.
    ///
    /// # Errors
    ///
    /// Those of [`compress`](Self::compress).
    pub fn advance(&mut self, budget: &Budget, stop: Option<usize>) -> Result<(), Error> {
        training::run(&mut self.inner, budget, stop)
    }

    /// Finishes a run that [`advance`](Self::advance) has taken to its end.
    ///
    /// # Errors
    ///
    /// [`Error::NotBegun`] and [`Error::Unfinished`] for a run that is not at its end,
    /// [`Error::NotFinite`] for a model with values that are not finite, and the error of an
    /// algorithm.
    pub fn finish(self) -> Result<Compressed<M>, Error> {
        let result = self.inner.finish()?;
        Ok(with_dummy_input(result, &self.evaluator))
    }

    /// Finishes a run wherever it is.
    ///
    /// What the compressors would have done in the remaining steps is not done: masks that a
    /// schedule has not generated yet are missing, and goals are those of the last update.
    ///
    /// # Errors
    ///
    /// Those of [`finish`](Self::finish), but for [`Error::Unfinished`].
    pub fn finish_early(self) -> Result<Compressed<M>, Error> {
        let result = self.inner.finish_early()?;
        Ok(with_dummy_input(result, &self.evaluator))
    }
}

/// The result as that of the model, with the evaluator's dummy input.
pub(crate) fn with_dummy_input<M: Module + 'static, I: 'static>(
    result: Compressed<AnyModel>,
    evaluator: &Evaluator<M, I>,
) -> Compressed<M> {
    let (graphs, result) = (result.graphs_of_run(), result.into_typed());
    match evaluator.dummy_input() {
        Some(dummy_input) => (result.with_dummy_input(dummy_input.clone())).with_graphs(graphs),
        None => result,
    }
}

impl AnyChain {
    /// Refuses a run that has steps left.
    pub(crate) fn require_end(&self) -> Result<(), Error> {
        let (done, total) = (self.progress.step, self.progress.total_steps);
        match done < total {
            true => Err(Error::Unfinished { done, total }),
            false => Ok(()),
        }
    }

    /// Finishes a run that is at its end.
    pub(crate) fn finish(self) -> Result<Compressed<AnyModel>, Error> {
        self.require_end()?;
        self.finish_early()
    }

    /// Finishes a run wherever it is.
    pub(crate) fn finish_early(mut self) -> Result<Compressed<AnyModel>, Error> {
        if !self.progress.prepared {
            return Err(Error::NotBegun);
        }
        let goals = self.goals()?;
        let run = self.progress.run(&self.model);
        for algorithm in self.algorithms.iter_mut().rev() {
            let name = algorithm.name();
            algorithm.finish(run).map_err(Error::met_by(name))?;
        }
        training::watch_masks(&mut self);
        let mut warnings = Vec::new();
        for algorithm in &self.algorithms {
            let name = algorithm.name();
            let found = algorithm.warnings().map_err(Error::met_by(name))?;
            warnings.extend(
                found
                    .into_iter()
                    .map(|warning| format!("{name}: {warning}")),
            );
        }
        for algorithm in self.algorithms.iter_mut().rev() {
            let run = self.progress.run(&self.model);
            let name = algorithm.name();
            let values = algorithm.rewrite(run).map_err(Error::met_by(name))?;
            self.model = with_parameters(self.model, values)?;
        }
        finite::require(&self.model, &self.spaces, self.progress.step)?;
        warnings.into_iter().for_each(|warning| self.warn(warning));
        let warnings = self.take_warnings();
        let result = Compressed::new(self.model, self.progress.history)?;
        Ok(result
            .with_skipped(self.skipped)
            .with_warnings(warnings)
            .with_goals(goals)
            .with_graphs(self.graphs))
    }
}
