//! Numbers of layers that no parameter holds, `groups` of a convolution for example.

use std::any::Any;

use burn::module::Module;
use burn::nn::attention::MultiHeadAttention;
use burn::nn::conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
use burn::nn::{BiGru, BiLstm, GroupNorm, Gru, InstanceNorm, Lstm};

use crate::graph::LayerSizes;
use crate::simulate::walk::{self, Edited};

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
