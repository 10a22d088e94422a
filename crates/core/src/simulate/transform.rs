//! Replacements of the standard simulation of a target by an algorithm.

use std::fmt;
use std::sync::Arc;

use burn::tensor::Tensor;

use crate::simulate::flat::FlatTensor;

/// The parts of a target's simulation that a [`Transform`] can replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rounding to the grid of the target's [`Quantization`](crate::Quantization).
    Quantize,
    /// Application of the target's [`Mask`](crate::Mask).
    Mask,
    /// The last step, empty by default. A transform here that leaves the values as they are and
    /// changes their gradient gets that gradient before rounding and mask.
    Last,
}

/// A differentiable change of a target's values while an algorithm runs.
///
/// Set with [`TargetSpace::set_transform`](crate::TargetSpace::set_transform). It acts until it is
/// removed, which the algorithm does at the end of its run: what stays with the model are a mask, a
/// [`Quantization`](crate::Quantization) and the parameters themselves, see
/// [`Algorithm::rewrite`](crate::Algorithm::rewrite).
pub trait Transform: fmt::Debug + Send + Sync {
    /// The values that the model computes with, in the shape of `value`. Their target may be read.
    ///
    /// `mask` is the target's mask, one number for each value, where the stage is
    /// [`Stage::Mask`] and a mask is set.
    fn apply(&self, value: FlatTensor, mask: Option<Tensor<1>>) -> FlatTensor;

    /// A copy that no later step changes, for a `valid()` snapshot of the model.
    fn snapshot(&self) -> Arc<dyn Transform>;
}
