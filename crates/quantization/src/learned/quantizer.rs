//! All targets of a quantizer that learns scales.

use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::{
    BoxError, Compressor, Configuration, Error, FlatTensor, Learnable, Stage, TargetId, parameters,
};
use indexmap::{IndexMap, IndexSet};

use super::target::{Begin, Learned};
use crate::claim::{Claimed, claim, configuration, error_of};
use crate::fuse::Fusions;
use crate::range::host;
use crate::refuse::{refuse_binary, refuse_method, refuse_observer};
use crate::{ApplyMethod, QuantScheme, QuantizationError, QuantizationSettings};

/// What a quantizer of this kind does.
pub(crate) struct Rules {
    pub(crate) name: &'static str,
    /// Whether the zero points of a target are learned.
    pub(crate) scheme:
        fn(&Selected<QuantizationSettings>) -> Result<QuantScheme, QuantizationError>,
    pub(crate) begin: Begin,
    /// The scale to begin with in place of one from the data.
    pub(crate) constant: Option<f64>,
    /// In place of the evaluator's optimizer.
    pub(crate) learning_rate: Option<f64>,
}

/// The targets of a quantizer that learns scales.
#[derive(Debug)]
pub(crate) struct LearnedTargets {
    targets: Vec<(Claimed, Arc<Learned>)>,
    /// Those that are seen before the first step, not where the forward pass folds them.
    parameters: IndexSet<String>,
    fusions: Fusions,
}

impl LearnedTargets {
    /// Claims what `config` selects and lets it be quantized from its first values on.
    ///
    /// # Errors
    ///
    /// A configuration that does not fit the model or the quantizer, layers that cannot be fused,
    /// and a target that another quantizer has.
    pub(crate) fn claim<M: Module + 'static, I: 'static>(
        compressor: &mut Compressor<M, I>,
        config: &ConfigList<QuantizationSettings>,
        rules: &Rules,
    ) -> Result<Self, Error> {
        compressor.evaluator().require_training(rules.name)?;
        check_positive("init", rules.constant).map_err(error_of(rules.name))?;
        check_positive("learning_rate", rules.learning_rate).map_err(error_of(rules.name))?;
        let method = ApplyMethod::QatClampRound;
        let (claimed, fusions) = claim(compressor, config, rules.name, method, |selected| {
            refuse_binary(selected.settings.dtype())?;
            refuse_observer(&selected.settings)?;
            refuse_method(&selected.settings)?;
            (rules.scheme)(selected)
        })?;
        let device = compressor.model().devices().first().cloned();
        let device = device.unwrap_or_default();
        let targets = claimed.into_iter().map(|(claimed, scheme)| {
            let learned = Learned::new(&claimed, scheme, rules, &device);
            learned.act(&claimed);
            (claimed, learned)
        });
        let targets: Vec<_> = targets.collect();
        let ids = targets.iter().map(|(claimed, _)| claimed.id());
        let unfolded = ids.filter(|id| id.target.is_param() && !fusions.folds(id));
        Ok(Self {
            parameters: unfolded.map(TargetId::to_string).collect(),
            fusions,
            targets,
        })
    }

    /// What a quantizer with these targets and its `own` settings was made with.
    pub(crate) fn configuration(&self, own: Configuration) -> Configuration {
        let targets = self.targets.iter().map(|(claimed, _)| claimed);
        configuration(own, &self.fusions, targets, None)
    }

    /// Refuses a run that trains nothing.
    pub(crate) fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        match total_steps {
            0 => Err("scales are learned by training, so the run needs at least one step".into()),
            _ => Ok(()),
        }
    }

    /// Lets the scales of parameters begin.
    pub(crate) fn observe<M: Module>(&self, model: &M) -> Result<(), Error> {
        let unseen = |(claimed, learned): &&(Claimed, Arc<Learned>)| {
            self.parameters.contains(&claimed.id().to_string()) && !learned.has_begun()
        };
        if !self.targets.iter().any(|target| unseen(&target)) {
            return Ok(());
        }
        let mut weights = parameters(model, &self.parameters);
        for (claimed, _) in &self.targets {
            if let Some(weight) = weights.swap_remove(&claimed.id().to_string()) {
                claimed.space.observe(&weight)?;
            }
        }
        Ok(())
    }

    pub(crate) fn learnables(&self) -> Vec<Arc<Learnable>> {
        let learned = self.targets.iter().map(|(_, learned)| learned);
        learned.flat_map(|learned| learned.learnables()).collect()
    }

    /// Writes what was learned to the states of the targets.
    pub(crate) fn report(&self) {
        for (claimed, learned) in &self.targets {
            if let Some(mut state) = claimed.space.quantization() {
                learned.report(&mut state);
                claimed.space.set_quantization(Some(state));
            }
        }
    }

    /// Leaves an ordinary quantization behind, with whole zero points if they are to be rounded.
    ///
    /// # Errors
    ///
    /// A target that no step has reached, and numbers that are not finite.
    pub(crate) fn finish(&self, round_zero_points: bool) -> Result<(), Error> {
        for (claimed, _) in &self.targets {
            let (space, id) = (&claimed.space, claimed.id());
            let failed = |error: QuantizationError| Error::Observation {
                target: id.clone(),
                reason: error.to_string(),
            };
            let nothing = || failed(QuantizationError::NothingObserved);
            // The state rather than what is trained: a run may end with an earlier snapshot.
            let mut state = space.quantization().ok_or_else(nothing)?;
            let (Some(scale), Some(zero_point)) = (&state.scale, &state.zero_point) else {
                return Err(nothing());
            };
            for (what, tensor) in [("scale", scale), ("zero point", zero_point)] {
                let values = host(tensor.clone()).map_err(failed)?;
                if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                    let target = id.to_string();
                    return Err(failed(QuantizationError::NotLearned {
                        target,
                        what,
                        value,
                    }));
                }
            }
            if round_zero_points {
                let rounded = zero_point.clone().round();
                state.zero_point = Some(rounded.clamp(state.qmin, state.qmax));
            }
            space.set_quantization(Some(state));
            space.set_observer(None);
            space.set_transform(Stage::Quantize, None);
        }
        Ok(())
    }

    /// Puts the folded values of fused layers in the place of the raw ones for good.
    ///
    /// # Errors
    ///
    /// A parameter that the model does not visit.
    pub(crate) fn rewrite<M: Module>(
        &self,
        model: &M,
    ) -> Result<IndexMap<TargetId, FlatTensor>, Error> {
        self.fusions.finish(model)
    }

    /// Makes the tensors that were there when the states of the targets were saved.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub(crate) fn restore(&self) -> Result<(), BoxError> {
        let mut targets = self.targets.iter();
        targets.try_for_each(|(claimed, learned)| learned.restore(claimed.space.quantization()))
    }
}

fn check_positive(key: &'static str, value: Option<f64>) -> Result<(), QuantizationError> {
    match value {
        Some(value) if !(value.is_finite() && value as f32 > 0.0) => {
            Err(QuantizationError::Setting {
                key,
                value: value.to_string(),
                expected: "a positive number",
            })
        }
        _ => Ok(()),
    }
}
