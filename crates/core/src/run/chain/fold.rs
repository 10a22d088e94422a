//! Batch norms that act inside the layer before them.

use std::sync::Arc;

use burn::module::Module;
use indexmap::IndexMap;

use super::Chain;
use crate::Error;
use crate::graph::Successor;
use crate::simulate::folding::Folding;
use crate::simulate::reading::Fold;

impl<M: Module + 'static, I: 'static> Chain<'_, M, I> {
    /// The wrapped layer that directly follows each wrapped layer, captured with the dummy input.
    ///
    /// # Errors
    ///
    /// No dummy input, and a forward pass that cannot be captured.
    pub fn successors(
        &self,
        algorithm: &'static str,
    ) -> Result<IndexMap<String, Successor>, Error> {
        Ok(self.captured(algorithm)?.successors())
    }

    /// Folds a batch norm into the layer before it, in every forward pass from now on, until
    /// [`Folding::end`].
    ///
    /// The simulation of the host's `weight` and `bias` then acts on the folded values, and their
    /// observers follow these in the forward passes of the training run. There the output is brought
    /// from the running statistics, which are folded, to those of the batch, on which a batch norm
    /// trains:
    ///
    /// ```text
    /// y' = beta + (y - beta) s_r / s_b + gamma (m_r - m_b) / s_b
    /// ```
    ///
    /// (Krishnamoorthi, arXiv 1806.08342, section 3.2.2.) Whether the norm directly
    /// follows its host is for the caller to find out, with [`successors`](Self::successors).
    ///
    /// # Errors
    ///
    /// [`Error::Folding`] unless `host` is a wrapped convolution or linear layer and `norm` a
    /// wrapped batch norm, when one of them is folded already, and when a compressor claims what
    /// the folded model does not have: inputs of the norm, outputs of the host, and parameters of
    /// the norm for anything but masks.
    pub fn fold(
        &mut self,
        host: &str,
        norm: &str,
        fold: Arc<dyn Fold>,
    ) -> Result<Arc<Folding>, Error> {
        self.inner.fold(host, norm, fold)
    }
}
