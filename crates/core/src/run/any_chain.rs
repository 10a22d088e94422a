//! The chain of compressors that are fused over one model, of whatever type.

mod fold;
mod targets;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{AdamConfig, ModuleOptimizer};
use parking_lot::Mutex;

use crate::Error;
use crate::erased::{AnyBatch, AnyModel};
use crate::file::checkpoint::profile::Profile;
use crate::graph;
use crate::graph::{Captured, ChannelGraph, ChannelId, CutFailure, Trial};
use crate::layer::{LayerInfo, layers};
use crate::run::algorithm::{Algorithm, Run};
use crate::run::evaluator::Evaluator;
use crate::run::events::Events;
use crate::run::graphs::Graphs;
use crate::run::history::History;
use crate::run::learnable::Learnable;
use crate::run::obstacle::Obstacle;
use crate::run::unread::Unread;
use crate::simulate::attach::{self, Spaces};
use crate::simulate::folding::Folding;
use crate::simulate::sizes::set_sizes;
use crate::simulate::space::Phase;

/// The chain behind a [`Compressor`](crate::Compressor): all that it does, compiled once for models of
/// any type.
pub(crate) struct AnyChain {
    pub(crate) model: AnyModel,
    pub(crate) layers: Vec<LayerInfo>,
    pub(crate) spaces: Spaces,
    pub(crate) phase: Arc<Phase>,
    pub(crate) algorithms: Vec<Box<dyn Algorithm<AnyModel, AnyBatch>>>,
    pub(crate) evaluator: Evaluator<AnyModel, AnyBatch>,
    pub(crate) foldings: Vec<Arc<Folding>>,
    pub(crate) graphs: Graphs,
    /// The layers whose parameters the forward pass uses past their wrapper.
    bypassed: OnceLock<Vec<String>>,
    pub(crate) skipped: Vec<Obstacle>,
    /// Warnings before the end of the run, in their order.
    warnings: Mutex<Vec<String>>,
    pub(crate) progress: Progress,
    pub(crate) events: Events,
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

impl fmt::Debug for AnyChain {
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

impl AnyChain {
    /// A chain over its own copy of `model` that holds no algorithm yet.
    pub(crate) fn new(model: AnyModel, evaluator: Evaluator<AnyModel, AnyBatch>) -> Self {
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
            graphs: Graphs::default(),
            bypassed: OnceLock::new(),
            skipped: Vec::new(),
            warnings: Mutex::default(),
            progress,
            events: Events::default(),
        }
    }

    /// Takes an evaluator over if there is none yet; whether it was taken.
    pub(crate) fn adopt_evaluator(
        &mut self,
        evaluator: impl FnOnce() -> Evaluator<AnyModel, AnyBatch>,
    ) -> bool {
        if !self.evaluator.is_empty() {
            self.warn("the chain already has an evaluator; the one passed now is ignored");
            return false;
        }
        self.evaluator = evaluator();
        self.progress.optimizer = self.evaluator.optimizer();
        self.progress.schedule = self.evaluator.learning_rate();
        self.progress.profile = Mutex::default();
        true
    }

    /// The names of the fused algorithms, oldest first.
    pub(crate) fn algorithms(&self) -> Vec<&'static str> {
        self.algorithms
            .iter()
            .map(|algorithm| algorithm.name())
            .collect()
    }

    /// The channels of the model and how they are coupled, captured once with the dummy input.
    pub(crate) fn graph(&self, algorithm: &'static str) -> Result<Arc<ChannelGraph>, Error> {
        self.graph_of_heads(algorithm, &BTreeSet::new())
    }

    /// As [`graph`](Self::graph), with whole heads as channels along the parameter dimensions `heads`.
    pub(crate) fn graph_of_heads(
        &self,
        algorithm: &'static str,
        heads: &BTreeSet<(String, usize)>,
    ) -> Result<Arc<ChannelGraph>, Error> {
        let dummy = self.evaluator.require_dummy_input(algorithm)?;
        let capture = || attach::capture(&self.model, dummy);
        self.graphs.graph(heads, capture)
    }

    /// The forward pass of the plain model, captured with the dummy input.
    pub(crate) fn captured(&self, algorithm: &'static str) -> Result<Captured, Error> {
        let dummy = self.evaluator.require_dummy_input(algorithm)?;
        let captured = self
            .graphs
            .captured(|| attach::capture(&self.model, dummy))?;
        Ok(captured.as_ref().clone())
    }

    /// Logs a warning, and keeps it for the result of the run; the same one once.
    pub(crate) fn warn(&self, warning: impl Into<String>) {
        let (warning, mut warnings) = (warning.into(), self.warnings.lock());
        if !warnings.contains(&warning) {
            log::warn!("{warning}");
            warnings.push(warning);
        }
    }

    /// The warnings so far, which are gone from the chain then.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }

    /// Notes what a compressor leaves as it is although its configuration selects it, and warns.
    pub(crate) fn skip(&mut self, algorithm: &'static str, obstacles: Vec<Obstacle>) {
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
    /// channels of `graph` are cut off: for each of `sets` why it does not, `None` if it does.
    pub(crate) fn trial_cut(
        &self,
        algorithm: &'static str,
        graph: &ChannelGraph,
        sets: &[BTreeSet<ChannelId>],
    ) -> Result<Vec<Option<CutFailure>>, Error> {
        let dummy = self.evaluator.require_dummy_input(algorithm)?;
        let plain = attach::plain(self.model.valid());
        Ok(Trial::new(plain, dummy, graph, set_sizes).failures(sets))
    }

    /// The tensors that the chain trains beside the model, those of the oldest algorithm first.
    pub(crate) fn learnables(&self) -> Vec<Arc<Learnable>> {
        learnables(&self.algorithms)
    }

    /// The plain model with its raw parameters: neither masked nor quantized.
    pub(crate) fn unwrap_model(self) -> AnyModel {
        attach::settle_statistics(&self.model);
        attach::plain(self.model)
    }
}

/// The tensors that the chain trains for its algorithms.
pub(crate) fn learnables(
    algorithms: &[Box<dyn Algorithm<AnyModel, AnyBatch>>],
) -> Vec<Arc<Learnable>> {
    algorithms
        .iter()
        .flat_map(|algorithm| algorithm.learnables())
        .collect()
}
