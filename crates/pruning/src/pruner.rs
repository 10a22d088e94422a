//! The pruner behind every importance score: what it prunes, when, and which masks it writes.
//!
//! A pruner decides in [`Unit`]s. A unit is either one target with its own blocks or one group of
//! coupled channels: everything that has to lose the same channels for the channel to be exactly
//! zero wherever it is read.

use std::any::Any;

use burn::config::Config;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Compressor, FlatTensor, HostTensor, Mode, Run, gradients,
    parameters,
};
use indexmap::IndexMap;

use crate::mask::{MaskConfig, generate};
use crate::metrics::Importance;
use crate::units::{Units, build};
use crate::{PruningError, PruningSettings, Schedule};

/// What all pruners have in common.
///
/// Both defaults can be turned off to get masks that follow the configuration to the letter; a
/// model with such masks may not be removable without changing its function.
#[derive(Config, Debug, Copy)]
pub struct PrunerConfig {
    /// Find coupled channels in the model's graph and mask them together, batch norms and biases
    /// included. Needs the evaluator's dummy input.
    #[config(default = true)]
    pub coupled: bool,
    /// Keep the best block of every target whatever its goal.
    #[config(default = true)]
    pub keep_at_least_one: bool,
}

/// What a score is made of.
pub(crate) enum Signal {
    /// The values of the parameters at the time of a decision.
    Weights(Box<dyn Importance + Send>),
    /// `(weight * gradient)^2`, summed over this number of steps.
    Gradients(Box<dyn Importance + Send>, usize),
}

impl Signal {
    fn importance(&self) -> &dyn Importance {
        match self {
            Self::Weights(importance) | Self::Gradients(importance, _) => importance.as_ref(),
        }
    }
}

/// A pruner in a chain.
pub(crate) struct Pruner {
    name: &'static str,
    signal: Signal,
    config: PrunerConfig,
    units: Units,
    schedule: Option<Schedule>,
    collected: IndexMap<String, FlatTensor>,
    steps_collected: usize,
}

impl Pruner {
    /// Adds a pruner to a chain.
    pub(crate) fn fuse<M: Module + 'static, I: 'static>(
        mut compressor: Compressor<M, I>,
        config: &ConfigList<PruningSettings>,
        name: &'static str,
        signal: Signal,
        options: PrunerConfig,
    ) -> Result<Compressor<M, I>, PruningError> {
        if matches!(signal, Signal::Gradients(..)) {
            compressor.evaluator().require_training(name)?;
        }
        let selected = PruningSettings::select(config, compressor.layers())?;
        let granularity = signal.importance().default_granularity();
        let units = build(
            &mut compressor,
            name,
            selected,
            &granularity,
            options.coupled,
        )?;
        compressor.push(Self {
            name,
            signal,
            config: options,
            units,
            schedule: None,
            collected: IndexMap::new(),
            steps_collected: 0,
        });
        Ok(compressor)
    }

    /// Lets a schedule drive the newest pruner of a chain.
    pub(crate) fn schedule<M: Module + 'static, I: 'static>(
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
        if let Signal::Gradients(_, steps) = pruner.signal
            && steps > schedule.interval()
        {
            return Err(PruningError::Setting {
                key: "interval",
                value: schedule.interval().to_string(),
                expected: "at least the training steps of the pruner that it schedules",
            });
        }
        pruner.name = name;
        pruner.schedule = Some(schedule);
        compressor.push(pruner);
        Ok(compressor)
    }

    /// The part of the goals for which masks are due after `step` optimizer steps.
    fn due(&self, step: usize) -> Option<f64> {
        match (&self.signal, &self.schedule) {
            (Signal::Weights(_), None) => (step == 0).then_some(1.0),
            (Signal::Weights(_), Some(schedule)) => schedule.at(step),
            (Signal::Gradients(_, steps), None) => (step == *steps).then_some(1.0),
            (Signal::Gradients(_, steps), Some(schedule)) => {
                let within = step > 0 && step <= schedule.last_step();
                // The scores of an interval are complete after its first `steps` steps. A last
                // decision at the end reaches the whole goal.
                let complete = step % schedule.interval() == steps % schedule.interval();
                let due = within && (complete || step == schedule.last_step());
                due.then(|| schedule.progress(step))
            }
        }
    }

    /// Whether the gradients of the step after `step` completed ones belong to a score.
    fn collects(&self, step: usize) -> bool {
        match (&self.signal, &self.schedule) {
            (Signal::Weights(_), _) => false,
            (Signal::Gradients(_, steps), None) => step < *steps,
            (Signal::Gradients(_, steps), Some(schedule)) => {
                step < schedule.last_step() && step % schedule.interval() < *steps
            }
        }
    }

    fn decide<M: Module>(&mut self, model: &M, factor: f64) -> Result<(), BoxError> {
        let data = match self.signal {
            Signal::Weights(_) => parameters(model, self.units.sources()),
            Signal::Gradients(..) => self.collected.clone(),
        };
        let data = data
            .into_iter()
            .map(|(path, tensor)| Ok((path, tensor.to_vec()?)))
            .collect::<Result<IndexMap<_, _>, burn_compress_core::Error>>()?;
        let keep = self.config.keep_at_least_one;
        let targets = self
            .units
            .targets(&data, self.signal.importance(), factor, keep)?;
        let config = MaskConfig::new().with_keep_at_least_one(keep);
        let masks = generate(&targets, config)?;
        self.units.write(&masks)?;
        Ok(())
    }

    fn settle<M: Module>(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        if let Some(factor) = self.due(run.step) {
            self.decide(run.model, factor)?;
        }
        let interval_ends = self
            .schedule
            .is_some_and(|schedule| run.step.is_multiple_of(schedule.interval()));
        if interval_ends {
            self.collected.clear();
            self.steps_collected = 0;
        }
        Ok(())
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for Pruner {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        let (needed, what) = match (&self.signal, &self.schedule) {
            (_, Some(schedule)) => (schedule.last_step(), "the last update of the schedule is"),
            (Signal::Gradients(_, steps), None) => (*steps, "the masks are generated"),
            (Signal::Weights(_), None) => return Ok(()),
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
        match self.due(0) {
            Some(factor) => self.decide(run.model, factor),
            None => Ok(()),
        }
    }

    fn gradients(&mut self, grads: &GradientsParams, run: Run<'_, M>) -> Result<(), BoxError> {
        if !self.collects(run.step) {
            return Ok(());
        }
        let weights = parameters(run.model, self.units.sources());
        let mut slopes = gradients(run.model, grads, self.units.sources());
        for (path, weight) in weights {
            // What the loss does not depend on has a gradient of zero.
            let value = match slopes.swap_remove(&path) {
                Some(slope) => (weight.values * slope.values).square(),
                None => weight.values.zeros_like(),
            };
            let sum = match self.collected.swap_remove(&path) {
                Some(sum) => sum.values + value,
                None => value,
            };
            self.collected.insert(
                path,
                FlatTensor {
                    values: sum,
                    shape: weight.shape,
                },
            );
        }
        self.steps_collected += 1;
        Ok(())
    }

    fn after_step(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.settle(run)
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        let mut state = AlgorithmState::default();
        state
            .values
            .insert("steps_collected".to_string(), self.steps_collected as f64);
        for (path, tensor) in &self.collected {
            let host = HostTensor {
                values: tensor.to_vec()?,
                shape: tensor.shape.clone(),
            };
            state.tensors.insert(path.clone(), host);
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        let steps = state
            .values
            .get("steps_collected")
            .copied()
            .unwrap_or_default();
        self.steps_collected = steps as usize;
        self.collected = state
            .tensors
            .iter()
            .map(|(path, host)| (path.clone(), self.units.load(host)))
            .collect();
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Gives a pruner type its two constructors.
macro_rules! constructors {
    ($pruner:ident, $config:ty, $signal:expr) => {
        impl $pruner {
            /// Prunes `model`.
            ///
            /// # Errors
            ///
            /// A configuration that does not fit the model, a missing part of the evaluator, or
            /// channels that cannot be removed.
            #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
            pub fn new<M: burn::module::Module + 'static, I: 'static>(
                model: M,
                config: &burn_compress_core::config::ConfigList<$crate::PruningSettings>,
                evaluator: burn_compress_core::Evaluator<M, I>,
                pruner: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, $crate::PruningError> {
                let chain = burn_compress_core::Compressor::from_model(model, evaluator);
                Self::from_compressor(chain, config, pruner)
            }

            /// Prunes the model of `compressor` as well, in the same run.
            ///
            /// # Errors
            ///
            /// Those of `new`, and a target that another pruner of the chain has.
            pub fn from_compressor<M: burn::module::Module + 'static, I: 'static>(
                compressor: burn_compress_core::Compressor<M, I>,
                config: &burn_compress_core::config::ConfigList<$crate::PruningSettings>,
                pruner: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, $crate::PruningError> {
                let signal: fn(
                    &$config,
                ) -> Result<
                    ($crate::pruner::Signal, $crate::pruner::PrunerConfig),
                    $crate::PruningError,
                > = $signal;
                let (signal, options) = signal(&pruner)?;
                $crate::pruner::Pruner::fuse(
                    compressor,
                    config,
                    stringify!($pruner),
                    signal,
                    options,
                )
            }
        }
    };
}
pub(crate) use constructors;
