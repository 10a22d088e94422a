//! Values in memory, and changes of them in place or in a copy.

#![cfg_attr(feature = "tch", allow(deprecated))] // Burn is about to drop LibTorch.

#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::tensor::{Bool, BoolStore, DType, Device, Tensor, TensorData};

#[cfg(feature = "flex")]
use super::flex;
#[cfg(feature = "tch")]
use super::libtorch::{self, TchTensor};
use super::values::Values;

/// The memory of a contiguous tensor of `f32` or of flags.
#[allow(clippy::large_enum_variant)] // It is opened where it was made.
pub(super) enum Memory {
    #[cfg(feature = "flex")]
    Flex(FlexTensor),
    #[cfg(feature = "tch")]
    LibTorch(TchTensor),
}

/// The memory of a tensor of `f32`, made contiguous if it is not.
///
/// # Errors
///
/// The tensor itself, of another backend or type, or on a GPU.
pub(super) fn memory<const D: usize>(tensor: Tensor<D>) -> Result<Memory, Tensor<D>> {
    #[cfg(feature = "flex")]
    let tensor = match flex::memory(tensor) {
        Ok(memory) => return Ok(Memory::Flex(memory)),
        Err(tensor) => tensor,
    };
    #[cfg(feature = "tch")]
    let tensor = match libtorch::memory(tensor) {
        Ok(memory) => return Ok(Memory::LibTorch(memory)),
        Err(tensor) => tensor,
    };
    Err(tensor)
}

/// The order of dimensions in which a tensor without gaps lies in memory, where it is known and not that
/// of its shape.
pub(super) fn order<const D: usize>(tensor: &Tensor<D>) -> Option<[usize; D]> {
    #[cfg(feature = "tch")]
    return libtorch::order(tensor);
    #[cfg(not(feature = "tch"))]
    {
        let _ = tensor;
        None
    }
}

/// All values of a small tensor.
pub(super) fn floats<const D: usize>(tensor: &Tensor<D>) -> Option<Vec<f32>> {
    Some(memory(tensor.clone()).ok()?.values().to_vec())
}

impl Memory {
    /// All values.
    pub(super) fn values(&self) -> &[f32] {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex(tensor) => tensor.as_slice().unwrap_or_default(),
            #[cfg(feature = "tch")]
            Self::LibTorch(tensor) => libtorch::floats(tensor),
        }
    }

    /// The tensor after `change`, in its own memory if nothing else holds it.
    pub(super) fn changed<const D: usize>(self, change: impl FnOnce(Values<'_>)) -> Tensor<D> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex(tensor) => flex::changed(tensor, change),
            #[cfg(feature = "tch")]
            Self::LibTorch(tensor) => libtorch::changed(tensor, change),
        }
    }

    /// A tensor of other values on the same device.
    pub(super) fn beside(&self, values: Vec<f32>) -> Tensor<1> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex(_) => flex::tensor(values),
            #[cfg(feature = "tch")]
            Self::LibTorch(_) => libtorch::tensor(&values),
        }
    }

    /// All flags, each of which is 1 or 0.
    pub(super) fn flags(&self) -> &[u8] {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex(tensor) => flex::flags(tensor),
            #[cfg(feature = "tch")]
            Self::LibTorch(tensor) => libtorch::flags(tensor),
        }
    }
}

/// The memory of a tensor of flags, which has no [values](Memory::values); none on a GPU.
pub(super) fn flag_memory<const D: usize>(flags: &Tensor<D, Bool>) -> Option<Memory> {
    #[cfg(feature = "flex")]
    if let Some(memory) = flex::flag_memory(flags.clone()) {
        return Some(Memory::Flex(memory));
    }
    #[cfg(feature = "tch")]
    if let Some(memory) = libtorch::flag_memory(flags.clone()) {
        return Some(Memory::LibTorch(memory));
    }
    None
}

/// A tensor of flags, each of which is 1 or 0.
pub(super) fn new_flags<const D: usize>(
    flags: Vec<u8>,
    dims: [usize; D],
    device: &Device,
) -> Tensor<D, Bool> {
    let dtype = DType::Bool(BoolStore::Native);
    Tensor::from_data(TensorData::from_bytes_vec(flags, dims, dtype), device)
}
