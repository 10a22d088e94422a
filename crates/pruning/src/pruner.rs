//! The pruner behind every importance score: what it prunes, when, and which masks it writes.
//!
//! A pruner decides in [`Units`]. A unit is either one target with its own blocks or one group of
//! coupled channels: everything that has to lose the same channels for the channel to be exactly
//! zero wherever it is read.

use std::any::Any;
use std::sync::Arc;

use burn::config::Config;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Compressor, Configuration, FlatTensor, Learnable, Mode,
    Run, TargetId, parameters, reads,
};
use indexmap::IndexMap;

use crate::activations::Activations;
use crate::collected::{Collected, gradient_terms, require_trained, weighted};
use crate::metrics::Scale;
use crate::signal::{Signal, Source};
use crate::slim::Factors;
use crate::units::{Units, build};
use crate::{PruningError, PruningSettings, Schedule};

/// What all pruners have in common.
///
/// Both defaults can be turned off to get masks that follow the configuration to the letter; a
/// model with such masks may not be removable without changing its function.
#[derive(Config, Debug, Copy)]
pub struct PrunerConfig {
    /// Find coupled channels in the model's graph and mask them together, batch norms and biases
    /// included, and refuse masks of whole channels that no cut can follow. Needs the evaluator's
    /// dummy input.
    #[config(default = true)]
    pub coupled: bool,
    /// Keep the best block of every target whatever its goal.
    #[config(default = true)]
    pub keep_at_least_one: bool,
}

/// Refuses settings that mean nothing to a pruner.
pub(crate) fn refuse_idle(
    selected: &[Selected<PruningSettings>],
    pruner: &'static str,
    observes: bool,
    normalizes: bool,
) -> Result<(), PruningError> {
    for item in selected {
        let keys = [
            (
                "activation",
                item.settings.activation.is_some() && !observes,
            ),
            (
                "normalizer",
                item.settings.normalizer.is_some() && !normalizes,
            ),
        ];
        if let Some((key, _)) = keys.into_iter().find(|(_, idle)| *idle) {
            return Err(PruningError::NoEffect { key, pruner }.at(item.id()));
        }
    }
    Ok(())
}

/// A pruner in a chain.
pub(crate) struct Pruner<M, I> {
    name: &'static str,
    signal: Signal,
    config: PrunerConfig,
    configuration: Configuration,
    units: Units,
    schedule: Option<Schedule>,
    collected: Collected,
    activations: Option<Activations<M, I>>,
    factors: Option<Factors>,
}

impl<M: Module + 'static, I: 'static> Pruner<M, I> {
    /// Adds a pruner to a chain.
    pub(crate) fn fuse(
        mut compressor: Compressor<M, I>,
        config: &ConfigList<PruningSettings>,
        name: &'static str,
        signal: Signal,
        options: PrunerConfig,
        configuration: Configuration,
    ) -> Result<Compressor<M, I>, PruningError> {
        if signal.steps().is_some() {
            compressor.evaluator().require_training(name)?;
        }
        let selected = PruningSettings::select(config, compressor.layers())?;
        let importance = signal.importance();
        let normalizes = options.coupled && importance.scale() == Scale::Layer;
        refuse_idle(&selected, name, signal.observes(), normalizes)?;
        let units = build(&mut compressor, name, &selected, importance, options)?;
        let activations = match signal.source() {
            Source::Activations(_, statistic, place) => {
                let sources = units.sources();
                let outputs = (statistic, place);
                Some(Activations::new(
                    &compressor,
                    name,
                    outputs,
                    &selected,
                    sources,
                )?)
            }
            _ => None,
        };
        if let Source::Gradients(..) = signal.source() {
            require_trained(compressor.model(), name, units.sources())?;
        }
        let factors = match signal.source() {
            Source::Factors(training) => Some(Factors::new(&compressor, name, &units, training)?),
            _ => None,
        };
        compressor.push(Self {
            name,
            signal,
            config: options,
            configuration: of_targets(configuration, &selected),
            units,
            schedule: None,
            collected: Collected::default(),
            activations,
            factors,
        });
        Ok(compressor)
    }

    /// Lets a schedule drive the newest pruner of a chain.
    pub(crate) fn schedule(
        mut compressor: Compressor<M, I>,
        name: &'static str,
        schedule: Schedule,
    ) -> Result<Compressor<M, I>, PruningError> {
        compressor.evaluator().require_training(name)?;
        let newest = compressor.pop().ok_or(PruningError::NothingToSchedule {
            schedule: name,
            found: "an empty chain",
        })?;
        let found = newest.name();
        let mut pruner = match newest.into_any().downcast::<Self>() {
            Ok(pruner) if pruner.schedule.is_none() => *pruner,
            _ => {
                return Err(PruningError::NothingToSchedule {
                    schedule: name,
                    found,
                });
            }
        };
        if pruner
            .signal
            .steps()
            .is_some_and(|steps| steps > schedule.interval())
        {
            return Err(PruningError::Setting {
                key: "interval",
                value: schedule.interval().to_string(),
                expected: "at least the training steps of the pruner that it schedules",
            });
        }
        pruner.configuration = pruner
            .configuration
            .with("pruner", &pruner.name)
            .with("schedule", &schedule);
        pruner.name = name;
        pruner.schedule = Some(schedule);
        compressor.push(pruner);
        Ok(compressor)
    }

    /// The steps after which the last masks are generated, where training decides.
    fn last_decision(&self) -> Option<usize> {
        let schedule = self.schedule.map(|schedule| schedule.last_step());
        schedule.or(self.signal.steps())
    }

    fn decide(&mut self, model: &M, factor: f64) -> Result<(), BoxError> {
        let data = self.data(model)?;
        let keep = self.config.keep_at_least_one;
        let importance = self.signal.importance();
        Ok(self.units.decide(&data, importance, factor, keep)?)
    }

    /// The values that the score sees, by parameter.
    fn data(&self, model: &M) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        let sums = self.collected.sums();
        match (self.signal.source(), &self.activations, &self.factors) {
            (Source::Gradients(_, term), ..) => weighted(model, sums, term),
            (Source::Activations(..), Some(activations), _) => activations.spread(sums),
            (Source::Factors(_), _, Some(factors)) => factors.data(),
            _ => {
                let weights = parameters(model, self.units.sources());
                let (paths, weights): (Vec<_>, Vec<_>) = weights.into_iter().unzip();
                let values = reads::all(weights.into_iter().map(|weight| weight.values))?;
                Ok(paths.into_iter().zip(values).collect())
            }
        }
    }

    fn settle(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        if let Some(factor) = self.signal.due(self.schedule.as_ref(), run.step) {
            self.decide(run.model, factor)?;
        }
        let interval_ends = self
            .schedule
            .is_some_and(|schedule| run.step.is_multiple_of(schedule.interval()));
        if interval_ends {
            self.collected.clear();
        }
        Ok(())
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for Pruner<M, I> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        let (needed, what) = match (self.signal.steps(), &self.schedule) {
            (_, Some(schedule)) => (schedule.last_step(), "the last update of the schedule is"),
            (Some(steps), None) => (steps, "the masks are generated"),
            (None, None) => return Ok(()),
        };
        if total_steps < needed {
            let reason = format!(
                "{what} after step {needed}, the run has {total_steps} steps: give it at least \
                 {needed}"
            );
            return Err(reason.into());
        }
        Ok(())
    }

    fn prepare(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        match self.signal.due(self.schedule.as_ref(), 0) {
            Some(factor) => self.decide(run.model, factor),
            None => Ok(()),
        }
    }

    fn observe(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        if let (Some(factors), Some(last)) = (&self.factors, self.last_decision()) {
            factors.settle(run.step, last);
        }
        Ok(())
    }

    fn loss(&mut self, loss: Tensor<1>, batch: &I, run: Run<'_, M>) -> Result<Tensor<1>, BoxError> {
        if let Some(activations) = &self.activations
            && self.signal.collects(self.schedule.as_ref(), run.step)
        {
            self.collected.add(activations.observe(run.model, batch)?);
        }
        Ok(match &self.factors {
            Some(factors) => factors.penalised(loss),
            None => loss,
        })
    }

    fn gradients(&mut self, grads: &GradientsParams, run: Run<'_, M>) -> Result<(), BoxError> {
        if let Source::Gradients(_, term) = self.signal.source()
            && self.signal.collects(self.schedule.as_ref(), run.step)
        {
            let (terms, missing) = gradient_terms(run.model, grads, self.units.sources(), term);
            // Later steps may leave out layers, as stochastic depth does.
            if self.collected.sums().is_empty() && !missing.is_empty() {
                let pruner = self.name;
                return Err(PruningError::NoGradient {
                    pruner,
                    targets: missing,
                }
                .into());
            }
            self.collected.add(terms);
        }
        if let Some(factors) = &self.factors
            && run.step == 0
        {
            factors.require_gradients(run.model, self.name)?;
        }
        Ok(())
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        let factors = self.factors.as_ref();
        factors.map(Factors::learnables).unwrap_or_default()
    }

    fn after_step(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.settle(run)
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        if let Some(factors) = &self.factors {
            factors.detach();
        }
        Ok(())
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        match &self.factors {
            Some(factors) => factors.fold(run),
            None => Ok(IndexMap::new()),
        }
    }

    fn warnings(&self) -> Result<Vec<String>, BoxError> {
        Ok(self.units.unchanged()?)
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        Ok(self.collected.save()?)
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.units.check_state(state, self.signal.observes())?;
        self.collected = Collected::load(state, |host| self.units.load(host));
        Ok(())
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.configuration.clone())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The configuration of a pruner with the settings of what it selects.
pub(crate) fn of_targets(
    configuration: Configuration,
    selected: &[Selected<PruningSettings>],
) -> Configuration {
    selected.iter().fold(configuration, |configuration, item| {
        configuration.with_target(&item.id(), &item.settings.without_defaults())
    })
}
