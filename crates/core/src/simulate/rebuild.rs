//! Putting a compressed model together again from its parts, after its channels were removed or
//! after it was loaded.

use std::any::Any;
use std::sync::Arc;

use burn::module::Module;
use burn::nn::attention::MultiHeadAttention;
use burn::nn::conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
use burn::nn::{BiGru, BiLstm, GroupNorm, Gru, InstanceNorm, Lstm};
use burn::tensor::Device;

use crate::Error;
use crate::erased::AnyModel;
use crate::graph::LayerSizes;
use crate::layer::layers;
use crate::run::compressed::Compressed;
use crate::run::history::History;
use crate::simulate::attach;
use crate::simulate::masks::Masks;
use crate::simulate::quantization::Calibration;
use crate::simulate::space::Phase;
use crate::simulate::transform::Stage;
use crate::simulate::walk::{self, Edited};
use crate::target::{Mode, TargetId};

/// Walks `model` and applies `change` to the layer inside each wrapper, with its path.
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

/// The masks and the calibration that a model carries, for instance one that was sped up or loaded.
///
/// # Errors
///
/// A device failed to hand over its values.
pub fn simulated<M: Module>(model: &M) -> Result<(Masks, Calibration), Error> {
    let spaces = attach::spaces(model);
    Ok((attach::masks(&spaces), attach::calibration(&spaces)?))
}

/// Sets numbers of wrapped layers that no parameter holds, and returns those that no wrapped layer
/// has.
pub fn set_sizes<M: Module>(model: M, sizes: LayerSizes) -> (M, LayerSizes) {
    if sizes.is_empty() {
        return (model, sizes);
    }
    edit_layers(model, sizes, |sizes, path, layer| {
        if let Some(fields) = sizes.get_mut(path) {
            fields.retain(|field, value| !set_size(layer, field, *value));
            if fields.is_empty() {
                sizes.remove(path);
            }
        }
    })
}

/// Whether the layer has a field of this name that follows its channels.
fn set_size(layer: &mut dyn Any, field: &str, value: usize) -> bool {
    macro_rules! set {
        ($($layer:ty: $($name:ident),+;)+) => {$(
            if let Some(layer) = layer.downcast_mut::<$layer>() {
                $(if field == stringify!($name) {
                    layer.$name = value;
                    return true;
                })+
            }
        )+};
    }
    set! {
        Conv1d: groups;
        Conv2d: groups;
        Conv3d: groups;
        ConvTranspose1d: groups;
        ConvTranspose2d: groups;
        ConvTranspose3d: groups;
        GroupNorm: num_groups, num_channels;
        InstanceNorm: num_channels;
        Lstm: d_hidden;
        Gru: d_hidden;
        MultiHeadAttention: d_model, n_heads;
    }
    // The two directions of these share the number.
    macro_rules! set_both {
        ($($layer:ty),+) => {$(
            if let Some(layer) = layer.downcast_mut::<$layer>()
                && field == "d_hidden"
            {
                layer.d_hidden = value;
                layer.forward.d_hidden = value;
                layer.reverse.d_hidden = value;
                return true;
            }
        )+};
    }
    set_both!(BiLstm, BiGru);
    false
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
