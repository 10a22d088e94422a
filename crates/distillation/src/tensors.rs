//! Hidden states and logits on their way from a forward pass into a loss.

use burn::tensor::{DType, Tensor};
use burn_compress_core::{FlatTensor, TargetSpace};

use crate::error::DistillationError;

/// Takes the hidden state of the last forward pass.
pub(crate) fn take_hidden(
    whose: &'static str,
    space: &TargetSpace,
) -> Result<FlatTensor, DistillationError> {
    space.take_hidden().ok_or_else(|| match space.positions() {
        0 => DistillationError::NoHiddenState {
            whose,
            layer: space.id().layer.clone(),
        },
        _ => DistillationError::NoPosition {
            whose,
            reason: space.unreached().to_string(),
        },
    })
}

/// The tensor in single precision at least: sums of squares overflow half precision, and what keeps
/// losses from dividing by zero is too small for it.
pub(crate) fn at_least_f32(state: FlatTensor) -> FlatTensor {
    match state.values.dtype() {
        DType::F16 | DType::BF16 => state.map(|values| values.cast(DType::F32)),
        _ => state,
    }
}

/// The tensor on the device and in the precision of `like`, as a constant.
pub(crate) fn cast_like(output: FlatTensor, like: &Tensor<1>) -> FlatTensor {
    let device = like.device().without_autodiff();
    let cast = |values: Tensor<1>| values.to_device(&device).cast(like.dtype());
    output.constant().map(cast)
}
