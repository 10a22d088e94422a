//! The extremes of a batch, averaged over the batches.
//!
//! The observer of quantization-aware training. A single batch is a poor estimate of the range of a
//! layer, and the range of a training run's first batches a poor estimate of that of its last; an
//! exponential moving average forgets the old and smooths the new:
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
use burn_compress_core::{FlatTensor, Grid, by_block};

use super::estimator::{RangeEstimator, Ranges};
use crate::QuantizationError;

/// Weight of the old range in each step of a moving average.
pub const DECAY: f64 = 0.99;

/// One step of the exponential moving average: `decay * average + (1 - decay) * value`, or `value`
/// when there is no average yet.
///
/// # Shapes
///
/// - average, value, result: `[blocks]`
pub fn moving_average(average: Option<Tensor<1>>, value: Tensor<1>, decay: f64) -> Tensor<1> {
    let Some(average) = average else {
        return value;
    };
    let of_block =
        |[average, value]: [f32; 2]| [average * decay as f32 + value * (1.0 - decay) as f32];
    match by_block([&average, &value], of_block) {
        Some([average]) => average,
        None => average * decay + value * (1.0 - decay),
    }
}

/// The smallest and largest value of a batch, averaged with [`DECAY`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MovingAverage;

impl RangeEstimator for MovingAverage {
    fn track(
        &self,
        _values: &FlatTensor,
        _grid: &Grid,
        batch: Ranges,
        tracked: Option<Ranges>,
    ) -> Result<Ranges, QuantizationError> {
        let Some(old) = tracked else {
            return Ok(batch);
        };
        Ok(Ranges {
            minimum: moving_average(Some(old.minimum), batch.minimum, DECAY),
            maximum: moving_average(Some(old.maximum), batch.maximum, DECAY),
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::{DECAY, moving_average};
    use crate::targets::observer_testing::{Follow, observed};
    use crate::{Granularity, ObserverKind};

    #[test]
    fn the_first_range_is_taken_and_later_ones_count_one_percent() {
        let mut follow = Follow::new(ObserverKind::MovingAverage, Granularity::Default);
        follow.see([[1.0, -2.0], [7.0, 0.0]]);
        assert_eq!(follow.tracked(), (vec![-2.0], vec![7.0]));
        assert!(
            follow.state.scale.is_none(),
            "nothing is quantized while disabled"
        );

        follow.state.enabled = true;
        follow.see([[1.0, -4.0], [107.0, 0.0]]);
        // -0.99 * 2 - 0.01 * 4 = -2.02, 0.99 * 7 + 0.01 * 107 = 8, scale 8 / 7.
        let (minimum, maximum) = follow.tracked();
        assert!((minimum[0] + 2.02).abs() < 1e-6);
        assert!((maximum[0] - 8.0).abs() < 1e-6);
        assert!((observed(&follow.state.scale)[0] - 8.0 / 7.0).abs() < 1e-6);
        assert_eq!(observed(&follow.state.zero_point), [0.0]);
    }

    #[test]
    fn in_memory_and_by_tensors_alike() {
        let device = Device::flex();
        let tensor = |seed: f32| {
            let values: Vec<f32> = (0..101).map(|i| (i as f32 * seed).sin() * 9.0).collect();
            Tensor::<1>::from_floats(&values[..], &device)
        };
        let bits = |average: Tensor<1>| -> Vec<u32> {
            let values: Vec<f32> = average.into_data().try_to_vec().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        let (average, value) = (tensor(0.7), tensor(1.3));
        let in_memory = moving_average(Some(average.clone()), value.clone(), DECAY);
        // With automatic differentiation there is no way around tensor operations.
        let by_tensors = moving_average(Some(average.autodiff()), value.autodiff(), DECAY);
        assert_eq!(bits(in_memory), bits(by_tensors));
    }

    #[test]
    fn channels_have_ranges_of_their_own() {
        let mut follow = Follow::new(ObserverKind::MovingAverage, Granularity::PerChannel);
        follow.state.enabled = true;
        follow.see([[1.0, -2.0], [7.0, 0.0]]);
        assert_eq!(follow.state.grid.blocks(), [1, 2]);
        assert_eq!(follow.tracked(), (vec![1.0, -2.0], vec![7.0, 0.0]));
        assert_eq!(observed(&follow.state.scale), [1.0, 2.0 / 7.0]);
    }
}
