//! Observers of a run, and the events that they are given.

use serde::{Deserialize, Serialize};

use crate::run::history::StepRecord;
use crate::target::TargetId;

/// Follows a run from outside, for a display, a tracker of experiments or a file of one's own.
///
/// [`Compressor::with_observer`](crate::Compressor::with_observer) adds one to a chain; it is called
/// on the thread that trains, in a run of [`compress`](crate::Compressor::compress) and in one of
/// Burn's `Learner` alike. The same events are logged: steps at the level `debug`, masks and
/// evaluations at `info`.
///
/// # Order
///
/// Events come in the order of their steps, of one step in the order of the methods here. Nothing is
/// read from a device for them: with [`with_log_every`](crate::Evaluator::with_log_every) the events
/// of several steps come together, when their losses are read.
///
/// A run that is resumed from a checkpoint gives the events of the steps after it, the same as an
/// uninterrupted run gives for them.
///
/// ```
/// use std::sync::mpsc;
///
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::{Budget, Compressor, Evaluator, RunObserver, StepEvent};
///
/// /// Sends the losses to another thread.
/// struct Losses(mpsc::Sender<f64>);
///
/// impl RunObserver for Losses {
///     fn on_step(&mut self, event: &StepEvent) {
///         let _ = self.0.send(event.record.loss); // nobody may be listening any more
///     }
/// }
///
/// let device = Device::flex();
/// let batch = Tensor::<2>::ones([8, 4], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).mean());
/// let (sender, losses) = mpsc::channel();
/// let chain = Compressor::from_model(LinearConfig::new(4, 2).init(&device), evaluator)
///     .with_observer(Losses(sender)); // here pruners, quantizers and distillers are fused
/// chain.compress(Budget::steps(3))?;
/// assert_eq!(losses.iter().count(), 3);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub trait RunObserver: Send {
    /// Called for every optimizer step.
    fn on_step(&mut self, _event: &StepEvent) {}

    /// Called when masks have changed: after a step, before the first one and at the end of the run.
    fn on_masks(&mut self, _event: &MasksEvent) {}

    /// Called when the evaluator's evaluation has been run.
    fn on_evaluation(&mut self, _event: &EvaluationEvent) {}
}

/// An optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepEvent {
    /// The numbers of the step.
    pub record: StepRecord,
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
}

/// Masks that have changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasksEvent {
    /// Completed optimizer steps.
    pub step: usize,
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
    /// The targets whose mask is another one than before.
    pub changed: Vec<ChangedMask>,
    /// Fraction of the masked parameters' elements that is removed.
    pub sparsity: f64,
}

/// A mask that has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangedMask {
    /// The target.
    pub target: TargetId,
    /// Elements that the mask removes; 0 where the mask is gone.
    pub removed: usize,
    /// Elements of the mask.
    pub elements: usize,
}

/// An evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationEvent {
    /// Completed optimizer steps.
    pub step: usize,
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
    /// What the evaluator's evaluation gave.
    pub metric: f64,
}
