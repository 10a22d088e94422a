//! The network behind a teacher.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::{Error, TargetId, TargetSpace, tap};

use crate::teacher::fingerprint::fingerprint;

/// Runs the network on a batch and gives its logits, `[rows, classes]`, if it has any.
pub(crate) type Predict<I> = Box<dyn Fn(&AnyModel, &I) -> Option<Tensor<2>> + Send>;

/// A network and how batches are put to it.
pub(crate) struct Network<I> {
    pub(crate) network: AnyModel,
    pub(crate) gives_logits: bool,
    pub(crate) predict: Predict<I>,
}

impl<I: 'static> Network<I> {
    /// The same for batches whose type is not known.
    pub(crate) fn erased(self) -> Network<AnyBatch> {
        let predict = self.predict;
        Network {
            network: self.network,
            gives_logits: self.gives_logits,
            predict: Box::new(move |network, batch| predict(network, batch.get())),
        }
    }
}

impl<I> Network<I> {
    pub(crate) fn tap(&mut self, targets: &[TargetId]) -> Result<Vec<Arc<TargetSpace>>, Error> {
        let (network, states) = tap(&self.network, targets)?;
        self.network = network;
        Ok(states)
    }

    pub(crate) fn predict(&self, batch: &I) -> Option<Tensor<2>> {
        (self.predict)(&self.network, batch)
    }

    pub(crate) fn gives_logits(&self) -> bool {
        self.gives_logits
    }

    pub(crate) fn layers(&self) -> Vec<LayerInfo> {
        layers(&self.network)
    }

    pub(crate) fn device(&self) -> Device {
        let device = self.network.devices().first().cloned();
        device.unwrap_or_default().without_autodiff()
    }

    pub(crate) fn fingerprint(&self) -> Result<u64, Error> {
        fingerprint(&self.network)
    }
}
