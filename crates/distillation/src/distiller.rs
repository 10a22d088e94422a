//! Distillers before they have a student: a loss, its options and the constructors.

use std::marker::PhantomData;

use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Compressor, Error, Evaluator, Method};

use crate::fused::Options;
use crate::settings::DistillationSettings;
use crate::teacher::{Teacher, Teachers};

/// A distiller of the kind `K`: [`FeatureDistiller`](crate::FeatureDistiller) or
/// [`LogitDistiller`](crate::LogitDistiller), of any loss.
#[derive(Clone, Debug)]
pub struct Distiller<K> {
    pub(crate) kind: K,
    pub(crate) options: Options,
}

/// A distiller with its teachers: the [`Method`] that is added to a chain.
#[derive(Debug)]
pub struct Taught<K, I> {
    pub(crate) distiller: Distiller<K>,
    pub(crate) teachers: Teachers<I>,
}

/// A kind of distillers that uses what teachers return, `O`, of batches `I`.
pub trait Reads<I, O> {
    /// The teacher for a distiller of this kind.
    fn teacher<T: Module + 'static>(
        teacher: &T,
        predict: impl Fn(&T, &I) -> O + Send + 'static,
    ) -> Teacher<I>;
}

impl<K> Distiller<K> {
    /// Sets the weight of the task's loss; 1 by default.
    pub fn with_origin_loss_lambda(mut self, weight: f64) -> Self {
        self.options.origin_loss_lambda = weight;
        self
    }

    /// Distills `teacher` into `model`.
    ///
    /// `predict` runs the teacher on a batch. Distillers of logits learn from what it returns,
    /// `[rows, classes]`; those of hidden states read the teacher's wrappers. The teacher is a
    /// `valid()` snapshot: it never trains and follows no change of the model that it was taken
    /// from.
    ///
    /// # Errors
    ///
    /// Rules that do not fit the model or the loss, settings out of range, a link that is no wrapped
    /// layer of the teacher, labels that are missing, or an evaluator that cannot train.
    #[allow(clippy::new_ret_no_self, clippy::wrong_self_convention)] // A chain has one type.
    pub fn new<M: Module + 'static, T: Module + 'static, I: 'static, O>(
        self,
        model: M,
        rules: impl Into<ConfigList<DistillationSettings>>,
        evaluator: Evaluator<M, I>,
        teacher: &T,
        predict: impl Fn(&T, &I) -> O + Send + 'static,
    ) -> Result<Compressor<M, I>, Error>
    where
        K: Reads<I, O>,
        Taught<K, I>: Method<M, I, Settings = DistillationSettings>,
    {
        let chain = Compressor::from_model(model, evaluator);
        self.from_compressor(chain, rules, teacher, predict)
    }

    /// Distills `teacher` into the model of `compressor`, in the same run.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and a target that another distiller of the chain has.
    #[allow(clippy::wrong_self_convention)]
    pub fn from_compressor<M: Module + 'static, T: Module + 'static, I: 'static, O>(
        self,
        compressor: Compressor<M, I>,
        rules: impl Into<ConfigList<DistillationSettings>>,
        teacher: &T,
        predict: impl Fn(&T, &I) -> O + Send + 'static,
    ) -> Result<Compressor<M, I>, Error>
    where
        K: Reads<I, O>,
        Taught<K, I>: Method<M, I, Settings = DistillationSettings>,
    {
        self.from_teachers(compressor, rules, K::teacher(teacher, predict))
    }

    /// Distills one teacher or several, with a cache or without, into the model of `compressor`, in
    /// the same run.
    ///
    /// # Errors
    ///
    /// Those of [`from_compressor`](Self::from_compressor), no teacher or one whose weight, layers
    /// or logits do not fit, and a cache that another teacher filled.
    #[allow(clippy::wrong_self_convention)]
    pub fn from_teachers<M: Module + 'static, I: 'static>(
        self,
        compressor: Compressor<M, I>,
        rules: impl Into<ConfigList<DistillationSettings>>,
        teachers: impl Into<Teachers<I>>,
    ) -> Result<Compressor<M, I>, Error>
    where
        Taught<K, I>: Method<M, I, Settings = DistillationSettings>,
    {
        let (distiller, teachers) = (self, teachers.into());
        compressor.with(
            rules,
            Taught {
                distiller,
                teachers,
            },
        )
    }
}

/// The constructors of a distiller that is known by its type, `LogitsDistiller::new(..)`: those of
/// [`Distiller<K>`] for its configuration `C`.
#[derive(Debug)]
pub struct Distillers<K, C>(PhantomData<fn(C) -> K>);

impl<K, C> Distillers<K, C>
where
    Distiller<K>: From<C>,
{
    /// Distills `teacher` into `model`, as [`Distiller::new`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Distiller::new`].
    #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
    pub fn new<M: Module + 'static, T: Module + 'static, I: 'static, O>(
        model: M,
        rules: impl Into<ConfigList<DistillationSettings>>,
        evaluator: Evaluator<M, I>,
        teacher: &T,
        predict: impl Fn(&T, &I) -> O + Send + 'static,
        config: C,
    ) -> Result<Compressor<M, I>, Error>
    where
        K: Reads<I, O>,
        Taught<K, I>: Method<M, I, Settings = DistillationSettings>,
    {
        Distiller::from(config).new(model, rules, evaluator, teacher, predict)
    }

    /// Distills `teacher` into the model of `compressor`, in the same run.
    ///
    /// # Errors
    ///
    /// Those of [`Distiller::from_compressor`].
    pub fn from_compressor<M: Module + 'static, T: Module + 'static, I: 'static, O>(
        compressor: Compressor<M, I>,
        rules: impl Into<ConfigList<DistillationSettings>>,
        teacher: &T,
        predict: impl Fn(&T, &I) -> O + Send + 'static,
        config: C,
    ) -> Result<Compressor<M, I>, Error>
    where
        K: Reads<I, O>,
        Taught<K, I>: Method<M, I, Settings = DistillationSettings>,
    {
        Distiller::from(config).from_compressor(compressor, rules, teacher, predict)
    }

    /// Distills one teacher or several, with a cache or without, into the model of `compressor`, in
    /// the same run.
    ///
    /// # Errors
    ///
    /// Those of [`Distiller::from_teachers`].
    pub fn from_teachers<M: Module + 'static, I: 'static>(
        compressor: Compressor<M, I>,
        rules: impl Into<ConfigList<DistillationSettings>>,
        teachers: impl Into<Teachers<I>>,
        config: C,
    ) -> Result<Compressor<M, I>, Error>
    where
        Taught<K, I>: Method<M, I, Settings = DistillationSettings>,
    {
        Distiller::from(config).from_teachers(compressor, rules, teachers)
    }
}
