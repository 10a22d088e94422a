//! The chain of compressors that are fused over one model.

mod targets;

use std::fmt;
use std::sync::{Arc, OnceLock};

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{AdamConfig, ModuleOptimizer, OptimizerRecord};
use parking_lot::Mutex;

use crate::Error;
use crate::config::ConfigList;
use crate::file::checkpoint::profile::Profile;
use crate::graph::{self, ChannelGraph};
use crate::layer::{LayerInfo, layers};
use crate::run::algorithm::{Algorithm, Run};
use crate::run::chain::Chain;
use crate::run::evaluator::Evaluator;
use crate::run::history::History;
use crate::run::learnable::Learnable;
use crate::run::method::Method;
use crate::run::obstacle::Obstacle;
use crate::run::unread::Unread;
use crate::simulate::attach::{self, Spaces};
use crate::simulate::folding::Folding;
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
    pub(crate) skipped: Vec<Obstacle>,
    pub(crate) progress: Progress,
}

/// Position of a run.
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
    /// Steps that are not in the history yet.
    pub(crate) unread: Unread,
    /// Fingerprint of the evaluator in checkpoints of a run of this length.
    pub(crate) profile: Mutex<Option<Profile>>,
}

impl Progress {
    /// The run as it is given to an algorithm.
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

    /// Fuses one more algorithm, with the targets that `rules` select.
    ///
    /// # Errors
    ///
    /// Whatever the method rejects, with its name.
    pub fn with<A: Method<M, I>>(
        mut self,
        rules: impl Into<ConfigList<A::Settings>>,
        method: A,
    ) -> Result<Self, Error> {
        let name = method.name();
        let added = method.add_to(&mut self.chain(), &rules.into());
        added.map_err(|error| error.of(name))?;
        Ok(self)
    }

    /// The chain as authors of algorithms see it.
    pub fn chain(&mut self) -> Chain<'_, M, I> {
        Chain { compressor: self }
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

    /// Selected targets that the compressors leave as they are, because they cannot be pruned and a
    /// rule sets `on_unprunable` to `skip`.
    pub fn skipped(&self) -> &[Obstacle] {
        &self.skipped
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

    /// The state of the model's optimizer, its moments for example; none before the first step.
    ///
    /// A small model goes on with it where the channels that were cut are taken out, too.
    pub fn optimizer_record(&self) -> Option<OptimizerRecord> {
        let record = self.progress.optimizer.as_ref()?.to_record();
        (!record.is_empty()).then_some(record)
    }

    /// Record of each step so far.
    pub fn history(&self) -> &History {
        &self.progress.history
    }

    /// The plain model with its raw parameters: neither masked nor quantized.
    pub fn unwrap_model(self) -> M {
        attach::settle_statistics(&self.model);
        attach::plain(self.model)
    }
}

/// The tensors that the chain trains for its algorithms.
pub(crate) fn learnables<M: Module + 'static, I: 'static>(
    algorithms: &[Box<dyn Algorithm<M, I>>],
) -> Vec<Arc<Learnable>> {
    algorithms
        .iter()
        .flat_map(|algorithm| algorithm.learnables())
        .collect()
}
