//! Algorithms of a certain model in the chain, which knows none, and the other way round.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use indexmap::IndexMap;

use super::{AnyBatch, AnyModel, same};
use crate::error::BoxError;
use crate::run::algorithm::{Algorithm, AlgorithmState, Run};
use crate::run::configuration::Configuration;
use crate::run::learnable::Learnable;
use crate::run::planned_mask::PlannedMask;
use crate::simulate::flat::FlatTensor;
use crate::target::{Mode, TargetId};

type AnyAlgorithm = Box<dyn Algorithm<AnyModel, AnyBatch>>;

/// An algorithm as the chain holds it.
pub(crate) fn pushed<M: Module + 'static, I: 'static>(
    algorithm: Box<dyn Algorithm<M, I>>,
) -> AnyAlgorithm {
    let algorithm = match same(algorithm) {
        Ok(algorithm) => return algorithm,
        Err(algorithm) => algorithm,
    };
    if !(&*algorithm as &dyn Any).is::<Untyped<M, I>>() {
        return Box::new(Typed(algorithm));
    }
    let untyped: Box<dyn Any> = algorithm;
    let untyped: Untyped<M, I> = *untyped.downcast().expect("its type was asked for");
    untyped.0
}

/// An algorithm of the chain as one of this model.
pub(crate) fn taken<M: Module + 'static, I: 'static>(
    algorithm: AnyAlgorithm,
) -> Box<dyn Algorithm<M, I>> {
    let algorithm = match same(algorithm) {
        Ok(algorithm) => return algorithm,
        Err(algorithm) => algorithm,
    };
    if !(&*algorithm as &dyn Any).is::<Typed<M, I>>() {
        return Box::new(Untyped(algorithm, PhantomData));
    }
    let typed: Box<dyn Any> = algorithm;
    let typed: Typed<M, I> = *typed.downcast().expect("its type was asked for");
    typed.0
}

/// The hooks that see neither model nor batch.
macro_rules! forward {
    () => {
        fn name(&self) -> &'static str {
            self.0.name()
        }

        fn mode(&self) -> Mode {
            self.0.mode()
        }

        fn check(&self, total_steps: usize) -> Result<(), BoxError> {
            self.0.check(total_steps)
        }

        fn learnables(&self) -> Vec<Arc<Learnable>> {
            self.0.learnables()
        }

        fn warnings(&self) -> Result<Vec<String>, BoxError> {
            self.0.warnings()
        }

        fn goals(&self) -> Result<IndexMap<TargetId, f64>, BoxError> {
            self.0.goals()
        }

        fn planned_masks(&self) -> Result<Vec<PlannedMask>, BoxError> {
            self.0.planned_masks()
        }

        fn state(&self) -> Result<AlgorithmState, BoxError> {
            self.0.state()
        }

        fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
            self.0.load_state(state)
        }

        fn configuration(&self) -> Result<Configuration, BoxError> {
            self.0.configuration()
        }
    };
}

/// An algorithm that sees an `M` and an `I`.
struct Typed<M, I>(Box<dyn Algorithm<M, I>>);

/// The same position with the model as an `M`.
fn typed<'a, M: Module + 'static>(run: Run<'a, AnyModel>) -> Run<'a, M> {
    Run {
        model: run.model.get(),
        step: run.step,
        total_steps: run.total_steps,
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<AnyModel, AnyBatch> for Typed<M, I> {
    forward!();

    fn prepare(&mut self, run: Run<'_, AnyModel>) -> Result<(), BoxError> {
        self.0.prepare(typed(run))
    }

    fn observe(&mut self, run: Run<'_, AnyModel>) -> Result<(), BoxError> {
        self.0.observe(typed(run))
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        batch: &AnyBatch,
        run: Run<'_, AnyModel>,
    ) -> Result<Tensor<1>, BoxError> {
        batch.lend(|batch| self.0.loss(loss, batch, typed(run)))
    }

    fn gradients(
        &mut self,
        gradients: &GradientsParams,
        run: Run<'_, AnyModel>,
    ) -> Result<(), BoxError> {
        self.0.gradients(gradients, typed(run))
    }

    fn project(
        &mut self,
        run: Run<'_, AnyModel>,
    ) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        self.0.project(typed(run))
    }

    fn after_step(&mut self, run: Run<'_, AnyModel>) -> Result<(), BoxError> {
        self.0.after_step(typed(run))
    }

    fn finish(&mut self, run: Run<'_, AnyModel>) -> Result<(), BoxError> {
        self.0.finish(typed(run))
    }

    fn rewrite(
        &mut self,
        run: Run<'_, AnyModel>,
    ) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        self.0.rewrite(typed(run))
    }
}

/// An algorithm that knows no types, in the hands of a program that does.
struct Untyped<M, I>(AnyAlgorithm, PhantomData<fn(M, I)>);

impl<M: Module + 'static, I: 'static> Untyped<M, I> {
    /// Runs a hook with the type of the model erased.
    fn with<R>(
        &mut self,
        run: Run<'_, M>,
        hook: impl FnOnce(&mut dyn Algorithm<AnyModel, AnyBatch>, Run<'_, AnyModel>) -> R,
    ) -> R {
        let model = AnyModel::new(run.model.clone());
        let run = Run {
            model: &model,
            step: run.step,
            total_steps: run.total_steps,
        };
        hook(&mut *self.0, run)
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for Untyped<M, I> {
    forward!();

    fn prepare(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.with(run, |algorithm, run| algorithm.prepare(run))
    }

    fn observe(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.with(run, |algorithm, run| algorithm.observe(run))
    }

    fn loss(&mut self, loss: Tensor<1>, batch: &I, run: Run<'_, M>) -> Result<Tensor<1>, BoxError> {
        let name = self.0.name();
        let batch = AnyBatch::lent(batch)
            .ok_or_else(|| format!("{name} sees the batches of the run alone, and none else"))?;
        self.with(run, |algorithm, run| algorithm.loss(loss, &batch, run))
    }

    fn gradients(&mut self, gradients: &GradientsParams, run: Run<'_, M>) -> Result<(), BoxError> {
        self.with(run, |algorithm, run| algorithm.gradients(gradients, run))
    }

    fn project(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        self.with(run, |algorithm, run| algorithm.project(run))
    }

    fn after_step(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.with(run, |algorithm, run| algorithm.after_step(run))
    }

    fn finish(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        self.with(run, |algorithm, run| algorithm.finish(run))
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        self.with(run, |algorithm, run| algorithm.rewrite(run))
    }
}
