//! What is masked and calibrated in a chain.

use burn::module::Module;
use indexmap::IndexMap;

use super::Compressor;
use crate::Error;
use crate::simulate::attach;
use crate::simulate::folding;
use crate::simulate::mask::Mask;
use crate::simulate::masks::Masks;
use crate::simulate::quantization::Calibration;
use crate::target::{Mode, TargetId};

impl<M: Module + 'static, I: 'static> Compressor<M, I> {
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

    /// The masks of all pruners of the chain.
    pub fn masks(&self) -> Masks {
        attach::masks(&self.spaces)
    }

    /// Replaces masks, also of targets that no pruner has claimed.
    ///
    /// The shape of an input or output is that of the last forward pass, or what the dummy input of
    /// the evaluator gives. Where neither is there, the mask is checked in the first training step; a
    /// forward pass outside of training panics then if the mask does not fit.
    ///
    /// # Errors
    ///
    /// A target that cannot be attached, see [`Chain::watch`](crate::Chain::watch), or a mask of another shape;
    /// nothing is changed then.
    pub fn update_masks(&mut self, masks: &Masks) -> Result<(), Error> {
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

    /// The scales, zero points and ranges of all quantizers of the chain.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub fn calibration(&self) -> Result<Calibration, Error> {
        attach::calibration(&self.spaces)
    }

    /// Replaces scales, zero points and ranges, also of targets that no quantizer has claimed.
    ///
    /// # Errors
    ///
    /// A target that cannot be attached, see [`Chain::watch`](crate::Chain::watch), or values that cannot be used;
    /// nothing is changed then.
    pub fn update_calibration(&mut self, calibration: &Calibration) -> Result<(), Error> {
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
