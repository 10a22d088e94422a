//! The chain of compressors that are fused over one model, as programs see it: with the types of the
//! model and of the batches.

mod targets;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use burn::module::Module;
use burn::optim::OptimizerRecord;

use crate::Error;
use crate::erased::AnyModel;
use crate::graph::ChannelGraph;
use crate::layer::LayerInfo;
use crate::run::any_chain::AnyChain;
use crate::run::chain::Chain;
use crate::run::evaluator::Evaluator;
use crate::run::history::History;
use crate::run::observer::RunObserver;
use crate::run::obstacle::Obstacle;

/// Pruners, quantizers and distillers fused over one model.
///
/// The constructors of the algorithms (`TaylorPruner::new`, `QatQuantizer::from_compressor`, ..)
/// return a `Compressor`; fusing hands it on, so that each later algorithm finds the wrappers,
/// masks, scales and the evaluator of the earlier ones. [`compress`](Self::compress) on the last
/// drives all of them in one training run.
pub struct Compressor<M, I> {
    pub(crate) inner: AnyChain,
    pub(crate) evaluator: Evaluator<M, I>,
}

impl<M: fmt::Debug, I> fmt::Debug for Compressor<M, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<M: Module + 'static, I: 'static> Compressor<M, I> {
    /// A chain over `model` that holds no algorithm yet.
    ///
    /// The chain works on its own copy: neither the batch-norm statistics nor the wrappers of other
    /// clones of `model` are touched. Simulations that the model already carries, for instance the
    /// quantization of a sped-up model, go on.
    pub fn from_model(model: M, evaluator: Evaluator<M, I>) -> Self {
        let inner = AnyChain::new(AnyModel::new(model), evaluator.erased());
        Self { inner, evaluator }
    }

    /// The chain as authors of algorithms see it.
    pub fn chain(&mut self) -> Chain<'_, M, I> {
        Chain::new(&mut self.inner, self.evaluator.clone())
    }

    /// Gives an evaluator to a chain that has none.
    ///
    /// A chain that has one keeps it and warns, as compressors that are fused share the first.
    pub fn with_evaluator(mut self, evaluator: Evaluator<M, I>) -> Self {
        if self.inner.adopt_evaluator(|| evaluator.erased()) {
            self.evaluator = evaluator;
        }
        self
    }

    /// Adds an observer, which is told of steps, masks and evaluations of the run.
    pub fn with_observer(mut self, observer: impl RunObserver + 'static) -> Self {
        self.inner.events.observers.push(Box::new(observer));
        self
    }

    /// Leaves the terminal alone, where [`compress`](Self::compress) and
    /// [`advance`](Self::advance) would draw a line with step, losses, sparsity, metric and time left.
    ///
    /// Nothing is drawn in any case where the standard error is not a terminal.
    pub fn without_progress_line(mut self) -> Self {
        self.inner.events.has_line = false;
        self
    }

    /// The evaluator that all compressors of the chain use.
    pub fn evaluator(&self) -> &Evaluator<M, I> {
        &self.evaluator
    }

    /// The model with its simulations, as it trains.
    pub fn model(&self) -> &M {
        self.inner.model.get()
    }

    /// The layers of the model, in module order.
    pub fn layers(&self) -> &[LayerInfo] {
        &self.inner.layers
    }

    /// The names of the fused algorithms, oldest first.
    pub fn algorithms(&self) -> Vec<&'static str> {
        self.inner.algorithms()
    }

    /// The channels of the model and how they are coupled, captured once with the dummy input.
    ///
    /// # Errors
    ///
    /// No dummy input, a forward pass that cannot be captured, or an operation that the analysis
    /// does not know.
    pub fn graph(&self, algorithm: &'static str) -> Result<Arc<ChannelGraph>, Error> {
        self.inner.graph(algorithm)
    }

    /// As [`graph`](Self::graph), with [whole heads](ChannelGraph::analyze_heads) as channels along the
    /// parameter dimensions `heads`.
    ///
    /// # Errors
    ///
    /// Those of [`graph`](Self::graph), and dimensions that no reshape takes apart.
    pub fn graph_of_heads(
        &self,
        algorithm: &'static str,
        heads: &BTreeSet<(String, usize)>,
    ) -> Result<Arc<ChannelGraph>, Error> {
        self.inner.graph_of_heads(algorithm, heads)
    }

    /// Selected targets that the compressors leave as they are, because they cannot be pruned and a
    /// rule sets `on_unprunable` to `skip`.
    pub fn skipped(&self) -> &[Obstacle] {
        &self.inner.skipped
    }

    /// The state of the model's optimizer, its moments for example; none before the first step.
    ///
    /// A small model goes on with it where the channels that were cut are taken out, too.
    pub fn optimizer_record(&self) -> Option<OptimizerRecord> {
        let record = self.inner.progress.optimizer.as_ref()?.to_record();
        (!record.is_empty()).then_some(record)
    }

    /// Record of each step so far.
    pub fn history(&self) -> &History {
        &self.inner.progress.history
    }

    /// The plain model with its raw parameters: neither masked nor quantized.
    pub fn unwrap_model(self) -> M {
        self.inner.unwrap_model().into_typed()
    }
}
