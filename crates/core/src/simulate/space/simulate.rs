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
use crate::simulate::flat::{FlatTensor, in_dtype};
use crate::simulate::mask::{Mask, MaskMethod};
use crate::simulate::once;
use crate::simulate::operation::{Operation, Rounding};
use crate::simulate::quant_dtype::IntegerType;
use crate::simulate::quantization::Quantization;
use crate::simulate::round_gradient::RoundGradient;
use crate::simulate::transform::Transform;

impl TargetSpace {
    /// Executes the simulated logic on a parameter: quantize, then mask; once in a forward pass of
    /// its layer, if the layer is wrapped.
    pub(crate) fn simulate_parameter<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        once::shared(&self.id, base, |base| self.simulate(base))
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
        let (quantize, apply_mask, last) = {
            let inner = self.lock();
            if inner.bypassed {
                return value;
            }
            let Inner {
                quantize,
                apply_mask,
                last,
                ..
            } = &*inner;
            (quantize.clone(), apply_mask.clone(), last.clone())
        };
        // The wrapper of the norm rounds its bias, with the factor of the norm.
        let is_standard = quantize.is_none() && !self.is_norm_bias();
        let value = match (quantize, apply_mask.is_none()) {
            (None, true) if is_standard => self.lock().quantize_and_mask(value),
            // Transforms run unlocked: they may read their target.
            (Some(transform), _) => self.apply_mask(transformed(transform.as_ref(), value, None)),
            (None, _) if is_standard => {
                let rounded = self.lock().quantize(value);
                self.apply_mask(rounded)
            }
            (None, _) => self.apply_mask(value),
        };
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

fn rounded<const D: usize>(
    value: Tensor<D>,
    rounding: (Rounding<D>, RoundGradient),
    wide: DType,
) -> Tensor<D> {
    let given = value.dtype();
    let operation = Operation {
        rounding: Some(rounding),
        mask: None,
    };
    in_dtype(operation.apply(in_dtype(value, wide)), given)
}

impl Inner {
    /// Quantizes and masks in one pass.
    fn quantize_and_mask<const D: usize>(&mut self, value: Tensor<D>) -> Tensor<D> {
        let Some((rounding, wide)) = self.rounding(&value) else {
            return self.mask(value);
        };
        let is_product = |mask: &Mask| mask.method() == MaskMethod::Mul;
        if wide != value.dtype() || !self.mask.as_ref().is_some_and(is_product) {
            let rounded = rounded(value, rounding, wide);
            return self.mask(rounded);
        }
        let mask = self.factors(&value);
        let rounding = Some(rounding);
        Operation { rounding, mask }.apply(value)
    }

    fn quantize<const D: usize>(&mut self, value: Tensor<D>) -> Tensor<D> {
        match self.rounding(&value) {
            Some((rounding, wide)) => rounded(value, rounding, wide),
            None => value,
        }
    }

    /// The rounding of `value` where it acts, and the type that it is computed in: halves have too
    /// few digits to tell neighbouring integers of 8 bits apart.
    fn rounding<const D: usize>(
        &mut self,
        value: &Tensor<D>,
    ) -> Option<((Rounding<D>, RoundGradient), DType)> {
        let quantization = self.quantization.as_ref()?;
        let (scale, zero_point) = quantization.active_parameters()?;
        let (qmin, qmax) = (quantization.qmin, quantization.qmax);
        let (grid, gradient) = (quantization.grid.clone(), quantization.gradient);
        let is_binary = quantization.is_binary();
        let device = value.device().without_autodiff();
        let dims = value.dims();
        let wide = wider(value.dtype(), scale.dtype());
        let mut on_device = |parameter: Tensor<1>| {
            let parameter = in_dtype(parameter.to_device(&device), wide);
            self.expand(parameter, &grid, dims, &device)
        };
        let scale = on_device(scale);
        let rounding = match is_binary {
            true => Rounding::Sign { scale },
            false => Rounding::Affine {
                scale,
                zero_point: on_device(zero_point),
                qmin,
                qmax,
            },
        };
        Some(((rounding, gradient), wide))
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
        let Some(values) = self.factors(&value) else {
            return value;
        };
        match self.mask.as_ref().map(Mask::method) {
            Some(MaskMethod::Add) => MaskMethod::Add.apply(value, values),
            _ => Operation {
                rounding: None,
                mask: Some(values),
            }
            .apply(value),
        }
    }

    /// The mask in the type of `value`.
    fn factors<const D: usize>(&mut self, value: &Tensor<D>) -> Option<Tensor<D>> {
        let values = self.mask_on(&value.device().without_autodiff())?;
        Some(in_dtype(values, value.dtype()))
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
