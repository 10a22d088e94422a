//! What a student learns from: a teacher, run on each batch or read from a cache.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::{Error, FlatTensor, TargetId, TargetSpace, tap};
use indexmap::IndexMap;

use crate::DistillationError;
use crate::cache::{self, TeacherCache};
use crate::fusion::check_weight;

/// A network to learn from.
///
/// It is a `valid()` snapshot: it never trains and follows no change of the model that it was taken
/// from. Its type does not matter any more, so that teachers of different types teach together.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::Teacher;
///
/// let network = LinearConfig::new(4, 3).init(&Device::flex());
/// let teacher = Teacher::of_logits(&network, |network: &Linear, batch: &Tensor<2>| {
///     network.forward(batch.clone())
/// })
/// .with_weight(2.0);
/// ```
pub struct Teacher<I> {
    source: Box<dyn Source<I>>,
    weight: f64,
    names: IndexMap<String, String>,
    cache: Option<TeacherCache<I>>,
}

impl<I> fmt::Debug for Teacher<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teacher")
            .field("weight", &self.weight)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl<I: 'static> Teacher<I> {
    /// A teacher of hidden states: `predict` runs the network on a batch, what it returns is
    /// dropped.
    pub fn new<T: Module + 'static, O>(
        network: &T,
        predict: impl Fn(&T, &I) -> O + Send + 'static,
    ) -> Self {
        Self::from_predict(network, false, move |network, batch| {
            predict(network, batch);
            None
        })
    }

    /// A teacher of logits, `[rows, classes]`, and of hidden states.
    pub fn of_logits<T: Module + 'static>(
        network: &T,
        predict: impl Fn(&T, &I) -> Tensor<2> + Send + 'static,
    ) -> Self {
        Self::from_predict(network, true, move |network, batch| {
            Some(predict(network, batch))
        })
    }

    fn from_predict<T: Module + 'static>(
        network: &T,
        gives_logits: bool,
        predict: impl Fn(&T, &I) -> Option<Tensor<2>> + Send + 'static,
    ) -> Self {
        let network = Network {
            network: network.valid(),
            gives_logits,
            predict: Box::new(predict),
        };
        Self {
            source: Box::new(network),
            weight: 1.0,
            names: IndexMap::new(),
            cache: None,
        }
    }
}

impl<I> Teacher<I> {
    /// How much this teacher says among several.
    pub fn with_weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Lets links to `link` lead to this teacher's layer `layer`.
    ///
    /// For several teachers whose layers have different paths. A `link` that no rule follows is an
    /// error of the distiller's constructor.
    pub fn with_layer(mut self, link: impl Into<String>, layer: impl Into<String>) -> Self {
        self.names.insert(link.into(), layer.into());
        self
    }

    /// Keeps what the teacher says of each sample and asks again only to compare.
    pub fn with_cache(mut self, cache: TeacherCache<I>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Records the hidden states of `links` from now on.
    pub(crate) fn tap(
        mut self,
        distiller: &'static str,
        links: &[TargetId],
    ) -> Result<Tapped<I>, Error> {
        check_weight(self.weight).map_err(|error| error.of(distiller))?;
        let followed = |link: &str| links.iter().any(|id| id.layer == link);
        if let Some((link, layer)) = self.names.iter().find(|(link, _)| !followed(link)) {
            let (link, layer) = (link.clone(), layer.clone());
            return Err(DistillationError::UnusedLayer { link, layer }.of(distiller));
        }
        let ids: Vec<TargetId> = links
            .iter()
            .map(|id| match self.names.get(&id.layer) {
                Some(layer) => TargetId::new(layer, id.target.clone()),
                None => id.clone(),
            })
            .collect();
        let states = self.source.tap(&ids).map_err(|source| Error::Algorithm {
            algorithm: distiller,
            source: format!("the teacher cannot be linked: {source}").into(),
        })?;
        let kinds: IndexMap<String, String> = self
            .source
            .layers()
            .into_iter()
            .map(|layer| (layer.path, layer.kind))
            .collect();
        let kind = |id: &TargetId| kinds.get(&id.layer).cloned().unwrap_or_default();
        let states: Vec<State> = states
            .into_iter()
            .zip(&ids)
            .map(|(space, id)| State {
                space,
                kind: kind(id),
            })
            .collect();
        let cache = match self.cache {
            Some(cache) => {
                let mut names: Vec<String> = ids.iter().map(ToString::to_string).collect();
                if self.source.gives_logits() {
                    names.push(LOGITS.to_string());
                }
                let fingerprint = self.source.fingerprint()?;
                let cache = cache
                    .belonging_to(fingerprint, names)
                    .map_err(|error| error.of(distiller))?;
                Some(RefCell::new(cache))
            }
            None => None,
        };
        Ok(Tapped {
            source: self.source,
            weight: self.weight,
            states,
            cache,
            fingerprint: OnceCell::new(),
        })
    }
}

const LOGITS: &str = "logits";

/// A teacher whose hidden states are recorded.
pub(crate) struct Tapped<I> {
    source: Box<dyn Source<I>>,
    pub(crate) weight: f64,
    pub(crate) states: Vec<State>,
    cache: Option<RefCell<cache::Bound<I>>>,
    fingerprint: OnceCell<u64>,
}

/// A hidden state of a teacher.
pub(crate) struct State {
    pub(crate) space: Arc<TargetSpace>,
    pub(crate) kind: String,
}

/// What a teacher says of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Lesson {
    /// One for each link.
    pub(crate) hidden: Vec<FlatTensor>,
    /// `[rows, classes]`.
    pub(crate) logits: Option<Tensor<2>>,
}

impl<I> Tapped<I> {
    pub(crate) fn gives_logits(&self) -> bool {
        self.source.gives_logits()
    }

    /// A number that tells teachers apart; read from the device once.
    pub(crate) fn fingerprint(&self) -> Result<u64, Error> {
        match self.fingerprint.get() {
            Some(known) => Ok(*known),
            None => {
                let found = self.source.fingerprint()?;
                Ok(*self.fingerprint.get_or_init(|| found))
            }
        }
    }

    pub(crate) fn teach(&self, batch: &I) -> Result<Lesson, DistillationError> {
        let Some(cache) = &self.cache else {
            return self.ask(batch);
        };
        let said = cache
            .borrow_mut()
            .states(batch, &self.source.device(), || {
                let lesson = self.ask(batch)?;
                let logits = lesson.logits.map(FlatTensor::new);
                Ok(lesson.hidden.into_iter().chain(logits).collect())
            })?;
        let mut hidden = said;
        let logits = match self.gives_logits() {
            true => hidden.pop().map(|logits| {
                let classes = logits.shape.last().copied().unwrap_or(1);
                let rows = logits.shape.iter().product::<usize>() / classes.max(1);
                logits.values.reshape([rows, classes])
            }),
            false => None,
        };
        Ok(Lesson { hidden, logits })
    }

    fn ask(&self, batch: &I) -> Result<Lesson, DistillationError> {
        let logits = self.source.predict(batch);
        let mut said: Vec<FlatTensor> = Vec::new();
        for (at, state) in self.states.iter().enumerate() {
            // Two links may lead to one layer, which gives its state once.
            let is_same = |other: &State| other.space.id() == state.space.id();
            said.push(match self.states[..at].iter().position(is_same) {
                Some(first) => said[first].clone(),
                None => hidden("teacher", &state.space)?,
            });
        }
        Ok(Lesson {
            hidden: said,
            logits,
        })
    }

    /// Writes what the cache learned.
    pub(crate) fn save(&self) -> Result<(), DistillationError> {
        match &self.cache {
            Some(cache) => cache.borrow_mut().save(),
            None => Ok(()),
        }
    }
}

/// Takes the hidden state of the last forward pass.
pub(crate) fn hidden(
    whose: &'static str,
    space: &TargetSpace,
) -> Result<FlatTensor, DistillationError> {
    space.take_hidden().ok_or_else(|| match space.positions() {
        0 => DistillationError::NoHiddenState {
            whose,
            layer: space.id().layer.clone(),
        },
        _ => DistillationError::NoPosition {
            whose,
            reason: Error::unreached(space).to_string(),
        },
    })
}

/// A student's state in single precision at least: sums of squares overflow half precision, and what
/// keeps losses from dividing by zero is too small for it.
pub(crate) fn widened(state: FlatTensor) -> FlatTensor {
    match state.values.dtype() {
        DType::F16 | DType::BF16 => FlatTensor {
            values: state.values.cast(DType::F32),
            shape: state.shape,
        },
        _ => state,
    }
}

/// What a teacher says, on the device and in the precision of `to`, as a constant.
pub(crate) fn brought(said: FlatTensor, to: &Tensor<1>) -> FlatTensor {
    let values = said.values.detach().without_autodiff();
    let values = values.to_device(&to.device().without_autodiff());
    FlatTensor {
        values: values.cast(to.dtype()),
        shape: said.shape,
    }
}

/// A network whatever its type.
trait Source<I>: Send {
    fn tap(&mut self, targets: &[TargetId]) -> Result<Vec<Arc<TargetSpace>>, Error>;
    fn predict(&self, batch: &I) -> Option<Tensor<2>>;
    fn gives_logits(&self) -> bool;
    fn layers(&self) -> Vec<LayerInfo>;
    fn device(&self) -> Device;
    fn fingerprint(&self) -> Result<u64, Error>;
}

type Predict<T, I> = Box<dyn Fn(&T, &I) -> Option<Tensor<2>> + Send>;

struct Network<T, I> {
    network: T,
    gives_logits: bool,
    predict: Predict<T, I>,
}

impl<T: Module + 'static, I> Source<I> for Network<T, I> {
    fn tap(&mut self, targets: &[TargetId]) -> Result<Vec<Arc<TargetSpace>>, Error> {
        let (network, states) = tap(&self.network, targets)?;
        self.network = network;
        Ok(states)
    }

    fn predict(&self, batch: &I) -> Option<Tensor<2>> {
        (self.predict)(&self.network, batch)
    }

    fn gives_logits(&self) -> bool {
        self.gives_logits
    }

    fn layers(&self) -> Vec<LayerInfo> {
        layers(&self.network)
    }

    fn device(&self) -> Device {
        let device = self.network.devices().first().cloned();
        device.unwrap_or_default().without_autodiff()
    }

    fn fingerprint(&self) -> Result<u64, Error> {
        cache::fingerprint(&self.network)
    }
}
