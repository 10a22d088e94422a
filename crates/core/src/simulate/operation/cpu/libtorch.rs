//! The memory of libtorch's tensors on the CPU.
//!
//! `tch` gives the memory of a tensor as a pointer alone, so this file has the `unsafe` blocks of the
//! operations. Each makes a slice from a pointer, and [`elements`] asserts what they have in common:
//!
//! - the memory is the processor's, not a GPU's;
//! - its elements have the type of the slice: `f32`, or `bool` read as `u8`;
//! - the tensor is contiguous, so that its elements are those from the pointer on, without a gap.
//!
//! The pointer of an empty tensor may be null, so no slice is made of it. libtorch aligns its memory to
//! 64 bytes, and a view begins at a whole element. A slice is borrowed from the tensor, which keeps the
//! memory. It is written to where no other tensor has this memory: it is new, or
//! [`TchTensor::can_mut`] holds, by which Burn decides on its own changes in place.

#![allow(unsafe_code)]
#![allow(deprecated)] // Burn is about to drop the backend.

use std::cmp::Reverse;
use std::mem::MaybeUninit;
use std::slice;

pub(super) use burn::backend::libtorch::TchTensor;
use burn::backend::{DispatchTensorKind, LibTorch, LibTorchDevice, TensorMetadata};
use burn::tensor::{Bool, BoolStore, DType, Shape, Tensor};

use super::values::Values;

const FLAG: DType = DType::Bool(BoolStore::Native);

/// The memory of a tensor of `f32`, made contiguous if it is not.
///
/// # Errors
///
/// The tensor itself, of another backend or type, or on a GPU.
pub(super) fn memory<const D: usize>(tensor: Tensor<D>) -> Result<TchTensor, Tensor<D>> {
    let shared = tensor.clone().into_dispatch();
    let is_libtorch = matches!(&shared.kind, DispatchTensorKind::LibTorch(_));
    drop(shared);
    if !is_libtorch || tensor.dtype() != DType::F32 {
        return Err(tensor);
    }
    let shared = tensor.clone();
    let memory = shared.try_into_primitive::<LibTorch>();
    let memory = memory.map_err(|_| tensor)?;
    match is_on_cpu(&memory) {
        true => Ok(contiguous(memory)),
        false => Err(Tensor::from_primitive::<LibTorch>(memory)),
    }
}

/// The order of dimensions in which a tensor without gaps lies in memory, where it is not that of its
/// shape: libtorch keeps such an order from operation to operation, as it has with the gradient of a
/// convolution's weight.
pub(super) fn order<const D: usize>(tensor: &Tensor<D>) -> Option<[usize; D]> {
    let TchTensor { tensor, .. } = tensor.clone().try_into_primitive::<LibTorch>().ok()?;
    if tensor.is_contiguous() {
        return None;
    }
    let (sizes, strides) = (tensor.size(), tensor.stride());
    let mut order: [usize; D] = std::array::from_fn(|dim| dim);
    order.sort_by_key(|&dim| Reverse(strides[dim]));
    let mut expected = 1;
    for dim in order.into_iter().rev() {
        if sizes[dim] != 1 && strides[dim] != expected {
            return None;
        }
        expected *= sizes[dim];
    }
    Some(order)
}

/// The memory of a tensor of flags, made contiguous if it is not.
pub(super) fn flag_memory<const D: usize>(flags: Tensor<D, Bool>) -> Option<TchTensor> {
    let flags = flags.try_into_primitive::<LibTorch>().ok()?;
    let is_in_reach = is_on_cpu(&flags) && flags.dtype() == FLAG;
    is_in_reach.then(|| contiguous(flags))
}

/// The tensor after `change`, in its own memory if nothing else holds it.
pub(super) fn changed<const D: usize>(
    mut tensor: TchTensor,
    change: impl FnOnce(Values<'_>),
) -> Tensor<D> {
    if let Some(values) = floats_mut(&mut tensor) {
        change(Values::InPlace(values));
        return Tensor::from_primitive::<LibTorch>(tensor);
    }
    let mut changed = TchTensor::empty(tensor.shape(), LibTorchDevice::Cpu, DType::F32);
    change(Values::Into {
        from: floats(&tensor),
        to: room(&mut changed),
    });
    Tensor::from_primitive::<LibTorch>(changed)
}

/// A tensor of these values, written to its memory: one call of the library, where Burn makes three.
pub(super) fn tensor(values: &[f32]) -> Tensor<1> {
    let shape = Shape::from([values.len()]);
    let mut tensor = TchTensor::empty(shape, LibTorchDevice::Cpu, DType::F32);
    room(&mut tensor).write_copy_of_slice(values);
    Tensor::from_primitive::<LibTorch>(tensor)
}

/// All values of a contiguous tensor.
pub(super) fn floats(tensor: &TchTensor) -> &[f32] {
    let elements = elements(tensor, DType::F32);
    if elements == 0 {
        return &[];
    }
    // SAFETY: see the top of the file. Nothing writes to memory that this tensor shares.
    unsafe { slice::from_raw_parts(tensor.tensor.data_ptr().cast(), elements) }
}

/// All flags of a contiguous tensor.
pub(super) fn flags(tensor: &TchTensor) -> &[u8] {
    let elements = elements(tensor, FLAG);
    if elements == 0 {
        return &[];
    }
    // SAFETY: see the top of the file. Nothing writes to memory that this tensor shares.
    unsafe { slice::from_raw_parts(tensor.tensor.data_ptr().cast(), elements) }
}

/// All values, if no other tensor has them.
fn floats_mut(tensor: &mut TchTensor) -> Option<&mut [f32]> {
    let elements = elements(tensor, DType::F32);
    if elements == 0 || !tensor.can_mut() {
        return None;
    }
    // SAFETY: see the top of the file. This tensor alone has the memory, and it is borrowed mutably.
    Some(unsafe { slice::from_raw_parts_mut(tensor.tensor.data_ptr().cast(), elements) })
}

/// The places of a new tensor, which have no values yet.
fn room(tensor: &mut TchTensor) -> &mut [MaybeUninit<f32>] {
    let elements = elements(tensor, DType::F32);
    if elements == 0 {
        return &mut [];
    }
    assert!(tensor.can_mut(), "another tensor has the memory");
    // SAFETY: see the top of the file. This tensor alone has the memory, and it is borrowed mutably.
    unsafe { slice::from_raw_parts_mut(tensor.tensor.data_ptr().cast(), elements) }
}

fn is_on_cpu(tensor: &TchTensor) -> bool {
    matches!(tensor.device(), LibTorchDevice::Cpu)
}

fn contiguous(tensor: TchTensor) -> TchTensor {
    match tensor.tensor.is_contiguous() {
        true => tensor,
        false => TchTensor::new(tensor.tensor.contiguous()),
    }
}

/// The number of elements, of a tensor that slices may be made of.
fn elements(tensor: &TchTensor, dtype: DType) -> usize {
    assert!(is_on_cpu(tensor), "the memory is that of a GPU");
    assert_eq!(tensor.dtype(), dtype, "the elements have another type");
    assert!(tensor.tensor.is_contiguous(), "there are gaps");
    tensor.tensor.numel()
}
