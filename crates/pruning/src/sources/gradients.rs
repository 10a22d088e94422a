//! Gradients, summed over training steps.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor};
use burn_compress_core::{AlgorithmState, BoxError, FlatTensor, Run, gradients, parameters, reads};
use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use super::accumulator::Accumulator;
use super::source::{Collector, ScoreSource, Scored};
use crate::PruningError;
use crate::timing::{Phase, Timing};

/// Gradients of the unmasked parameters, summed over training steps.
///
/// A frozen layer has no gradient and is refused, and so is one that no gradient reaches in the first
/// step of a score. A pruned weight has gradient 0, so that a pruned block stays pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gradients {
    training_steps: usize,
    term: Term,
}

/// The term that a step adds for each weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Term {
    /// `(weight * gradient)^2`.
    Taylor,
    /// `gradient^2`; the sum is multiplied by the squared weight at the time of a decision.
    Fisher,
}

impl Gradients {
    /// The sum over `training_steps` steps of `(w * dL/dw)^2`, with the weight of each step.
    pub const fn taylor(training_steps: usize) -> Self {
        let term = Term::Taylor;
        Self {
            training_steps,
            term,
        }
    }

    /// `w^2` at the time of a decision times the sum over `training_steps` steps of `(dL/dw)^2`.
    pub const fn fisher(training_steps: usize) -> Self {
        let term = Term::Fisher;
        Self {
            training_steps,
            term,
        }
    }
}

impl ScoreSource for Gradients {
    fn timing(&self) -> Timing {
        Timing::after(self.training_steps)
    }

    fn collector<M: Module + 'static, I: 'static>(
        &self,
        scored: &Scored<'_, M, I>,
    ) -> Result<Box<dyn Collector<M, I>>, PruningError> {
        let paths = scored.paths();
        require_trained(scored.chain().model(), &paths)?;
        Ok(Box::new(GradientSums {
            term: self.term,
            paths,
            sums: Accumulator::new(scored),
        }))
    }
}

struct GradientSums {
    term: Term,
    paths: IndexSet<String>,
    sums: Accumulator,
}

impl<M: Module, I> Collector<M, I> for GradientSums {
    fn gradients(
        &mut self,
        gradients: &GradientsParams,
        run: Run<'_, M>,
        phase: Phase,
    ) -> Result<(), BoxError> {
        if !phase.collects {
            return Ok(());
        }
        let (terms, missing) = self.terms(run.model, gradients);
        // Later steps may leave out layers, as stochastic depth does.
        if self.sums.sums().is_empty() && !missing.is_empty() {
            return Err(PruningError::NoGradient { targets: missing }.into());
        }
        self.sums.add(terms);
        Ok(())
    }

    fn values(&self, model: &M) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        let sums = self.sums.sums();
        let mut weights = match self.term {
            Term::Taylor => IndexMap::new(),
            Term::Fisher => parameters(model, &sums.keys().cloned().collect()),
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

    fn clear(&mut self) {
        self.sums.clear();
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        self.sums.state()
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.sums.load_state(state)
    }
}

impl GradientSums {
    /// The terms of a step, and the parameters without a gradient.
    fn terms<M: Module>(
        &self,
        model: &M,
        grads: &GradientsParams,
    ) -> (Vec<(String, FlatTensor)>, Vec<String>) {
        let mut slopes = gradients(model, grads, &self.paths);
        let (mut terms, mut missing) = (Vec::new(), Vec::new());
        for (path, weight) in parameters(model, &self.paths) {
            // The square of a small gradient is zero in half precision.
            let values = weight.values.cast(FloatDType::F32);
            let slope = slopes.swap_remove(&path);
            let values = match slope.map(|slope| slope.values.cast(FloatDType::F32)) {
                Some(slope) => match self.term {
                    Term::Taylor => (values * slope).square(),
                    Term::Fisher => slope.square(),
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
}

/// Rejects parameters among `paths` that no gradient is kept of.
fn require_trained<M: Module>(model: &M, paths: &IndexSet<String>) -> Result<(), PruningError> {
    let mut frozen = Frozen {
        path: Vec::new(),
        paths,
        found: Vec::new(),
    };
    model.visit(&mut frozen);
    let targets = frozen.found;
    match targets.is_empty() {
        true => Ok(()),
        false => Err(PruningError::Frozen { targets }),
    }
}

struct Frozen<'a> {
    path: Vec<String>,
    paths: &'a IndexSet<String>,
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
        if self.paths.contains(&path) && !param.base().is_require_grad() {
            self.found.push(path);
        }
    }
}
