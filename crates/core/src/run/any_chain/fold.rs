//! Batch norms that act inside the layer before them.

use std::sync::Arc;

use burn::nn::conv::{Conv1d, Conv2d, Conv3d};
use burn::nn::{BatchNorm, Linear};

use super::AnyChain;
use crate::Error;
use crate::simulate::folding::{Folding, Part, refused};
use crate::simulate::reading::Fold;
use crate::simulate::walk::{self, Edited};
use crate::target::{Target, TargetId};

impl AnyChain {
    /// Folds a batch norm into the layer before it.
    pub(crate) fn fold(
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
        let folding = Arc::new(Folding::new(host, norm, epsilon, fold, self.phase.clone()));
        let mut acting = self.spaces.values().filter(|space| !space.is_idle());
        let hidden = acting.find(|space| folding.hides(space.id(), space.acting_mode()));
        if let Some(id) = hidden.map(|space| space.id()) {
            return refuse(format!(
                "a compressor of this chain has claimed `{id}`, which the folded model does not \
                 have: leave it out, or leave the norm unfolded"
            ));
        }
        // The weight is read through its simulation, also where nothing else is simulated.
        self.attach(&[TargetId::new(host, Target::param("weight"))], None)?;
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
        self.model = model;
        self.foldings.push(folding.clone());
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
