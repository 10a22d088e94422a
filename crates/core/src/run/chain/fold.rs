//! Batch norms that act inside the layer before them.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv2d, Conv3d};
use burn::nn::{BatchNorm, Linear};
use indexmap::IndexMap;

use super::Chain;
use crate::Error;
use crate::graph::Successor;
use crate::simulate::folding::{Folding, Part, refused};
use crate::simulate::reading::Fold;
use crate::simulate::walk::{self, Edited};
use crate::target::{Target, TargetId};

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
        let refuse = |reason: String| Err(refused(host, norm, reason));
        for folding in &self.foldings {
            for layer in [host, norm] {
                if [folding.host(), folding.norm()].contains(&layer) {
                    return refuse(format!("`{layer}` is folded already"));
                }
            }
        }
        let (is_host, epsilon) = self.inspect(host, norm);
        let Some(epsilon) = epsilon else {
            return refuse(format!("`{norm}` is no wrapped batch norm"));
        };
        if !is_host {
            return refuse(format!(
                "`{host}` is no wrapped convolution and no wrapped linear layer"
            ));
        }
        let phase = self.phase.clone();
        let folding = Arc::new(Folding::new(host, norm, epsilon, fold, phase));
        let mut acting = self.spaces.values().filter(|space| !space.is_idle());
        let hidden = acting.find(|space| folding.hides(space.id(), space.acting_mode()));
        if let Some(id) = hidden.map(|space| space.id()) {
            return refuse(format!(
                "a compressor of this chain has claimed `{id}`, which the folded model does not \
                 have: leave it out, or leave the norm unfolded"
            ));
        }
        // The weight is read through its simulation, also where nothing else is simulated.
        self.compressor
            .attach(&[TargetId::new(host, Target::param("weight"))], None)?;
        let parts = folding.clone();
        let (model, ()) = walk::edit(self.model.clone(), (), move |(), found| {
            if let Edited::Wrapper { path, ports, .. } = found {
                let part = match path {
                    path if path == parts.host() => Part::Host,
                    path if path == parts.norm() => Part::Norm,
                    _ => return,
                };
                ports.set_path(path);
                ports.set_folding(Some((part, parts.clone())));
            }
        });
        self.compressor.model = model;
        self.compressor.foldings.push(folding.clone());
        Ok(folding)
    }

    /// Whether a norm can be folded into the layer `host`, and the epsilon of the batch norm `norm`.
    fn inspect(&self, host: &str, norm: &str) -> (bool, Option<f64>) {
        let (host, norm) = (host.to_string(), norm.to_string());
        let (_, found) = walk::edit(self.model.clone(), (false, None), move |seen, found| {
            if let Edited::Wrapper { path, layer, .. } = found {
                if path == host {
                    seen.0 = layer.is::<Conv1d>()
                        || layer.is::<Conv2d>()
                        || layer.is::<Conv3d>()
                        || layer.is::<Linear>();
                } else if path == norm {
                    seen.1 = layer.downcast_ref::<BatchNorm>().map(|norm| norm.epsilon);
                }
            }
        });
        found
    }
}
