//! The network behind a teacher.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::{Error, TargetId, TargetSpace, tap};

use crate::teacher::fingerprint::fingerprint;

/// A network of any type that runs on batches of type `I`.
pub(crate) trait Source<I>: Send {
    fn tap(&mut self, targets: &[TargetId]) -> Result<Vec<Arc<TargetSpace>>, Error>;
    fn predict(&self, batch: &I) -> Option<Tensor<2>>;
    fn gives_logits(&self) -> bool;
    fn layers(&self) -> Vec<LayerInfo>;
    fn device(&self) -> Device;
    fn fingerprint(&self) -> Result<u64, Error>;
}

/// Runs the network on a batch and gives its logits, `[rows, classes]`, if it has any.
pub(crate) type Predict<T, I> = Box<dyn Fn(&T, &I) -> Option<Tensor<2>> + Send>;

/// A network and how batches are put to it.
pub(crate) struct Network<T, I> {
    pub(crate) network: T,
    pub(crate) gives_logits: bool,
    pub(crate) predict: Predict<T, I>,
}

impl<T: Module + 'static, I> Source<I> for Network<T, I> {
    fn tap(&mut self, targets: &[TargetId]) -> Result<Vec<Arc<TargetSpace>>, Error> {
        let (network, states) = tap(&self.network, targets)?;
        self.network = network;
        Ok(states)
    }

    fn predict(&self, batch: &I) -> Option<Tensor<2>> {
        (self.predict)(&self.network, batch)
    }

    fn gives_logits(&self) -> bool {
        self.gives_logits
    }

    fn layers(&self) -> Vec<LayerInfo> {
        layers(&self.network)
    }

    fn device(&self) -> Device {
        let device = self.network.devices().first().cloned();
        device.unwrap_or_default().without_autodiff()
    }

    fn fingerprint(&self) -> Result<u64, Error> {
        fingerprint(&self.network)
    }
}
