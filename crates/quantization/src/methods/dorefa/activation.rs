//! Inputs and outputs on the grid of DoReFa.

use burn::tensor::Tensor;
use burn_compress_core::{
    FlatTensor, Grid, Observer, QuantDtype, QuantScheme, Quantization, RoundGradient,
};

use crate::qparams::{self, QParams};
use crate::ranges::{DECAY, moving_average};
use crate::targets::FixedQParams;
use crate::{QuantizationError, blocks, precision};

/// The integers laid over 0..=1.
pub(super) fn output_grid(dtype: QuantDtype) -> FixedQParams {
    FixedQParams {
        scale: 1.0 / (dtype.qmax() - dtype.qmin()),
        zero_point: dtype.qmin(),
        gradient: RoundGradient::Clipped,
    }
}

/// Observer that lays the grid over the range of each batch and averages the ranges.
#[derive(Debug)]
pub(super) struct BatchRange {
    pub(super) dtype: QuantDtype,
    pub(super) scheme: QuantScheme,
    pub(super) check: bool,
}

impl BatchRange {
    fn update(
        &self,
        values: &FlatTensor,
        quantization: &mut Quantization,
    ) -> Result<(), QuantizationError> {
        let grid = Grid::per_tensor(values.shape.len());
        let (minimum, maximum) = blocks::range(values, &grid)?;
        if self.check {
            qparams::watch_finite(minimum.clone(), maximum.clone())?;
        }
        let (minimum, maximum) = (precision::single(minimum), precision::single(maximum));
        let QParams { scale, zero_point } =
            qparams::compute(minimum.clone(), maximum.clone(), self.dtype, self.scheme);
        let average = |old: Option<Tensor<1>>, new| {
            Some(moving_average(old.map(precision::single), new, DECAY))
        };
        quantization.minimum = average(quantization.minimum.take(), minimum);
        quantization.maximum = average(quantization.maximum.take(), maximum);
        quantization.scale = Some(scale);
        quantization.zero_point = Some(zero_point);
        quantization.grid = grid;
        Ok(())
    }
}

impl Observer for BatchRange {
    fn observe(&self, values: &FlatTensor, quantization: &mut Quantization) -> Result<(), String> {
        self.update(values, quantization)
            .map_err(|error| error.to_string())
    }
}
