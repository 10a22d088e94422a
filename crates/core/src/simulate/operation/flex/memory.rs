//! Values in memory: what repeats over them, and changes of them in place or in a copy.

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{DispatchTensorKind, Flex};
use burn::tensor::{Bytes, DType, Tensor};

use crate::simulate::operation::runs::Runs;

/// Elements that are copied and then changed at a time.
pub(super) const CHUNK: usize = 4096;

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

/// Values that are changed.
pub(super) enum Values<'a> {
    InPlace(&'a mut [f32]),
    Copied {
        from: &'a [f32],
        /// As many of them as were changed.
        to: &'a mut Vec<f32>,
    },
}

impl Values<'_> {
    /// Changes all values, some at a time, within `stride` elements.
    #[inline(always)]
    pub(super) fn each_chunk(&mut self, stride: usize, mut change: impl FnMut(usize, &mut [f32])) {
        let elements = match self {
            Self::InPlace(values) => values.len(),
            Self::Copied { from, .. } => from.len(),
        };
        let mut start = 0;
        while start < elements {
            let behind = stride - start % stride;
            let length = behind.min(CHUNK);
            change(start, self.chunk(start, length));
            start += length;
        }
    }

    #[inline(always)]
    fn chunk(&mut self, start: usize, length: usize) -> &mut [f32] {
        match self {
            Self::InPlace(values) => &mut values[start..start + length],
            Self::Copied { from, to } => {
                to.extend_from_slice(&from[start..start + length]);
                &mut to[start..]
            }
        }
    }
}

/// The memory of a tensor of `f32` on this backend.
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
    shared.try_into_primitive::<Flex>().map_err(|_| tensor)
}

/// All values of a small tensor.
pub(super) fn floats<const D: usize>(tensor: &Tensor<D>) -> Option<Vec<f32>> {
    let memory = memory(tensor.clone()).ok()?.to_contiguous();
    memory.as_slice().map(<[f32]>::to_vec)
}

/// The tensor after `change`, in its own memory if nothing else holds it.
pub(super) fn changed<const D: usize>(
    tensor: FlexTensor,
    change: impl FnOnce(Values<'_>),
) -> Tensor<D> {
    // Dropped at once, so that nothing else holds the memory.
    let mut tensor = {
        let original = tensor;
        original.to_contiguous()
    };
    let elements = tensor.layout().num_elements();
    if let Some(values) = tensor.try_storage_mut::<f32>() {
        change(Values::InPlace(&mut values[..elements]));
        return Tensor::from_primitive::<Flex>(tensor);
    }
    let shape = tensor.layout().shape().clone();
    let mut to = Vec::with_capacity(elements);
    let from: &[f32] = tensor.as_slice().unwrap_or_default();
    change(Values::Copied { from, to: &mut to });
    let changed = FlexTensor::new(Bytes::from_elems(to), Layout::contiguous(shape), DType::F32);
    Tensor::from_primitive::<Flex>(changed)
}
