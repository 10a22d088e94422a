//! The targets of a chain, and the compressors that claim them.

use std::sync::Arc;

use burn::module::Module;
use indexmap::IndexSet;

use super::Chain;
use crate::Error;
use crate::simulate::space::TargetSpace;
use crate::target::{Mode, TargetId};

impl<M: Module + 'static, I: 'static> Chain<'_, M, I> {
    /// The states of all targets that compressors have claimed, in the order of their claims.
    pub fn spaces(&self) -> impl Iterator<Item = &Arc<TargetSpace>> {
        self.spaces.values()
    }

    /// The state of one target.
    pub fn space(&self, id: &TargetId) -> Option<&Arc<TargetSpace>> {
        self.spaces.get(id)
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
        for id in targets {
            if self
                .spaces
                .get(id)
                .is_some_and(|space| space.is_claimed(mode))
            {
                return Err(Error::TargetTaken {
                    target: id.clone(),
                    mode,
                });
            }
        }
        self.require_calls(targets)?;
        self.compressor.attach(targets, Some(mode))?;
        let spaces = targets.iter().map(|id| self.spaces[id].clone());
        let claimed: Vec<_> = spaces.collect();
        claimed.iter().for_each(|space| space.claim(mode));
        Ok(claimed)
    }

    /// Frees targets that a compressor of `mode` has claimed and does not act on after all.
    pub fn release(&mut self, mode: Mode, targets: &[TargetId]) {
        let spaces = targets.iter().filter_map(|id| self.spaces.get(id));
        spaces.for_each(|space| space.unclaim(mode));
    }

    /// Attaches what targets lack as [`claim`](Self::claim) does, but leaves them free for any
    /// compressor: for algorithms that steer a target without masking or rounding it.
    ///
    /// # Errors
    ///
    /// A target that the model does not have, or whose parameter has another reparameterization;
    /// nothing is attached then.
    pub fn watch(&mut self, targets: &[TargetId]) -> Result<Vec<Arc<TargetSpace>>, Error> {
        self.compressor.attach(targets, None)?;
        Ok(targets.iter().map(|id| self.spaces[id].clone()).collect())
    }

    /// Refuses inputs and outputs of layers whose forward pass does not run in their wrapper.
    fn require_calls(&self, targets: &[TargetId]) -> Result<(), Error> {
        let is_port = |id: &&TargetId| !id.target.is_param();
        let known = |id: &&TargetId| self.layers.iter().any(|layer| layer.path == id.layer);
        let mut ports = targets.iter().filter(is_port).filter(known).peekable();
        if ports.peek().is_none() {
            return Ok(());
        }
        let bypassed = self.bypassed();
        let layers: IndexSet<String> = ports
            .map(|id| id.layer.clone())
            .filter(|layer| bypassed.contains(layer))
            .collect();
        match layers.is_empty() {
            true => Ok(()),
            false => Err(Error::Bypassed {
                layers: layers.into_iter().collect(),
            }),
        }
    }
}
