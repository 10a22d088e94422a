//! Gradients against differences of values, for the tests of losses.

use burn::tensor::{Device, Tensor, TensorData};

/// Compares the gradient of `loss` at `at` with central differences.
pub(crate) fn assert_gradient(at: &[f32], loss: impl Fn(Tensor<1>) -> Tensor<1>) {
    const STEP: f32 = 1e-2;
    let tensor =
        |values: &[f32], device: &Device| Tensor::<1>::from_data(TensorData::from(values), device);
    let leaf = tensor(at, &Device::flex().autodiff()).require_grad();
    let gradients = loss(leaf.clone()).backward();
    let gradient = leaf
        .grad(&gradients)
        .expect("the loss depends on its input");
    let gradient: Vec<f32> = gradient.into_data().try_to_vec().expect("floats");
    let value = |index: usize, by: f32| {
        let mut moved = at.to_vec();
        moved[index] += by;
        f64::from(loss(tensor(&moved, &Device::flex())).into_scalar::<f32>())
    };
    for (index, &found) in gradient.iter().enumerate() {
        let difference = value(index, STEP) - value(index, -STEP);
        let expected = difference / (2.0 * f64::from(STEP));
        let error = (f64::from(found) - expected).abs();
        assert!(
            error < 2e-3 * (1.0 + expected.abs()),
            "component {index}: gradient {found}, differences {expected}"
        );
    }
}
