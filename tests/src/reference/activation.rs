//! Tensors of any rank that flow through a network.

use burn::tensor::{Device, Gradients, Tensor};

use super::array::Array;
use super::case::{CaseError, Result};

/// A value that flows between the operations of a network.
#[derive(Debug, Clone)]
pub enum Activation {
    /// Rows of features, `[batch, features]`.
    Rank2(Tensor<2>),
    /// Sequences, `[batch, length, features]`.
    Rank3(Tensor<3>),
    /// Feature maps, `[batch, channels, height, width]`.
    Rank4(Tensor<4>),
}

/// Runs an expression on the tensor of an activation whatever its rank.
macro_rules! each_rank {
    ($activation:expr, $tensor:ident => $body:expr) => {
        match $activation {
            Activation::Rank2($tensor) => Activation::Rank2($body),
            Activation::Rank3($tensor) => Activation::Rank3($body),
            Activation::Rank4($tensor) => Activation::Rank4($body),
        }
    };
}

impl Activation {
    /// The values of an array as an activation.
    ///
    /// # Errors
    ///
    /// When the rank is not 2, 3 or 4.
    pub fn from_array(array: &Array, device: &Device) -> Result<Self> {
        match array.shape.len() {
            2 => Ok(Self::Rank2(array.tensor(device)?)),
            3 => Ok(Self::Rank3(array.tensor(device)?)),
            4 => Ok(Self::Rank4(array.tensor(device)?)),
            rank => Err(CaseError::Failed(format!(
                "no layer takes a tensor of rank {rank}"
            ))),
        }
    }

    /// The values.
    pub fn array(&self) -> Array {
        match self.clone() {
            Self::Rank2(tensor) => Array::from_tensor(tensor),
            Self::Rank3(tensor) => Array::from_tensor(tensor),
            Self::Rank4(tensor) => Array::from_tensor(tensor),
        }
    }

    /// The same activation as a leaf that collects a gradient.
    pub fn require_grad(self) -> Self {
        each_rank!(self, tensor => tensor.require_grad())
    }

    /// The gradient of a leaf, absent where nothing depends on it.
    pub fn gradient(&self, gradients: &Gradients) -> Option<Array> {
        match self {
            Self::Rank2(tensor) => tensor.grad(gradients).map(Array::from_tensor),
            Self::Rank3(tensor) => tensor.grad(gradients).map(Array::from_tensor),
            Self::Rank4(tensor) => tensor.grad(gradients).map(Array::from_tensor),
        }
    }

    /// `sum(self * weights)`: the loss whose gradient with respect to `self` is `weights`.
    ///
    /// # Errors
    ///
    /// When the shapes differ.
    pub fn weighted_sum(&self, weights: &Array) -> Result<Tensor<1>> {
        match self.clone() {
            Self::Rank2(tensor) => weighted_sum(tensor, weights),
            Self::Rank3(tensor) => weighted_sum(tensor, weights),
            Self::Rank4(tensor) => weighted_sum(tensor, weights),
        }
    }

    /// The sum of two activations.
    ///
    /// # Panics
    ///
    /// When their ranks differ.
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rank2(left), Self::Rank2(right)) => Self::Rank2(left + right),
            (Self::Rank3(left), Self::Rank3(right)) => Self::Rank3(left + right),
            (Self::Rank4(left), Self::Rank4(right)) => Self::Rank4(left + right),
            _ => panic!("values of different ranks are added"),
        }
    }

    /// The rows of features.
    ///
    /// # Panics
    ///
    /// When the activation has another rank.
    pub fn rows(self) -> Tensor<2> {
        match self {
            Self::Rank2(tensor) => tensor,
            other => panic!(
                "expected rows of features, found the shape {:?}",
                other.array().shape
            ),
        }
    }

    /// The values of each element of the batch as one row.
    pub fn flat_rows(self) -> Tensor<2> {
        match self {
            Self::Rank2(tensor) => tensor,
            Self::Rank3(tensor) => tensor.flatten(1, 2),
            Self::Rank4(tensor) => tensor.flatten(1, 3),
        }
    }

    /// The feature maps.
    ///
    /// # Panics
    ///
    /// When the activation has another rank.
    pub fn feature_maps(self) -> Tensor<4> {
        match self {
            Self::Rank4(tensor) => tensor,
            other => panic!(
                "expected feature maps, found the shape {:?}",
                other.array().shape
            ),
        }
    }
}

fn weighted_sum<const D: usize>(tensor: Tensor<D>, weights: &Array) -> Result<Tensor<1>> {
    if tensor.dims().as_slice() != weights.shape.as_slice() {
        return Err(CaseError::Failed(format!(
            "the output has the shape {:?}, its gradient {:?}",
            tensor.dims(),
            weights.shape
        )));
    }
    let weights = weights.tensor::<D>(&tensor.device())?;
    Ok((tensor * weights).sum())
}

pub(super) use each_rank;
