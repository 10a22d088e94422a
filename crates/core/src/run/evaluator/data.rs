//! Sources of the batches of an epoch.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use burn::data::dataloader::DataLoader;

use crate::Error;
use crate::erased::AnyBatch;

pub(super) type Visit<'a, I> = &'a mut dyn FnMut(I) -> Result<ControlFlow<()>, Error>;

/// Hands out the batches of an epoch, in an order that depends on the epoch alone.
pub(super) trait Batches<I>: Send + Sync {
    /// The batches of an epoch of training; whether `visit` was given the last of them.
    fn epoch(&self, epoch: usize, visit: Visit<'_, I>) -> Result<bool, Error>;

    /// The batches of an epoch outside of training.
    fn look(&self, visit: Visit<'_, I>) -> Result<(), Error>;

    /// The number of batches in an epoch.
    fn count(&self) -> Result<usize, Error> {
        let mut batches = 0;
        self.look(&mut |_| {
            batches += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(batches)
    }
}

/// Batches of a known type as those of an unknown one.
pub(super) struct Erased<I>(pub Arc<dyn Batches<I>>);

/// The visit of batches whose type is known.
fn erasing<I: 'static>(
    visit: Visit<'_, AnyBatch>,
) -> impl FnMut(I) -> Result<ControlFlow<()>, Error> {
    move |batch| visit(AnyBatch::new(batch))
}

impl<I: 'static> Batches<AnyBatch> for Erased<I> {
    fn epoch(&self, epoch: usize, visit: Visit<'_, AnyBatch>) -> Result<bool, Error> {
        self.0.epoch(epoch, &mut erasing(visit))
    }

    fn look(&self, visit: Visit<'_, AnyBatch>) -> Result<(), Error> {
        self.0.look(&mut erasing(visit))
    }

    fn count(&self) -> Result<usize, Error> {
        self.0.count()
    }
}

pub(super) struct FromClosure<F>(pub F);

impl<I, B, F> Batches<I> for FromClosure<F>
where
    B: IntoIterator<Item = I>,
    F: Fn(usize) -> B + Send + Sync,
{
    fn epoch(&self, epoch: usize, visit: Visit<'_, I>) -> Result<bool, Error> {
        for batch in (self.0)(epoch) {
            if visit(batch)?.is_break() {
                // The epoch can be begun again, whether it is over or not.
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn look(&self, visit: Visit<'_, I>) -> Result<(), Error> {
        self.epoch(0, visit).map(drop)
    }
}

/// A shuffling loader draws a new order each time an iterator is made, so a run that begins in a
/// later epoch first draws the orders of the epochs before it, and an epoch that is over is not
/// begun again.
pub(super) struct FromLoader<I> {
    loader: Arc<dyn DataLoader<I>>,
    /// Orders drawn for epochs.
    drawn: AtomicUsize,
    /// Batches in an epoch; counting them draws one order before those of the epochs.
    counted: OnceLock<usize>,
}

impl<I> FromLoader<I> {
    pub fn new(loader: Arc<dyn DataLoader<I>>) -> Self {
        Self {
            loader,
            drawn: AtomicUsize::new(0),
            counted: OnceLock::new(),
        }
    }

    fn pass(&self, epoch: usize, visit: Visit<'_, I>) -> Result<bool, Error> {
        let mut batches = self.loader.iter();
        while let Some(batch) = batches.next() {
            let batch = batch.map_err(|error| Error::Data {
                epoch,
                reason: error.to_string(),
            })?;
            if visit(batch)?.is_break() {
                return Ok(batches.next().is_none());
            }
        }
        Ok(true)
    }
}

impl<I> Batches<I> for FromLoader<I> {
    fn epoch(&self, epoch: usize, visit: Visit<'_, I>) -> Result<bool, Error> {
        while self.drawn.load(Ordering::Acquire) < epoch {
            drop(self.loader.iter());
            self.drawn.fetch_add(1, Ordering::AcqRel);
        }
        self.drawn.fetch_add(1, Ordering::AcqRel);
        self.pass(epoch, visit)
    }

    fn look(&self, visit: Visit<'_, I>) -> Result<(), Error> {
        self.pass(0, visit).map(drop)
    }

    fn count(&self) -> Result<usize, Error> {
        if let Some(&batches) = self.counted.get() {
            return Ok(batches);
        }
        let mut batches = 0;
        self.look(&mut |_| {
            batches += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(*self.counted.get_or_init(|| batches))
    }
}
