//! The quantizer of a [`RangeRule`].

use std::any::Any;
use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Compressor, Configuration, Error, Evaluator, FlatTensor,
    Mode, Run, TargetId,
};
use indexmap::IndexMap;

use crate::QuantizationSettings;
use crate::range_rule::RangeRule;
use crate::targets::{QuantDefaults, QuantTargets};

/// Quantizer of a user's rule, before it has a model.
///
/// See [`RangeRule`] for an example. For more freedom, implement
/// [`Algorithm`](burn_compress_core::Algorithm) over [`QuantTargets`].
#[derive(Clone, Debug)]
pub struct Quantizer<R> {
    rule: R,
}

impl<R: RangeRule> Quantizer<R> {
    /// The quantizer of `rule`.
    pub fn with(rule: R) -> Self {
        Self { rule }
    }

    /// Quantizes `model`.
    ///
    /// # Errors
    ///
    /// A configuration that does not fit the model or the rule, and layers that cannot be fused.
    #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
    #[allow(clippy::wrong_self_convention)] // The rule is given first.
    pub fn new<M: Module + 'static, I: 'static>(
        self,
        model: M,
        rules: impl Into<ConfigList<QuantizationSettings>>,
        evaluator: Evaluator<M, I>,
    ) -> Result<Compressor<M, I>, Error> {
        self.from_compressor(Compressor::from_model(model, evaluator), rules)
    }

    /// Quantizes the model of `compressor` as well, in the same run.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and a target that another quantizer of the chain has.
    #[allow(clippy::wrong_self_convention)] // The name that all compressors have for it.
    pub fn from_compressor<M: Module + 'static, I: 'static>(
        self,
        mut compressor: Compressor<M, I>,
        rules: impl Into<ConfigList<QuantizationSettings>>,
    ) -> Result<Compressor<M, I>, Error> {
        let rule = Arc::new(self.rule);
        let defaults = QuantDefaults::of(&*rule).with_rule(rule.clone());
        let quantizer =
            RangeQuantizer::claim_with(&mut compressor, &rules.into(), rule, &defaults)?;
        compressor.push(quantizer);
        Ok(compressor)
    }
}

/// Algorithm of a [`RangeRule`] in a chain.
#[derive(Debug)]
pub struct RangeQuantizer<R, M, I> {
    rule: Arc<R>,
    targets: QuantTargets,
    evaluator: Evaluator<M, I>,
    /// Whether the targets are rounded, once a step has decided it.
    active: Option<bool>,
}

impl<R: RangeRule, M: Module + 'static, I: 'static> RangeQuantizer<R, M, I> {
    /// Claims the targets and attaches their observers for the run.
    pub(crate) fn claim_with(
        compressor: &mut Compressor<M, I>,
        rules: &ConfigList<QuantizationSettings>,
        rule: Arc<R>,
        defaults: &QuantDefaults,
    ) -> Result<Self, Error> {
        let targets = QuantTargets::claim(compressor, rules, defaults)?;
        targets.follow();
        Ok(Self {
            rule,
            targets,
            evaluator: compressor.evaluator().clone(),
            active: None,
        })
    }
}

impl<R: RangeRule, M: Module + 'static, I: 'static> Algorithm<M, I> for RangeQuantizer<R, M, I> {
    fn name(&self) -> &'static str {
        self.rule.name()
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        self.rule.check_run(total_steps)?;
        let calibrates = self.rule.calibration_batches(total_steps).is_some();
        if calibrates && self.targets.need_forward() {
            self.evaluator.require_forward(self.rule.name())?;
        }
        Ok(())
    }

    fn observe(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        let active = self.rule.is_active(run.step, run.total_steps);
        if self.active != Some(active) {
            match active {
                true => self.targets.enable(),
                false => self.targets.disable(),
            }
            self.active = Some(active);
        }
        Ok(self.targets.observe_parameters(run.model)?)
    }

    fn finish(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        if let Some(batches) = self.rule.calibration_batches(run.total_steps) {
            self.targets
                .calibrate(run.model, &self.evaluator, batches)?;
        }
        Ok(self.targets.finish_qparams()?)
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(self.targets.rewrite(run.model)?)
    }

    fn warnings(&self) -> Result<Vec<String>, BoxError> {
        Ok(self.targets.warnings())
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        Ok(self.targets.state())
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.active = None;
        self.targets.load_state(state)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.targets.configuration(self.rule.configuration()))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
