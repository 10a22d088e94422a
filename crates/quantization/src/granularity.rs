//! Grids of blocks that share a scale.

use burn_compress_core::{Axes, Granularity, Grid, Target};

use crate::QuantizationError;

/// The blocks of `target` in a layer of type `kind`, when it has this shape.
///
/// # Errors
///
/// - a granularity that the target does not have;
/// - block sizes that do not divide the shape;
/// - blocks of an input or output that do not span the batch, dimension 0: a scale belongs to no
///   sample.
pub(crate) fn grid(
    granularity: &Granularity,
    kind: &str,
    target: &Target,
    shape: &[usize],
) -> Result<Grid, QuantizationError> {
    check_kind(granularity, target)?;
    if shape.contains(&0) {
        let shape = shape.to_vec();
        return Err(QuantizationError::NoValues { shape });
    }
    let axes = Axes::of(kind, target, shape.len());
    let per_tensor = Granularity::Block(vec![-1; shape.len()]);
    let grid = granularity.grid(shape, axes, &per_tensor);
    let grid = grid.map_err(|error| QuantizationError::Blocks {
        target: target.to_string(),
        error,
    })?;
    match grid.blocks().first() {
        Some(2..) if !target.is_param() => Err(reject(
            granularity,
            target,
            "blocks of inputs and outputs span the batch, begin the list with -1",
        )),
        _ => Ok(grid),
    }
}

/// Checks that the granularity exists for this kind of target, whatever its shape.
pub(crate) fn check_kind(
    granularity: &Granularity,
    target: &Target,
) -> Result<(), QuantizationError> {
    let reason = match (granularity, target.is_param()) {
        (Granularity::OutChannel | Granularity::InChannel, false) => {
            "only parameters have it, use `per_channel` for inputs and outputs"
        }
        (Granularity::PerChannel, true) => {
            "only inputs and outputs have it, use `out_channel` or `in_channel` for parameters"
        }
        (Granularity::Head | Granularity::HeadDim, _) => {
            "only pruning removes heads, use `out_channel` for a scale of each channel"
        }
        (Granularity::Padded { .. }, _) => {
            "only pruning pads at a chosen side, list the size of every dimension"
        }
        (Granularity::Block(sizes), _) if sizes.is_empty() => "the list of block sizes is empty",
        (Granularity::Block(sizes), _) if sizes.iter().any(|&size| size == 0 || size < -1) => {
            "block sizes are positive, or -1 for a whole dimension"
        }
        _ => return Ok(()),
    };
    Err(reject(granularity, target, reason))
}

fn reject(granularity: &Granularity, target: &Target, reason: &str) -> QuantizationError {
    QuantizationError::Granularity {
        granularity: granularity.to_string(),
        target: target.to_string(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Granularity::Default, "Conv2d", &[8, 4, 3, 3], &[1, 1, 1, 1])]
    #[case(Granularity::OutChannel, "Conv2d", &[8, 4, 3, 3], &[8, 1, 1, 1])]
    #[case(Granularity::InChannel, "Conv2d", &[8, 4, 3, 3], &[1, 4, 1, 1])]
    #[case(Granularity::OutChannel, "ConvTranspose2d", &[4, 8, 3, 3], &[1, 8, 1, 1])]
    #[case(Granularity::OutChannel, "Linear", &[6, 8], &[1, 8])]
    #[case(Granularity::InChannel, "Linear", &[6, 8], &[6, 1])]
    #[case(Granularity::Block(vec![3, 4]), "Linear", &[6, 8], &[2, 2])]
    #[case(Granularity::Block(vec![4]), "Linear", &[6, 8], &[6, 2])]
    #[case(Granularity::Block(vec![-1, 2]), "Linear", &[6, 8], &[1, 4])]
    fn blocks_of_weights(
        #[case] granularity: Granularity,
        #[case] kind: &str,
        #[case] shape: &[usize],
        #[case] expected: &[usize],
    ) {
        let found = grid(&granularity, kind, &Target::param("weight"), shape);
        assert_eq!(found.unwrap().blocks(), expected);
    }

    #[test]
    fn blocks_of_activations_span_the_batch() {
        let input = Target::Input(0);
        let grid = |granularity| grid(&granularity, "Conv2d", &input, &[2, 6, 5, 5]);
        let channels = grid(Granularity::PerChannel).unwrap();
        assert_eq!(channels.blocks(), [1, 6, 1, 1]);
        let groups = grid(Granularity::Block(vec![-1, 3, -1, -1])).unwrap();
        assert_eq!(groups.blocks(), [1, 2, 1, 1]);
        let error = grid(Granularity::Block(vec![3, -1, -1])).unwrap_err();
        assert!(
            error.to_string().contains("begin the list with -1"),
            "{error}"
        );
    }

    #[test]
    fn channels_of_a_linear_layer_over_sequences_are_its_features() {
        let blocks = grid(
            &Granularity::PerChannel,
            "Linear",
            &Target::Output(0),
            &[2, 5, 6],
        );
        assert_eq!(blocks.unwrap().blocks(), [1, 1, 6]);
    }

    #[test]
    fn vectors_have_no_input_channels() {
        let bias = Target::param("bias");
        let error = grid(&Granularity::InChannel, "Conv2d", &bias, &[8]).unwrap_err();
        let expected =
            "`bias`: granularity `in_channel` needs a parameter with an input-channel dim";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
