//! Requested and reached sparsity of layers.

use burn_compress_core::graph::SlicePlan;
use burn_compress_core::layer::{LayerInfo, ParamInfo, channel_dims};
use burn_compress_core::{Masks, Target, TargetId};
use indexmap::IndexMap;

use crate::change::Change;

/// Slices of a cut, and masks that stay.
pub(crate) struct Removal<'a> {
    pub slices: &'a SlicePlan,
    /// The masks that are left behind the cut.
    pub left: &'a Masks,
    /// The sparsity that was asked for, by target.
    pub goals: &'a IndexMap<TargetId, f64>,
}

/// Cut of one layer.
pub(crate) struct LayerLoss {
    pub target: TargetId,
    pub before: Vec<usize>,
    pub after: Vec<usize>,
    pub asked: Option<f64>,
    pub reached: f64,
    pub channels: Option<Change>,
}

impl Removal<'_> {
    /// The shape that is left of the parameter at `path`.
    pub fn after<'b>(&'b self, path: &str, before: &'b [usize]) -> &'b [usize] {
        let slice = self.slices.params.get(path);
        slice.map_or(before, |slice| &slice.shape)
    }

    /// The number of parameters, without running statistics.
    pub fn params(&self, layers: &[LayerInfo]) -> Change {
        let mut change = Change { dense: 0, small: 0 };
        for layer in layers {
            for param in &layer.params {
                let path = TargetId::new(&layer.path, Target::param(&param.name)).to_string();
                change.dense += elements(&param.shape);
                change.small += elements(self.after(&path, &param.shape));
            }
        }
        change
    }

    /// The bytes of all values as `f32`, running statistics included.
    pub fn bytes(&self, shapes: &IndexMap<String, Vec<usize>>) -> Change {
        let after = |(path, shape): (&String, &Vec<usize>)| 4 * elements(self.after(path, shape));
        Change {
            dense: shapes.values().map(|shape| 4 * elements(shape)).sum(),
            small: shapes.iter().map(after).sum(),
        }
    }

    /// Cut of `layer`: of the parameter with a goal, or of its largest. `None` for a layer without
    /// parameters.
    pub fn of(&self, layer: &LayerInfo) -> Option<LayerLoss> {
        let id = |param: &ParamInfo| TargetId::new(&layer.path, Target::param(&param.name));
        let mut asked = layer
            .params
            .iter()
            .filter(|param| self.goals.contains_key(&id(param)));
        let param = asked.next().or_else(|| largest(&layer.params))?;
        let target = id(param);
        let path = target.to_string();
        let after = self.after(&path, &param.shape).to_vec();
        let channels = channels(layer, param, &after);
        let rows = channels.map_or(1.0, |channels| {
            channels.small as f64 / channels.dense.max(1) as f64
        });
        let masked = self.left.get(&target).map_or(0.0, |mask| mask.sparsity());
        Some(LayerLoss {
            before: param.shape.clone(),
            after,
            asked: self.goals.get(&target).copied(),
            reached: 1.0 - rows * (1.0 - masked),
            channels,
            target,
        })
    }
}

/// The output channels of a parameter that has the shape `after` behind the cut.
pub(crate) fn channels(layer: &LayerInfo, param: &ParamInfo, after: &[usize]) -> Option<Change> {
    let dim = channel_dims(&layer.kind, &param.name, param.shape.len()).output?;
    Some(Change {
        dense: *param.shape.get(dim)? as u64,
        small: *after.get(dim)? as u64,
    })
}

/// The first of the parameters with the most elements.
pub(crate) fn largest(params: &[ParamInfo]) -> Option<&ParamInfo> {
    params
        .iter()
        .rev()
        .max_by_key(|param| elements(&param.shape))
}

/// The number of elements of a shape.
pub(crate) fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&size| size as u64).product()
}
