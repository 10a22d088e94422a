//! The quantizer of a [`RangeRule`].

use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Chain, Configuration, Error, Evaluator, FlatTensor,
    Method, Mode, Run, TargetId,
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
}

impl<R: RangeRule, M: Module + 'static, I: 'static> Method<M, I> for Quantizer<R> {
    type Settings = QuantizationSettings;

    fn name(&self) -> &'static str {
        self.rule.name()
    }

    fn add_to(
        self,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        self.add(&mut chain.erased(), rules)
    }
}

impl<R: RangeRule> Quantizer<R> {
    /// Adds the algorithm to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        let rule = Arc::new(self.rule);
        let defaults = QuantDefaults::of(&*rule).with_rule(rule.clone());
        RangeQuantizer::fuse(chain, rules, rule, &defaults)
    }
}

/// Algorithm of a [`RangeRule`] in a chain.
#[derive(Debug)]
pub(crate) struct RangeQuantizer<R, M, I> {
    rule: Arc<R>,
    targets: QuantTargets,
    evaluator: Evaluator<M, I>,
    /// Whether the targets are rounded, once a step has decided it.
    active: Option<bool>,
}

impl<R: RangeRule, M: Module + 'static, I: 'static> RangeQuantizer<R, M, I> {
    /// Claims the targets, attaches their observers and pushes the quantizer.
    pub(crate) fn fuse(
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<QuantizationSettings>,
        rule: Arc<R>,
        defaults: &QuantDefaults,
    ) -> Result<(), Error> {
        let targets = QuantTargets::claim(chain, rules, defaults)?;
        targets.follow();
        let evaluator = chain.evaluator().clone();
        chain.push(Self {
            rule,
            targets,
            evaluator,
            active: None,
        });
        Ok(())
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
}
