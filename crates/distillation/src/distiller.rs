//! The common part of all distillers: a place in the chain, the sum of the losses and the constructors.

use std::any::Any;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Compressor, Configuration, Error, Learnable, Mode, Run,
};

use crate::combine::total;
use crate::error::DistillationError;
use crate::laws::check_value;
use crate::settings::{DistillationSettings, check_lambda};
use crate::teacher::TeacherSet;

/// The loss of one target of the student, over its links and teachers.
pub(crate) struct TargetLoss {
    /// The path of the layer.
    pub(crate) layer: String,
    pub(crate) lambda: f64,
    /// `[1]`.
    pub(crate) loss: Tensor<1>,
}

/// The losses of a distiller: what features and logits do not share.
pub(crate) trait TargetLosses<I>: Send + 'static {
    fn prepare(&self) -> Result<(), DistillationError> {
        Ok(())
    }

    fn losses(
        &mut self,
        teachers: &TeacherSet<I>,
        batch: &I,
        step: usize,
    ) -> Result<Vec<TargetLoss>, BoxError>;

    fn is_distance(&self) -> bool;

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        Vec::new()
    }

    fn state(&self) -> AlgorithmState {
        AlgorithmState::default()
    }

    fn load_state(&mut self, _state: &AlgorithmState) -> Result<(), BoxError> {
        Ok(())
    }
}

/// A distiller in a chain.
pub(crate) struct Distiller<I, L> {
    pub(crate) options: Options,
    pub(crate) teachers: TeacherSet<I>,
    pub(crate) losses: L,
}

/// The name, the weight of the task's loss and the configuration of a distiller.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) name: &'static str,
    pub(crate) origin_loss_lambda: f64,
    pub(crate) configuration: Configuration,
}

impl Options {
    pub(crate) fn new(name: &'static str, configuration: Configuration) -> Self {
        Self {
            name,
            origin_loss_lambda: 1.0,
            configuration,
        }
    }

    /// The targets that the rules select, after a check of options and evaluator.
    pub(crate) fn select<M: Module + 'static, I: 'static>(
        &self,
        compressor: &Compressor<M, I>,
        config: &ConfigList<DistillationSettings>,
    ) -> Result<Vec<Selected<DistillationSettings>>, Error> {
        compressor.evaluator().require_training(self.name)?;
        check_lambda("origin_loss_lambda", self.origin_loss_lambda)
            .map_err(|error| error.of(self.name))?;
        Ok(config.select(compressor.layers())?)
    }

    /// The options with the settings of what is selected in their configuration.
    pub(crate) fn for_targets(self, selected: &[Selected<DistillationSettings>]) -> Self {
        let own = self
            .configuration
            .with("origin_loss_lambda", &self.origin_loss_lambda);
        let configuration = selected.iter().fold(own, |configuration, item| {
            configuration.with_target(&item.id(), &item.settings.with_defaults(&item.layer.path))
        });
        Self {
            configuration,
            ..self
        }
    }
}

impl<M: Module + 'static, I: 'static, L: TargetLosses<I>> Algorithm<M, I> for Distiller<I, L> {
    fn name(&self) -> &'static str {
        self.options.name
    }

    fn mode(&self) -> Mode {
        Mode::Distillation
    }

    fn prepare(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(self.losses.prepare()?)
    }

    fn loss(&mut self, loss: Tensor<1>, batch: &I, run: Run<'_, M>) -> Result<Tensor<1>, BoxError> {
        let targets = self.losses.losses(&self.teachers, batch, run.step)?;
        for target in &targets {
            let is_distance = self.losses.is_distance();
            check_value(&target.layer, &target.loss, is_distance, &loss)?;
        }
        let targets = targets.into_iter();
        let weighted = targets.map(|target| (target.lambda, target.loss));
        Ok(total(loss, self.options.origin_loss_lambda, weighted))
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.losses.learnables()
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(self.teachers.save()?)
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        self.teachers.save()?;
        Ok(self.losses.state())
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.losses.load_state(state)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        let own = self.options.configuration.clone();
        Ok(self.teachers.configuration(own)?)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The constructors of a built-in distiller: those of the [`FeatureDistiller`] or
/// [`LogitDistiller`] of a loss, which `$loss` makes of the configuration.
///
/// [`FeatureDistiller`]: crate::FeatureDistiller
/// [`LogitDistiller`]: crate::LogitDistiller
macro_rules! constructors {
    (feature $distiller:ident($config:ty), $loss:expr) => {
        $crate::distiller::constructors!(
            FeatureDistiller, $distiller($config), $loss, $crate::Teacher::new; O; O;
        );
    };
    (logit $distiller:ident($config:ty) $(with $labels:ident)?, $loss:expr) => {
        $crate::distiller::constructors!(
            LogitDistiller, $distiller($config), $loss, $crate::Teacher::of_logits;
            burn::tensor::Tensor<2>; ; $($labels)?
        );
    };
    (
        $kind:ident, $distiller:ident($config:ty), $loss:expr, $teacher:expr;
        $output:ty; $($generic:ident)?; $($labels:ident)?
    ) => {
        impl $distiller {
            /// Distills `teacher` into `model`.
            ///
            /// `predict` runs the teacher on a batch. Distillers of logits learn from what it
            /// returns, `[rows, classes]`; those of hidden states read the teacher's wrappers. The
            /// teacher is a `valid()` snapshot: it never trains and follows no change of the model
            /// that it was taken from.
            ///
            /// # Errors
            ///
            /// Rules that do not fit the model or the distiller, settings out of range, a link that
            /// is no wrapped layer of the teacher, or an evaluator that cannot train.
            #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
            pub fn new<M: burn::module::Module + 'static, T: burn::module::Module + 'static, I: 'static $(, $generic)?>(
                model: M,
                config: impl Into<burn_compress_core::config::ConfigList<$crate::DistillationSettings>>,
                evaluator: burn_compress_core::Evaluator<M, I>,
                teacher: &T,
                predict: impl Fn(&T, &I) -> $output + Send + 'static,
                $($labels: impl Fn(&I) -> burn::tensor::Tensor<1, burn::tensor::Int> + Send + 'static,)?
                distiller: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, burn_compress_core::Error> {
                let chain = burn_compress_core::Compressor::from_model(model, evaluator);
                Self::from_compressor(chain, config, teacher, predict, $($labels,)? distiller)
            }

            /// Distills `teacher` into the model of `compressor`, in the same run.
            ///
            /// # Errors
            ///
            /// Those of [`new`](Self::new), and a target that another distiller of the chain has.
            pub fn from_compressor<M: burn::module::Module + 'static, T: burn::module::Module + 'static, I: 'static $(, $generic)?>(
                compressor: burn_compress_core::Compressor<M, I>,
                config: impl Into<burn_compress_core::config::ConfigList<$crate::DistillationSettings>>,
                teacher: &T,
                predict: impl Fn(&T, &I) -> $output + Send + 'static,
                $($labels: impl Fn(&I) -> burn::tensor::Tensor<1, burn::tensor::Int> + Send + 'static,)?
                distiller: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, burn_compress_core::Error> {
                let teacher = $teacher(teacher, predict);
                Self::from_teachers(compressor, config, teacher, $($labels,)? distiller)
            }

            /// Distills one teacher or several, with a cache or without, into the model of
            /// `compressor`, in the same run.
            ///
            /// # Errors
            ///
            /// Those of [`from_compressor`](Self::from_compressor), no teacher or one whose weight,
            /// layers or logits do not fit, and a cache that another teacher filled.
            pub fn from_teachers<M: burn::module::Module + 'static, I: 'static>(
                compressor: burn_compress_core::Compressor<M, I>,
                config: impl Into<burn_compress_core::config::ConfigList<$crate::DistillationSettings>>,
                teachers: impl Into<$crate::Teachers<I>>,
                $($labels: impl Fn(&I) -> burn::tensor::Tensor<1, burn::tensor::Int> + Send + 'static,)?
                distiller: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, burn_compress_core::Error> {
                let loss: fn($config) -> _ = $loss;
                let configuration = burn_compress_core::Configuration::of(&distiller);
                let origin = distiller.origin_loss_lambda;
                $crate::$kind::built_in(stringify!($distiller), configuration, origin, loss(distiller))
                    $(.with_labels($labels))?
                    .from_teachers(compressor, config, teachers)
            }
        }
    };
}
pub(crate) use constructors;
