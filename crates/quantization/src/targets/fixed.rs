//! Fixed scales and zero points, known before any value is seen.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use burn_compress_core::{FlatTensor, Grid, Observer, Quantization, RoundGradient, Target};

use super::target::QuantTarget;

/// Fixed scale and zero point of a whole target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FixedQParams {
    pub(crate) scale: f32,
    pub(crate) zero_point: f32,
    pub(crate) gradient: RoundGradient,
}

impl FixedQParams {
    /// Rounds the target to this grid from now on.
    pub(crate) fn set(self, target: &QuantTarget, device: &Device) {
        let Some(state) = target.space().quantization() else {
            return;
        };
        let rank = match target.target() {
            Target::Param(_) => target.space().shape().map_or(0, |shape| shape.len()),
            // Known when the first values are seen.
            Target::Input(_) | Target::Output(_) => {
                target.space().set_observer(Some(Arc::new(WholeTensor)));
                0
            }
        };
        let device = device.clone().without_autodiff();
        let one = |value: f32| Some(Tensor::<1>::from_floats([value], &device));
        target.space().set_quantization(Some(Quantization {
            grid: Grid::per_tensor(rank),
            scale: one(self.scale),
            zero_point: one(self.zero_point),
            gradient: self.gradient,
            enabled: true,
            ..state
        }));
    }
}

/// Observer of the rank of its target.
#[derive(Debug)]
struct WholeTensor;

impl Observer for WholeTensor {
    fn observe(&self, values: &FlatTensor, quantization: &mut Quantization) -> Result<(), String> {
        if quantization.grid.blocks().len() != values.shape.len() {
            quantization.grid = Grid::per_tensor(values.shape.len());
        }
        Ok(())
    }
}
