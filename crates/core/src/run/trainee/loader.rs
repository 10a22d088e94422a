//! Batches of one epoch after another for Burn's `Learner`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;

type EpochBatches<I> = Arc<dyn Fn(usize) -> Vec<I> + Send + Sync>;

/// A data loader whose batches depend on the epoch alone, so that a resumed training sees those of an
/// uninterrupted one, shuffled or not.
///
/// It takes the function of [`Evaluator::with_data`](crate::Evaluator::with_data): from the number of
/// the epoch, counted from 0, to its batches. They stay on the device on which the function makes them.
/// Progress is counted in batches.
///
/// ```
/// use burn::data::dataloader::DataLoader;
/// use burn_compress_core::EpochLoader;
///
/// let shuffled = |epoch: usize| vec![epoch, epoch + 10]; // seeded with the epoch
/// let resumed = 2; // as in `SupervisedTraining::checkpoint(2)`: two epochs are done
/// let loader = EpochLoader::new(shuffled).after(resumed).into_shared();
/// let epoch = |loader: &dyn DataLoader<usize>| loader.iter().map(Result::unwrap).collect::<Vec<_>>();
/// assert_eq!(epoch(&*loader), [2, 12]);
/// assert_eq!(epoch(&*loader), [3, 13]);
/// ```
pub struct EpochLoader<I> {
    batches: EpochBatches<I>,
    /// Batches of an epoch.
    count: usize,
    /// The epoch of the next iterator, from 0.
    next: AtomicUsize,
    /// The batches that are given out.
    part: Option<(usize, usize)>,
}

impl<I: Send + 'static> EpochLoader<I> {
    /// A loader that begins with epoch 0. All epochs have as many batches as that.
    pub fn new(batches: impl Fn(usize) -> Vec<I> + Send + Sync + 'static) -> Self {
        Self {
            count: batches(0).len(),
            batches: Arc::new(batches),
            next: AtomicUsize::new(0),
            part: None,
        }
    }

    /// Begins after `epochs` epochs: the number that `SupervisedTraining::checkpoint` is given.
    pub fn after(mut self, epochs: usize) -> Self {
        self.next = AtomicUsize::new(epochs);
        self
    }

    /// The loader as `SupervisedTraining` takes it.
    pub fn into_shared(self) -> Arc<dyn DataLoader<I>> {
        Arc::new(self)
    }

    /// A loader at the same epoch.
    fn copy(&self, part: Option<(usize, usize)>) -> Arc<dyn DataLoader<I>> {
        Arc::new(Self {
            batches: self.batches.clone(),
            count: self.count,
            next: AtomicUsize::new(self.next.load(Ordering::Relaxed)),
            part,
        })
    }
}

impl<I: Send + 'static> DataLoader<I> for EpochLoader<I> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<I> + 'a> {
        let epoch = self.next.fetch_add(1, Ordering::Relaxed);
        let mut batches = (self.batches)(epoch);
        if let Some((start, end)) = self.part {
            batches.truncate(end);
            batches.drain(..start.min(batches.len()));
        }
        Box::new(EpochIterator {
            total: batches.len(),
            batches: batches.into_iter(),
        })
    }

    fn num_items(&self) -> usize {
        match self.part {
            Some((start, end)) => end.min(self.count).saturating_sub(start),
            None => self.count,
        }
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<I>> {
        self.copy(self.part)
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<I>> {
        let (first, last) = self.part.unwrap_or((0, self.count));
        self.copy(Some((first + start, last.min(first + end))))
    }
}

struct EpochIterator<I> {
    batches: std::vec::IntoIter<I>,
    total: usize,
}

impl<I> Iterator for EpochIterator<I> {
    type Item = Result<I, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.next().map(Ok)
    }
}

impl<I> DataLoaderIterator<I> for EpochIterator<I> {
    fn progress(&self) -> Progress {
        let done = self.total - self.batches.len();
        Progress::new(done, self.total, Some("batches".to_string()))
    }
}
