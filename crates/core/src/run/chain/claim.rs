//! The targets of a chain, and the compressors that claim them.

use std::sync::Arc;

use burn::module::Module;

use super::Chain;
use crate::Error;
use crate::simulate::space::TargetSpace;
use crate::target::{Mode, TargetId};

impl<M: Module + 'static, I: 'static> Chain<'_, M, I> {
    /// The states of all targets that compressors have claimed, in the order of their claims.
    pub fn spaces(&self) -> impl Iterator<Item = &Arc<TargetSpace>> {
        self.inner.spaces.values()
    }

    /// The state of one target.
    pub fn space(&self, id: &TargetId) -> Option<&Arc<TargetSpace>> {
        self.inner.spaces.get(id)
    }

    /// Claims targets for a compressor of `mode` and attaches what they lack: a simulation to a
    /// parameter, a state to the input or output of a wrapper.
    ///
    /// # Errors
    ///
    /// A target that the model does not have, that another compressor of the mode has claimed, or
    /// whose parameter has another reparameterization, such as a LoRA adapter. Nothing is claimed
    /// then.
    pub fn claim(
        &mut self,
        mode: Mode,
        targets: &[TargetId],
    ) -> Result<Vec<Arc<TargetSpace>>, Error> {
        self.inner.claim(mode, targets)
    }

    /// Frees targets that a compressor of `mode` has claimed and does not act on after all.
    pub fn release(&mut self, mode: Mode, targets: &[TargetId]) {
        self.inner.release(mode, targets);
    }

    /// Attaches what targets lack as [`claim`](Self::claim) does, but leaves them free for any
    /// compressor: for algorithms that steer a target without masking or rounding it.
    ///
    /// # Errors
    ///
    /// A target that the model does not have, or whose parameter has another reparameterization;
    /// nothing is attached then.
    pub fn watch(&mut self, targets: &[TargetId]) -> Result<Vec<Arc<TargetSpace>>, Error> {
        self.inner.watch(targets)
    }
}
