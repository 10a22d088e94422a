//! The targets of a quantizer that derives scale and zero point from ranges.

use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{
    AlgorithmState, BoxError, Compressor, Configuration, Error, FlatTensor, Quantization, TargetId,
    TargetSpace, parameters,
};
use indexmap::{IndexMap, IndexSet};

use crate::claim::{Claimed, claim, configuration};
use crate::fuse::Fusions;
use crate::refuse::refuse_binary;
use crate::{ApplyMethod, ObserverKind, QuantizationSettings, TargetObserver};

/// What a quantizer with observers does where the configuration does not say otherwise.
pub(crate) struct Defaults {
    pub(crate) name: &'static str,
    pub(crate) method: ApplyMethod,
    pub(crate) observer: ObserverKind,
    /// The observer of the parameters called `weight`.
    pub(crate) weights: ObserverKind,
    pub(crate) check_finite: bool,
}

/// Targets and their observers.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) targets: Vec<(Claimed, Arc<TargetObserver>)>,
    /// Those that are observed once a step, not where the forward pass folds them.
    parameters: IndexSet<String>,
    fusions: Fusions,
    /// What observes where the configuration does not say it.
    observer: ObserverKind,
}

impl Observed {
    /// Claims what `config` selects and makes an observer for each target.
    ///
    /// # Errors
    ///
    /// A configuration that does not fit the model, a type that no range can be laid over, layers
    /// that cannot be fused, and a target that another quantizer has.
    pub(crate) fn claim<M: Module + 'static, I: 'static>(
        compressor: &mut Compressor<M, I>,
        config: &ConfigList<QuantizationSettings>,
        defaults: &Defaults,
    ) -> Result<Self, Error> {
        let Defaults { name, method, .. } = *defaults;
        let (targets, fusions) = claim(compressor, config, name, method, |selected| {
            let settings = &selected.settings;
            refuse_binary(settings.dtype())?;
            let (kind, target) = (selected.layer.kind.clone(), selected.target.clone());
            let default = match target.param_name() {
                Some("weight") => defaults.weights,
                _ => defaults.observer,
            };
            let observer = TargetObserver::new(kind, target, settings, default)?;
            Ok(Arc::new(observer.with_check(defaults.check_finite)))
        })?;
        let once_a_step =
            |claimed: &&Claimed| claimed.target().is_param() && !fusions.folds(claimed.id());
        let params = targets.iter().map(|(claimed, _)| claimed);
        let params = params.filter(once_a_step);
        Ok(Self {
            parameters: params.map(|claimed| claimed.id().to_string()).collect(),
            fusions,
            targets,
            observer: defaults.observer,
        })
    }

    /// What a quantizer with these targets and its `own` settings was made with.
    pub(crate) fn configuration(&self, own: Configuration) -> Configuration {
        let targets = self.targets.iter().map(|(claimed, _)| claimed);
        // A check changes no result.
        let own = own.without("check_finite");
        configuration(own, &self.fusions, targets, Some(self.observer))
    }

    /// Lets the observers follow the training run.
    pub(crate) fn follow(&self) {
        for (claimed, observer) in &self.targets {
            claimed.space.set_observer(Some(observer.clone()));
        }
    }

    /// Lets the observers of inputs and outputs follow the training run.
    pub(crate) fn follow_activations(&self) {
        for (claimed, observer) in &self.targets {
            if !claimed.target().is_param() {
                claimed.space.set_observer(Some(observer.clone()));
            }
        }
    }

    /// Lets the quantization of all targets act.
    pub(crate) fn enable(&self) {
        self.targets
            .iter()
            .for_each(|(claimed, _)| claimed.enable());
    }

    /// Leaves the values of all targets as they are.
    pub(crate) fn disable(&self) {
        self.targets
            .iter()
            .for_each(|(claimed, _)| claimed.disable());
    }

    /// The state of a target.
    pub(crate) fn space(&self, id: &TargetId) -> Option<&TargetSpace> {
        let mut spaces = self.targets.iter().map(|(claimed, _)| &*claimed.space);
        spaces.find(|space| space.id() == id)
    }

    /// The targets whose values only a forward pass shows: all but parameters, and folded ones.
    pub(crate) fn activations(&self) -> Vec<Arc<TargetSpace>> {
        let spaces = self.targets.iter().map(|(claimed, _)| &claimed.space);
        let activations =
            spaces.filter(|space| !space.id().target.is_param() || self.fusions.folds(space.id()));
        activations.cloned().collect()
    }

    /// Puts the folded values of fused layers in the place of the raw ones for good.
    ///
    /// # Errors
    ///
    /// A parameter that the model does not visit.
    pub(crate) fn finish_fusions<M: Module>(
        &self,
        model: &M,
    ) -> Result<IndexMap<TargetId, FlatTensor>, Error> {
        self.fusions.finish(model)
    }

    /// Lets the observers see the parameters.
    ///
    /// # Errors
    ///
    /// Parameters that cannot be quantized.
    pub(crate) fn observe_parameters<M: Module>(&self, model: &M) -> Result<(), Error> {
        let mut weights: IndexMap<_, _> = parameters(model, &self.parameters);
        for (claimed, _) in &self.targets {
            if let Some(weight) = weights.swap_remove(&claimed.id().to_string()) {
                claimed.space.observe(&weight)?;
            }
        }
        Ok(())
    }

    /// Derives scale and zero point of each target from what its observer has seen.
    ///
    /// # Errors
    ///
    /// A target of which nothing was seen.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        for (claimed, observer) in &self.targets {
            let Some(mut state) = claimed.space.quantization() else {
                continue;
            };
            let settled = observer.settle(&mut state);
            settled.map_err(|error| Error::Observation {
                target: claimed.id().clone(),
                reason: error.to_string(),
            })?;
            claimed.space.set_quantization(Some(state));
        }
        Ok(())
    }

    /// The targets whose ranges are worse than those that their observers were asked for, a sentence
    /// each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warning = |(claimed, observer): &(Claimed, Arc<TargetObserver>)| {
            let warning = observer.warning()?;
            Some(format!("`{}`: {warning}", claimed.id()))
        };
        self.targets.iter().filter_map(warning).collect()
    }

    /// Derives scale and zero point of one parameter anew, if it is a target, from values that
    /// replace all that was seen of it.
    ///
    /// # Errors
    ///
    /// Values that cannot be quantized.
    pub(crate) fn renew(&self, id: &TargetId, values: &FlatTensor) -> Result<(), Error> {
        let target = self.targets.iter().find(|(claimed, _)| claimed.id() == id);
        if let Some((claimed, observer)) = target
            && let Some(state) = claimed.space.quantization()
        {
            let mut state = Quantization {
                minimum: None,
                maximum: None,
                ..state
            };
            let renewed = observer
                .update(values, &mut state)
                .and_then(|()| observer.settle(&mut state));
            renewed.map_err(|error| Error::Observation {
                target: id.clone(),
                reason: error.to_string(),
            })?;
            claimed.space.set_quantization(Some(state));
        }
        Ok(())
    }

    /// What the observers know beyond ranges and scales.
    pub(crate) fn state(&self) -> AlgorithmState {
        let states = self.targets.iter().filter_map(|(claimed, observer)| {
            let state = observer.state()?;
            Some((observer_name(claimed), state))
        });
        AlgorithmState {
            values: IndexMap::new(),
            tensors: states.collect(),
        }
    }

    /// Restores what [`state`](Self::state) gave.
    ///
    /// # Errors
    ///
    /// The state of other observers.
    pub(crate) fn load_state(&self, state: &AlgorithmState) -> Result<(), BoxError> {
        for (claimed, observer) in &self.targets {
            observer.load_state(state.tensors.get(&observer_name(claimed)))?;
        }
        Ok(())
    }
}

fn observer_name(claimed: &Claimed) -> String {
    format!("observer/{}", claimed.id())
}
