//! What every pruner, quantizer and distiller is before it takes part in a chain.

use std::marker::PhantomData;

use burn::module::Module;

use crate::Error;
use crate::config::{ConfigList, Settings};
use crate::run::chain::Chain;
use crate::run::compressor::Compressor;
use crate::run::evaluator::Evaluator;

/// An algorithm with its configuration, before it has a model.
///
/// Built-in and own algorithms alike implement [`name`](Self::name) and [`add_to`](Self::add_to),
/// and have the constructors of all compressors for it: [`new`](Self::new),
/// [`from_compressor`](Self::from_compressor), and, as functions of a type, those of
/// [`Constructors`].
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use burn_compress_core::config::{ConfigList, Settings, on};
/// use burn_compress_core::layer::LayerInfo;
/// use burn_compress_core::{
///     Algorithm, Budget, Chain, Compressor, Configuration, Constructors, Error, Evaluator, Mask,
///     Method, Mode, Target,
/// };
/// use serde::{Deserialize, Serialize};
///
/// /// What a rule sets: nothing.
/// #[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
/// struct Nothing {}
///
/// impl Settings for Nothing {
///     const MODE: Mode = Mode::Pruning;
///     fn default_targets(_: &LayerInfo) -> Vec<Target> {
///         vec![Target::param("weight")]
///     }
///     fn merge(self, _: &Self) -> Self {
///         self
///     }
///     fn validate(&self, _: &LayerInfo, _: &Target) -> Result<(), String> {
///         Ok(())
///     }
/// }
///
/// /// Masks the first elements of each weight.
/// #[derive(Serialize)]
/// struct FirstConfig {
///     count: usize,
/// }
///
/// impl<M: Module + 'static, I: 'static> Method<M, I> for FirstConfig {
///     type Settings = Nothing;
///
///     fn name(&self) -> &'static str {
///         "FirstPruner"
///     }
///
///     fn add_to(self, chain: &mut Chain<'_, M, I>, rules: &ConfigList<Nothing>) -> Result<(), Error> {
///         let selected = rules.select(chain.layers())?;
///         let ids: Vec<_> = selected.iter().map(|item| item.id()).collect();
///         for space in chain.claim(Mode::Pruning, &ids)? {
///             let shape = space.shape().unwrap_or_default();
///             let keep = |at| if at < self.count { 0.0 } else { 1.0 };
///             let values = (0..shape.iter().product()).map(keep).collect::<Vec<f32>>();
///             space.set_mask(Some(Mask::new(values, shape)?))?;
///         }
///         chain.push(FirstPruned(Configuration::of(&self)));
///         Ok(())
///     }
/// }
///
/// struct FirstPruned(Configuration);
///
/// impl<M: Module, I> Algorithm<M, I> for FirstPruned {
///     fn name(&self) -> &'static str {
///         "FirstPruner"
///     }
///     fn mode(&self) -> Mode {
///         Mode::Pruning
///     }
///     fn configuration(&self) -> Result<Configuration, burn_compress_core::BoxError> {
///         Ok(self.0.clone())
///     }
/// }
///
/// type FirstPruner = Constructors<FirstConfig>;
///
/// let model = LinearConfig::new(2, 3).init(&Device::flex());
/// let evaluator = Evaluator::<Linear, ()>::new();
/// let pruner = FirstPruner::new(model, on(["Linear"]), evaluator, FirstConfig { count: 2 })?;
/// let masks = pruner.compress(Budget::none())?.masks();
/// assert_eq!(masks[0].values(), [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
/// # Ok::<(), Error>(())
/// ```
pub trait Method<M: Module + 'static, I: 'static>: Sized {
    /// The settings of a rule.
    type Settings: Settings;

    /// The name in errors, warnings and checkpoints, for example `TaylorPruner`.
    fn name(&self) -> &'static str;

    /// Checks configuration and rules, claims the targets and [pushes](Chain::push) the algorithm.
    ///
    /// # Errors
    ///
    /// What does not fit the model, the evaluator or the other algorithms of the chain. An error of
    /// a type of its own gets the name of the method.
    fn add_to(
        self,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<Self::Settings>,
    ) -> Result<(), Error>;

    /// Compresses `model`.
    ///
    /// # Errors
    ///
    /// Rules that do not fit the model or the algorithm, settings out of range, a missing part of
    /// the evaluator, and what the algorithm rejects besides.
    #[allow(clippy::new_ret_no_self, clippy::wrong_self_convention)] // A chain has one type.
    fn new(
        self,
        model: M,
        rules: impl Into<ConfigList<Self::Settings>>,
        evaluator: Evaluator<M, I>,
    ) -> Result<Compressor<M, I>, Error> {
        Compressor::from_model(model, evaluator).with(rules, self)
    }

    /// Compresses the model of `compressor` as well, in the same run.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and a target that another algorithm of the same mode has.
    #[allow(clippy::wrong_self_convention)]
    fn from_compressor(
        self,
        compressor: Compressor<M, I>,
        rules: impl Into<ConfigList<Self::Settings>>,
    ) -> Result<Compressor<M, I>, Error> {
        compressor.with(rules, self)
    }
}

impl<M: Module + 'static, I: 'static> Compressor<M, I> {
    /// Fuses one more algorithm, with the targets that `rules` select.
    ///
    /// # Errors
    ///
    /// Whatever the method rejects, with its name.
    pub fn with<A: Method<M, I>>(
        mut self,
        rules: impl Into<ConfigList<A::Settings>>,
        method: A,
    ) -> Result<Self, Error> {
        let name = method.name();
        let added = method.add_to(&mut self.chain(), &rules.into());
        added.map_err(|error| error.of(name))?;
        Ok(self)
    }
}

/// The constructors of an algorithm that is known by its type, `TaylorPruner::new(..)`: of the
/// [`Method`] `A` with the configuration `C`.
#[derive(Debug)]
pub struct Constructors<A, C = A>(PhantomData<fn(C) -> A>);

impl<A, C> Constructors<A, C> {
    /// Compresses `model`.
    ///
    /// # Errors
    ///
    /// Rules that do not fit the model or the algorithm, settings out of range, a missing part of
    /// the evaluator, and what the algorithm rejects besides.
    #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
    pub fn new<M: Module + 'static, I: 'static>(
        model: M,
        rules: impl Into<ConfigList<A::Settings>>,
        evaluator: Evaluator<M, I>,
        config: C,
    ) -> Result<Compressor<M, I>, Error>
    where
        A: Method<M, I> + TryFrom<C>,
        Error: From<<A as TryFrom<C>>::Error>,
    {
        A::try_from(config)?.new(model, rules, evaluator)
    }

    /// Compresses the model of `compressor` as well, in the same run.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and a target that another algorithm of the same mode has.
    pub fn from_compressor<M: Module + 'static, I: 'static>(
        compressor: Compressor<M, I>,
        rules: impl Into<ConfigList<A::Settings>>,
        config: C,
    ) -> Result<Compressor<M, I>, Error>
    where
        A: Method<M, I> + TryFrom<C>,
        Error: From<<A as TryFrom<C>>::Error>,
    {
        compressor.with(rules, A::try_from(config)?)
    }
}
