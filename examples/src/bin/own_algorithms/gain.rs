//! A kernel of a user's own, `max(x, 0) * gain`.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, Shape, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_compress::graph::CustomOp;

/// `max(x, 0) * gain`, per channel.
#[backend_extension(Flex, Autodiff)]
trait GainOps: Backend {
    fn gain(x: FloatTensor<Self>, gain: FloatTensor<Self>) -> FloatTensor<Self> {
        let channels = gain.shape()[0];
        let gain = Self::float_reshape(gain, Shape::new([1, channels, 1, 1]));
        Self::float_mul(Self::relu(x), gain)
    }
}

impl GainOps for Flex {}

impl<C: CheckpointStrategy> GainOps for Autodiff<Flex, C> {}

/// The kernel, recorded as one operation while a forward pass is captured.
///
/// # Shapes
///
/// - x, output: `[batch, channels, height, width]`
/// - gain: `[channels]`
pub fn gain(x: Tensor<4>, gain: Tensor<1>) -> Tensor<4> {
    let op = CustomOp::new("gain").input(&x).input(&gain);
    op.output(x.dims()).unwrap_or_else(|| {
        let (x, gain) = (x.into_dispatch(), gain.into_dispatch());
        Tensor::from_dispatch(<Dispatch as GainOps>::gain(x, gain))
    })
}
