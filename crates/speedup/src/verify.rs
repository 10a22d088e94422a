//! Comparison of the small model with the simulated one.
//!
//! ```text
//! error = max |simulated - small| / max |simulated|
//! ```
//!
//! Removing channels that are exactly zero changes sums by the order of their terms at most, so the
//! tolerance is that of `f32`. A model whose output is small beside what cancels in it can miss it
//! by rounding alone; then both are computed once more in `f64`, where the device has it and the
//! dummy input is one of tensors, and that decides. Quantized values are different: one that lies
//! on a rounding boundary may fall to the other side because of the last bit and then moves by a
//! whole step. Models are therefore verified without their simulated quantization, and the values
//! that move with it are counted.

use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};

use crate::SpeedupError;

/// Largest relative error of a small model.
pub const TOLERANCE: f64 = 1e-6;

/// Below this the largest output counts as this, so that zero outputs can be compared.
const TINY: f64 = 1e-30;

/// Values that quantization rounds differently in the small model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundingBoundary {
    /// Number of compared values.
    pub values: u64,
    /// The number of them that differ by more than the tolerance.
    pub differing: u64,
}

impl RoundingBoundary {
    /// The fraction of values that differ, 0 if there are none.
    pub fn fraction(&self) -> f64 {
        if self.values == 0 {
            0.0
        } else {
            self.differing as f64 / self.values as f64
        }
    }
}

/// The largest relative error over all outputs.
///
/// # Errors
///
/// [`SpeedupError::Incomparable`] when number, shapes or types of the outputs differ, or a value is
/// not finite.
pub fn relative_error(simulated: &[TensorData], small: &[TensorData]) -> Result<f64, SpeedupError> {
    let mut largest = 0.0f64;
    for (difference, scale) in differences(simulated, small)? {
        let worst = difference.iter().fold(0.0f64, |max, &value| max.max(value));
        largest = largest.max(worst / scale);
    }
    Ok(largest)
}

/// Compares outputs and rejects a relative error above `tolerance`.
///
/// # Errors
///
/// [`SpeedupError::Differs`], and as [`relative_error`].
pub fn verify(
    simulated: &[TensorData],
    small: &[TensorData],
    tolerance: f64,
) -> Result<f64, SpeedupError> {
    let error = relative_error(simulated, small)?;
    match error <= tolerance {
        true => Ok(error),
        false => Err(SpeedupError::Differs {
            layer: None,
            error,
            tolerance,
        }),
    }
}

/// Counts the values that differ by more than `tolerance`, relative to the largest of their output.
///
/// # Errors
///
/// As [`relative_error`].
pub fn rounding_boundary(
    simulated: &[TensorData],
    small: &[TensorData],
    tolerance: f64,
) -> Result<RoundingBoundary, SpeedupError> {
    let mut count = RoundingBoundary::default();
    for (difference, scale) in differences(simulated, small)? {
        count.values += difference.len() as u64;
        let moved = difference
            .iter()
            .filter(|&&value| value > tolerance * scale)
            .count();
        count.differing += moved as u64;
    }
    Ok(count)
}

/// For each output the absolute differences and the largest absolute value.
fn differences(
    simulated: &[TensorData],
    small: &[TensorData],
) -> Result<Vec<(Vec<f64>, f64)>, SpeedupError> {
    let error = |index, reason| SpeedupError::Incomparable { index, reason };
    if simulated.len() != small.len() {
        let reason = format!("{} outputs instead of {}", small.len(), simulated.len());
        return Err(error(simulated.len().min(small.len()), reason));
    }
    let mut all = Vec::with_capacity(simulated.len());
    for (index, (a, b)) in simulated.iter().zip(small).enumerate() {
        if a.shape() != b.shape() {
            let reason = format!("its shape is {:?} instead of {:?}", b.shape(), a.shape());
            return Err(error(index, reason));
        }
        let read = |data: &TensorData| -> Result<Vec<f64>, SpeedupError> {
            let values = data
                .clone()
                .try_into_vec_as::<f64>()
                .map_err(|source| error(index, format!("{source:?}")))?;
            match values.iter().find(|value| !value.is_finite()) {
                Some(bad) => Err(error(index, format!("a value is {bad}"))),
                None => Ok(values),
            }
        };
        let (a, b) = (read(a)?, read(b)?);
        let scale = a.iter().fold(TINY, |max, value| max.max(value.abs()));
        all.push((
            a.iter().zip(&b).map(|(a, b)| (a - b).abs()).collect(),
            scale,
        ));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::quantization::QuantScheme;

    fn data(values: &[f32]) -> TensorData {
        TensorData::from(values)
    }

    #[test]
    fn the_error_is_relative_to_the_largest_output() {
        // |2 - 2.5| / 4 in the first output, |1 - 1.5| / 1 in the second.
        let (a, b) = (
            [data(&[2.0, -4.0]), data(&[1.0])],
            [data(&[2.5, -4.0]), data(&[1.5])],
        );
        assert_eq!(relative_error(&a, &b).unwrap(), 0.5);
        assert_eq!(relative_error(&a[..1], &b[..1]).unwrap(), 0.125);
        assert_eq!(
            relative_error(&[data(&[0.0])], &[data(&[0.0])]).unwrap(),
            0.0
        );
    }

    #[test]
    fn another_function_is_refused() {
        assert_eq!(
            verify(&[data(&[1.0])], &[data(&[1.0])], TOLERANCE).unwrap(),
            0.0
        );
        let error = verify(&[data(&[1.0])], &[data(&[1.00001])], TOLERANCE).unwrap_err();
        assert!(matches!(error, SpeedupError::Differs { error, .. } if error > 9e-6));
    }

    #[test]
    fn outputs_that_cannot_be_compared_are_named() {
        let one = [data(&[1.0])];
        for (other, message) in [
            (vec![], "0 outputs instead of 1"),
            (vec![data(&[1.0, 2.0])], "its shape is"),
            (vec![data(&[f32::NAN])], "NaN"),
        ] {
            let error = relative_error(&one, &other).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn types_that_cannot_be_compared_are_refused() {
        let scheme = QuantScheme::default();
        let packed = [TensorData::quantized(
            vec![1i8; 4],
            [4],
            scheme,
            &[0.5],
            None,
        )];
        let error = relative_error(&packed, &packed).unwrap_err();
        assert!(matches!(error, SpeedupError::Incomparable { index: 0, .. }));
    }

    #[test]
    fn values_on_the_other_side_of_a_boundary_are_counted() {
        let a = [data(&[0.1, 0.2, 0.3, 0.4])];
        let b = [data(&[0.1, 0.3, 0.3, 0.4])];
        let count = rounding_boundary(&a, &b, TOLERANCE).unwrap();
        assert_eq!(
            count,
            RoundingBoundary {
                values: 4,
                differing: 1
            }
        );
        assert_eq!(count.fraction(), 0.25);
    }
}
