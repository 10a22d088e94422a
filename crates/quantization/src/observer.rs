//! Observers: the range of a target, followed over a training run.
//!
//! [`MovingAverageObserver`] is the one of quantization-aware training. A single batch says little
//! about the range that a layer will meet, and the range of a training run's first batches says
//! little about that of its last; an exponential moving average forgets the old and smooths the
//! new:
//!
//! ```text
//! first batch   range = (min x, max x)
//! later         range = 0.99 range + 0.01 (min x, max x)
//! ```
//!
//! # References
//!
//! Jacob et al., *Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference*, arXiv 1712.05877, section 3.1. Deviation: weights are
//! averaged like activations, as NNI does; the paper takes their current range.

use burn::tensor::Tensor;
use burn_compress_core::{FlatTensor, Observer, Quantization, Target};

use crate::{Granularity, QuantDtype, QuantScheme, QuantizationError, blocks, range};

/// How much of the old range a moving average keeps in each step.
pub const DECAY: f64 = 0.99;

/// One step of the exponential moving average: `decay * average + (1 - decay) * value`, or `value`
/// when there is no average yet.
///
/// # Shapes
///
/// - average, value, result: `[blocks]`
pub fn moving_average(average: Option<Tensor<1>>, value: Tensor<1>, decay: f64) -> Tensor<1> {
    match average {
        Some(average) => average * decay + value * (1.0 - decay),
        None => value,
    }
}

/// Follows the range of a target by an exponential moving average and derives scale and zero point.
///
/// The range is tracked from the first observation on; scale and zero point are written only while
/// the quantization is enabled, so that a run can begin in full precision with the ranges warming
/// up.
#[derive(Clone, Debug)]
pub struct MovingAverageObserver {
    kind: String,
    target: Target,
    granularity: Granularity,
    dtype: QuantDtype,
    scheme: QuantScheme,
    check: bool,
}

impl MovingAverageObserver {
    /// An observer of `target` in a layer of type `kind` (`Conv2d`).
    pub fn new(
        kind: impl Into<String>,
        target: Target,
        granularity: Granularity,
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> Self {
        Self {
            kind: kind.into(),
            target,
            granularity,
            dtype,
            scheme,
            check: true,
        }
    }

    /// Whether every observation checks that the range is finite, as it does unless told otherwise.
    ///
    /// The check reads one pair of numbers per block back to the host, which on an accelerator
    /// waits for the computation. Without it a NaN in the data ends in a NaN in the loss.
    pub fn with_check(mut self, check: bool) -> Self {
        self.check = check;
        self
    }

    /// Updates range, scale and zero point from `values`.
    ///
    /// # Errors
    ///
    /// A granularity that does not fit the shape, and values that are not finite; the quantization
    /// is unchanged then.
    pub fn update(
        &self,
        values: &FlatTensor,
        quantization: &mut Quantization,
    ) -> Result<(), QuantizationError> {
        let grid = self
            .granularity
            .grid(&self.kind, &self.target, &values.shape)?;
        let (minimum, maximum) = blocks::range(values, &grid)?;
        if self.check {
            range::check_finite(minimum.clone(), maximum.clone())?;
        }
        // With other blocks than before, the old ranges belong to nothing any more.
        let same = quantization.grid == grid;
        let old = |average: &Option<Tensor<1>>| average.clone().filter(|_| same);
        let minimum = moving_average(old(&quantization.minimum), minimum, DECAY);
        let maximum = moving_average(old(&quantization.maximum), maximum, DECAY);
        if quantization.enabled {
            let (scale, zero_point) =
                range::parameters(minimum.clone(), maximum.clone(), self.dtype, self.scheme);
            quantization.scale = Some(scale);
            quantization.zero_point = Some(zero_point);
        }
        quantization.minimum = Some(minimum);
        quantization.maximum = Some(maximum);
        quantization.grid = grid;
        Ok(())
    }
}

impl Observer for MovingAverageObserver {
    fn observe(&self, values: &FlatTensor, quantization: &mut Quantization) -> Result<(), String> {
        self.update(values, quantization)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn observer(granularity: Granularity) -> MovingAverageObserver {
        let dtype = "int4".parse().unwrap();
        let scheme = QuantScheme::Symmetric;
        MovingAverageObserver::new("Linear", Target::Input(0), granularity, dtype, scheme)
    }

    fn values(values: [[f32; 2]; 2]) -> FlatTensor {
        FlatTensor::new(Tensor::<2>::from_floats(values, &Device::flex()))
    }

    fn host(tensor: &Option<Tensor<1>>) -> Vec<f32> {
        tensor.clone().unwrap().into_data().try_to_vec().unwrap()
    }

    fn state() -> Quantization {
        Quantization::new("int4", "symmetric", -7.0, 7.0)
    }

    #[test]
    fn the_first_range_is_taken_and_later_ones_count_one_percent() {
        let observer = observer(Granularity::Default);
        let mut state = state();
        observer
            .update(&values([[1.0, -2.0], [7.0, 0.0]]), &mut state)
            .unwrap();
        assert_eq!(
            (host(&state.minimum), host(&state.maximum)),
            (vec![-2.0], vec![7.0])
        );
        assert!(state.scale.is_none(), "nothing is quantized while disabled");

        state.enabled = true;
        observer
            .update(&values([[1.0, -4.0], [107.0, 0.0]]), &mut state)
            .unwrap();
        // -0.99 * 2 - 0.01 * 4 = -2.02, 0.99 * 7 + 0.01 * 107 = 8, scale 8 / 7.
        assert!((host(&state.minimum)[0] + 2.02).abs() < 1e-6);
        assert!((host(&state.maximum)[0] - 8.0).abs() < 1e-6);
        assert!((host(&state.scale)[0] - 8.0 / 7.0).abs() < 1e-6);
        assert_eq!(host(&state.zero_point), [0.0]);
    }

    #[test]
    fn channels_have_ranges_of_their_own() {
        let observer = observer(Granularity::PerChannel);
        let mut state = state();
        state.enabled = true;
        observer
            .update(&values([[1.0, -2.0], [7.0, 0.0]]), &mut state)
            .unwrap();
        assert_eq!(state.grid.blocks(), [1, 2]);
        assert_eq!(host(&state.minimum), [1.0, -2.0]);
        assert_eq!(host(&state.maximum), [7.0, 0.0]);
        assert_eq!(host(&state.scale), [1.0, 2.0 / 7.0]);
    }

    #[test]
    fn values_that_are_not_finite_leave_the_range_alone() {
        let observer = observer(Granularity::Default);
        let mut state = state();
        observer
            .update(&values([[1.0, -2.0], [7.0, 0.0]]), &mut state)
            .unwrap();
        let error = observer
            .observe(&values([[1.0, f32::NAN], [7.0, 0.0]]), &mut state)
            .unwrap_err();
        assert!(error.contains("not finite"), "{error}");
        assert_eq!(
            (host(&state.minimum), host(&state.maximum)),
            (vec![-2.0], vec![7.0])
        );
        let unchecked = observer.clone().with_check(false);
        unchecked
            .observe(&values([[1.0, f32::NAN], [7.0, 0.0]]), &mut state)
            .unwrap();
        assert!(host(&state.minimum)[0].is_nan());
    }
}
