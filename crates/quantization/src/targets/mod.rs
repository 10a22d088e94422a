//! The targets of a quantizer, from their claim to the end of the run.

mod bias;
mod fixed;
mod observer;
mod target;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::{
    AlgorithmState, BoxError, Chain, Configuration, Error, Evaluator, FlatTensor, Mode, QuantDtype,
    QuantScheme, Quantization, TargetId, TargetSpace, parameters,
};
use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use crate::bn_fusion::Fusions;
use crate::qparams::QParams;
use crate::range_rule::{self, RangeRule};
use crate::reject::reject_binary;
use crate::{ApplyMethod, ObserverKind, QuantizationError, QuantizationSettings};

use bias::Int32Bias;
pub(crate) use fixed::FixedQParams;
pub use observer::TargetObserver;
#[cfg(test)]
pub(crate) use observer::testing as observer_testing;
pub use target::QuantTarget;

/// Defaults of a quantizer with observers, for settings that the configuration leaves out.
#[derive(Clone, Debug)]
pub struct QuantDefaults {
    name: &'static str,
    method: ApplyMethod,
    observer: ObserverKind,
    weight_observer: ObserverKind,
    check_finite: bool,
    rule: Option<Arc<dyn RangeRule>>,
}

impl QuantDefaults {
    /// Defaults of calibration for the quantizer called `name`: [`ApplyMethod::ClampRound`], the
    /// extremes of all values, a check that they are finite, and the standard scale and zero point
    /// ([`qparams::compute`](crate::qparams::compute)).
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            method: ApplyMethod::ClampRound,
            observer: ObserverKind::MinMax,
            weight_observer: ObserverKind::MinMax,
            check_finite: true,
            rule: None,
        }
    }

    /// Defaults of a rule, with the standard scale and zero point.
    pub(crate) fn of(rule: &impl RangeRule) -> Self {
        Self::new(rule.name())
            .with_apply_method(rule.apply_method())
            .with_observer(rule.observer())
            .with_check_finite(rule.checks_finite())
    }

    /// Sets the apply method.
    #[must_use]
    pub fn with_apply_method(mut self, method: ApplyMethod) -> Self {
        self.method = method;
        self
    }

    /// Sets the observer of all targets.
    #[must_use]
    pub fn with_observer(mut self, observer: ObserverKind) -> Self {
        self.observer = observer;
        self.weight_observer = observer;
        self
    }

    /// Sets the observer of the parameters called `weight`.
    #[must_use]
    pub fn with_weight_observer(mut self, observer: ObserverKind) -> Self {
        self.weight_observer = observer;
        self
    }

    /// Sets whether every observation checks that the values are finite.
    #[must_use]
    pub fn with_check_finite(mut self, check_finite: bool) -> Self {
        self.check_finite = check_finite;
        self
    }

    /// Computes scales and zero points by `rule`, and checks its laws. Its other hooks are for
    /// [`Quantizer`](crate::Quantizer), but for [`estimator`](RangeRule::estimator),
    /// [`check_target`](RangeRule::check_target) and [`finish`](RangeRule::finish).
    #[must_use]
    pub fn with_rule(mut self, rule: Arc<dyn RangeRule>) -> Self {
        self.rule = Some(rule);
        self
    }
}

/// The targets that a configuration selects for a quantizer, with their observers.
///
/// The base of a user's quantizer: an [`Algorithm`](burn_compress_core::Algorithm) that holds these
/// targets and calls them in its hooks.
///
/// | hook                      | call                                                            |
/// |---------------------------|-----------------------------------------------------------------|
/// | before the chain is built | [`claim`](Self::claim), [`follow`](Self::follow)                |
/// | `observe`                 | [`enable`](Self::enable), [`observe_parameters`](Self::observe_parameters) |
/// | `finish`                  | [`calibrate`](Self::calibrate) or [`compute_qparams`](Self::compute_qparams) |
/// | `rewrite`                 | [`rewrite`](Self::rewrite)                                      |
/// | `warnings`                | [`warnings`](Self::warnings)                                    |
/// | `state`, `load_state`     | [`state`](Self::state), [`load_state`](Self::load_state)        |
/// | `configuration`           | [`configuration`](Self::configuration)                          |
///
/// Ranges, scales and zero points are in the cells of the targets ([`QuantTarget::space`]), which
/// the chain saves and restores itself.
#[derive(Debug)]
pub struct QuantTargets {
    targets: Vec<QuantTarget>,
    /// Parameters that are observed once a step, not where the forward pass folds them.
    parameters: IndexSet<String>,
    fusions: Fusions,
    biases: Vec<Int32Bias>,
    device: Device,
    /// The observer where the configuration names none.
    observer: Option<ObserverKind>,
    rule: Option<Arc<dyn RangeRule>>,
}

impl QuantTargets {
    /// Claims what `config` selects, with an observer for each target, and folds batch norms where
    /// it asks for it. Nothing is quantized before [`enable`](Self::enable).
    ///
    /// # Errors
    ///
    /// A configuration that does not fit the model, a type that no range can be laid over, layers
    /// that cannot be fused, and a target that another quantizer has.
    pub fn claim<M: Module + 'static, I: 'static>(
        chain: &mut Chain<'_, M, I>,
        config: &ConfigList<QuantizationSettings>,
        defaults: &QuantDefaults,
    ) -> Result<Self, Error> {
        let QuantDefaults { name, method, .. } = *defaults;
        let mut targets = Self::claim_with(chain, config, name, method, |selected| {
            let settings = &selected.settings;
            reject_binary(settings.dtype())?;
            settings.check()?;
            if let Some(rule) = &defaults.rule {
                let checked = rule.check_target(&selected.target, settings);
                checked.map_err(|reason| QuantizationError::Rejected {
                    rule: name.to_string(),
                    reason,
                })?;
            }
            Ok((settings.dtype(), settings.scheme()))
        })?;
        for target in &mut targets.targets {
            let default = match target.target().param_name() {
                Some("weight") => defaults.weight_observer,
                _ => defaults.observer,
            };
            let (kind, of) = (target.layer().kind.clone(), target.target().clone());
            let observer = TargetObserver::new(kind, of, target.settings(), default);
            let observer = observer?;
            let observer = observer.with_check(defaults.check_finite);
            target.set_observer(match &defaults.rule {
                Some(rule) => observer.with_rule(target.settings(), rule.clone()),
                None => observer,
            });
        }
        Ok(Self {
            observer: Some(defaults.observer),
            rule: defaults.rule.clone(),
            ..targets
        })
    }

    /// Claims what `config` selects, without observers.
    ///
    /// `method` is the apply method of the quantizer `name` where the configuration has none;
    /// `resolve` gives the type and the scheme of a target, or rejects its settings.
    ///
    /// # Errors
    ///
    /// A configuration that does not fit the model, what `resolve` rejects, layers that cannot be
    /// fused, and a target that another quantizer has.
    pub(crate) fn claim_with<M: Module + 'static, I: 'static>(
        chain: &mut Chain<'_, M, I>,
        config: &ConfigList<QuantizationSettings>,
        name: &'static str,
        method: ApplyMethod,
        resolve: impl Fn(
            &Selected<QuantizationSettings>,
        ) -> Result<(QuantDtype, QuantScheme), QuantizationError>,
    ) -> Result<Self, Error> {
        let mut selected = config.select(chain.layers())?;
        let resolved = selected.iter().map(|one| {
            resolve(one).map_err(|source| QuantizationError::Target {
                target: one.id().to_string(),
                source: Box::new(source),
            })
        });
        let resolved: Result<Vec<_>, _> = resolved.collect();
        let resolved = resolved?;
        let fusions = Fusions::plan(chain, &mut selected, name)?;
        let biases = bias::plan(chain, &selected, &resolved, &fusions, name)?;
        let ids: Vec<TargetId> = selected.iter().map(Selected::id).collect();
        let spaces = chain.claim(Mode::Quantization, &ids)?;
        let biases = Int32Bias::claim(chain, biases)?;
        let fusions = fusions.start(chain)?;
        let claimed = selected.into_iter().zip(spaces).zip(resolved);
        let targets: Vec<QuantTarget> = claimed
            .map(|((selected, space), resolved)| {
                QuantTarget::new(selected, space, resolved, method)
            })
            .collect();
        let ids = targets.iter().map(QuantTarget::id);
        let unfolded = ids.filter(|id| id.target.is_param() && !fusions.folds(id));
        Ok(Self {
            parameters: unfolded.map(TargetId::to_string).collect(),
            targets,
            fusions,
            biases,
            device: (chain.model().devices().first().cloned()).unwrap_or_default(),
            observer: None,
            rule: None,
        })
    }

    /// The targets in module order.
    pub fn iter(&self) -> impl Iterator<Item = &QuantTarget> {
        self.targets.iter()
    }

    /// Ids of the parameters among the targets.
    pub(crate) fn parameter_ids(&self) -> Vec<TargetId> {
        let ids = self.targets.iter().map(QuantTarget::id);
        ids.filter(|id| id.target.is_param()).cloned().collect()
    }

    /// The device of the model.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn fusions(&self) -> &Fusions {
        &self.fusions
    }

    /// The target of this id.
    fn get(&self, id: &TargetId) -> Option<&QuantTarget> {
        self.targets.iter().find(|target| target.id() == id)
    }

    /// The state of a target.
    pub(crate) fn space(&self, id: &TargetId) -> Option<&TargetSpace> {
        self.get(id).map(|target| &**target.space())
    }

    /// Configuration of a quantizer with these targets and its `own` settings.
    pub fn configuration(&self, own: Configuration) -> Configuration {
        /// Settings that are derived where the configuration leaves them out.
        #[derive(Serialize)]
        struct Resolved {
            quant_dtype: QuantDtype,
            quant_scheme: QuantScheme,
            apply_method: ApplyMethod,
        }
        let biases: Vec<&TargetId> = self.biases.iter().map(Int32Bias::id).collect();
        let own = match biases.is_empty() {
            true => own,
            false => own.with("int32_biases", &biases),
        };
        // A check changes no result.
        let own = own.without("check_finite");
        let own = own.with("fused", &self.fusions.names());
        self.targets.iter().fold(own, |configuration, target| {
            let settings = target.settings().clone();
            let written = QuantizationSettings {
                granularity: Some(settings.granularity()),
                observer: settings.observer.or(self.observer),
                // What they find is known of the whole quantizer.
                fuse_names: None,
                fuse: None,
                ..settings
            };
            let resolved = Resolved {
                quant_dtype: target.dtype(),
                quant_scheme: target.scheme(),
                apply_method: target.apply_method(),
            };
            configuration
                .with_target(target.id(), &written)
                .with_target(target.id(), &resolved)
        })
    }

    /// Attaches the observers for the steps of the run.
    pub fn follow(&self) {
        self.follow_those(|_| true);
    }

    /// Attaches the observers of inputs and outputs for the steps of the run.
    pub fn follow_activations(&self) {
        self.follow_those(|target| !target.target().is_param());
    }

    fn follow_those(&self, chosen: impl Fn(&QuantTarget) -> bool) {
        for target in self.targets.iter().filter(|target| chosen(target)) {
            if let Some(observer) = target.observer() {
                target.space().set_observer(Some(observer.clone()));
            }
        }
    }

    /// Enables the quantization of all targets but those to be bypassed.
    pub fn enable(&self) {
        self.targets.iter().for_each(QuantTarget::enable);
        self.refresh_biases();
    }

    /// Disables the quantization of all targets.
    pub fn disable(&self) {
        self.targets.iter().for_each(QuantTarget::disable);
        self.refresh_biases();
    }

    /// Brings the steps of 32-bit biases to the scales of inputs and weights.
    pub(crate) fn refresh_biases(&self) {
        self.biases.iter().for_each(Int32Bias::refresh);
    }

    /// The targets whose values only a forward pass shows: all but parameters, and folded ones.
    fn activations(&self) -> Vec<Arc<TargetSpace>> {
        let spaces = self.targets.iter().map(QuantTarget::space);
        let activations =
            spaces.filter(|space| !space.id().target.is_param() || self.fusions.folds(space.id()));
        activations.cloned().collect()
    }

    /// Whether ranges of some targets need a forward pass.
    pub fn need_forward(&self) -> bool {
        !self.activations().is_empty()
    }

    /// Passes the parameters to the observers, once a step.
    ///
    /// # Errors
    ///
    /// Parameters that cannot be quantized.
    pub fn observe_parameters<M: Module>(&self, model: &M) -> Result<(), Error> {
        let mut weights: IndexMap<_, _> = parameters(model, &self.parameters);
        for target in &self.targets {
            if let Some(weight) = weights.swap_remove(&target.id().to_string()) {
                target.space().observe(&weight)?;
            }
        }
        self.refresh_biases();
        Ok(())
    }

    /// Whether the parameter is observed once a step.
    pub(crate) fn is_observed_parameter(&self, id: &TargetId) -> bool {
        self.parameters.contains(&id.to_string())
    }

    /// Computes scale and zero point of each target from its range.
    ///
    /// # Errors
    ///
    /// A target without values, and a rule that breaks its laws.
    pub fn compute_qparams(&self) -> Result<(), Error> {
        self.update(|target, state| match target.observer() {
            Some(observer) => observer.compute_qparams(state),
            None => Ok(()),
        })?;
        self.refresh_biases();
        Ok(())
    }

    /// Observes the finished model on the first `batches` batches of epoch 0, computes scales and
    /// zero points from the ranges and enables them.
    ///
    /// # Errors
    ///
    /// Data that fails, values that cannot be quantized, and those of
    /// [`compute_qparams`](Self::compute_qparams).
    pub fn calibrate<M: Module + 'static, I: 'static>(
        &self,
        model: &M,
        evaluator: &Evaluator<M, I>,
        batches: usize,
    ) -> Result<(), Error> {
        self.follow();
        let activations = self.activations();
        if !activations.is_empty() {
            evaluator.calibrate(model, &activations, batches)?;
        }
        self.observe_parameters(model)?;
        self.compute_qparams()?;
        self.enable();
        Ok(())
    }

    /// Applies the rule's last change of scales and zero points.
    ///
    /// # Errors
    ///
    /// A rule that breaks its laws.
    pub fn finish_qparams(&self) -> Result<(), Error> {
        if let Some(rule) = &self.rule {
            self.finish_by(rule)?;
        }
        self.refresh_biases();
        Ok(())
    }

    fn finish_by(&self, rule: &Arc<dyn RangeRule>) -> Result<(), Error> {
        self.update(|target, state| {
            let (Some(scale), Some(zero_point)) = (state.scale.take(), state.zero_point.take())
            else {
                return Ok(());
            };
            let qparams = QParams { scale, zero_point };
            let qparams = rule.finish(qparams, target.dtype(), target.scheme());
            range_rule::check_laws(&qparams, state.grid.len(), rule.name(), target.dtype())?;
            state.scale = Some(qparams.scale);
            state.zero_point = Some(qparams.zero_point);
            Ok(())
        })
    }

    /// Changes the state of each target; one that fails keeps its own.
    fn update(
        &self,
        change: impl Fn(&QuantTarget, &mut Quantization) -> Result<(), QuantizationError>,
    ) -> Result<(), Error> {
        for target in &self.targets {
            if let Some(mut state) = target.space().quantization() {
                change(target, &mut state).map_err(|error| observation(target.id(), &error))?;
                target.space().set_quantization(Some(state));
            }
        }
        Ok(())
    }

    /// Recomputes scale and zero point of one parameter, if it is a target, from values that
    /// replace all that was seen of it.
    ///
    /// # Errors
    ///
    /// Values that cannot be quantized.
    pub(crate) fn recompute(&self, id: &TargetId, values: &FlatTensor) -> Result<(), Error> {
        if let Some(target) = self.get(id)
            && let Some(observer) = target.observer()
            && let Some(state) = target.space().quantization()
        {
            let mut state = Quantization {
                minimum: None,
                maximum: None,
                ..state
            };
            let computed = observer
                .update(values, &mut state)
                .and_then(|()| observer.compute_qparams(&mut state));
            computed.map_err(|error| observation(id, &error))?;
            target.space().set_quantization(Some(state));
            self.refresh_biases();
        }
        Ok(())
    }

    /// Ends the folding in the forward pass; returns the folded values, which take the place of the
    /// raw ones for good.
    ///
    /// # Errors
    ///
    /// A parameter that the model does not visit.
    pub fn rewrite<M: Module>(&self, model: &M) -> Result<IndexMap<TargetId, FlatTensor>, Error> {
        self.fusions.finish(model)
    }

    /// Warnings of the observers, a sentence for each target with a range that is worse than the
    /// configured one.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |target: &QuantTarget| {
            let warning = target.observer()?.warning()?;
            Some(format!("`{}`: {warning}", target.id()))
        };
        self.targets.iter().filter_map(warning).collect()
    }

    /// State of the observers beyond ranges and scales.
    pub fn state(&self) -> AlgorithmState {
        let states = self.targets.iter().filter_map(|target| {
            let state = target.observer()?.state()?;
            Some((observer_name(target), state))
        });
        AlgorithmState {
            values: IndexMap::new(),
            tensors: states.collect(),
        }
    }

    /// Restores the result of [`state`](Self::state).
    ///
    /// # Errors
    ///
    /// The state of other observers.
    pub fn load_state(&self, state: &AlgorithmState) -> Result<(), BoxError> {
        for target in &self.targets {
            if let Some(observer) = target.observer() {
                observer.load_state(state.tensors.get(&observer_name(target)))?;
            }
        }
        Ok(())
    }
}

fn observer_name(target: &QuantTarget) -> String {
    format!("observer/{}", target.id())
}

/// An error of the values of a target.
pub(crate) fn observation(id: &TargetId, error: &QuantizationError) -> Error {
    Error::Observation {
        target: id.clone(),
        reason: error.to_string(),
    }
}
