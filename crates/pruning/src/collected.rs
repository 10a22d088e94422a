//! Sums over training steps, by parameter.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor};
use burn_compress_core::{
    AlgorithmState, BoxError, Error, FlatTensor, HostTensor, gradients, parameters, reads,
};
use indexmap::{IndexMap, IndexSet};

use crate::PruningError;
use crate::signal::GradientTerm;

/// What a score has collected since the last decision.
#[derive(Default)]
pub(crate) struct Collected {
    sums: IndexMap<String, FlatTensor>,
}

impl Collected {
    /// Adds the values of one step.
    pub(crate) fn add(&mut self, values: impl IntoIterator<Item = (String, FlatTensor)>) {
        for (path, value) in values {
            let sum = match self.sums.swap_remove(&path) {
                // A sum that was loaded may lie on another device of the model.
                Some(sum) => sum.values.to_device(&value.values.device()) + value.values,
                None => value.values,
            };
            let shape = value.shape;
            self.sums.insert(path, FlatTensor { values: sum, shape });
        }
    }

    pub(crate) fn clear(&mut self) {
        self.sums.clear();
    }

    pub(crate) fn sums(&self) -> &IndexMap<String, FlatTensor> {
        &self.sums
    }

    pub(crate) fn save(&self) -> Result<AlgorithmState, Error> {
        let mut state = AlgorithmState::default();
        let values = reads::all(self.sums.values().map(|sum| sum.values.clone()))?;
        for ((path, tensor), values) in self.sums.iter().zip(values) {
            let shape = tensor.shape.clone();
            let host = HostTensor { values, shape };
            state.tensors.insert(path.clone(), host);
        }
        Ok(state)
    }

    /// What [`save`](Self::save) gave; `load` brings a tensor to its device.
    pub(crate) fn load(state: &AlgorithmState, load: impl Fn(&HostTensor) -> FlatTensor) -> Self {
        let tensors = state.tensors.iter();
        Self {
            sums: tensors.map(|(path, t)| (path.clone(), load(t))).collect(),
        }
    }
}

/// Refuses parameters among `sources` that no gradient is kept of.
pub(crate) fn require_trained<M: Module>(
    model: &M,
    pruner: &'static str,
    sources: &IndexSet<String>,
) -> Result<(), PruningError> {
    let mut frozen = Frozen {
        path: Vec::new(),
        sources,
        found: Vec::new(),
    };
    model.visit(&mut frozen);
    match frozen.found.is_empty() {
        true => Ok(()),
        false => Err(PruningError::Frozen {
            pruner,
            targets: frozen.found,
        }),
    }
}

struct Frozen<'a> {
    path: Vec<String>,
    sources: &'a IndexSet<String>,
    found: Vec<String>,
}

impl ModuleVisitor for Frozen<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if self.sources.contains(&path) && !param.base().is_require_grad() {
            self.found.push(path);
        }
    }
}

/// What a step adds for each weight of the parameters `sources`, and those without a gradient.
pub(crate) fn gradient_terms<M: Module>(
    model: &M,
    grads: &GradientsParams,
    sources: &IndexSet<String>,
    term: GradientTerm,
) -> (Vec<(String, FlatTensor)>, Vec<String>) {
    let mut slopes = gradients(model, grads, sources);
    let (mut terms, mut missing) = (Vec::new(), Vec::new());
    for (path, weight) in parameters(model, sources) {
        // The square of a small gradient is zero in half precision.
        let values = weight.values.cast(FloatDType::F32);
        let slope = slopes.swap_remove(&path);
        let values = match slope.map(|slope| slope.values.cast(FloatDType::F32)) {
            Some(slope) => match term {
                GradientTerm::WeightedGradient => (values * slope).square(),
                GradientTerm::Gradient => slope.square(),
            },
            // What the loss does not depend on has a gradient of zero.
            None => {
                missing.push(path.clone());
                values.zeros_like()
            }
        };
        let shape = weight.shape;
        terms.push((path, FlatTensor { values, shape }));
    }
    (terms, missing)
}

/// The sums of gradients as a score sees them.
pub(crate) fn weighted<M: Module>(
    model: &M,
    sums: &IndexMap<String, FlatTensor>,
    term: GradientTerm,
) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
    let mut weights = match term {
        GradientTerm::WeightedGradient => IndexMap::new(),
        GradientTerm::Gradient => parameters(model, &sums.keys().cloned().collect()),
    };
    let values = sums
        .iter()
        .map(|(path, sum)| match weights.swap_remove(path) {
            Some(weight) => {
                let values = weight.values.cast(FloatDType::F32);
                let sum = sum.values.clone().to_device(&values.device());
                values.square() * sum
            }
            None => sum.values.clone(),
        });
    let values = reads::all(values)?;
    Ok(sums.keys().cloned().zip(values).collect())
}
