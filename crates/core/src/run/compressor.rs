//! The chain of compressors that are fused over one model.

mod targets;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{AdamConfig, ModuleOptimizer};
use parking_lot::Mutex;

use crate::Error;
use crate::file::checkpoint::Profile;
use crate::graph;
use crate::graph::{Captured, ChannelGraph, ChannelId, CutFailure, Trial};
use crate::layer::{LayerInfo, layers};
use crate::run::algorithm::{Algorithm, Run};
use crate::run::budget::Budget;
use crate::run::compressed::Compressed;
use crate::run::evaluator::Evaluator;
use crate::run::history::History;
use crate::run::learnable::Learnable;
use crate::run::obstacle::Obstacle;
use crate::run::reads::Unread;
use crate::simulate::attach::{self, Spaces};
use crate::simulate::folding::Folding;
use crate::simulate::rebuild::set_groups;
use crate::simulate::space::Phase;

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
    /// The layers whose parameters the forward pass uses past their wrapper.
    bypassed: OnceLock<Vec<String>>,
    skipped: Vec<Obstacle>,
    pub(crate) progress: Progress,
}

/// Where a run stands.
pub(crate) struct Progress {
    pub(crate) step: usize,
    pub(crate) total_steps: usize,
    pub(crate) epoch: usize,
    pub(crate) position: usize,
    pub(crate) prepared: bool,
    /// Backward passes since the optimizer stepped: several where a `Learner` accumulates.
    pub(crate) pass: usize,
    pub(crate) optimizer: Option<ModuleOptimizer>,
    pub(crate) schedule: Option<ModuleLrScheduler>,
    /// Steps the learnables that have a learning rate of their own.
    pub(crate) adam: ModuleOptimizer,
    pub(crate) history: History,
    /// What the history does not have yet.
    pub(crate) unread: Unread,
    /// What checkpoints of a run of this length hold of the evaluator.
    pub(crate) profile: Mutex<Option<Profile>>,
}

impl Progress {
    /// What an algorithm is shown of the run.
    pub(crate) fn run<'a, M>(&self, model: &'a M) -> Run<'a, M> {
        Run {
            model,
            step: self.step,
            total_steps: self.total_steps,
        }
    }
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
            pass: 0,
            optimizer: evaluator.optimizer(),
            schedule: evaluator.learning_rate(),
            adam: AdamConfig::new().with_epsilon(1e-8).init(),
            history: History::default(),
            unread: Unread::default(),
            profile: Mutex::default(),
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
            bypassed: OnceLock::new(),
            skipped: Vec::new(),
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
            self.progress.profile = Mutex::default();
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

    /// The forward pass of the plain model, captured with the dummy input.
    ///
    /// # Errors
    ///
    /// No dummy input, and a forward pass that cannot be captured.
    pub fn captured(&self, algorithm: &'static str) -> Result<Captured, Error> {
        let dummy = self.evaluator.require_dummy_input(algorithm)?;
        attach::capture(&self.model, dummy)
    }

    /// What the configurations of the chain select and its compressors leave as it is, because it
    /// cannot be pruned and a rule sets `on_unprunable` to `skip`.
    pub fn skipped(&self) -> &[Obstacle] {
        &self.skipped
    }

    /// Notes what a compressor leaves as it is although its configuration selects it, and warns.
    pub fn skip(&mut self, algorithm: &'static str, obstacles: Vec<Obstacle>) {
        for obstacle in &obstacles {
            log::warn!("{algorithm} skips {obstacle}");
        }
        self.skipped.extend(obstacles);
    }

    /// The wrapped layers whose parameters the forward pass of the dummy input uses without a call
    /// of the wrapper; none where no dummy input tells.
    pub(crate) fn bypassed(&self) -> &[String] {
        self.bypassed.get_or_init(|| {
            let dummy = self.evaluator.dummy_input();
            let plain = || attach::plain(self.model.valid());
            let calls = dummy.and_then(|dummy| graph::calls(plain(), dummy));
            let is_bypassed = |layer: &&LayerInfo| {
                layer.wrapped && calls.as_ref().is_some_and(|calls| calls.bypass(layer))
            };
            let layers = self.layers.iter().filter(is_bypassed);
            layers.map(|layer| layer.path.clone()).collect()
        })
    }

    /// Tries on the capture device, which computes nothing, whether the forward pass follows when
    /// channels are cut off: for each of `sets` why it does not, `None` if it does.
    ///
    /// # Errors
    ///
    /// Those of [`graph`](Self::graph).
    pub fn trial_cut(
        &self,
        algorithm: &'static str,
        sets: &[BTreeSet<ChannelId>],
    ) -> Result<Vec<Option<CutFailure>>, Error> {
        let graph = self.graph(algorithm)?;
        let dummy = self.evaluator.require_dummy_input(algorithm)?;
        let plain = attach::plain(self.model.valid());
        Ok(Trial::new(plain, dummy, &graph, set_groups).failures(sets))
    }

    /// The tensors that the chain trains beside the model, those of the oldest algorithm first.
    pub fn learnables(&self) -> Vec<Arc<Learnable>> {
        crate::run::training::learnables(&self.algorithms)
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
        crate::run::training::run(self, budget, stop)
    }

    /// Finishes a run that [`advance`](Self::advance) has taken to its end.
    ///
    /// # Errors
    ///
    /// [`Error::NotBegun`] and [`Error::Unfinished`] for a run that is not at its end,
    /// [`Error::NotFinite`] for a model with values that are not finite, and the error of an
    /// algorithm.
    pub fn finish(self) -> Result<Compressed<M>, Error> {
        self.require_end()?;
        self.finish_early()
    }

    /// Refuses a run that has steps left.
    pub(crate) fn require_end(&self) -> Result<(), Error> {
        let (done, total) = (self.progress.step, self.progress.total_steps);
        match done < total {
            true => Err(Error::Unfinished { done, total }),
            false => Ok(()),
        }
    }

    /// Finishes a run wherever it is.
    ///
    /// What the compressors would have done in the remaining steps is not done: masks that a
    /// schedule has not generated yet are missing, and goals are those of the last update.
    ///
    /// # Errors
    ///
    /// Those of [`finish`](Self::finish), but for [`Error::Unfinished`].
    pub fn finish_early(mut self) -> Result<Compressed<M>, Error> {
        if !self.progress.prepared {
            return Err(Error::NotBegun);
        }
        let run = self.progress.run(&self.model);
        for algorithm in self.algorithms.iter_mut().rev() {
            let name = algorithm.name();
            algorithm.finish(run).map_err(Error::met_by(name))?;
        }
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
            self.model = crate::simulate::params::with_parameters(self.model, values)?;
        }
        crate::run::finite::require(&self.model, &self.spaces, self.progress.step)?;
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let compressed = Compressed::new(self.model, self.progress.history)?;
        Ok(compressed
            .with_skipped(self.skipped)
            .with_warnings(warnings))
    }

    /// Writes everything that a run needs to go on bit for bit to one file.
    ///
    /// # Errors
    ///
    /// The file could not be written, or the model holds values that are not finite; a file that was
    /// there before is intact then.
    pub fn save_checkpoint(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        crate::file::checkpoint::save(self, path.as_ref())
    }

    /// Continues the run that [`save_checkpoint`](Self::save_checkpoint) wrote, in a chain that was
    /// built with the same configuration.
    ///
    /// What is compared: the settings of each algorithm and of each of its targets (see
    /// [`Algorithm::configuration`]), the weights of teachers, and of the evaluator the seed, the
    /// learning rates and the optimizer. Burn does not show what an optimizer was made with, so both
    /// are compared by the state that they keep and by the steps that they make of test parameters:
    /// the kind, its numbers, parameter groups and gradient clipping. A clipping at more than
    /// 30,000, and any difference that moves those steps by less than a hundred-thousandth, are not
    /// seen. What no data can describe is not compared: the batches, the loss function, the
    /// evaluation, the functions that run teachers, and the code of the model.
    ///
    /// The length of the run is no part of the configuration: the budget given next counts.
    ///
    /// # Errors
    ///
    /// A file that is missing, damaged, or written by a chain of other algorithms or targets;
    /// [`Error::Changed`] with every setting that is another one.
    pub fn resume(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        crate::file::checkpoint::load(self, path.as_ref(), false)
    }

    /// Continues the run that [`save_checkpoint`](Self::save_checkpoint) wrote, with the
    /// configuration of this chain where it is another one.
    ///
    /// Position, model, masks and history are those of the checkpoint. The settings of this chain
    /// count from the next step on: a schedule goes on from the same step on its own curve, a target
    /// that is quantized otherwise begins with a new range, and an optimizer that keeps another state
    /// begins with none.
    ///
    /// # Errors
    ///
    /// Those of [`resume`](Self::resume), but for [`Error::Changed`].
    pub fn resume_with_changes(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        crate::file::checkpoint::load(self, path.as_ref(), true)
    }
}
