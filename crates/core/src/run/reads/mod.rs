//! Reads of devices, counted.
//!
//! An accelerator computes behind the program's back. Reading a number waits until everything is
//! done that was queued on the device before, so a program that reads often leaves it idle. All that
//! this library reads goes through this module:
//!
//! - [`data`], [`floats`] and [`all`] read at once;
//! - [`check`] leaves values on the device until the training run reads next, at most once a step
//!   and as seldom as [`Evaluator::with_log_every`](crate::Evaluator::with_log_every) asks for.
//!
//! [`count`] is the number of these reads.

mod check;

use std::cell::Cell;

use burn::tensor::kind::Basic;
use burn::tensor::{Tensor, TensorData, Transaction};

use crate::Error;

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

fn to_floats(data: TensorData) -> Result<Vec<f32>, Error> {
    data.try_into_vec_as::<f32>()
        .map_err(|error| Error::Device(format!("{error:?}")))
}

fn failed(error: impl ToString) -> Error {
    Error::Device(error.to_string())
}
