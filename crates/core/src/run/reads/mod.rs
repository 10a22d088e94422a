//! Reads of devices, counted.
//!
//! An accelerator computes behind the program's back. Reading a number waits until everything is
//! done that was queued on the device before, so a program that reads often leaves it idle. All that
//! this library reads goes through this module:
//!
//! - [`data`], [`floats`] and [`all`] read at once, [`each`] little by little;
//! - [`check`] leaves values on the device until the training run reads next, at most once a step
//!   and as seldom as [`Evaluator::with_log_every`](crate::Evaluator::with_log_every) asks for.
//!
//! [`count`] is the number of these reads.

mod check;

use std::cell::Cell;

use burn::tensor::kind::Basic;
use burn::tensor::{DType, Tensor, TensorData, Transaction};

use crate::{BoxError, Error};

pub use super::finite::finite;
pub use check::check;
pub(crate) use check::{Check, Collector, Concern, concerning};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The number of reads on this thread so far.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::reads;
///
/// let before = reads::count();
/// let ones = Tensor::<1>::ones([3], &Device::flex());
/// assert_eq!(reads::floats(ones)?, [1.0; 3]);
/// assert_eq!(reads::count() - before, 1);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub fn count() -> u64 {
    COUNT.get()
}

fn counted() {
    COUNT.set(COUNT.get() + 1);
}

/// Reads a tensor.
///
/// # Errors
///
/// [`Error::Device`] when the device fails to hand it over.
pub fn data<const D: usize, K: Basic>(tensor: Tensor<D, K>) -> Result<TensorData, Error> {
    counted();
    tensor.try_into_data().map_err(failed)
}

/// Reads a tensor as `f32`.
///
/// # Errors
///
/// Those of [`data`].
pub fn floats(tensor: Tensor<1>) -> Result<Vec<f32>, Error> {
    to_floats(data(tensor.detach().without_autodiff())?)
}

/// Reads several tensors as `f32` in one transaction.
///
/// Backends of CubeCL wait once for all of them, others hand over one after another.
///
/// # Errors
///
/// Those of [`data`].
pub fn all(tensors: impl IntoIterator<Item = Tensor<1>>) -> Result<Vec<Vec<f32>>, Error> {
    let mut transaction = Transaction::default();
    let mut any = false;
    for tensor in tensors {
        transaction = transaction.register(tensor.detach().without_autodiff());
        any = true;
    }
    if !any {
        return Ok(Vec::new());
    }
    counted();
    let all = transaction.try_execute().map_err(failed)?;
    all.into_iter().map(to_floats).collect()
}

/// The number of elements that [`each`] reads together.
const TOGETHER: usize = 1 << 18;

/// Reads tensors as `f32` and shows `visit` the values of each with its position, one after another.
///
/// Small tensors are read together, a large one part by part, so that little memory is taken beside
/// that of the largest.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::{BoxError, reads};
///
/// let device = Device::flex();
/// let tensors = vec![Tensor::<1>::ones([3], &device), Tensor::zeros([2], &device)];
/// let mut sums = Vec::new();
/// reads::each(tensors, |at, values| {
///     sums.push((at, values.iter().sum::<f32>()));
///     Ok(())
/// })?;
/// assert_eq!(sums, [(0, 3.0), (1, 0.0)]);
/// # Ok::<(), BoxError>(())
/// ```
///
/// # Errors
///
/// [`Error::Device`] when a device fails to hand them over, and those of `visit`.
pub fn each(
    tensors: Vec<Tensor<1>>,
    mut visit: impl FnMut(usize, &[f32]) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    let tensors = tensors
        .into_iter()
        .map(|tensor| tensor.detach().without_autodiff());
    let mut tensors = tensors.enumerate().peekable();
    let mut large = Vec::new();
    while let Some((first, tensor)) = tensors.next() {
        let [mut elements] = tensor.dims();
        if tensor.dtype() != DType::F32 {
            visit(first, &floats(tensor)?)?;
            continue;
        }
        if elements > TOGETHER {
            large.clear();
            large.reserve_exact(elements);
            for part in tensor.split(TOGETHER, 0) {
                large.extend_from_slice(of_singles(&data(part)?)?);
            }
            visit(first, &large)?;
            continue;
        }
        let device = tensor.device();
        let mut sizes = vec![elements];
        let mut together = vec![tensor];
        while let Some((_, tensor)) = tensors.next_if(|(_, next)| {
            let [more] = next.dims();
            elements += more;
            elements <= TOGETHER && next.dtype() == DType::F32 && next.device() == device
        }) {
            sizes.extend(tensor.dims());
            together.push(tensor);
        }
        let data = data(Tensor::cat(together, 0))?;
        let mut values = of_singles(&data)?;
        for (at, size) in sizes.into_iter().enumerate() {
            let (own, others) = values.split_at(size);
            visit(first + at, own)?;
            values = others;
        }
    }
    Ok(())
}

fn of_singles(data: &TensorData) -> Result<&[f32], Error> {
    let values = data.as_slice();
    values.map_err(|error| Error::Device(format!("{error:?}")))
}

fn to_floats(data: TensorData) -> Result<Vec<f32>, Error> {
    data.try_into_vec_as::<f32>()
        .map_err(|error| Error::Device(format!("{error:?}")))
}

fn failed(error: impl ToString) -> Error {
    Error::Device(error.to_string())
}
