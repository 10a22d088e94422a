//! The outputs of several teachers, aggregated.
//!
//! ```text
//! losses:  loss = sum_k w_k loss_k / sum_k w_k
//! outputs: loss = loss against sum_k w_k output_k / sum_k w_k
//! ```
//!
//! The mean of the losses needs no likeness of the teachers, not even equal shapes; for soft targets its
//! gradient is that of the mean of the teachers' probabilities. The mean of the outputs averages
//! logits or hidden states, so the teachers must have the same ones in the same places.
//!
//! # References
//!
//! You et al., *Learning from Multiple Teacher Networks*, KDD 2017 (mean of outputs); Hinton et al.,
//! arXiv 1503.02531, section 1 (an ensemble distilled into one network).

use burn::tensor::Tensor;
use burn_compress_core::FlatTensor;
use serde::{Deserialize, Serialize};

use crate::error::DistillationError;
use crate::tensors::cast_like;

/// Aggregation of the outputs of several teachers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeacherAggregation {
    /// The weighted mean of the losses against each teacher.
    #[default]
    Losses,
    /// The loss against the weighted mean of the teachers' logits or hidden states.
    Outputs,
}

/// The weighted mean of losses, or `None` without any.
///
/// `weights` has one positive number for each loss.
///
/// # Shapes
///
/// - losses: `[1]` each
/// - result: `[1]`
pub fn mean_loss(losses: Vec<Tensor<1>>, weights: &[f64]) -> Option<Tensor<1>> {
    weighted_mean(losses, weights)
}

/// The weighted mean of the outputs of teachers, or `None` without teachers.
///
/// `weights` has one positive number for each output. The mean is on the device and in the
/// precision of the first output, and a constant.
///
/// # Errors
///
/// [`DistillationError::TeacherShapes`] when their shapes differ.
pub fn mean_output(
    outputs: Vec<FlatTensor>,
    weights: &[f64],
) -> Result<Option<FlatTensor>, DistillationError> {
    let Some(first) = outputs.first().cloned() else {
        return Ok(None);
    };
    let shape = first.shape;
    if let Some(other) = outputs.iter().find(|output| output.shape != shape) {
        return Err(DistillationError::TeacherShapes {
            first: shape,
            other: other.shape.clone(),
        });
    }
    let values = outputs.into_iter();
    let values = values
        .map(|output| cast_like(output, &first.values).values)
        .collect();
    Ok(weighted_mean(values, weights).map(|values| FlatTensor { values, shape }))
}

fn weighted_mean(values: Vec<Tensor<1>>, weights: &[f64]) -> Option<Tensor<1>> {
    if let [value] = &values[..] {
        return Some(value.clone());
    }
    let total: f64 = weights.iter().sum();
    values
        .into_iter()
        .zip(weights)
        .map(|(value, weight)| value * (weight / total))
        .reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn tensor<const N: usize>(values: [f32; N]) -> Tensor<1> {
        Tensor::from_floats(values, &Device::flex())
    }

    #[test]
    fn losses_are_averaged_by_weight() {
        // (1 * 2 + 3 * 6) / 4.
        let mean = mean_loss(vec![tensor([2.0]), tensor([6.0])], &[1.0, 3.0]).unwrap();
        assert_eq!(mean.into_scalar::<f32>(), 5.0);
        assert!(mean_loss(Vec::new(), &[]).is_none());
    }

    #[test]
    fn one_teacher_is_not_touched() {
        let mean = mean_loss(vec![tensor([0.1])], &[0.3]).unwrap();
        assert_eq!(mean.into_scalar::<f32>().to_bits(), 0.1_f32.to_bits());
    }

    #[test]
    fn outputs_are_averaged_by_weight() {
        let output = |values: [f32; 2]| FlatTensor {
            values: tensor(values),
            shape: vec![1, 2],
        };
        let outputs = vec![output([1.0, -4.0]), output([3.0, 0.0])];
        let mean = mean_output(outputs, &[1.0, 1.0]).unwrap().unwrap();
        assert_eq!(mean.to_vec().unwrap(), [2.0, -2.0]);
        assert_eq!(mean.shape, [1, 2]);
    }

    #[test]
    fn outputs_of_different_shapes_have_no_mean() {
        let first = FlatTensor::new(Tensor::<2>::zeros([2, 3], &Device::flex()));
        let other = FlatTensor::new(Tensor::<2>::zeros([2, 4], &Device::flex()));
        let error = mean_output(vec![first, other], &[1.0, 1.0]).unwrap_err();
        assert!(error.to_string().contains("[2, 3]"), "{error}");
        assert!(error.to_string().contains("[2, 4]"), "{error}");
    }
}
