//! The one training run that drives all compressors of a chain.

use std::ops::ControlFlow;
use std::sync::Arc;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use crate::Error;
use crate::erased::{AnyBatch, AnyModel};
use crate::file::check_writable;
use crate::file::checkpoint::save;
use crate::run::algorithm::Algorithm;
use crate::run::any_chain::{AnyChain, learnables};
use crate::run::budget::{Budget, Length};
use crate::run::events::sparsity;
use crate::run::learnable::{Learnable, Learnables, TrainedBy};
use crate::run::progress_line::ProgressLine;
use crate::run::reads::{self, Collector, Concern};
use crate::target::Target;

/// Runs the chain until `stop` completed steps or the end of the budget.
pub(crate) fn run(chain: &mut AnyChain, budget: &Budget, stop: Option<usize>) -> Result<(), Error> {
    let total = total_steps(chain, budget)?;
    if total < chain.progress.step {
        let step = chain.progress.step;
        let reason = format!(
            "{step} steps are done, the run has {total}: the budget is that of the whole run, \
             give it at least {step}"
        );
        return Err(Error::Budget { reason });
    }
    require_interval(
        "with_checkpoint",
        budget.checkpoint.as_ref().map(|(_, every)| *every),
    )?;
    chain.progress.total_steps = total;
    prepare(chain)?;
    let last = stop.map_or(total, |stop| stop.min(total));
    if last <= chain.progress.step {
        return Ok(());
    }
    chain.evaluator.require_own_training("the training run")?;
    require_writable(budget)?;
    if chain.events.has_line {
        let metric = chain.progress.history.last_evaluation();
        chain.events.line = Some(ProgressLine::new(chain.progress.step, total, metric));
    }
    let outcome = steps(chain, budget, last);
    // What steps before have left on the device tells more than what came of it.
    let outcome = read(chain).and(outcome);
    if let Some(line) = chain.events.line.take() {
        line.clear();
    }
    outcome
}

/// Trains until `last` completed steps.
fn steps(chain: &mut AnyChain, budget: &Budget, last: usize) -> Result<(), Error> {
    let evaluator = chain.evaluator.clone();
    while chain.progress.step < last {
        let (epoch, skip) = (chain.progress.epoch, chain.progress.position);
        let mut seen = 0;
        let is_over = evaluator.for_each_batch(epoch, &mut |batch| {
            seen += 1;
            if seen <= skip {
                return Ok(ControlFlow::Continue(()));
            }
            step(chain, &batch)?;
            chain.progress.position = seen;
            if let Some(line) = &chain.events.line {
                line.set_step(chain.progress.step);
            }
            leave_checkpoint(chain, budget)?;
            Ok(match chain.progress.step < last {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        if seen == 0 {
            return Err(Error::NoBatches { epoch });
        }
        if is_over {
            chain.progress.epoch += 1;
            chain.progress.position = 0;
        }
    }
    Ok(())
}

/// Reads what the steps so far have left on the device.
pub(crate) fn read(chain: &mut AnyChain) -> Result<(), Error> {
    let progress = &mut chain.progress;
    let outcome = progress.unread.read(&mut progress.history, &chain.spaces);
    deliver(chain);
    outcome
}

/// Delivers the events of the steps that were read.
fn deliver(chain: &mut AnyChain) {
    let progress = &chain.progress;
    let (history, total_steps) = (&progress.history, progress.total_steps);
    chain.events.deliver(history, total_steps);
}

/// Finds out which masks have changed.
pub(crate) fn watch_masks(chain: &mut AnyChain) {
    let (step, total_steps) = (chain.progress.step, chain.progress.total_steps);
    chain.events.watch_masks(step, total_steps, &chain.spaces);
    deliver(chain);
}

fn total_steps(chain: &AnyChain, budget: &Budget) -> Result<usize, Error> {
    match budget.length {
        Length::Steps(steps) => Ok(steps),
        Length::Epochs(epochs) => {
            chain.evaluator.require_own_training("the training run")?;
            match chain.evaluator.batches_in_epoch()? {
                0 => Err(Error::NoBatches { epoch: 0 }),
                batches => Ok(epochs.saturating_mul(batches)),
            }
        }
    }
}

/// Refuses what is to happen every 0 steps.
fn require_interval(builder: &str, every: Option<usize>) -> Result<(), Error> {
    match every {
        Some(0) => Err(Error::Budget {
            reason: format!("`{builder}` is given an interval of 0 steps: give it at least 1"),
        }),
        _ => Ok(()),
    }
}

/// Checks the length of the run with every compressor and, once a run, prepares them.
pub(crate) fn prepare(chain: &mut AnyChain) -> Result<(), Error> {
    let total_steps = chain.progress.total_steps;
    let evaluation = chain.evaluator.evaluation();
    require_interval("with_evaluation", evaluation.map(|(every, _)| *every))?;
    for algorithm in &chain.algorithms {
        algorithm
            .check(total_steps)
            .map_err(|reason| Error::Budget {
                reason: format!("{}: {reason}", algorithm.name()),
            })?;
    }
    if chain.progress.prepared {
        return Ok(());
    }
    let run = chain.progress.run(&chain.model);
    for algorithm in chain.algorithms.iter_mut().rev() {
        let name = algorithm.name();
        algorithm.prepare(run).map_err(Error::met_by(name))?;
    }
    // An algorithm that looks at the values tells more about them.
    crate::run::finite::require(&chain.model, &chain.spaces, chain.progress.step)?;
    chain.progress.prepared = true;
    watch_masks(chain);
    Ok(())
}

fn step(chain: &mut AnyChain, batch: &AnyBatch) -> Result<(), Error> {
    let (_, gradients) = backward(chain, batch)?;
    let optimizer = chain.progress.optimizer.as_mut();
    let schedule = chain.progress.schedule.as_mut();
    let (Some(optimizer), Some(schedule)) = (optimizer, schedule) else {
        // `require_own_training` has seen both.
        return Ok(());
    };
    let learning_rate = schedule.step();
    let rate = learning_rate.base();
    learn(
        &chain.algorithms,
        &mut chain.progress.adam,
        |due, gradients| {
            optimizer.step(learning_rate.clone(), due, gradients);
        },
    );
    chain.model = optimizer.step(learning_rate, chain.model.clone(), gradients);
    after_step(chain, rate)
}

/// Steps the learnables that have gradients, by Adam and then by `optimize`.
pub(crate) fn learn(
    algorithms: &[Box<dyn Algorithm<AnyModel, AnyBatch>>],
    adam: &mut ModuleOptimizer,
    optimize: impl FnOnce(Learnables, GradientsParams),
) {
    let all: Vec<Arc<Learnable>> = learnables(algorithms);
    if all.is_empty() {
        return;
    }
    for learnable in &all {
        if let TrainedBy::Adam { learning_rate } = learnable.trained_by() {
            let (due, gradients) =
                Learnables::with_gradients(std::slice::from_ref(learnable), |_| true);
            if !due.is_empty() {
                adam.step(learning_rate, due, gradients);
            }
        }
    }
    let (due, gradients) = Learnables::with_gradients(&all, |by| by == TrainedBy::Evaluator);
    if !due.is_empty() {
        optimize(due, gradients);
    }
}

/// The user's own loss of a batch.
type TaskLoss<'a> = &'a dyn Fn(&AnyModel, &AnyBatch) -> Tensor<1>;

/// Forward and backward of one batch with every compressor's part; the loss that is minimised and
/// the gradients of the model.
pub(crate) fn backward(
    chain: &mut AnyChain,
    batch: &AnyBatch,
) -> Result<(Tensor<1>, GradientsParams), Error> {
    let epoch = chain.progress.epoch;
    let task_loss = chain.evaluator.loss().ok_or(Error::NoBatches { epoch })?;
    backward_with(chain, batch, &*task_loss)
}

/// As [`backward`], with a loss that stands in for the evaluator's.
pub(crate) fn backward_with(
    chain: &mut AnyChain,
    batch: &AnyBatch,
    task_loss: TaskLoss<'_>,
) -> Result<(Tensor<1>, GradientsParams), Error> {
    let step = chain.progress.step;
    seed(chain);
    let collector = Collector::open();
    let losses = losses(chain, batch, task_loss);
    chain.progress.unread.watch(step, collector.take());
    drop(collector);
    let [loss, task_loss] = match losses {
        Ok(losses) => losses,
        Err(error) => return read(chain).and(Err(error)),
    };
    let unread = &mut chain.progress.unread;
    unread.begin(step, [loss.clone(), task_loss]);
    if chain.evaluator.reads(step + 1) || step + 1 == chain.progress.total_steps {
        read(chain)?;
    }
    require_reached(chain)?;
    if !loss.is_tracked() {
        return Err(Error::LossDetached);
    }
    let mut gradients = loss.backward();
    for learnable in learnables(&chain.algorithms) {
        learnable.take_gradient(&mut gradients);
    }
    let gradients = GradientsParams::from_grads(gradients, &chain.model);
    let run = chain.progress.run(&chain.model);
    for algorithm in &mut chain.algorithms {
        let name = algorithm.name();
        algorithm
            .gradients(&gradients, run)
            .map_err(Error::met_by(name))?;
    }
    Ok((loss.detach(), gradients))
}

/// The loss that is minimised and that of the task, with what the compressors observe on the way.
fn losses(
    chain: &mut AnyChain,
    batch: &AnyBatch,
    task_loss: TaskLoss<'_>,
) -> Result<[Tensor<1>; 2], Error> {
    let run = chain.progress.run(&chain.model);
    for algorithm in &mut chain.algorithms {
        let name = algorithm.name();
        reads::concerning(Concern::Algorithm(name), || algorithm.observe(run))
            .map_err(Error::met_by(name))?;
    }
    let task_loss = forward(chain, batch, task_loss)?;
    require_number(&task_loss)?;
    let loss = with_every_part(chain, task_loss.clone(), batch)?;
    require_number(&loss)?;
    Ok([loss, task_loss])
}

/// Seeds the devices for the backward pass at hand, if the evaluator has a seed.
fn seed(chain: &mut AnyChain) {
    let progress = &mut chain.progress;
    if let Some(seed) = chain.evaluator.seed_of(progress.step, progress.pass) {
        let devices = chain.model.devices();
        devices.iter().for_each(|device| device.seed(seed));
    }
    progress.pass += 1;
}

/// The user's own loss, with everything that hangs on the model at work.
fn forward(
    chain: &AnyChain,
    batch: &AnyBatch,
    task_loss: TaskLoss<'_>,
) -> Result<Tensor<1>, Error> {
    chain.phase.set_training(true);
    let loss = task_loss(&chain.model, batch);
    chain.phase.set_training(false);
    let mut failures = chain.spaces.values().filter_map(|s| s.take_failure());
    failures.next().map_or(Ok(loss), Err)
}

/// The loss with the parts of all compressors, the newest first.
fn with_every_part(
    chain: &mut AnyChain,
    mut loss: Tensor<1>,
    batch: &AnyBatch,
) -> Result<Tensor<1>, Error> {
    let run = chain.progress.run(&chain.model);
    for algorithm in chain.algorithms.iter_mut().rev() {
        let name = algorithm.name();
        loss = reads::concerning(Concern::Algorithm(name), || {
            algorithm.loss(loss, batch, run)
        })
        .map_err(Error::met_by(name))?;
    }
    Ok(loss)
}

fn require_number(loss: &Tensor<1>) -> Result<(), Error> {
    match loss.dims() {
        [1] => Ok(()),
        found => Err(Error::LossShape {
            found: found.to_vec(),
        }),
    }
}

/// Ends a step after the optimizer: projects parameters, moves masks, counts and records the step.
pub(crate) fn after_step(chain: &mut AnyChain, learning_rate: f64) -> Result<(), Error> {
    chain.progress.step += 1;
    chain.progress.pass = 0;
    for algorithm in chain.algorithms.iter_mut().rev() {
        let run = chain.progress.run(&chain.model);
        let name = algorithm.name();
        let values = algorithm.project(run).map_err(Error::met_by(name))?;
        if !values.is_empty() {
            chain.model = crate::simulate::params::with_parameters(chain.model.clone(), values)?;
        }
    }
    let run = chain.progress.run(&chain.model);
    for algorithm in chain.algorithms.iter_mut().rev() {
        let name = algorithm.name();
        algorithm.after_step(run).map_err(Error::met_by(name))?;
    }
    let sparsity = sparsity(&chain.spaces);
    let progress = &mut chain.progress;
    progress
        .unread
        .complete(&mut progress.history, learning_rate, sparsity);
    let (step, total_steps) = (chain.progress.step, chain.progress.total_steps);
    if let Some((every, evaluate)) = chain.evaluator.evaluation()
        && (step.is_multiple_of(*every) || step == total_steps)
    {
        let metric = evaluate(&chain.model.valid());
        chain.progress.history.evaluations.push((step, metric));
    }
    watch_masks(chain);
    Ok(())
}

/// An input or output that no forward pass reaches would be simulated nowhere, silently.
fn require_reached(chain: &AnyChain) -> Result<(), Error> {
    let unreached = chain
        .spaces
        .values()
        .find(|space| !matches!(space.id().target, Target::Param(_)) && space.shape().is_none());
    match unreached {
        Some(space) => Err(space.unreached()),
        None => Ok(()),
    }
}

fn leave_checkpoint(chain: &mut AnyChain, budget: &Budget) -> Result<(), Error> {
    match &budget.checkpoint {
        Some((path, every)) if chain.progress.step.is_multiple_of(*every) => {
            read(chain)?;
            save(chain, path)
        }
        _ => Ok(()),
    }
}

/// A place for checkpoints that cannot be written to would be found out at the first of them.
fn require_writable(budget: &Budget) -> Result<(), Error> {
    match &budget.checkpoint {
        Some((path, _)) => check_writable(path).map_err(|error| Error::Checkpoint {
            path: path.clone(),
            reason: error.to_string(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
