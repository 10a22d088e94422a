//! From the losses of single links to the loss that is trained.
//!
//! ```text
//! loss of a student layer = min over its links
//! total = origin_lambda * origin + sum over student layers of lambda * loss
//! ```
//!
//! With the minimum, a student layer with several candidate teachers learns from the one that it is
//! closest to at the time; the choice may change from batch to batch.

use burn::tensor::Tensor;

/// The smallest of the losses of a student layer's links, or `None` without any.
///
/// The gradient flows to the smallest loss alone. The choice is made on the device, no value is
/// read back.
///
/// # Shapes
///
/// - losses: `[1]` each
/// - result: `[1]`
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::combine::minimum;
///
/// let device = Device::flex();
/// let losses = [3.0, 1.0, 2.0].map(|loss| Tensor::from_floats([loss], &device));
/// assert_eq!(minimum(losses.to_vec()).unwrap().into_scalar::<f32>(), 1.0);
/// ```
pub fn minimum(losses: Vec<Tensor<1>>) -> Option<Tensor<1>> {
    match losses.len() {
        0 => None,
        1 => losses.into_iter().next(),
        _ => Some(Tensor::cat(losses, 0).min_dim(0)),
    }
}

/// The loss that is trained: the student's own and that of each student layer, weighted; in the
/// precision of the student's own.
///
/// # Shapes
///
/// - origin and the losses of `layers`: `[1]`
/// - result: `[1]`
pub fn total(
    origin: Tensor<1>,
    origin_lambda: f64,
    layers: impl IntoIterator<Item = (f64, Tensor<1>)>,
) -> Tensor<1> {
    layers
        .into_iter()
        .fold(origin * origin_lambda, |total, (lambda, loss)| {
            let loss = (loss * lambda).cast(total.dtype());
            total + loss
        })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn leaf(value: f32) -> Tensor<1> {
        Tensor::from_floats([value], &Device::flex().autodiff()).require_grad()
    }

    #[test]
    fn the_gradient_goes_to_the_smallest() {
        let losses = [3.0, 1.0, 2.0].map(leaf);
        let smallest = minimum(losses.to_vec()).unwrap();
        let gradients = (smallest.clone() * 5.0).backward();
        assert_eq!(smallest.into_scalar::<f32>(), 1.0);
        let received = losses.map(|loss| {
            loss.grad(&gradients)
                .map_or(0.0, |gradient| gradient.into_scalar::<f32>())
        });
        assert_eq!(received, [0.0, 5.0, 0.0]);
        assert!(minimum(Vec::new()).is_none());
    }

    #[test]
    fn a_tie_gives_the_gradient_once() {
        let losses = [1.0, 1.0].map(leaf);
        let gradients = minimum(losses.to_vec()).unwrap().backward();
        let received: f32 = losses
            .iter()
            .filter_map(|loss| loss.grad(&gradients))
            .map(|gradient| gradient.into_scalar::<f32>())
            .sum();
        assert_eq!(received, 1.0);
    }

    #[test]
    fn losses_are_weighted() {
        let [origin, first, second] = [2.0, 4.0, 8.0].map(leaf);
        // 0.5 * 2 + 0.25 * 4 + 1 * 8.
        let layers = [(0.25, first.clone()), (1.0, second)];
        let total = total(origin.clone(), 0.5, layers);
        let gradients = total.backward();
        assert_eq!(total.into_scalar::<f32>(), 10.0);
        let gradient = |leaf: Tensor<1>| leaf.grad(&gradients).unwrap().into_scalar::<f32>();
        assert_eq!((gradient(origin), gradient(first)), (0.5, 0.25));
    }
}
