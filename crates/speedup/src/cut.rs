//! A model cut by a plan, and the state that stays simulated on it.
//!
//! The plain model is cut first and what is left of its masks is multiplied in then, so that no copy
//! is made of what goes:
//!
//! ```text
//! slice(weight * mask)  =  slice(weight) * slice(mask)
//! ```

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{FloatDType, Tensor, TensorData};
use burn_compress_core::graph::SlicePlan;
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Calibration, Mask, MaskMethod, Masks, TargetId};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::slice::slice_module;
use crate::state::{SmallState, reindex_state};

/// A small model, plain, with its state.
pub(crate) struct Cut<M> {
    /// The small model, its parameters multiplied by their masks.
    pub small: M,
    /// The masks and the calibration that are no part of its parameters.
    pub state: SmallState,
}

/// Masks and calibration behind a cut.
pub(crate) struct CutState {
    /// All masks that are left in the small model.
    pub left: Masks,
    /// The masks among them that become part of the parameters.
    pub baked: Masks,
    /// The state of the small model, without these.
    pub state: SmallState,
}

impl CutState {
    /// Takes what `plan` removes out of masks and calibration of a model with these layers and shapes
    /// of parameters.
    pub fn new(
        plan: &SlicePlan,
        (layers, shapes): (&[LayerInfo], &IndexMap<String, Vec<usize>>),
        masks: &Masks,
        calibration: &Calibration,
    ) -> Result<Self, SpeedupError> {
        let mut state = reindex_state(plan, shapes, masks, calibration)?;
        let left = std::mem::take(&mut state.masks);
        let (baked, simulated) = divide(&left, calibration, layers);
        state.masks = simulated;
        Ok(Self { left, baked, state })
    }
}

/// Masks that can become part of the parameters, and those that stay simulated: of inputs and
/// outputs, of quantized parameters, and of norms that compute over the channels they keep.
pub(crate) fn divide(
    masks: &Masks,
    calibration: &Calibration,
    layers: &[LayerInfo],
) -> (Masks, Masks) {
    let norms = layers.iter().filter(|layer| layer.has_masked_statistics());
    let norms: BTreeSet<&str> = norms.map(|layer| layer.path.as_str()).collect();
    let is_baked = |target: &TargetId, mask: &Mask| {
        let is_plain = target.target.is_param() && is_product(mask);
        is_plain && !calibration.contains_key(target) && !norms.contains(target.layer.as_str())
    };
    let (mut baked, mut simulated) = (masks.clone(), masks.clone());
    baked.retain(|target, mask| is_baked(target, mask));
    simulated.retain(|target, mask| !is_baked(target, mask));
    (baked, simulated)
}

impl<M: Module> Cut<M> {
    /// Cuts the plain model `raw`.
    pub fn new(raw: M, plan: &SlicePlan, state: CutState) -> Result<Self, SpeedupError> {
        let small = slice_module(raw, plan)?;
        Ok(Self {
            small: multiply(small, &state.baked),
            state: state.state,
        })
    }
}

/// Multiplies parameters by those of the masks that are products.
pub(crate) fn multiply<M: Module>(model: M, masks: &Masks) -> M {
    let masks = products(masks);
    match masks.is_empty() {
        true => model,
        false => model.map(&mut Multiply {
            path: Vec::new(),
            masks,
        }),
    }
}

/// The masks of parameters that are products, by path.
pub(crate) fn products(masks: &Masks) -> IndexMap<String, Mask> {
    let of_params = masks
        .iter()
        .filter(|(target, mask)| target.target.is_param() && is_product(mask));
    let of_params = of_params.map(|(target, mask)| (target.to_string(), mask.clone()));
    of_params.collect()
}

/// A parameter without what its mask, a product, removes.
pub(crate) fn multiplied<const D: usize>(tensor: Tensor<D>, mask: &Mask) -> Tensor<D> {
    let (values, extent) = mask.compact();
    let data = TensorData::new(values.to_vec(), extent.to_vec());
    let mask = Tensor::<D>::from_data(data, &tensor.device());
    // A mask holds singles whatever the parameter holds.
    let dtype = FloatDType::from(tensor.dtype());
    tensor * mask.cast(dtype)
}

fn is_product(mask: &Mask) -> bool {
    mask.method() == MaskMethod::Mul
}

struct Multiply {
    path: Vec<String>,
    masks: IndexMap<String, Mask>,
}

impl ModuleMapper for Multiply {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.masks.get(&self.path.join(".")) {
            Some(mask) => param.map(|tensor| multiplied(tensor, mask)),
            None => param,
        }
    }
}
