//! The teachers of a distiller in a chain, run on each batch or read from their caches.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

use burn_compress_core::{Configuration, Error, FlatTensor, TargetSpace};
use derive_new::new;

use crate::error::DistillationError;
use crate::teacher::aggregation::{TeacherAggregation, mean_output};
use crate::teacher::cache::{Bound, TeacherCache};
use crate::teacher::source::Network;
use crate::tensors::take_hidden;

/// A hidden state of a teacher.
pub(crate) struct State {
    pub(crate) space: Arc<TargetSpace>,
    pub(crate) kind: String,
}

/// The output of a teacher for a batch.
struct TeacherOutput {
    /// One for each link.
    hidden: Vec<FlatTensor>,
    /// `[rows, classes]`.
    logits: Option<FlatTensor>,
}

/// A teacher whose hidden states are recorded.
#[derive(new)]
#[new(visibility = "pub(crate)")]
pub(crate) struct AttachedTeacher<I> {
    source: Network<I>,
    weight: f64,
    pub(crate) states: Vec<State>,
    #[new(default)]
    cache: Option<RefCell<Bound<I>>>,
    #[new(default)]
    fingerprint: OnceCell<u64>,
}

/// The name of the logits in a cache.
const LOGITS: &str = "logits";

impl<I> AttachedTeacher<I> {
    /// The teacher with a cache, which no other teacher may have filled.
    pub(crate) fn with_cache(self, cache: TeacherCache<I>) -> Result<Self, Error> {
        let states = self.states.iter().map(|state| state.space.id().to_string());
        let logits = self.source.gives_logits().then(|| LOGITS.to_string());
        let names = states.chain(logits).collect();
        let cache = cache.belonging_to(self.fingerprint()?, names)?;
        Ok(Self {
            cache: Some(RefCell::new(cache)),
            ..self
        })
    }

    /// The checksum of the network; read from the device once.
    fn fingerprint(&self) -> Result<u64, Error> {
        match self.fingerprint.get() {
            Some(known) => Ok(*known),
            None => {
                let found = self.source.fingerprint()?;
                Ok(*self.fingerprint.get_or_init(|| found))
            }
        }
    }

    fn output(&self, batch: &I) -> Result<TeacherOutput, DistillationError> {
        let Some(cache) = &self.cache else {
            return self.run(batch);
        };
        let run = || {
            let output = self.run(batch)?;
            Ok(output.hidden.into_iter().chain(output.logits).collect())
        };
        let device = self.source.device();
        let mut hidden = cache.borrow_mut().states(batch, &device, run)?;
        let logits = match self.source.gives_logits() {
            true => hidden.pop(),
            false => None,
        };
        Ok(TeacherOutput { hidden, logits })
    }

    fn run(&self, batch: &I) -> Result<TeacherOutput, DistillationError> {
        let logits = self.source.predict(batch).map(FlatTensor::new);
        let mut hidden: Vec<FlatTensor> = Vec::new();
        for (at, state) in self.states.iter().enumerate() {
            // Two links may lead to one layer, which gives its state once.
            let is_same = |other: &State| other.space.id() == state.space.id();
            hidden.push(match self.states[..at].iter().position(is_same) {
                Some(first) => hidden[first].clone(),
                None => take_hidden("teacher", &state.space)?,
            });
        }
        Ok(TeacherOutput { hidden, logits })
    }

    /// Writes new outputs to the cache.
    fn save(&self) -> Result<(), DistillationError> {
        match &self.cache {
            Some(cache) => cache.borrow_mut().save(),
            None => Ok(()),
        }
    }
}

/// The teachers of a distiller; there is at least one.
#[derive(new)]
#[new(visibility = "pub(crate)")]
pub(crate) struct TeacherSet<I> {
    teachers: Vec<AttachedTeacher<I>>,
    aggregation: TeacherAggregation,
}

impl<I> TeacherSet<I> {
    /// Rejects teachers without logits.
    pub(crate) fn require_logits(&self) -> Result<(), DistillationError> {
        let mut teachers = self.teachers.iter();
        match teachers.position(|teacher| !teacher.source.gives_logits()) {
            None => Ok(()),
            Some(teacher) => Err(DistillationError::NoLogits { teacher }),
        }
    }

    /// The teacher behind the states at `position` of [`hidden`](Self::hidden): the first one for
    /// those of all.
    pub(crate) fn attached(&self, position: usize) -> &AttachedTeacher<I> {
        &self.teachers[position]
    }

    /// The hidden states of each teacher by link, or their mean alone.
    pub(crate) fn hidden(&self, batch: &I) -> Result<Vec<Vec<FlatTensor>>, DistillationError> {
        let outputs = self.teachers.iter().map(|teacher| teacher.output(batch));
        let states = outputs.map(|output| Ok(output?.hidden));
        self.aggregated(states.collect::<Result<_, _>>()?)
    }

    /// The logits of each teacher, `[rows, classes]`, or their mean alone.
    pub(crate) fn logits(&self, batch: &I) -> Result<Vec<FlatTensor>, DistillationError> {
        let teachers = self.teachers.iter().enumerate();
        let logits = teachers.map(|(teacher, attached)| {
            let logits = attached.output(batch)?.logits;
            Ok(vec![logits.ok_or(DistillationError::NoLogits { teacher })?])
        });
        let logits = self.aggregated(logits.collect::<Result<_, _>>()?)?;
        Ok(logits.into_iter().flatten().collect())
    }

    fn aggregated(
        &self,
        states: Vec<Vec<FlatTensor>>,
    ) -> Result<Vec<Vec<FlatTensor>>, DistillationError> {
        match self.aggregation {
            TeacherAggregation::Losses => Ok(states),
            TeacherAggregation::Outputs => {
                let weights = self.weights();
                let means = (0..states.first().map_or(0, Vec::len)).map(|at| {
                    let outputs = states.iter().map(|states| states[at].clone()).collect();
                    mean_output(outputs, &weights)?.ok_or(DistillationError::NoTeacher)
                });
                Ok(vec![means.collect::<Result<_, _>>()?])
            }
        }
    }

    pub(crate) fn weights(&self) -> Vec<f64> {
        self.teachers.iter().map(|teacher| teacher.weight).collect()
    }

    /// The configuration of a distiller with these teachers and its `own` settings.
    pub(crate) fn configuration(&self, own: Configuration) -> Result<Configuration, Error> {
        let own = own.with("teachers.aggregation", &self.aggregation);
        let mut teachers = self.teachers.iter().enumerate();
        teachers.try_fold(own, |configuration, (at, teacher)| {
            let layers = teacher.states.iter().map(|state| state.space.id());
            let name = |what: &str| format!("teachers.{at}.{what}");
            Ok(configuration
                .with(&name("weight"), &teacher.weight)
                .with(&name("layers"), &layers.collect::<Vec<_>>())
                .with(&name("values"), &format!("{:016x}", teacher.fingerprint()?)))
        })
    }

    pub(crate) fn save(&self) -> Result<(), DistillationError> {
        self.teachers.iter().try_for_each(AttachedTeacher::save)
    }
}
