//! The memory of tensors on `flex`.

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{DispatchTensorKind, Flex};
use burn::tensor::{Bool, Bytes, DType, Shape, Tensor};

use super::values::Values;

/// The memory of a tensor of `f32`, made contiguous if it is not.
///
/// # Errors
///
/// The tensor itself, of another backend or type.
pub(super) fn memory<const D: usize>(tensor: Tensor<D>) -> Result<FlexTensor, Tensor<D>> {
    let shared = tensor.clone().into_dispatch();
    let is_flex = matches!(&shared.kind, DispatchTensorKind::Flex(_));
    drop(shared);
    if !is_flex || tensor.dtype() != DType::F32 {
        return Err(tensor);
    }
    let shared = tensor.clone();
    // Dropped on return, so that nothing else holds the memory.
    let given = shared.try_into_primitive::<Flex>().map_err(|_| tensor)?;
    Ok(given.to_contiguous())
}

/// The memory of a tensor of flags, made contiguous if it is not.
pub(super) fn flag_memory<const D: usize>(flags: Tensor<D, Bool>) -> Option<FlexTensor> {
    let flags = flags.try_into_primitive::<Flex>().ok()?;
    Some(flags.to_contiguous())
}

/// All flags of a contiguous tensor.
pub(super) fn flags(tensor: &FlexTensor) -> &[u8] {
    &tensor.bytes()[..tensor.layout().num_elements()]
}

/// The tensor after `change`, in its own memory if nothing else holds it.
pub(super) fn changed<const D: usize>(
    mut tensor: FlexTensor,
    change: impl FnOnce(Values<'_>),
) -> Tensor<D> {
    let elements = tensor.layout().num_elements();
    if let Some(values) = tensor.try_storage_mut::<f32>() {
        change(Values::InPlace(&mut values[..elements]));
        return Tensor::from_primitive::<Flex>(tensor);
    }
    let shape = tensor.layout().shape().clone();
    let mut to = Vec::with_capacity(elements);
    let from: &[f32] = tensor.as_slice().unwrap_or_default();
    change(Values::Copied { from, to: &mut to });
    shaped(to, shape)
}

/// A tensor of these values.
pub(super) fn tensor(values: Vec<f32>) -> Tensor<1> {
    let shape = Shape::from([values.len()]);
    shaped(values, shape)
}

fn shaped<const D: usize>(values: Vec<f32>, shape: Shape) -> Tensor<D> {
    let layout = Layout::contiguous(shape);
    let tensor = FlexTensor::new(Bytes::from_elems(values), layout, DType::F32);
    Tensor::from_primitive::<Flex>(tensor)
}
