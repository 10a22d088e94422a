//! The common part of all distillers: a place in the chain and the sum of the losses.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Chain, Configuration, Error, Learnable, Mode, Run,
};
use serde::Serialize;

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
pub(crate) struct FusedDistiller<I, L> {
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

    /// Those of a built-in distiller.
    pub(crate) fn built_in(name: &'static str, config: &impl Serialize, lambda: f64) -> Self {
        Self {
            origin_loss_lambda: lambda,
            ..Self::new(name, Configuration::of(config))
        }
    }

    /// The targets that the rules select, after a check of options and evaluator.
    pub(crate) fn select<M: Module + 'static, I: 'static>(
        &self,
        chain: &Chain<'_, M, I>,
        config: &ConfigList<DistillationSettings>,
    ) -> Result<Vec<Selected<DistillationSettings>>, Error> {
        chain.evaluator().require_training(self.name)?;
        check_lambda("origin_loss_lambda", self.origin_loss_lambda)?;
        Ok(config.select(chain.layers())?)
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

impl<M: Module + 'static, I: 'static, L: TargetLosses<I>> Algorithm<M, I> for FusedDistiller<I, L> {
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
}
