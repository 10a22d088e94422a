//! Mean squared error between features.
//!
//! ```text
//! loss = mean((student - teacher)^2)      over all elements
//! ```
//!
//! For hidden layers, whose values mean the same in student and teacher when the layers have the
//! same place in the network.
//!
//! # References
//!
//! Romero et al., *FitNets: Hints for Thin Deep Nets*, arXiv 1412.6550, without its regressor:
//! student and teacher have equal shapes here.

use burn::tensor::Tensor;
use burn_compress_core::gradient::{self, GradientRule};

/// Mean squared error of the student's features.
///
/// # Shapes
///
/// - student, teacher: `[num_elements]`
/// - result: `[1]`
///
/// # Panics
///
/// When the shapes differ.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::losses::mse;
///
/// let device = Device::flex();
/// let student = Tensor::from_floats([1.0, 2.0], &device);
/// let teacher = Tensor::from_floats([1.0, 4.0], &device);
/// assert_eq!(mse(student, teacher).into_scalar::<f32>(), 2.0);
/// ```
pub fn mse(student: Tensor<1>, teacher: Tensor<1>) -> Tensor<1> {
    let teacher = teacher.detach().without_autodiff();
    let count = student.dims()[0] as f64;
    let forward = |student: Tensor<1>| {
        let error = student - teacher.clone();
        let loss = (error.clone() * error.clone()).mean();
        let rule = GradientRule::new(move |gradient: Tensor<1>| {
            error.clone() * (gradient * (1.0 / count) * 2.0)
        });
        (loss, rule)
    };
    // The gradient by hand is one pass over the values where the derived one is eight.
    gradient::replace(student, forward).unwrap_or_else(|student| {
        let error = student - teacher;
        (error.clone() * error).mean()
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn value_and_gradient() {
        let device = Device::flex().autodiff();
        let student = Tensor::<1>::from_floats([1.0, -2.0, 0.5, 3.0], &device).require_grad();
        let teacher = Tensor::<1>::from_floats([0.0, -2.0, 1.5, 1.0], &device).require_grad();
        let loss = mse(student.clone(), teacher.clone());
        let gradients = loss.backward();
        // (1 + 0 + 1 + 4) / 4, gradient 2 (s - t) / 4.
        let values: Vec<f32> = loss.into_data().try_to_vec().unwrap();
        assert_eq!(values, [1.5]);
        let gradient = student.grad(&gradients).unwrap();
        let gradient: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
        assert_eq!(gradient, [0.5, 0.0, -0.5, 1.0]);
        assert!(teacher.grad(&gradients).is_none());
    }
}
