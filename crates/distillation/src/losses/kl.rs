//! Kullback-Leibler divergence between softened class probabilities.
//!
//! ```text
//! p = softmax(x / T)                                        over the last dimension, T = 2
//! loss = T^2 sum(p_teacher (log p_teacher - log p_student)) / batch
//! ```
//!
//! For logits. The teacher's probabilities of the wrong classes hold more information than the
//! label; the temperature makes these small probabilities count, and `T^2` keeps the size of the
//! gradients independent of it.
//!
//! # References
//!
//! Hinton et al., *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531. Deviation: the
//! temperature is fixed. With more than two dimensions the sum is divided by the first one only,
//! as in PyTorch's `batchmean`, so a longer sequence weighs more.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

/// The divisor of the logits.
pub const TEMPERATURE: f64 = 2.0;

/// Divergence of the student's class probabilities from the teacher's.
///
/// `batch` is the first dimension of the logits before they were flattened to rows: `rows` for
/// `[batch, classes]`, less for `[batch, length, classes]`.
///
/// # Shapes
///
/// - student, teacher: `[rows, classes]`
/// - result: `[1]`
///
/// # Panics
///
/// When the shapes differ.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::losses::kl;
///
/// let logits = Tensor::<2>::from_floats([[1.0, -2.0, 0.5]], &Device::flex());
/// assert_eq!(kl(logits.clone(), logits, 1).into_scalar::<f32>(), 0.0);
/// ```
pub fn kl(student: Tensor<2>, teacher: Tensor<2>, batch: usize) -> Tensor<1> {
    let student = log_softmax(student / TEMPERATURE, 1);
    let teacher = log_softmax(teacher.detach() / TEMPERATURE, 1);
    let divergence = (teacher.clone().exp() * (teacher - student)).sum();
    divergence * (TEMPERATURE * TEMPERATURE / batch as f64)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Logits that are twice the logarithms of these probabilities, so that T = 2 gives them back.
    fn logits(rows: [[f32; 2]; 2], device: &Device) -> Tensor<2> {
        Tensor::from_floats(rows.map(|row| row.map(|p| 2.0 * p.ln())), device)
    }

    #[test]
    fn value_and_gradient() {
        let device = Device::flex().autodiff();
        let student = logits([[0.5, 0.5], [0.8, 0.2]], &device).require_grad();
        let teacher = logits([[0.25, 0.75], [0.8, 0.2]], &device).require_grad();
        let loss = kl(student.clone(), teacher.clone(), 2);
        let gradients = loss.backward();
        // Row 0: 0.25 ln(0.25 / 0.5) + 0.75 ln(0.75 / 0.5) = -0.173287 + 0.304099; row 1: 0.
        // Times 4 / 2.
        let values: Vec<f32> = loss.into_data().try_to_vec().unwrap();
        assert!((values[0] - 0.261_624).abs() < 1e-5, "{values:?}");
        // T^2 / batch * (p_student - p_teacher) / T = p_student - p_teacher here.
        let gradient = student.grad(&gradients).unwrap();
        let gradient: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
        for (found, expected) in gradient.iter().zip([0.25, -0.25, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{gradient:?}");
        }
        assert!(teacher.grad(&gradients).is_none());
    }

    #[test]
    fn only_the_batch_divides() {
        let device = Device::flex();
        let student = logits([[0.5, 0.5], [0.8, 0.2]], &device);
        let teacher = logits([[0.25, 0.75], [0.8, 0.2]], &device);
        // One sequence of length two: twice the loss of a batch of two.
        let sequence: f32 = kl(student.clone(), teacher.clone(), 1).into_scalar();
        let batch: f32 = kl(student, teacher, 2).into_scalar();
        assert!((sequence - 2.0 * batch).abs() < 1e-6);
    }

    #[test]
    fn sure_teachers_and_students_stay_finite() {
        let device = Device::flex();
        let sure = Tensor::<2>::from_floats([[2000.0, -2000.0]], &device);
        let wrong = Tensor::<2>::from_floats([[-2000.0, 2000.0]], &device);
        let loss: f32 = kl(wrong, sure, 1).into_scalar();
        // One class with probability 1, which the student gives exp(-2000).
        assert_eq!(loss, 4.0 * 2000.0);
    }
}
