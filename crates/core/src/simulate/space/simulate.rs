//! The simulated logic itself: what a target's state does to a value inside a forward pass.
//!
//! ```text
//! parameter        quantize -> mask -> last
//! folded parameter observe -> quantize -> mask -> last
//! input, output    observe -> quantize -> mask -> last -> record
//! ```
//!
//! Quantize, mask and last are the stages in whose place a [`Transform`] may stand. Observers
//! follow the values in training alone.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::{Failure, Inner, TargetSpace};
use crate::simulate::block::Grid;
use crate::simulate::fake_quantize::{binarize, fake_quantize};
use crate::simulate::flat::{FlatTensor, in_dtype};
use crate::simulate::quant_dtype::IntegerType;
use crate::simulate::quantization::Quantization;
use crate::simulate::transform::Transform;

impl TargetSpace {
    /// Executes the simulated logic on a parameter: quantize, then mask.
    pub(crate) fn simulate_parameter<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        self.simulate(base)
    }

    /// Executes the simulated logic on a parameter that a norm was folded into: observe, quantize,
    /// mask. The observer follows what the model computes with, which is made anew in each pass.
    pub(crate) fn simulate_folded<const D: usize>(&self, folded: Tensor<D>) -> Tensor<D> {
        if !self.lock().bypassed && self.phase.is_training() {
            self.follow_inside(&folded);
        }
        self.simulate(folded)
    }

    /// Executes the mask alone.
    pub(crate) fn simulate_mask<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let bypassed = self.lock().bypassed;
        match bypassed {
            true => base,
            false => self.apply_mask(base),
        }
    }

    /// Executes the simulated logic on an input or output: observe, quantize, mask, record.
    pub(crate) fn simulate_activation<const D: usize>(&self, value: Tensor<D>) -> Tensor<D> {
        {
            let mut inner = self.lock();
            if inner.bypassed {
                return value;
            }
            inner.shape = Some(value.dims().to_vec());
            if let Some(found) = inner.misfit(&value.dims()) {
                // Only now that the shape is known, what was accepted as a mask turns out not to
                // fit.
                let expected = value.dims().to_vec();
                assert!(
                    self.phase.is_training(),
                    "`{}` has the shape {expected:?}, but its mask the shape {found:?}",
                    self.id
                );
                inner
                    .failure
                    .get_or_insert(Failure::Mask { expected, found });
                return value;
            }
        }
        if self.phase.is_training() {
            self.follow_inside(&value);
        }
        let value = self.simulate(value);
        let mut inner = self.lock();
        if inner.records {
            // Only the latest state counts when a layer runs several times in one pass, unless all
            // are wanted.
            let hidden = FlatTensor::new(value.clone());
            if let Some(calls) = &mut inner.calls {
                calls.push(hidden.clone());
            }
            inner.hidden = Some(hidden);
        }
        value
    }

    /// Whether this is the `beta` of a norm with a bias of 32 bits.
    fn is_norm_bias(&self) -> bool {
        let is_int32 = |state: &Quantization| state.dtype == IntegerType::Int32;
        self.id().target.param_name() == Some("beta")
            && self.lock().quantization.as_ref().is_some_and(is_int32)
    }

    /// Of the `beta` of a norm with a bias of 32 bits, the steps of the accumulator in front of the
    /// norm, `[channels]`, when the simulation acts.
    pub(crate) fn norm_bias_steps(&self) -> Option<Tensor<1>> {
        if !self.is_norm_bias() {
            return None;
        }
        let inner = self.lock();
        let state = inner.quantization.as_ref().filter(|_| !inner.bypassed)?;
        let (scale, _) = state.active_parameters()?;
        Some(scale)
    }

    /// Passes `value` to the observer inside a forward pass.
    fn follow_inside<const D: usize>(&self, value: &Tensor<D>) {
        let seen = FlatTensor::new(value.clone().detach().without_autodiff());
        if let Err(reason) = self.follow(&seen) {
            self.lock()
                .failure
                .get_or_insert(Failure::Observation(reason));
        }
    }

    fn simulate<const D: usize>(&self, value: Tensor<D>) -> Tensor<D> {
        let (quantize, last) = {
            let inner = self.lock();
            if inner.bypassed {
                return value;
            }
            (inner.quantize.clone(), inner.last.clone())
        };
        // Transforms run unlocked: they may read their target.
        let value = match quantize {
            Some(transform) => transformed(transform.as_ref(), value, None),
            // The wrapper of the norm rounds it, with the factor of the norm.
            None if self.is_norm_bias() => value,
            None => self.lock().quantize(value),
        };
        let value = self.apply_mask(value);
        match last {
            Some(transform) => transformed(transform.as_ref(), value, None),
            None => value,
        }
    }

    /// Applies the mask, by the transform that stands in its place if there is one.
    fn apply_mask<const D: usize>(&self, value: Tensor<D>) -> Tensor<D> {
        let mut inner = self.lock();
        let Some(transform) = inner.apply_mask.clone() else {
            return inner.mask(value);
        };
        let mask = inner.full_mask(&value);
        drop(inner);
        transformed(transform.as_ref(), value, mask)
    }
}

fn transformed<const D: usize>(
    transform: &dyn Transform,
    value: Tensor<D>,
    mask: Option<Tensor<1>>,
) -> Tensor<D> {
    let dims = value.dims();
    transform
        .apply(FlatTensor::new(value), mask)
        .values
        .reshape(dims)
}

/// The type in which values of two types are computed with, at least `f32`.
fn wider(a: DType, b: DType) -> DType {
    match [a, b].contains(&DType::F64) {
        true => DType::F64,
        false => DType::F32,
    }
}

impl Inner {
    fn quantize<const D: usize>(&mut self, value: Tensor<D>) -> Tensor<D> {
        let Some(quantization) = &self.quantization else {
            return value;
        };
        let Some((scale, zero_point)) = quantization.active_parameters() else {
            return value;
        };
        let (qmin, qmax) = (quantization.qmin, quantization.qmax);
        let (grid, gradient) = (quantization.grid.clone(), quantization.gradient);
        let binary = quantization.is_binary();
        let device = value.device().without_autodiff();
        let dims = value.dims();
        // Halves have too few digits to tell neighbouring integers of 8 bits apart.
        let (given, wide) = (value.dtype(), wider(value.dtype(), scale.dtype()));
        let value = in_dtype(value, wide);
        let scale = in_dtype(scale.to_device(&device), wide);
        let scale = self.expand(scale, &grid, dims, &device);
        let rounded = match binary {
            true => binarize(value, scale, gradient),
            false => {
                let zero_point = in_dtype(zero_point.to_device(&device), wide);
                let zero_point = self.expand(zero_point, &grid, dims, &device);
                fake_quantize(value, scale, zero_point, qmin, qmax, gradient)
            }
        };
        in_dtype(rounded, given)
    }

    /// Brings one value per block to a shape that broadcasts against the target.
    fn expand<const D: usize>(
        &mut self,
        values: Tensor<1>,
        grid: &Grid,
        dims: [usize; D],
        device: &Device,
    ) -> Tensor<D> {
        if let Some(shape) = grid.broadcast_shape(&dims) {
            let shape: [usize; D] = std::array::from_fn(|dim| shape[dim]);
            return values.reshape(shape);
        }
        let cached = match &self.expansion {
            Some((shape, index)) if shape[..] == dims => Some(index.clone().to_device(device)),
            _ => None,
        };
        let index = cached.unwrap_or_else(|| {
            let blocks: Vec<i32> = grid.block_of_each_element(&dims);
            let index = Tensor::<1, Int>::from_data(TensorData::from(blocks.as_slice()), device);
            self.expansion = Some((dims.to_vec(), index.clone()));
            index
        });
        values.select(0, index).reshape(dims)
    }

    /// The shape of the mask, if it does not broadcast against a value of shape `dims`.
    fn misfit(&self, dims: &[usize]) -> Option<Vec<usize>> {
        let shape = self.mask.as_ref()?.shape();
        let fits = shape.len() == dims.len()
            && shape
                .iter()
                .zip(dims)
                .all(|(&mask, &size)| mask == 1 || mask == size);
        (!fits).then(|| shape.to_vec())
    }

    /// The mask of a value of this shape, one number for each element.
    fn full_mask<const D: usize>(&mut self, value: &Tensor<D>) -> Option<Tensor<1>> {
        let device = value.device().without_autodiff();
        let values: Tensor<D> = in_dtype(self.mask_on(&device)?, value.dtype());
        let dims = value.dims();
        Some(
            values
                .expand(dims)
                .reshape([dims.iter().product::<usize>()]),
        )
    }

    fn mask<const D: usize>(&mut self, value: Tensor<D>) -> Tensor<D> {
        let device = value.device().without_autodiff();
        let Some(values) = self.mask_on(&device) else {
            return value;
        };
        let Some(mask) = &self.mask else { return value };
        let values = in_dtype(values, value.dtype());
        mask.method().apply(value, values)
    }

    /// The mask, of size 1 along dimensions that it does not distinguish.
    fn mask_on<const D: usize>(&mut self, device: &Device) -> Option<Tensor<D>> {
        let (values, extent) = self.mask.as_ref()?.compact();
        let shape: [usize; D] = std::array::from_fn(|dim| extent[dim]);
        let values = match self.mask_values.take() {
            Some(values) => values.to_device(device),
            None => Tensor::from_data(TensorData::from(values), device),
        };
        self.mask_values = Some(values.clone());
        Some(values.reshape(shape))
    }
}

#[cfg(test)]
mod tests;
