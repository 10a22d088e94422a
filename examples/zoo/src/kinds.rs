//! Rows of the table of layer kinds for the layers that have parameters of their own.

use burn_compress_core::layer::{KindError, LayerKind, LayerRole};

/// Types of the layers that have parameters of their own: ConvNeXt's scale of a block, ViT's class
/// token and positions, Swin's biases of distances.
pub const OWN_LAYERS: [&str; 4] = ["Block", "VisionTransformer", "Encoder", "WindowAttention"];

/// Registers where these parameters have their channels.
///
/// Once in a program that prunes them; again it changes nothing.
///
/// # Errors
///
/// If the program has another row for a type of one of these names.
pub fn register_layers() -> Result<(), KindError> {
    let rows = [
        ("layer_scale", 0),
        ("class_token", 2),
        ("pos_embedding", 2),
        ("relative_position_bias_table", 1),
    ];
    OWN_LAYERS
        .iter()
        .zip(rows)
        .try_for_each(|(kind, (parameter, dim))| {
            LayerKind::new(*kind, LayerRole::Weighted)
                .with_param(parameter, Some(dim), None)
                .register()
        })
}

#[cfg(test)]
mod tests {
    use burn_compress_core::layer::channel_dims;

    use super::*;

    #[test]
    fn rows_are_registered_once() {
        register_layers().unwrap();
        register_layers().unwrap();
        let dims = channel_dims("WindowAttention", "relative_position_bias_table", 2);
        assert_eq!(dims.output, Some(1));
        assert_eq!(channel_dims("Encoder", "pos_embedding", 3).output, Some(2));
    }
}
