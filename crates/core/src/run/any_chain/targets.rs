//! The targets of a chain: claiming them, and what is masked and calibrated.

use std::sync::Arc;

use burn::module::Module;
use indexmap::{IndexMap, IndexSet};

use super::AnyChain;
use crate::Error;
use crate::simulate::attach;
use crate::simulate::folding;
use crate::simulate::mask::Mask;
use crate::simulate::masks::Masks;
use crate::simulate::quantization::Calibration;
use crate::simulate::space::TargetSpace;
use crate::target::{Mode, TargetId};

impl AnyChain {
    /// Claims targets for a compressor of `mode` and attaches what they lack: a simulation to a
    /// parameter, a state to the input or output of a wrapper.
    pub(crate) fn claim(
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
        self.attach(targets, Some(mode))?;
        let spaces = targets.iter().map(|id| self.spaces[id].clone());
        let claimed: Vec<_> = spaces.collect();
        claimed.iter().for_each(|space| space.claim(mode));
        Ok(claimed)
    }

    /// Frees targets that a compressor of `mode` has claimed and does not act on after all.
    pub(crate) fn release(&mut self, mode: Mode, targets: &[TargetId]) {
        let spaces = targets.iter().filter_map(|id| self.spaces.get(id));
        spaces.for_each(|space| space.unclaim(mode));
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

    /// Attaches what targets lack as [`claim`](Self::claim) does, but leaves them free for any
    /// compressor: for algorithms that steer a target without masking or rounding it.
    pub(crate) fn watch(&mut self, targets: &[TargetId]) -> Result<Vec<Arc<TargetSpace>>, Error> {
        self.attach(targets, None)?;
        Ok(targets.iter().map(|id| self.spaces[id].clone()).collect())
    }

    pub(crate) fn attach(&mut self, targets: &[TargetId], mode: Option<Mode>) -> Result<(), Error> {
        folding::check_claims(&self.foldings, targets, mode)?;
        let missing: Vec<TargetId> = targets
            .iter()
            .filter(|id| !self.spaces.contains_key(*id))
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let spaces = attach::new_spaces(&self.layers, &missing, &self.phase)?;
        self.model = attach::attach(self.model.clone(), &spaces)?;
        self.spaces.extend(spaces);
        Ok(())
    }

    /// Replaces masks, also of targets that no pruner has claimed.
    ///
    /// The shape of an input or output is that of the last forward pass, or what the dummy input of
    /// the evaluator gives. Where neither is there, the mask is checked in the first training step; a
    /// forward pass outside of training panics then if the mask does not fit.
    pub(crate) fn update_masks(&mut self, masks: &Masks) -> Result<(), Error> {
        let mut unknown = Vec::new();
        for (id, mask) in masks {
            match self.shape_of(id)? {
                Some(shape) => mask.check_shape(id, &shape)?,
                None => unknown.push((id, mask)),
            }
        }
        self.check_port_masks(&unknown)?;
        let targets: Vec<TargetId> = masks.keys().cloned().collect();
        self.attach(&targets, Some(Mode::Pruning))?;
        for (id, mask) in masks {
            self.spaces[id].set_mask(Some(mask.clone()))?;
            self.spaces[id].claim(Mode::Pruning);
        }
        Ok(())
    }

    /// Refuses masks of inputs and outputs that no forward pass has reached yet and that they do not
    /// fit, as far as that can be told.
    fn check_port_masks(&self, masks: &[(&TargetId, &Mask)]) -> Result<(), Error> {
        for (id, mask) in masks {
            mask.check_rank(id, &self.layers)?;
        }
        let Some(dummy) = self.evaluator.dummy_input().filter(|_| !masks.is_empty()) else {
            return Ok(());
        };
        // A model that cannot be captured can still be trained: its masks are checked there.
        let Ok(captured) = attach::capture(&self.model, dummy) else {
            return Ok(());
        };
        for (port, shape) in captured.port_shapes() {
            for (id, mask) in masks.iter().filter(|(id, _)| *id == port) {
                mask.check_shape(id, &shape)?;
            }
        }
        Ok(())
    }

    /// Replaces scales, zero points and ranges, also of targets that no quantizer has claimed.
    pub(crate) fn update_calibration(&mut self, calibration: &Calibration) -> Result<(), Error> {
        let device = self.model.devices().first().cloned().unwrap_or_default();
        let device = device.without_autodiff();
        let mut states = IndexMap::new();
        for (id, entry) in calibration {
            let state = entry.quantization_of(id, self.shape_of(id)?, &device)?;
            states.insert(id.clone(), state);
        }
        let targets: Vec<TargetId> = states.keys().cloned().collect();
        self.attach(&targets, Some(Mode::Quantization))?;
        for (id, state) in states {
            self.spaces[&id].set_quantization(Some(state));
            self.spaces[&id].claim(Mode::Quantization);
        }
        Ok(())
    }
    /// The shape of a target, also of one that nobody has claimed; none of an input or output that
    /// no pass has reached.
    fn shape_of(&self, id: &TargetId) -> Result<Option<Vec<usize>>, Error> {
        match self.spaces.get(id) {
            Some(space) => Ok(space.shape()),
            None => attach::shape_of(&self.layers, id),
        }
    }
}
