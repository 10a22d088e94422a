//! Putting a compressed model together again from its parts, after its channels were removed or
//! after it was loaded.

use std::any::Any;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;

use crate::Error;
use crate::attach;
use crate::compressed::{Calibration, Compressed, Masks};
use crate::history::History;
use crate::layer::layers;
use crate::space::Phase;
use crate::target::{Mode, TargetId};
use crate::walk::{self, Edited};

/// Walks `model` and lets `change` alter the layer inside each wrapper, with its path.
///
/// Constants of a layer, such as the `groups` of a convolution, can be reached in no other way.
pub fn edit_layers<M: Module, S: 'static>(
    model: M,
    state: S,
    mut change: impl FnMut(&mut S, &str, &mut dyn Any) + 'static,
) -> (M, S) {
    walk::edit(model, state, move |state, found| {
        if let Edited::Wrapper { path, layer, .. } = found {
            change(state, path, layer);
        }
    })
}

impl<M: Module + 'static> Compressed<M> {
    /// Attaches masks and calibration to a plain model.
    ///
    /// # Errors
    ///
    /// A target that the model does not have, a mask that does not fit its parameter, or a
    /// calibration that cannot be used.
    pub fn from_parts(
        model: M,
        masks: &Masks,
        calibration: &Calibration,
        history: History,
    ) -> Result<Self, Error> {
        let mut targets: Vec<TargetId> = masks.keys().cloned().collect();
        targets.extend(
            calibration
                .keys()
                .filter(|id| !masks.contains_key(*id))
                .cloned(),
        );
        let device = model
            .devices()
            .first()
            .map_or_else(Device::default, |device| device.clone().without_autodiff());
        let spaces = attach::new_spaces(&layers(&model), &targets, &Arc::new(Phase::default()))?;
        for (id, mask) in masks {
            let space = &spaces[id];
            if let Some(expected) = space.shape().filter(|shape| *shape != mask.shape()) {
                return Err(Error::ShapeMismatch {
                    target: id.clone(),
                    what: "its mask",
                    expected,
                    found: mask.shape().to_vec(),
                });
            }
            space.claim(Mode::Pruning);
            space.set_mask(Some(mask.clone()))?;
        }
        for (id, entry) in calibration {
            let quantization =
                entry
                    .to_quantization(&device)
                    .map_err(|reason| Error::InvalidCalibration {
                        target: id.clone(),
                        reason,
                    })?;
            let space = &spaces[id];
            let fits = space.shape().map(|shape| entry.check_shape(&shape));
            fits.unwrap_or(Ok(()))
                .map_err(|reason| Error::InvalidCalibration {
                    target: id.clone(),
                    reason,
                })?;
            space.claim(Mode::Quantization);
            space.set_quantization(Some(quantization));
        }
        Self::new(attach::attach(model, &spaces)?, history)
    }
}
