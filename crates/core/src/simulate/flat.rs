//! Tensors whose rank is known at run time alone.

use burn::tensor::{DType, FloatDType, Tensor};

use crate::{Error, reads};

/// A tensor of any rank: its values in row-major order and its shape.
///
/// Algorithms see parameters, gradients and hidden states in this form, so that they can be stored
/// side by side whatever their rank.
#[derive(Clone, Debug)]
pub struct FlatTensor {
    /// The values, `[num_elements]`.
    pub values: Tensor<1>,
    /// The shape that the values came in.
    pub shape: Vec<usize>,
}

impl FlatTensor {
    /// Flattens `tensor`; gradients keep flowing through the values.
    pub fn new<const D: usize>(tensor: Tensor<D>) -> Self {
        let shape: Vec<usize> = tensor.dims().to_vec();
        let elements = shape.iter().product::<usize>();
        Self {
            values: tensor.reshape([elements]),
            shape,
        }
    }

    /// The tensor with `change` applied to its values, one for each.
    #[must_use]
    pub fn map(self, change: impl FnOnce(Tensor<1>) -> Tensor<1>) -> Self {
        Self {
            values: change(self.values),
            shape: self.shape,
        }
    }

    /// The tensor as a constant, without gradients.
    #[must_use]
    pub fn constant(self) -> Self {
        self.map(|values| values.detach().without_autodiff())
    }

    /// The values read back to the host.
    ///
    /// # Errors
    ///
    /// The device failed to hand them over.
    pub fn to_vec(&self) -> Result<Vec<f32>, Error> {
        reads::floats(self.values.clone())
    }
}

impl From<(Tensor<1>, Vec<usize>)> for FlatTensor {
    fn from((values, shape): (Tensor<1>, Vec<usize>)) -> Self {
        Self { values, shape }
    }
}

impl From<FlatTensor> for (Tensor<1>, Vec<usize>) {
    fn from(tensor: FlatTensor) -> Self {
        (tensor.values, tensor.shape)
    }
}

/// A tensor on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostTensor {
    /// The values in row-major order.
    pub values: Vec<f32>,
    /// The shape.
    pub shape: Vec<usize>,
}

/// The tensor in the float type `dtype`; gradients flow through.
pub fn in_dtype<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    match tensor.dtype() == dtype {
        true => tensor,
        false => tensor.cast(FloatDType::from(dtype)),
    }
}
