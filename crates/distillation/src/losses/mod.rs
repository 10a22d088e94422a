//! Losses between a hidden state of the student and one of the teacher.
//!
//! Gradients flow to the student alone.

mod kl;
mod mse;

pub use kl::{TEMPERATURE, kl};
pub use mse::mse;

use std::fmt;

use burn::tensor::Tensor;
use burn_compress_core::FlatTensor;
use serde::{Deserialize, Serialize};

use crate::error::DistillationError;

/// The loss of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DistillationLoss {
    /// [`mse`]: for features.
    #[default]
    Mse,
    /// [`kl`]: for logits.
    Kl,
}

impl DistillationLoss {
    /// The loss between the hidden states of two linked layers.
    ///
    /// # Shapes
    ///
    /// - result: `[1]`
    ///
    /// # Errors
    ///
    /// Hidden states of different shapes or without elements; the error names both layers.
    pub fn between(
        self,
        (student_layer, student): (&str, &FlatTensor),
        (teacher_layer, teacher): (&str, &FlatTensor),
    ) -> Result<Tensor<1>, DistillationError> {
        if student.shape != teacher.shape {
            return Err(DistillationError::Shape {
                student: student_layer.to_string(),
                teacher: teacher_layer.to_string(),
                student_shape: student.shape.clone(),
                teacher_shape: teacher.shape.clone(),
            });
        }
        let empty = || DistillationError::Empty {
            student: student_layer.to_string(),
            shape: student.shape.clone(),
        };
        let (Some(&first), Some(&last)) = (student.shape.first(), student.shape.last()) else {
            return Err(empty());
        };
        if student.shape.contains(&0) {
            return Err(empty());
        }
        let (student, teacher) = (student.values.clone(), teacher.values.clone());
        Ok(match self {
            Self::Mse => mse(student, teacher),
            Self::Kl => kl(
                student.reshape([-1, last as i64]),
                teacher.reshape([-1, last as i64]),
                first,
            ),
        })
    }
}

impl fmt::Display for DistillationLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mse => "mse",
            Self::Kl => "kl",
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn zeros<const D: usize>(shape: [usize; D]) -> FlatTensor {
        FlatTensor::new(Tensor::<D>::zeros(shape, &Device::flex()))
    }

    #[test]
    fn losses_are_named_in_lowercase() {
        for (loss, name) in [(DistillationLoss::Mse, "mse"), (DistillationLoss::Kl, "kl")] {
            assert_eq!(serde_json::to_string(&loss).unwrap(), format!("\"{name}\""));
            assert_eq!(loss.to_string(), name);
        }
    }

    #[test]
    fn different_shapes_are_an_error_that_names_the_layers() {
        let (student, teacher) = (zeros([2, 3]), zeros([3, 2]));
        for loss in [DistillationLoss::Mse, DistillationLoss::Kl] {
            let error = loss
                .between(("conv1", &student), ("block.conv", &teacher))
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                "student layer `conv1` gives a hidden state of shape [2, 3], teacher layer \
                 `block.conv` one of [3, 2]: link layers of equal shape"
            );
        }
    }

    #[test]
    fn nothing_to_learn_is_an_error() {
        let empty = zeros([0, 3]);
        let error = DistillationLoss::Mse
            .between(("a", &empty), ("b", &empty))
            .unwrap_err();
        assert!(matches!(error, DistillationError::Empty { .. }));
    }
}
