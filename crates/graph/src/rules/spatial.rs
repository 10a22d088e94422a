//! Operations on feature maps `[batch, channels, ..]`: pooling, interpolation, padding, unfolding.

use burn_ir::{GridSample2dOpIr, PadModeIr, PadOpIr, TensorIr, Unfold4dOpIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::labels::Axis;
use super::super::operation::number;
use super::reduce;

/// Pooling and interpolation: batch and channels pass, and zero stays zero.
pub(super) fn pool(a: &mut Analysis, x: &TensorIr, out: &TensorIr) -> Result<(), GraphError> {
    feature_map(a, x, out, reduce::zero)
}

/// Max pooling, whose result is never an element of a padding with minus infinity.
pub(super) fn max_pool(a: &mut Analysis, x: &TensorIr, out: &TensorIr) -> Result<(), GraphError> {
    let unpadded = a.padded.get(&x.id).cloned();
    pool(a, unpadded.as_ref().unwrap_or(x), out)
}

/// Positions of the largest elements.
pub(super) fn pool_indices(
    a: &mut Analysis,
    x: &TensorIr,
    out: &TensorIr,
) -> Result<(), GraphError> {
    feature_map(a, x, out, reduce::lost)
}

fn feature_map(
    a: &mut Analysis,
    x: &TensorIr,
    out: &TensorIr,
    f: impl Fn(f64) -> Option<f64>,
) -> Result<(), GraphError> {
    if x.shape.to_vec().len() < 2 {
        return Err(a.shape_error(&[x, out]));
    }
    let spatial: Vec<usize> = (2..x.shape.to_vec().len()).collect();
    reduce::dims(a, x, &spatial, out, f);
    Ok(())
}

/// Sampling at a grid of positions, the same for every channel.
pub(super) fn grid_sample(a: &mut Analysis, op: &GridSample2dOpIr) {
    let grid = a.value(&op.grid);
    for axis in grid.axes.iter().flatten() {
        a.protect(axis, "is read as a position by `grid_sample2d`");
    }
    reduce::dims(a, &op.tensor, &[2, 3], &op.out, reduce::zero);
}

/// Padding: channels along a padded dimension must stay; along the others zero padding keeps zero.
pub(super) fn pad(a: &mut Analysis, op: &PadOpIr) {
    let value = a.value(&op.input);
    let fill = match op.mode {
        PadModeIr::Constant(fill) => Some(number(fill)),
        PadModeIr::Reflect | PadModeIr::Edge => None,
    };
    if fill == Some(f64::NEG_INFINITY) {
        a.padded.insert(op.out.id, op.input.clone());
    }
    let padded: Vec<usize> = (0..value.shape.len())
        .filter(|&dim| op.out.shape.to_vec()[dim] != value.shape[dim])
        .collect();
    reduce::dims(a, &op.input, &padded, &op.out, |x| {
        fill.is_none_or(|fill| fill == x).then_some(x)
    });
}

/// Windows of a feature map as columns: `[n, c, h, w] -> [n, c * kh * kw, windows]`.
pub(super) fn unfold4d(a: &mut Analysis, op: &Unfold4dOpIr) -> Result<(), GraphError> {
    let value = a.value_at(&op.x, 1);
    if value.shape.len() != 4 {
        return Err(a.shape_error(&[&op.x, &op.out]));
    }
    for axis in value.axes[2..].iter().flatten() {
        a.protect(axis, "is cut into windows by `unfold4d`");
    }
    let kernel = op.kernel_size[0] * op.kernel_size[1];
    let channels = value.axes[1].as_ref().and_then(|axis| {
        let columns = axis.take((0..value.shape[1] * kernel).map(|i| i / kernel))?;
        // Windows over the padding hold zeros.
        Some(Axis {
            value: columns
                .value
                .iter()
                .map(|v| v.and_then(reduce::zero))
                .collect(),
            ..columns
        })
    });
    let batch = value.axes[0].as_ref().map(|axis| axis.map(reduce::zero));
    a.set(&op.out, vec![batch, channels, None], value.data);
    Ok(())
}
