//! A model cut by a plan: plain parameters, and the state that stays simulated.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{FloatDType, Tensor, TensorData};
use burn_compress_core::graph::SlicePlan;
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::{Calibration, Mask, MaskMethod, Masks, TargetId};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::slice::{float_shapes, slice_module};
use crate::state::{SmallState, reindex_state};

/// A model before and after the cut, both plain.
pub(crate) struct Cut<M> {
    /// The whole model, its parameters multiplied by their masks.
    pub dense: M,
    /// The masks that are no part of its parameters.
    pub left: Masks,
    pub plan: SlicePlan,
    /// The small model.
    pub small: M,
    /// The state of the small model.
    pub state: SmallState,
}

impl<M: Module> Cut<M> {
    /// Cuts the raw model `dense`, which `masks` and `calibration` are simulated on.
    pub fn new(
        dense: M,
        plan: &SlicePlan,
        masks: &Masks,
        calibration: &Calibration,
    ) -> Result<Self, SpeedupError> {
        let shapes = float_shapes(&dense);
        let multiplied = masks.iter().filter(|(_, mask)| is_product(mask));
        let multiplied = multiplied.map(|(target, mask)| (target.to_string(), mask.clone()));
        let dense = dense.map(&mut Bake {
            path: Vec::new(),
            masks: multiplied.collect(),
        });
        let norms = layers(&dense).into_iter();
        let norms = norms.filter(LayerInfo::has_masked_statistics);
        let norms: BTreeSet<String> = norms.map(|layer| layer.path).collect();
        let is_baked = |target: &TargetId, mask: &Mask| {
            let is_plain = target.target.is_param() && is_product(mask);
            is_plain && !calibration.contains_key(target) && !norms.contains(&target.layer)
        };
        let mut left = masks.clone();
        left.retain(|target, mask| !is_baked(target, mask));
        Ok(Self {
            small: slice_module(dense.clone(), plan)?,
            state: reindex_state(plan, &shapes, &left, calibration)?,
            plan: plan.clone(),
            dense,
            left,
        })
    }
}

fn is_product(mask: &Mask) -> bool {
    mask.method() == MaskMethod::Mul
}

/// Multiplies parameters by their masks.
struct Bake {
    path: Vec<String>,
    masks: IndexMap<String, Mask>,
}

impl ModuleMapper for Bake {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.masks.get(&self.path.join(".")) {
            Some(mask) => param.map(|tensor| {
                let data = TensorData::new(mask.values().to_vec(), mask.shape().to_vec());
                let mask = Tensor::<D>::from_data(data, &tensor.device());
                // A mask holds singles whatever the parameter holds.
                let dtype = FloatDType::from(tensor.dtype());
                tensor * mask.cast(dtype)
            }),
            None => param,
        }
    }
}
