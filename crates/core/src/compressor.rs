//! The chain of compressors that are fused over one model.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{AdamConfig, ModuleOptimizer};
use indexmap::IndexMap;

use crate::Error;
use crate::algorithm::{Algorithm, Run};
use crate::attach::{self, Spaces};
use crate::compressed::{Calibration, Compressed, Masks};
use crate::evaluator::Evaluator;
use crate::folding::{self, Folding};
use crate::graph::ChannelGraph;
use crate::history::{History, StepRecord};
use crate::layer::{LayerInfo, layers};
use crate::learnable::Learnable;
use crate::space::{Phase, TargetSpace};
use crate::target::{Mode, TargetId};

/// Pruners, quantizers and distillers fused over one model.
///
/// The constructors of the algorithms (`TaylorPruner::new`, `QatQuantizer::from_compressor`, ..)
/// return a `Compressor`; fusing hands it on, so that each later algorithm finds the wrappers,
/// masks, scales and the evaluator of the earlier ones. [`compress`](Self::compress) on the last
/// drives all of them in one training run.
pub struct Compressor<M, I> {
    pub(crate) model: M,
    pub(crate) layers: Vec<LayerInfo>,
    pub(crate) spaces: Spaces,
    pub(crate) phase: Arc<Phase>,
    pub(crate) algorithms: Vec<Box<dyn Algorithm<M, I>>>,
    pub(crate) evaluator: Evaluator<M, I>,
    pub(crate) foldings: Vec<Arc<Folding>>,
    pub(crate) graph: OnceLock<Arc<ChannelGraph>>,
    pub(crate) progress: Progress,
}

/// Where a run stands.
pub(crate) struct Progress {
    pub(crate) step: usize,
    pub(crate) total_steps: usize,
    pub(crate) epoch: usize,
    pub(crate) position: usize,
    pub(crate) prepared: bool,
    pub(crate) optimizer: Option<ModuleOptimizer>,
    pub(crate) schedule: Option<ModuleLrScheduler>,
    /// Steps the learnables that have a learning rate of their own.
    pub(crate) adam: ModuleOptimizer,
    pub(crate) history: History,
    /// The losses of the step whose backward pass is done and whose optimizer step is not.
    pub(crate) record: Option<StepRecord>,
}

impl<M: fmt::Debug, I> fmt::Debug for Compressor<M, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor")
            .field("model", &self.model)
            .field(
                "spaces",
                &self
                    .spaces
                    .keys()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
            )
            .field("step", &self.progress.step)
            .finish_non_exhaustive()
    }
}

impl<M: Module + 'static, I: 'static> Compressor<M, I> {
    /// A chain over `model` that holds no algorithm yet.
    ///
    /// The chain works on its own copy: neither the batch-norm statistics nor the wrappers of other
    /// clones of `model` are touched. Simulations that the model already carries, for instance the
    /// quantization of a sped-up model, go on.
    pub fn from_model(model: M, evaluator: Evaluator<M, I>) -> Self {
        // `valid` copies what clones of a Burn module share, the running statistics.
        let model = model.valid().train();
        let phase = Arc::new(Phase::default());
        let (model, spaces) = attach::adopt(model, phase.clone());
        let progress = Progress {
            step: 0,
            total_steps: 0,
            epoch: 0,
            position: 0,
            prepared: false,
            optimizer: evaluator.optimizer(),
            schedule: evaluator.learning_rate(),
            adam: AdamConfig::new().with_epsilon(1e-8).init(),
            history: History::default(),
            record: None,
        };
        Self {
            layers: layers(&model),
            model,
            spaces,
            phase,
            algorithms: Vec::new(),
            evaluator,
            foldings: Vec::new(),
            graph: OnceLock::new(),
            progress,
        }
    }

    /// Gives an evaluator to a chain that has none.
    ///
    /// A chain that has one keeps it and warns, as compressors that are fused share the first.
    pub fn with_evaluator(mut self, evaluator: Evaluator<M, I>) -> Self {
        if self.evaluator.is_empty() {
            self.progress.optimizer = evaluator.optimizer();
            self.progress.schedule = evaluator.learning_rate();
            self.evaluator = evaluator;
        } else {
            log::warn!("the chain already has an evaluator; the one passed now is ignored");
        }
        self
    }

    /// The evaluator that all compressors of the chain use.
    pub fn evaluator(&self) -> &Evaluator<M, I> {
        &self.evaluator
    }

    /// The model with its simulations, as it trains.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The layers of the model, in module order.
    pub fn layers(&self) -> &[LayerInfo] {
        &self.layers
    }

    /// The states of all targets that compressors have claimed, in the order of their claims.
    pub fn spaces(&self) -> impl Iterator<Item = &Arc<TargetSpace>> {
        self.spaces.values()
    }

    /// The state of one target.
    pub fn space(&self, id: &TargetId) -> Option<&Arc<TargetSpace>> {
        self.spaces.get(id)
    }

    /// The norms that are folded into their hosts, in the order in which that began.
    pub fn foldings(&self) -> &[Arc<Folding>] {
        &self.foldings
    }

    /// The names of the fused algorithms, oldest first.
    pub fn algorithms(&self) -> Vec<&'static str> {
        self.algorithms
            .iter()
            .map(|algorithm| algorithm.name())
            .collect()
    }

    /// The channels of the model and how they are coupled, captured once with the dummy input.
    ///
    /// # Errors
    ///
    /// No dummy input, a forward pass that cannot be captured, or an operation that the analysis
    /// does not know.
    pub fn graph(&self, algorithm: &'static str) -> Result<Arc<ChannelGraph>, Error> {
        if let Some(graph) = self.graph.get() {
            return Ok(graph.clone());
        }
        let dummy = self.evaluator.require_dummy_input(algorithm)?;
        let graph = Arc::new(attach::analyze(&self.model, dummy)?);
        Ok(self.graph.get_or_init(|| graph).clone())
    }

    /// Claims targets for a compressor of `mode` and attaches what they lack: a simulation to a
    /// parameter, a state to the input or output of a wrapper.
    ///
    /// # Errors
    ///
    /// A target that the model does not have, that another compressor of the mode has claimed, or
    /// whose parameter has another reparameterization, such as a LoRA adapter. Nothing is claimed
    /// then.
    pub fn claim(
        &mut self,
        mode: Mode,
        targets: &[TargetId],
    ) -> Result<Vec<Arc<TargetSpace>>, Error> {
        for id in targets {
            if self
                .spaces
                .get(id)
                .is_some_and(|space| space.is_claimed(mode))
            {
                return Err(Error::TargetTaken {
                    target: id.clone(),
                    mode,
                });
            }
        }
        self.attach(targets, Some(mode))?;
        let spaces = targets.iter().map(|id| self.spaces[id].clone());
        let claimed: Vec<_> = spaces.collect();
        claimed.iter().for_each(|space| space.claim(mode));
        Ok(claimed)
    }

    /// Attaches what targets lack as [`claim`](Self::claim) does, but leaves them free for any
    /// compressor: for algorithms that steer a target without masking or rounding it.
    ///
    /// # Errors
    ///
    /// A target that the model does not have, or whose parameter has another reparameterization;
    /// nothing is attached then.
    pub fn watch(&mut self, targets: &[TargetId]) -> Result<Vec<Arc<TargetSpace>>, Error> {
        self.attach(targets, None)?;
        Ok(targets.iter().map(|id| self.spaces[id].clone()).collect())
    }

    pub(crate) fn attach(&mut self, targets: &[TargetId], mode: Option<Mode>) -> Result<(), Error> {
        folding::check_claims(&self.foldings, targets, mode)?;
        let missing: Vec<TargetId> = targets
            .iter()
            .filter(|id| !self.spaces.contains_key(*id))
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let spaces = attach::new_spaces(&self.layers, &missing, &self.phase)?;
        self.model = attach::attach(self.model.clone(), &spaces)?;
        self.spaces.extend(spaces);
        Ok(())
    }

    /// The tensors that the chain trains beside the model, those of the oldest algorithm first.
    pub fn learnables(&self) -> Vec<Arc<Learnable>> {
        crate::training::learnables(&self.algorithms)
    }

    /// Adds an algorithm as the newest of the chain.
    pub fn push(&mut self, algorithm: impl Algorithm<M, I>) {
        self.algorithms.push(Box::new(algorithm));
    }

    /// Takes the newest algorithm off the chain, for a schedule that drives it.
    pub fn pop(&mut self) -> Option<Box<dyn Algorithm<M, I>>> {
        self.algorithms.pop()
    }

    /// What happened at each step so far.
    pub fn history(&self) -> &History {
        &self.progress.history
    }

    /// The masks of all pruners of the chain.
    pub fn masks(&self) -> Masks {
        attach::masks(&self.spaces)
    }

    /// Replaces masks, also of targets that no pruner has claimed.
    ///
    /// # Errors
    ///
    /// A target that cannot be attached, see [`watch`](Self::watch), or a mask of another shape;
    /// nothing is changed then.
    pub fn update_masks(&mut self, masks: &Masks) -> Result<(), Error> {
        let targets: Vec<TargetId> = masks.keys().cloned().collect();
        self.attach(&targets, Some(Mode::Pruning))?;
        let before: Vec<_> = targets.iter().map(|id| self.spaces[id].mask()).collect();
        for (id, mask) in masks {
            if let Err(error) = self.spaces[id].set_mask(Some(mask.clone())) {
                for (id, mask) in targets.iter().zip(before) {
                    // What was there fitted, so it fits again.
                    let _ = self.spaces[id].set_mask(mask);
                }
                return Err(error);
            }
        }
        targets
            .iter()
            .for_each(|id| self.spaces[id].claim(Mode::Pruning));
        Ok(())
    }

    /// The scales, zero points and ranges of all quantizers of the chain.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub fn calibration(&self) -> Result<Calibration, Error> {
        attach::calibration(&self.spaces)
    }

    /// Replaces scales, zero points and ranges, also of targets that no quantizer has claimed.
    ///
    /// # Errors
    ///
    /// A target that cannot be attached, see [`watch`](Self::watch), or values that cannot be used;
    /// nothing is changed then.
    pub fn update_calibration(&mut self, calibration: &Calibration) -> Result<(), Error> {
        let device = self.model.devices().first().cloned().unwrap_or_default();
        let device = device.without_autodiff();
        let mut states = IndexMap::new();
        for (id, entry) in calibration {
            let state =
                entry
                    .to_quantization(&device)
                    .map_err(|reason| Error::InvalidCalibration {
                        target: id.clone(),
                        reason,
                    })?;
            states.insert(id.clone(), state);
        }
        let targets: Vec<TargetId> = states.keys().cloned().collect();
        self.attach(&targets, Some(Mode::Quantization))?;
        for (id, entry) in calibration {
            let fits = self.spaces[id]
                .shape()
                .map(|shape| entry.check_shape(&shape));
            fits.unwrap_or(Ok(()))
                .map_err(|reason| Error::InvalidCalibration {
                    target: id.clone(),
                    reason,
                })?;
        }
        for (id, state) in states {
            self.spaces[&id].set_quantization(Some(state));
            self.spaces[&id].claim(Mode::Quantization);
        }
        Ok(())
    }

    /// The plain model with its raw parameters: neither masked nor quantized.
    pub fn unwrap_model(self) -> M {
        attach::settle_statistics(&self.model);
        attach::plain(self.model)
    }

    /// Runs all compressors of the chain and returns the model with everything they learned.
    ///
    /// With [`Budget::none`] nothing is trained: pruners that need no gradients generate their
    /// masks. Otherwise one training run drives all compressors. After
    /// [`resume`](Self::resume), the run goes on where the checkpoint was written; the budget is
    /// that of the whole run.
    ///
    /// # Errors
    ///
    /// A missing evaluator, a budget that is too short for a schedule, a loss that is not finite,
    /// a simulated layer that the model never calls, or the error of an algorithm.
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
        crate::training::run(self, budget, stop)
    }

    /// Finishes a run that [`advance`](Self::advance) has taken to its end.
    ///
    /// # Errors
    ///
    /// The error of an algorithm.
    pub fn finish(mut self) -> Result<Compressed<M>, Error> {
        let progress = &self.progress;
        let (step, total_steps) = (progress.step, progress.total_steps);
        for algorithm in self.algorithms.iter_mut().rev() {
            let run = Run {
                model: &self.model,
                step,
                total_steps,
            };
            let name = algorithm.name();
            algorithm.finish(run).map_err(|source| Error::Algorithm {
                algorithm: name,
                source,
            })?;
        }
        for algorithm in self.algorithms.iter_mut().rev() {
            let run = Run {
                model: &self.model,
                step,
                total_steps,
            };
            let name = algorithm.name();
            let values = algorithm.rewrite(run).map_err(|source| Error::Algorithm {
                algorithm: name,
                source,
            })?;
            self.model = crate::params::with_parameters(self.model, values)?;
        }
        Compressed::new(self.model, self.progress.history)
    }

    /// Writes everything that a run needs to go on bit for bit to one file.
    ///
    /// # Errors
    ///
    /// The file could not be written; a file that was there before is intact then.
    pub fn save_checkpoint(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        crate::checkpoint::save(self, path.as_ref())
    }

    /// Continues the run that [`save_checkpoint`](Self::save_checkpoint) wrote, in a chain that was
    /// built with the same configuration.
    ///
    /// # Errors
    ///
    /// A file that is missing, damaged, or written by a chain of other algorithms or targets.
    pub fn resume(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        crate::checkpoint::load(self, path.as_ref())
    }
}

/// How long a run trains, and where it leaves checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub(crate) length: Length,
    pub(crate) checkpoint: Option<(std::path::PathBuf, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Steps(usize),
    Epochs(usize),
}

impl Budget {
    /// No training at all.
    pub fn none() -> Self {
        Self::steps(0)
    }

    /// A number of optimizer steps; the data starts over when it ends.
    pub fn steps(steps: usize) -> Self {
        Self {
            length: Length::Steps(steps),
            checkpoint: None,
        }
    }

    /// A number of passes over the evaluator's data.
    pub fn epochs(epochs: usize) -> Self {
        Self {
            length: Length::Epochs(epochs),
            checkpoint: None,
        }
    }

    /// Writes a checkpoint to `path` every `steps` steps, replacing the one before.
    pub fn with_checkpoint(mut self, path: impl Into<std::path::PathBuf>, steps: usize) -> Self {
        self.checkpoint = Some((path.into(), steps.max(1)));
        self
    }
}
