//! The compression state of a small model: found by carrying the plan out on masks and
//! calibration as well.

use std::collections::BTreeMap;

use burn_compress_core::graph::{LayerSizes, ParamSlice, SlicePlan};
use burn_compress_core::{Calibration, CalibrationEntry, Masks, Target, TargetId};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::reindex::{reindex_calibration, reindex_mask};

/// The compression state of a small model: what is still simulated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SmallState {
    /// Masks of values that could not be removed, and masks of quantized parameters.
    pub masks: Masks,
    /// Scales, zero points and ranges by target.
    pub calibration: Calibration,
    /// Numbers that layers hold beside their parameters and that follow the channels: `groups` of
    /// depthwise convolutions, `num_channels` of norms.
    pub sizes: LayerSizes,
}

/// The masks and the calibration after the plan is carried out.
pub(crate) fn reindex_state(
    plan: &SlicePlan,
    shapes: &IndexMap<String, Vec<usize>>,
    masks: &Masks,
    calibration: &Calibration,
) -> Result<SmallState, SpeedupError> {
    let mut state = SmallState {
        sizes: plan.layer_sizes(),
        ..SmallState::default()
    };
    for (target, mask) in masks {
        let sliced = TargetSlice::find(plan, shapes, target, mask.shape())?;
        if let Some(mask) = reindex_mask(&target.to_string(), mask, &sliced.shape, &sliced.slice)? {
            state.masks.insert(target.clone(), mask);
        }
    }
    for (target, entry) in calibration {
        let mut entry = entry.clone();
        check_zero(plan, target, &entry)?;
        if entry.grid.len() > 1 {
            let sliced = TargetSlice::find(plan, shapes, target, entry.grid.blocks())?;
            entry = reindex_calibration(&target.to_string(), &entry, &sliced.shape, &sliced.slice)?;
        }
        state.calibration.insert(target.clone(), entry);
    }
    Ok(state)
}

/// Checks that a quantized input or output that loses channels keeps zero at zero.
///
/// A removed channel is exactly zero, and the quantizer must leave it so: `round(clamp(z)) = z`. A
/// zero point that is no integer of the type, as LSQ+ learns them, turns zero into a constant.
fn check_zero(
    plan: &SlicePlan,
    target: &TargetId,
    entry: &CalibrationEntry,
) -> Result<(), SpeedupError> {
    if !entry.enabled || !plan.ports.iter().any(|port| port.target == *target) {
        return Ok(());
    }
    if entry.dtype.is_binary() {
        return Err(SpeedupError::Reindex {
            target: target.to_string(),
            reason: "its type int1 has no zero, so that quantization turns the zeros of removed \
                     channels into another value; do not quantize this target, or do not prune the \
                     channels before it"
                .to_string(),
        });
    }
    let moves = |zero: &&f32| zero.clamp(entry.qmin, entry.qmax).round_ties_even() != **zero;
    match entry.zero_point.iter().flatten().find(moves) {
        Some(zero) => Err(SpeedupError::Reindex {
            target: target.to_string(),
            reason: format!(
                "its zero point {zero} is no {}, so that quantization turns the zeros of removed \
                 channels into another value; round the zero point or do not quantize this target",
                entry.dtype
            ),
        }),
        None => Ok(()),
    }
}

/// The shape of a target before slicing and what stays of it.
struct TargetSlice {
    shape: Vec<usize>,
    slice: ParamSlice,
}

impl TargetSlice {
    /// `extent` is the shape of the mask or grid: inputs and outputs have no shape of their own.
    fn find(
        plan: &SlicePlan,
        shapes: &IndexMap<String, Vec<usize>>,
        target: &TargetId,
        extent: &[usize],
    ) -> Result<Self, SpeedupError> {
        let path = target.to_string();
        let whole = |keep| ParamSlice {
            path: path.clone(),
            keep,
            columns: None,
            shape: Vec::new(),
        };
        if let Target::Param(_) = target.target {
            let shape = shapes
                .get(&path)
                .ok_or_else(|| SpeedupError::UnknownParameter { path: path.clone() })?;
            let slice = plan.params.get(&path).cloned();
            let slice = slice.unwrap_or_else(|| whole(BTreeMap::new()));
            return Ok(Self {
                shape: shape.clone(),
                slice,
            });
        }
        let error = |reason: String| SpeedupError::Reindex {
            target: path.clone(),
            reason,
        };
        if plan.ambiguous_ports.contains(target) {
            let reason = "its layer is called several times and keeps other channels each time";
            return Err(error(reason.to_string()));
        }
        let mut shape = extent.to_vec();
        let mut keep = BTreeMap::new();
        if let Some(port) = plan.ports.iter().find(|port| port.target == *target) {
            let Some(size) = shape.get_mut(port.dim) else {
                return Err(error(format!("{extent:?} has no dimension {}", port.dim)));
            };
            *size = port.size;
            keep.insert(port.dim, port.keep.clone());
        }
        Ok(Self {
            shape,
            slice: whole(keep),
        })
    }
}
