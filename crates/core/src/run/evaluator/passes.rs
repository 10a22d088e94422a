//! Forward passes over the data in which nothing trains.

use std::ops::ControlFlow;
use std::sync::Arc;

use burn::module::Module;

use super::Evaluator;
use crate::Error;
use crate::run::reads::Collector;
use crate::run::unread;
use crate::simulate::attach::{self, Spaces};
use crate::simulate::space::{Phase, TargetSpace};

impl<M: Module, I: 'static> Evaluator<M, I> {
    /// Runs each of `models` forward on the first `batches` batches of epoch 0 and calls `after` when
    /// all of them have run on a batch; returns the number of batches, less than `batches` when the
    /// epoch is shorter.
    ///
    /// Nothing trains and the losses are dropped. What the passes are for is seen through states
    /// that record, as those of [`tap`](crate::tap) do.
    ///
    /// # Errors
    ///
    /// Data or a loss that is missing, an epoch without a batch, and what `after` returns.
    pub fn forward(
        &self,
        models: &[&M],
        batches: usize,
        mut after: impl FnMut() -> Result<(), Error>,
    ) -> Result<usize, Error> {
        self.require_forward("a forward pass")?;
        let mut seen = 0;
        let data = self.batches.as_ref().ok_or(Error::NoBatches { epoch: 0 })?;
        data.look(&mut |batch| {
            if let (Some(loss), true) = (&self.loss, seen < batches) {
                models.iter().for_each(|model| drop(loss(model, &batch)));
                after()?;
                seen += 1;
            }
            Ok(match seen < batches {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        match seen {
            0 => Err(Error::NoBatches { epoch: 0 }),
            seen => Ok(seen),
        }
    }

    /// The first `count` batches of epoch 0, or all of them where the epoch is shorter.
    ///
    /// # Errors
    ///
    /// No data, an epoch without a batch, or a `count` of 0.
    pub fn first_batches(&self, count: usize) -> Result<Vec<I>, Error> {
        let mut first = Vec::new();
        let data = self.batches.as_ref().ok_or(Error::NoBatches { epoch: 0 })?;
        data.look(&mut |batch| {
            if first.len() < count {
                first.push(batch);
            }
            Ok(match first.len() < count {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        match first.is_empty() {
            true => Err(Error::NoBatches { epoch: 0 }),
            false => Ok(first),
        }
    }

    /// Whether an [evaluation](Self::with_evaluation) was given.
    pub fn has_evaluation(&self) -> bool {
        self.evaluation.is_some()
    }

    /// The metric of a model, if the evaluator has an [evaluation](Self::with_evaluation).
    pub fn evaluate(&self, model: &M) -> Option<f64> {
        let (_, evaluate) = self.evaluation.as_ref()?;
        Some(evaluate(&model.valid()))
    }

    /// Passes to the observers of `spaces` what [`forward`](Self::forward) passes take through
    /// `model` as it is in validation; returns the number of batches.
    ///
    /// Parameters, running statistics and optimizer stay as they are, and so do states that are not
    /// among `spaces`.
    ///
    /// # Errors
    ///
    /// Those of [`forward`](Self::forward), values that an observer refuses, and an input or output
    /// that no pass reaches. The states are as before then.
    pub fn calibrate(
        &self,
        model: &M,
        spaces: &[Arc<TargetSpace>],
        batches: usize,
    ) -> Result<usize, Error> {
        let phase = Arc::new(Phase::default());
        phase.set_training(true);
        let fork = |space: &Arc<TargetSpace>| (space.id().clone(), space.fork(phase.clone()));
        let copies: Spaces = spaces.iter().map(fork).collect();
        let model = attach::rejoin(model.valid(), &copies);
        let collector = Collector::open();
        let seen = self.forward(&[&model], batches, || {
            let mut failures = copies.values().filter_map(|copy| copy.take_failure());
            failures.next().map_or(Ok(()), Err)?;
            unread::judge(collector.take())
        })?;
        drop(collector);
        let unreached = |copy: &&Arc<TargetSpace>| copy.shape().is_none();
        if let Some(copy) = copies.values().find(unreached) {
            return Err(copy.unreached());
        }
        for space in spaces {
            drop(copies[space.id()].take_hidden());
            space.restore(&copies[space.id()]);
        }
        Ok(seen)
    }
}
