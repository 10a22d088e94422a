//! Targets whose grid is known before any value is seen.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use burn_compress_core::{FlatTensor, Grid, Observer, Quantization, RoundGradient, Target};

use crate::claim::Claimed;

/// One scale and zero point for a whole target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FixedGrid {
    pub(crate) scale: f32,
    pub(crate) zero_point: f32,
    pub(crate) gradient: RoundGradient,
}

impl FixedGrid {
    /// Lets the target be rounded to this grid from now on.
    pub(crate) fn set(self, claimed: &Claimed, device: &Device) {
        let Some(state) = claimed.space.quantization() else {
            return;
        };
        let rank = match claimed.target() {
            Target::Param(_) => claimed.space.shape().map_or(0, |shape| shape.len()),
            // Known when the first values are seen.
            Target::Input(_) | Target::Output(_) => {
                claimed.space.set_observer(Some(Arc::new(WholeTensor)));
                0
            }
        };
        let device = device.clone().without_autodiff();
        let one = |value: f32| Some(Tensor::<1>::from_floats([value], &device));
        claimed.space.set_quantization(Some(Quantization {
            grid: Grid::per_tensor(rank),
            scale: one(self.scale),
            zero_point: one(self.zero_point),
            gradient: self.gradient,
            enabled: true,
            ..state
        }));
    }
}

/// Learns the rank of its target.
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
