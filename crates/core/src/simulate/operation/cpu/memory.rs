//! Values in memory: what repeats over them, and changes of them in place or in a copy.

#![cfg_attr(feature = "tch", allow(deprecated))] // Burn is about to drop LibTorch.

#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::tensor::{Bool, BoolStore, DType, Device, Tensor, TensorData};

#[cfg(feature = "flex")]
use super::flex;
#[cfg(feature = "tch")]
use super::libtorch::{self, TchTensor};
use super::values::Values;
use crate::simulate::operation::runs::Runs;

/// One value for each run of elements.
pub(super) struct Repeated<T> {
    pub(super) values: Vec<T>,
    pub(super) runs: Runs,
}

impl<T: Copy> Repeated<T> {
    /// The same value for all elements.
    pub(super) fn single(value: T, dims: &[usize]) -> Self {
        let runs = Runs {
            blocks: 1,
            inner: dims.iter().product(),
        };
        Self {
            values: vec![value],
            runs,
        }
    }

    pub(super) fn of<const D: usize>(
        tensor: &Tensor<D>,
        dims: &[usize; D],
        value: impl FnMut(f32) -> T,
    ) -> Option<Self> {
        let runs = Runs::new(&tensor.dims(), dims)?;
        let values = floats(tensor)?.into_iter().map(value).collect();
        Some(Self { values, runs })
    }

    /// The values of the elements from `start` on.
    pub(super) fn from(&self, start: usize, length: usize) -> Part<'_, T> {
        let first = self.runs.at(start);
        match self.runs.inner {
            1 if self.runs.blocks > 1 => Part::Each(&self.values[first..first + length]),
            _ => Part::All(self.values[first]),
        }
    }
}

impl Repeated<f32> {
    pub(super) fn of_mask<const D: usize>(
        mask: Option<&Tensor<D>>,
        dims: &[usize; D],
    ) -> Option<Self> {
        match mask {
            Some(mask) => Self::of(mask, dims, |factor| factor),
            None => Some(Self::single(1.0, dims)),
        }
    }
}

/// What belongs to neighbouring elements.
pub(super) enum Part<'a, T> {
    /// One value for all of them.
    All(T),
    /// A value for each.
    Each(&'a [T]),
}

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

/// All values of a small tensor.
pub(in crate::simulate::operation) fn floats<const D: usize>(
    tensor: &Tensor<D>,
) -> Option<Vec<f32>> {
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
