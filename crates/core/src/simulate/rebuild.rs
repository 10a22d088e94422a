//! Putting a compressed model together again from its parts, after its channels were removed or
//! after it was loaded.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;

use crate::Error;
use crate::erased::AnyModel;
use crate::layer::layers;
use crate::run::compressed::Compressed;
use crate::run::history::History;
use crate::simulate::attach;
use crate::simulate::masks::Masks;
use crate::simulate::quantization::Calibration;
use crate::simulate::space::Phase;
use crate::simulate::transform::Stage;
use crate::target::{Mode, TargetId};

/// The masks and the calibration that a model carries, for instance one that was sped up or loaded.
///
/// # Errors
///
/// A device failed to hand over its values.
pub fn simulated<M: Module>(model: &M) -> Result<(Masks, Calibration), Error> {
    let spaces = attach::spaces(model);
    Ok((attach::masks(&spaces), attach::calibration(&spaces)?))
}

impl<M: Module + 'static> Compressed<M> {
    /// Attaches masks and calibration to a model.
    ///
    /// A plain model has these afterwards and no others. Simulations that the model already
    /// carries, for instance those of an earlier run, go on; the mask or the calibration of a
    /// target that is given one here is replaced. To start anew, pass the model of
    /// [`unwrap_model`](Self::unwrap_model). Clones of the model are left alone.
    ///
    /// # Errors
    ///
    /// A target that the model does not have, a mask that does not fit its target, a calibration
    /// that cannot be used, and a parameter with another reparameterization, such as a LoRA
    /// adapter.
    pub fn from_parts(
        model: M,
        masks: &Masks,
        calibration: &Calibration,
        history: History,
    ) -> Result<Self, Error> {
        let model = AnyModel::new(model);
        Ok(from_parts(model, masks, calibration, history)?.into_typed())
    }
}

fn from_parts(
    model: AnyModel,
    masks: &Masks,
    calibration: &Calibration,
    history: History,
) -> Result<Compressed<AnyModel>, Error> {
    // A snapshot has copies of the states that the model carries.
    let model = model.valid();
    let mut spaces = attach::spaces(&model);
    let unmasked = calibration.keys().filter(|id| !masks.contains_key(*id));
    let missing: Vec<TargetId> = masks
        .keys()
        .chain(unmasked)
        .filter(|id| !spaces.contains_key(*id))
        .cloned()
        .collect();
    let device = model
        .devices()
        .first()
        .map_or_else(Device::default, |device| device.clone().without_autodiff());
    let layers = layers(&model);
    let new = attach::new_spaces(&layers, &missing, &Arc::new(Phase::default()))?;
    let model = attach::attach(model, &new)?;
    spaces.extend(new);
    for (id, mask) in masks {
        let space = &spaces[id];
        mask.check_rank(id, &layers)?;
        space.claim(Mode::Pruning);
        space.set_transform(Stage::Mask, None);
        space.set_mask(Some(mask.clone()))?;
    }
    for (id, entry) in calibration {
        let space = &spaces[id];
        let quantization = entry.quantization_of(id, space.shape(), &device)?;
        space.claim(Mode::Quantization);
        space.set_transform(Stage::Quantize, None);
        space.set_quantization(Some(quantization));
    }
    Compressed::new(model, history)
}
