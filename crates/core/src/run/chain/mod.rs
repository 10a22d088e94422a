//! The chain as authors of algorithms see it.

mod claim;
mod fold;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use burn::module::Module;

use crate::Error;
use crate::erased::{self, AnyBatch, AnyModel};
use crate::graph::{Captured, ChannelGraph, ChannelId, CutFailure};
use crate::layer::LayerInfo;
use crate::run::algorithm::Algorithm;
use crate::run::any_chain::AnyChain;
use crate::run::evaluator::Evaluator;
use crate::run::learnable::Learnable;
use crate::run::obstacle::Obstacle;
use crate::simulate::attach;
use crate::simulate::folding::Folding;
use crate::simulate::masks::Masks;

/// A chain to which a [`Method`](crate::Method) adds its algorithm.
///
/// Beside what users see of a [`Compressor`](crate::Compressor) too ([`model`](Self::model),
/// [`layers`](Self::layers), [`graph`](Self::graph), [`evaluator`](Self::evaluator),
/// [`masks`](Self::masks)), it has what only an algorithm needs:
///
/// - the forward pass: [`captured`](Self::captured), [`successors`](Self::successors),
///   [`trial_cut`](Self::trial_cut);
/// - its targets: [`claim`](Self::claim), [`watch`](Self::watch), [`release`](Self::release),
///   [`space`](Self::space), [`skip`](Self::skip), [`warn`](Self::warn);
/// - batch norms that are folded: [`fold`](Self::fold), [`foldings`](Self::foldings);
/// - the algorithms: [`push`](Self::push), [`pop`](Self::pop), [`learnables`](Self::learnables).
pub struct Chain<'a, M, I> {
    inner: &'a mut AnyChain,
    evaluator: Evaluator<M, I>,
}

impl<M, I> fmt::Debug for Chain<'_, M, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<'a, M: Module + 'static, I: 'static> Chain<'a, M, I> {
    pub(crate) fn new(inner: &'a mut AnyChain, evaluator: Evaluator<M, I>) -> Self {
        Self { inner, evaluator }
    }

    /// The chain without the types of model and batch: what a method does with it is compiled once.
    ///
    /// Methods that are written for all types go through it, as the built-in ones do, so that a
    /// program that compresses many types of models is not compiled for each of them.
    pub fn erased(&mut self) -> Chain<'_, AnyModel, AnyBatch> {
        let evaluator = self.inner.evaluator.clone();
        Chain::new(self.inner, evaluator)
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

    /// The masks of all pruners of the chain.
    pub fn masks(&self) -> Masks {
        attach::masks(&self.inner.spaces)
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

    /// The forward pass of the plain model, captured with the dummy input.
    ///
    /// # Errors
    ///
    /// No dummy input, and a forward pass that cannot be captured.
    pub fn captured(&self, algorithm: &'static str) -> Result<Captured, Error> {
        self.inner.captured(algorithm)
    }

    /// Tries on the capture device, which computes nothing, whether the forward pass follows when
    /// channels of `graph` are cut off: for each of `sets` why it does not, `None` if it does.
    ///
    /// # Errors
    ///
    /// Those of [`Compressor::graph`](crate::Compressor::graph).
    pub fn trial_cut(
        &self,
        algorithm: &'static str,
        graph: &ChannelGraph,
        sets: &[BTreeSet<ChannelId>],
    ) -> Result<Vec<Option<CutFailure>>, Error> {
        self.inner.trial_cut(algorithm, graph, sets)
    }

    /// Logs a warning of `algorithm`, and keeps it for
    /// [`Compressed::warnings`](crate::Compressed::warnings); the same one once.
    pub fn warn(&self, algorithm: &'static str, warning: impl fmt::Display) {
        self.inner.warn(format!("{algorithm}: {warning}"));
    }

    /// Notes what a compressor leaves as it is although its configuration selects it, and warns.
    pub fn skip(&mut self, algorithm: &'static str, obstacles: Vec<Obstacle>) {
        self.inner.skip(algorithm, obstacles);
    }

    /// The norms that are folded into their hosts, in the order in which that began.
    pub fn foldings(&self) -> &[Arc<Folding>] {
        &self.inner.foldings
    }

    /// The tensors that the chain trains beside the model, those of the oldest algorithm first.
    pub fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.inner.learnables()
    }

    /// Adds an algorithm as the newest of the chain.
    pub fn push(&mut self, algorithm: impl Algorithm<M, I>) {
        self.inner
            .algorithms
            .push(erased::pushed(Box::new(algorithm)));
    }

    /// Takes the newest algorithm off the chain, for a schedule that drives it.
    ///
    /// One that was pushed onto an [erased](Self::erased) chain, as the built-in ones are, sees the
    /// batches of a run alone: outside of one its `loss` is an error.
    pub fn pop(&mut self) -> Option<Box<dyn Algorithm<M, I>>> {
        self.inner.algorithms.pop().map(erased::taken)
    }
}
