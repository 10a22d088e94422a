//! Quantizers that train scales and zero points with the model: the common part of LSQ and LSQ+.

mod quantize;
mod rule;
mod target;

use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Chain, Configuration, Constructors, Error, FlatTensor,
    Learnable, Method, Mode, Run, Stage, TargetId,
};
use indexmap::IndexMap;

use crate::qparams::host;
use crate::reject::{reject_binary, reject_method, reject_observer};
use crate::targets::{QuantTarget, QuantTargets, observation};
use crate::{ApplyMethod, QuantizationError, QuantizationSettings};

use target::LearnedTarget;

pub(crate) use quantize::checked_quantize;
pub(crate) use rule::check_positive;
pub use rule::{LearnedRule, LearnedStart};

/// Quantizer that trains scales, and zero points of affine targets, by a [`LearnedRule`].
pub type LearnedQuantizer<L> = Constructors<LearnedMethod<L>, L>;

/// Method of a [`LearnedQuantizer`].
#[derive(Debug)]
pub struct LearnedMethod<L>(L);

impl<L: LearnedRule> From<L> for LearnedMethod<L> {
    fn from(rule: L) -> Self {
        Self(rule)
    }
}

impl<L: LearnedRule, M: Module + 'static, I: 'static> Method<M, I> for LearnedMethod<L> {
    type Settings = QuantizationSettings;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn add_to(
        self,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        self.add(&mut chain.erased(), rules)
    }
}

impl<L: LearnedRule> LearnedMethod<L> {
    /// Adds the algorithm to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        let rule = Arc::new(self.0);
        let name = rule.name();
        chain.evaluator().require_training(name)?;
        rule.check()?;
        check_positive("learning_rate", rule.learning_rate())?;
        let method = ApplyMethod::QatClampRound;
        let targets = QuantTargets::claim_with(chain, rules, name, method, |selected| {
            let settings = &selected.settings;
            reject_binary(settings.dtype())?;
            reject_observer(settings)?;
            reject_method(settings)?;
            let scheme = rule.scheme(&selected.target, settings)?;
            Ok((settings.dtype(), scheme))
        })?;
        let learned = targets.iter().map(|target| {
            let learned = LearnedTarget::new(target, rule.clone(), targets.device());
            learned.attach(target.space());
            learned
        });
        chain.push(Learned {
            learned: learned.collect(),
            targets,
            rule,
        });
        Ok(())
    }
}

#[derive(Debug)]
struct Learned<L> {
    rule: Arc<L>,
    targets: QuantTargets,
    /// Trained tensors of each target.
    learned: Vec<Arc<LearnedTarget>>,
}

impl<L: LearnedRule> Learned<L> {
    /// Each target with its trained tensors.
    fn targets(&self) -> impl Iterator<Item = (&QuantTarget, &Arc<LearnedTarget>)> {
        self.targets.iter().zip(&self.learned)
    }
}

impl<L: LearnedRule, M: Module + 'static, I: 'static> Algorithm<M, I> for Learned<L> {
    fn name(&self) -> &'static str {
        self.rule.name()
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        match total_steps {
            0 => Err("scales are learned by training, so the run needs at least one step".into()),
            _ => Ok(()),
        }
    }

    fn observe(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        let mut targets = self.targets();
        let begins = targets.any(|(target, learned)| {
            self.targets.is_observed_parameter(target.id()) && !learned.has_begun()
        });
        if begins {
            self.targets.observe_parameters(run.model)?;
        }
        Ok(())
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        let learned = self.learned.iter();
        learned.flat_map(|learned| learned.learnables()).collect()
    }

    fn after_step(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        for (target, learned) in self.targets() {
            if let Some(mut state) = target.space().quantization() {
                learned.report(&mut state);
                target.space().set_quantization(Some(state));
            }
        }
        self.targets.refresh_biases();
        Ok(())
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        for target in self.targets.iter() {
            let (space, id) = (target.space(), target.id());
            let failed = |error: QuantizationError| observation(id, &error);
            let nothing = || failed(QuantizationError::NothingObserved);
            // The state rather than what is trained: a run may end with an earlier snapshot.
            let mut state = space.quantization().ok_or_else(nothing)?;
            let (Some(scale), Some(zero_point)) = (&state.scale, &state.zero_point) else {
                return Err(nothing().into());
            };
            for (what, tensor) in [("scale", scale), ("zero point", zero_point)] {
                let values = host(tensor.clone()).map_err(failed)?;
                if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                    let target = id.to_string();
                    let error = QuantizationError::NotLearned {
                        target,
                        what,
                        value,
                    };
                    return Err(failed(error).into());
                }
            }
            if self.rule.round_zero_points() {
                let rounded = zero_point.clone().round();
                state.zero_point = Some(rounded.clamp(state.qmin, state.qmax));
            }
            space.set_quantization(Some(state));
            space.set_observer(None);
            space.set_transform(Stage::Quantize, None);
        }
        self.targets.refresh_biases();
        Ok(())
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(self.targets.rewrite(run.model)?)
    }

    fn load_state(&mut self, _state: &AlgorithmState) -> Result<(), BoxError> {
        let mut targets = self.targets();
        targets.try_for_each(|(target, learned)| learned.restore(target.space().quantization()))
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.targets.configuration(self.rule.configuration()))
    }
}
