//! Masks, scales and hidden states of targets, in PyTorch's names and layout.

use burn_compress::target::{Target, TargetId};
use burn_compress::{CalibrationEntry, FlatTensor, Grid, Mask, Masks};
use indexmap::IndexMap;

use super::array::Array;
use super::case::{CaseError, Result};
use super::layout;
use super::model::RefModel;

/// The target that a file writes as `LAYER.TARGET`.
///
/// # Errors
///
/// When the text is not a target.
pub fn parse(model: &RefModel, name: &str) -> Result<TargetId> {
    let (layer, target) = name
        .rsplit_once('.')
        .ok_or_else(|| CaseError::Failed(format!("`{name}` is not a target")))?;
    id(model, layer, target)
}

/// A target of a layer.
///
/// # Errors
///
/// When the text is not a target.
pub fn id(model: &RefModel, layer: &str, target: &str) -> Result<TargetId> {
    let target: Target = layout::burn_target(model.kind(layer), target)
        .parse()
        .map_err(|error| CaseError::Failed(format!("`{layer}.{target}`: {error}")))?;
    Ok(TargetId::new(layer, target))
}

/// PyTorch's name of a target.
pub fn name(model: &RefModel, id: &TargetId) -> String {
    let target = id.target.to_string();
    format!(
        "{}.{}",
        id.layer,
        layout::torch_target(model.kind(&id.layer), &target)
    )
}

/// What belongs to a target from one layout to the other.
pub fn convert(model: &RefModel, id: &TargetId, array: &Array) -> Array {
    layout::convert(model.kind(&id.layer), &id.target.to_string(), array)
}

/// Masks by PyTorch's names.
pub fn masks(model: &RefModel, masks: &Masks) -> IndexMap<String, Array> {
    masks
        .iter()
        .map(|(id, mask)| (name(model, id), mask_array(model, id, mask)))
        .collect()
}

/// A mask as an array.
pub fn mask_array(model: &RefModel, id: &TargetId, mask: &Mask) -> Array {
    convert(
        model,
        id,
        &Array::float(mask.shape(), mask.values().to_vec()),
    )
}

/// One value for each block of a target, shaped as the file shapes it: one block for the whole
/// target has the shape `[1]`.
///
/// # Errors
///
/// When there are no values yet.
pub fn block_values(
    model: &RefModel,
    id: &TargetId,
    grid: &Grid,
    values: Option<&Vec<f32>>,
) -> Result<Array> {
    let values =
        values.ok_or_else(|| CaseError::Failed(format!("`{id}` has no values for its blocks")))?;
    if grid.blocks().iter().all(|blocks| *blocks == 1) {
        return Ok(Array::float([1], values.clone()));
    }
    Ok(convert(
        model,
        id,
        &Array::float(grid.blocks(), values.clone()),
    ))
}

/// The grid of a target of `rank` dims whose scale the file gives with this shape, and the values
/// in the grid's order.
pub fn grid(model: &RefModel, id: &TargetId, rank: usize, array: &Array) -> (Grid, Vec<f32>) {
    if array.shape == [1] {
        return (Grid::per_tensor(rank), array.values.clone());
    }
    let array = convert(model, id, array);
    (Grid::new(array.shape), array.values)
}

/// Tracked ranges, scales and zero points under the names that the files use.
///
/// # Errors
///
/// When something has no value yet.
pub fn calibration(
    model: &RefModel,
    id: &TargetId,
    entry: &CalibrationEntry,
) -> IndexMap<&'static str, Result<Array>> {
    let values = |values| block_values(model, id, &entry.grid, values);
    IndexMap::from([
        ("tracked_min", values(entry.minimum.as_ref())),
        ("tracked_max", values(entry.maximum.as_ref())),
        ("scale", values(entry.scale.as_ref())),
        ("zero_point", values(entry.zero_point.as_ref())),
    ])
}

/// A hidden state or gradient as an array.
///
/// # Errors
///
/// When the device does not hand over its values.
pub fn flat(tensor: &FlatTensor) -> Result<Array> {
    let values = tensor
        .to_vec()
        .map_err(|error| CaseError::Failed(error.to_string()))?;
    Ok(Array::float(tensor.shape.clone(), values))
}
