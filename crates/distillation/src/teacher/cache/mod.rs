//! The outputs of a teacher for fixed data, kept on disk.
//!
//! A teacher gives the same output for a sample in every epoch and in every run, and is often the
//! most expensive part of a step. With a cache it runs once: the hidden states and logits of each
//! sample are stored under the sample's key, and it does not run for a batch whose samples are all
//! stored.
//!
//! The data must be fixed: a sample that is augmented at random needs a key for each of its
//! variants. Hidden states that depend on the rest of the batch (batch norms in training mode) do
//! not belong in a cache; a teacher is a `valid()` snapshot and has none.
//!
//! # Outputs that are compared
//!
//! A file is that of one teacher, identified by its weights and by the states that are read from
//! it. How `predict` runs the teacher leaves no trace, and neither does a key that two samples
//! share. Therefore the teacher runs all the same for the 1st, the 10th, the 100th batch whose
//! samples are all stored, and so on, and for the stored samples of a batch that holds new ones. An
//! output other than that of the file is [`DistillationError::CachedAnswer`]. Outputs less than 1 %
//! apart by their Euclidean norms count as the same: the last digits depend on the batch and the
//! device.

mod file;

use std::fmt;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::erased::AnyBatch;
use burn_compress_core::file::check_writable;
use burn_compress_core::{FlatTensor, reads};
use indexmap::IndexMap;
use indexmap::map::Entry;

use crate::error::DistillationError;
use file::{Content, Sample, StateOf, failed};

/// Gives the samples of a batch their keys.
type Key<I> = Box<dyn Fn(&I) -> Vec<u64> + Send>;

/// A file of a teacher's outputs, by sample.
///
/// The file is written when a run ends, whenever a checkpoint is written, and each time that the
/// number of new samples has reached that of the samples in the file. It is replaced as a whole or
/// not at all. While it is in use, all of it is held in memory.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::{Teacher, TeacherCache};
///
/// struct Batch {
///     rows: Vec<u64>,
///     features: Tensor<2>,
/// }
///
/// let path = std::env::temp_dir().join(format!("teacher-{}.cache", std::process::id()));
/// let cache = TeacherCache::open(&path, |batch: &Batch| batch.rows.clone())?;
/// let network = LinearConfig::new(4, 3).init(&Device::flex());
/// let teacher = Teacher::of_logits(&network, |network: &Linear, batch: &Batch| {
///     network.forward(batch.features.clone())
/// })
/// .with_cache(cache);
/// # Ok::<(), burn_compress_distillation::DistillationError>(())
/// ```
pub struct TeacherCache<I> {
    path: PathBuf,
    key: Key<I>,
    content: Option<Content>,
}

impl<I> fmt::Debug for TeacherCache<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeacherCache")
            .field("path", &self.path)
            .field("samples", &self.len())
            .finish_non_exhaustive()
    }
}

impl<I> TeacherCache<I> {
    /// Opens the cache in `path`, which need not exist yet.
    ///
    /// `key` gives one number for each sample of a batch, in the order of the first dimension of
    /// what the teacher returns.
    ///
    /// # Errors
    ///
    /// [`DistillationError::Cache`] for a file that cannot be read, is cut off or damaged.
    pub fn open(
        path: impl Into<PathBuf>,
        key: impl Fn(&I) -> Vec<u64> + Send + 'static,
    ) -> Result<Self, DistillationError> {
        let path = path.into();
        let content = match path.try_exists() {
            Ok(false) => None,
            Ok(true) => Some(file::read(&path)?),
            Err(error) => return Err(failed(&path, error.to_string())),
        };
        Ok(Self {
            path,
            key: Box::new(key),
            content,
        })
    }

    /// The same for batches whose type is not known.
    pub(crate) fn erased(self) -> TeacherCache<AnyBatch>
    where
        I: 'static,
    {
        let key = self.key;
        TeacherCache {
            path: self.path,
            key: Box::new(move |batch| key(batch.get())),
            content: self.content,
        }
    }

    /// The number of samples in the file.
    pub fn len(&self) -> usize {
        let content = self.content.as_ref();
        content.map_or(0, |content| content.samples.len())
    }

    /// Whether there is no sample yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cache of a teacher with these weights, from which these states are read.
    pub(crate) fn belonging_to(
        self,
        teacher: u64,
        states: Vec<String>,
    ) -> Result<Bound<I>, DistillationError> {
        let content = match self.content {
            None => Content {
                teacher,
                states,
                samples: IndexMap::new(),
            },
            Some(content) if content.teacher == teacher && content.states == states => content,
            Some(content) => {
                let describe = |teacher: u64, states: &[String]| {
                    format!("teacher {teacher:016x} with {}", states.join(", "))
                };
                return Err(DistillationError::ForeignCache {
                    path: self.path,
                    found: describe(content.teacher, &content.states),
                    expected: describe(teacher, &states),
                });
            }
        };
        Ok(Bound {
            path: self.path,
            key: self.key,
            saved: content.samples.len(),
            content,
            known: 0,
        })
    }
}

/// The cache of one teacher.
pub(crate) struct Bound<I> {
    path: PathBuf,
    key: Key<I>,
    content: Content,
    /// Samples in the file.
    saved: usize,
    /// Batches whose samples were all stored.
    known: u64,
}

impl<I> Bound<I> {
    /// The states of a batch; `run` runs the teacher and is called for a batch with new samples, or
    /// to compare stored ones.
    pub(crate) fn states(
        &mut self,
        batch: &I,
        device: &Device,
        run: impl FnOnce() -> Result<Vec<FlatTensor>, DistillationError>,
    ) -> Result<Vec<FlatTensor>, DistillationError> {
        let keys = (self.key)(batch);
        let is_known = |key| self.content.samples.contains_key(key);
        let all_known = keys.iter().all(is_known);
        self.known += u64::from(all_known);
        if !all_known || is_power_of_ten(self.known) {
            let states = run()?;
            self.store(&keys, &states)?;
        }
        // Read back even new outputs: a second run gets the same to the last bit, also for a batch
        // of which only some samples were stored.
        (0..self.content.states.len())
            .map(|state| self.gather(state, &keys, device))
            .collect()
    }

    fn store(&mut self, keys: &[u64], states: &[FlatTensor]) -> Result<(), DistillationError> {
        let mut samples: Vec<Vec<StateOf>> = vec![Vec::new(); keys.len()];
        let values = reads::all(states.iter().map(|state| state.values.clone()))
            .map_err(|error| failed(&self.path, error.to_string()))?;
        let states = states.iter().zip(values);
        for (name, (state, values)) in self.content.states.iter().zip(states) {
            let misfit = || DistillationError::SampleKeys {
                state: name.clone(),
                shape: state.shape.clone(),
                keys: keys.len(),
            };
            let rows = state.shape.first().copied().unwrap_or(0);
            if keys.is_empty() || rows == 0 || rows % keys.len() != 0 {
                return Err(misfit());
            }
            let mut shape = state.shape.clone();
            shape[0] = rows / keys.len();
            let dtype = state.values.dtype();
            if !file::holds_exactly(dtype) {
                let reason = format!("`{name}` holds {dtype:?}, which f32 cannot hold exactly");
                return Err(failed(&self.path, reason));
            }
            let size = values.len() / keys.len();
            if size == 0 {
                return Err(misfit());
            }
            for (sample, values) in samples.iter_mut().zip(values.chunks_exact(size)) {
                sample.push(StateOf {
                    shape: shape.clone(),
                    dtype,
                    values: values.to_vec(),
                });
            }
        }
        if self.content.samples.len() == self.saved {
            // A file that cannot be written ends the run where it begins, not when it is done.
            check_writable(&self.path).map_err(|error| failed(&self.path, error.to_string()))?;
        }
        for (&key, states) in keys.iter().zip(samples) {
            match self.content.samples.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(Sample { states });
                }
                Entry::Occupied(entry) => {
                    let known = entry.get().states.iter().zip(&states);
                    for ((known, found), name) in known.zip(&self.content.states) {
                        if !known.agrees_with(found) {
                            return Err(DistillationError::CachedAnswer {
                                path: self.path.clone(),
                                state: name.clone(),
                                key,
                            });
                        }
                    }
                }
            }
        }
        if self.content.samples.len() >= self.saved.saturating_mul(2).max(FIRST_SAVE) {
            self.save()?;
        }
        Ok(())
    }

    fn gather(
        &self,
        state: usize,
        keys: &[u64],
        device: &Device,
    ) -> Result<FlatTensor, DistillationError> {
        let of = |key: &u64| &self.content.samples[key].states[state];
        let Some(first) = keys.first().map(of) else {
            return Err(failed(&self.path, "the batch has no samples".to_string()));
        };
        let mut values = Vec::with_capacity(first.values.len() * keys.len());
        for key in keys {
            let other = of(key);
            if other.shape != first.shape || other.dtype != first.dtype {
                let reason = format!(
                    "the samples of one batch have the shapes {:?} and {:?}",
                    first.shape, other.shape
                );
                return Err(failed(&self.path, reason));
            }
            values.extend_from_slice(&other.values);
        }
        let mut shape = first.shape.clone();
        shape[0] *= keys.len();
        let size = values.len();
        let values = Tensor::from_data(TensorData::new(values, [size]), (device, first.dtype));
        Ok(FlatTensor { values, shape })
    }

    /// Writes the file if there is anything new.
    pub(crate) fn save(&mut self) -> Result<(), DistillationError> {
        if self.content.samples.len() > self.saved {
            file::write(&self.path, &self.content)?;
            self.saved = self.content.samples.len();
        }
        Ok(())
    }
}

fn is_power_of_ten(number: u64) -> bool {
    10_u64.checked_pow(number.max(1).ilog10()) == Some(number)
}

/// Fewer new samples than this are not worth a file before the run ends.
const FIRST_SAVE: usize = 1024;

#[cfg(test)]
mod tests;
