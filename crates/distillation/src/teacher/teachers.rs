//! Teachers as a user gives them: networks with weights, layers and caches.

use std::fmt;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{Error, TargetId};
use indexmap::IndexMap;

use crate::error::DistillationError;
use crate::settings::check_positive;
use crate::teacher::aggregation::TeacherAggregation;
use crate::teacher::cache::TeacherCache;
use crate::teacher::set::{AttachedTeacher, State, TeacherSet};
use crate::teacher::source::Network;

/// A network to learn from.
///
/// It is a `valid()` snapshot: it never trains and follows no change of the model that it was taken
/// from. Its type is forgotten, so that teachers of different types can be put together.
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
    source: Network<I>,
    weight: f64,
    /// Layers of this teacher by the links that lead to them.
    layers: IndexMap<String, String>,
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
        let source = Network {
            network: AnyModel::new(network.valid()),
            gives_logits,
            predict: Box::new(move |network, batch| predict(network.get(), batch)),
        };
        Self {
            source,
            weight: 1.0,
            layers: IndexMap::new(),
            cache: None,
        }
    }
}

impl<I: 'static> Teacher<I> {
    /// The same for batches whose type is not known.
    fn erased(self) -> Teacher<AnyBatch> {
        Teacher {
            source: self.source.erased(),
            weight: self.weight,
            layers: self.layers,
            cache: self.cache.map(TeacherCache::erased),
        }
    }
}

impl<I> Teacher<I> {
    /// Sets the weight of this teacher in the average; 1 by default.
    pub fn with_weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Leads links to `link` to this teacher's layer `layer`.
    ///
    /// For several teachers whose layers have different paths. A `link` that no rule follows is an
    /// error of the distiller's constructor.
    pub fn with_layer(mut self, link: impl Into<String>, layer: impl Into<String>) -> Self {
        self.layers.insert(link.into(), layer.into());
        self
    }

    /// Keeps the outputs of each sample in `cache`; the network then runs for new samples, and now
    /// and then to compare.
    pub fn with_cache(mut self, cache: TeacherCache<I>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Records the hidden states of `links` from now on.
    fn attach(mut self, links: &[TargetId]) -> Result<AttachedTeacher<I>, Error> {
        check_positive("weight", self.weight)?;
        let followed = |link: &str| links.iter().any(|id| id.layer == link);
        if let Some((link, layer)) = self.layers.iter().find(|(link, _)| !followed(link)) {
            let (link, layer) = (link.clone(), layer.clone());
            return Err(DistillationError::UnusedLayer { link, layer }.into());
        }
        let ids: Vec<TargetId> = links
            .iter()
            .map(|id| match self.layers.get(&id.layer) {
                Some(layer) => TargetId::new(layer, id.target.clone()),
                None => id.clone(),
            })
            .collect();
        let states = self
            .source
            .tap(&ids)
            .map_err(|source| Error::other(format!("the teacher cannot be linked: {source}")))?;
        let kinds: IndexMap<String, String> = self
            .source
            .layers()
            .into_iter()
            .map(|layer| (layer.path, layer.kind))
            .collect();
        let states = states.into_iter().zip(&ids).map(|(space, id)| State {
            space,
            kind: kinds.get(&id.layer).cloned().unwrap_or_default(),
        });
        let states = states.collect();
        let attached = AttachedTeacher::new(self.source, self.weight, states);
        match self.cache {
            None => Ok(attached),
            Some(cache) => attached.with_cache(cache),
        }
    }
}

/// Teachers of one student and how their outputs are aggregated.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::{Teacher, TeacherAggregation, Teachers};
///
/// let teacher = || {
///     let network = LinearConfig::new(4, 3).init(&Device::flex());
///     Teacher::of_logits(&network, |network: &Linear, batch: &Tensor<2>| {
///         network.forward(batch.clone())
///     })
/// };
/// let teachers = Teachers::new([teacher(), teacher().with_weight(0.5)])
///     .with_aggregation(TeacherAggregation::Outputs);
/// ```
#[derive(Debug)]
pub struct Teachers<I> {
    pub(crate) teachers: Vec<Teacher<I>>,
    pub(crate) aggregation: TeacherAggregation,
}

impl<I> Teachers<I> {
    /// Teachers whose losses are averaged by their weights.
    pub fn new(teachers: impl IntoIterator<Item = Teacher<I>>) -> Self {
        Self {
            teachers: teachers.into_iter().collect(),
            aggregation: TeacherAggregation::default(),
        }
    }

    /// Sets how their outputs are aggregated.
    pub fn with_aggregation(mut self, aggregation: TeacherAggregation) -> Self {
        self.aggregation = aggregation;
        self
    }

    /// Records the hidden states of `links` from now on.
    pub(crate) fn attach(self, links: &[TargetId]) -> Result<TeacherSet<I>, Error> {
        if self.teachers.is_empty() {
            return Err(DistillationError::NoTeacher.into());
        }
        let teachers = self.teachers.into_iter();
        let teachers = teachers.map(|teacher| teacher.attach(links));
        Ok(TeacherSet::new(
            teachers.collect::<Result<_, _>>()?,
            self.aggregation,
        ))
    }
}

impl<I: 'static> Teachers<I> {
    /// The same for batches whose type is not known.
    pub(crate) fn erased(self) -> Teachers<AnyBatch> {
        let teachers = self.teachers.into_iter().map(Teacher::erased);
        Teachers {
            teachers: teachers.collect(),
            aggregation: self.aggregation,
        }
    }
}

impl<I> From<Teacher<I>> for Teachers<I> {
    fn from(teacher: Teacher<I>) -> Self {
        Self::new([teacher])
    }
}
