//! The chain as authors of algorithms see it.

mod claim;
mod fold;

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use burn::module::Module;

use crate::Error;
use crate::graph::{Captured, ChannelId, CutFailure, Trial};
use crate::run::algorithm::Algorithm;
use crate::run::compressor::{Compressor, learnables};
use crate::run::learnable::Learnable;
use crate::run::obstacle::Obstacle;
use crate::simulate::attach;
use crate::simulate::folding::Folding;
use crate::simulate::rebuild::set_sizes;

/// A chain to which a [`Method`](crate::Method) adds its algorithm.
///
/// What users see of a chain, they see of a [`Compressor`], and so does a method through this type:
/// model, layers, graph, evaluator, masks. What only an algorithm needs stands here:
///
/// - the forward pass: [`captured`](Self::captured), [`successors`](Self::successors),
///   [`trial_cut`](Self::trial_cut);
/// - its targets: [`claim`](Self::claim), [`watch`](Self::watch), [`release`](Self::release),
///   [`space`](Self::space), [`skip`](Self::skip);
/// - batch norms that are folded: [`fold`](Self::fold), [`foldings`](Self::foldings);
/// - the algorithms: [`push`](Self::push), [`pop`](Self::pop), [`learnables`](Self::learnables).
#[derive(Debug)]
pub struct Chain<'a, M, I> {
    pub(crate) compressor: &'a mut Compressor<M, I>,
}

impl<M, I> Deref for Chain<'_, M, I> {
    type Target = Compressor<M, I>;

    fn deref(&self) -> &Compressor<M, I> {
        self.compressor
    }
}

impl<M: Module + 'static, I: 'static> Chain<'_, M, I> {
    /// The forward pass of the plain model, captured with the dummy input.
    ///
    /// # Errors
    ///
    /// No dummy input, and a forward pass that cannot be captured.
    pub fn captured(&self, algorithm: &'static str) -> Result<Captured, Error> {
        let dummy = self.evaluator.require_dummy_input(algorithm)?;
        attach::capture(&self.model, dummy)
    }

    /// Tries on the capture device, which computes nothing, whether the forward pass follows when
    /// channels are cut off: for each of `sets` why it does not, `None` if it does.
    ///
    /// # Errors
    ///
    /// Those of [`Compressor::graph`].
    pub fn trial_cut(
        &self,
        algorithm: &'static str,
        sets: &[BTreeSet<ChannelId>],
    ) -> Result<Vec<Option<CutFailure>>, Error> {
        let graph = self.graph(algorithm)?;
        let dummy = self.evaluator.require_dummy_input(algorithm)?;
        let plain = attach::plain(self.model.valid());
        Ok(Trial::new(plain, dummy, &graph, set_sizes).failures(sets))
    }

    /// Notes what a compressor leaves as it is although its configuration selects it, and warns.
    pub fn skip(&mut self, algorithm: &'static str, obstacles: Vec<Obstacle>) {
        for obstacle in &obstacles {
            log::warn!("{algorithm} skips {obstacle}");
        }
        self.compressor.skipped.extend(obstacles);
    }

    /// The norms that are folded into their hosts, in the order in which that began.
    pub fn foldings(&self) -> &[Arc<Folding>] {
        &self.foldings
    }

    /// The tensors that the chain trains beside the model, those of the oldest algorithm first.
    pub fn learnables(&self) -> Vec<Arc<Learnable>> {
        learnables(&self.algorithms)
    }

    /// Adds an algorithm as the newest of the chain.
    pub fn push(&mut self, algorithm: impl Algorithm<M, I>) {
        self.compressor.algorithms.push(Box::new(algorithm));
    }

    /// Takes the newest algorithm off the chain, for a schedule that drives it.
    pub fn pop(&mut self) -> Option<Box<dyn Algorithm<M, I>>> {
        self.compressor.algorithms.pop()
    }
}
