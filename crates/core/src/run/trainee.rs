//! Training a chain with Burn's own `Learner`.
//!
//! [`Compressor::compress`] brings a training loop of its own. Programs that already train with
//! Burn's `Learner` and `SupervisedTraining`, for their metrics, early stopping or dashboard, turn
//! the chain into a [`Trainee`] instead: a model whose training step is that of the chain.

mod engine;
mod loader;
mod metrics;
mod module;
pub(crate) mod output;
mod record;
mod state;

use std::cell::RefCell;
use std::sync::Arc;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::store::ModuleRecord;
use burn::tensor::Tensor;
use burn::train::{InferenceStep, Interrupter, TrainOutput, TrainStep};
use parking_lot::Mutex;

use engine::{Engine, FINISHED};
pub use loader::EpochLoader;
pub use metrics::{BitsInput, BitsMetric, SparsityInput, SparsityMetric};
pub use output::{CompressionOutput, StepOutput, TraineeOutput};
use record::Recorded;
pub use state::StepState;
use state::{Compression, Sizes};

use crate::Error;
use crate::erased::{AnyBatch, AnyModel};
use crate::file::checkpoint;
use crate::run::any_chain::AnyChain;
use crate::run::compressed::Compressed;
use crate::run::compressor::Compressor;
use crate::run::evaluator::{Evaluator, Output};
use crate::run::finish::with_dummy_input;
use crate::run::finite;
use crate::run::learnable::Learnable;
use crate::run::training;
use crate::simulate::attach;
use crate::simulate::masks::Masks;

impl<M: Module + 'static, I: Send + 'static> Compressor<M, I> {
    /// Turns the chain into a model that Burn's `Learner` trains.
    ///
    /// Of the evaluator, only the loss, the seed, the evaluation and how often losses are read are
    /// used here: data, optimizer and learning rate are the `Learner`'s, and need not be given
    /// [`with_learner`](Evaluator::with_learner). `total_steps` is the number of optimizer steps that
    /// it will make, epochs times batches; the schedules of the compressors are laid out on it.
    ///
    /// # Errors
    ///
    /// An evaluator without a loss, a number of steps that is too short for a schedule, or the
    /// error of an algorithm.
    pub fn into_trainee(self, total_steps: usize) -> Result<Trainee<M, I>, Error> {
        let loss = self.evaluator.loss().ok_or(Error::MissingEvaluator {
            algorithm: "the training run",
            missing: "the loss of a batch",
            builder: "with_loss",
        })?;
        let output = move |model: &M, batch: &I| TraineeOutput::new(loss(model, batch));
        self.trainee(total_steps, Arc::new(output))
    }

    /// As [`into_trainee`](Self::into_trainee), for a `Learner` with metrics of more than the loss: the
    /// trainee hands out what [`Evaluator::with_output`] gives of a batch.
    ///
    /// # Errors
    ///
    /// Those of [`into_trainee`](Self::into_trainee), an evaluator without an output, or with one of
    /// another type.
    pub fn into_trainee_with_output<O: StepOutput>(
        self,
        total_steps: usize,
    ) -> Result<Trainee<M, I, O>, Error> {
        let output = self.evaluator.output()?;
        self.trainee(total_steps, output)
    }

    fn trainee<O>(
        self,
        total_steps: usize,
        output: Output<M, I, O>,
    ) -> Result<Trainee<M, I, O>, Error> {
        let mut chain = self.inner;
        chain.progress.total_steps = total_steps;
        training::prepare(&mut chain)?;
        let sizes = Sizes::of(&chain.model, &chain.layers);
        let compression = sizes.compression(&chain.spaces);
        let model = chain.model.clone().into_typed();
        let engine = Engine {
            chain: Some(chain),
            error: None,
            interrupter: None,
            accepts_changes: false,
        };
        Ok(Trainee {
            model,
            output,
            evaluator: self.evaluator,
            sizes: Arc::new(sizes),
            training: true,
            compression,
            learned: Vec::new(),
            engine: Arc::new(Mutex::new(engine)),
        })
    }
}

/// A model that trains with every compressor of a chain, made by [`Compressor::into_trainee`].
///
/// Each step observes, adds the compressors' losses and shows them the gradients; after each
/// optimizer step masks move and schedules advance, exactly as in [`Compressor::compress`]. Clones
/// are handles on one run, as the `Learner` clones its model at every step.
///
/// `valid()` gives a snapshot that later steps do not change: of the parameters, the masks and
/// scales, and the [`Learnable`]s. The model that a `Learner` returns is such a snapshot;
/// [`finish`](Self::finish) makes a [`Compressed`] of it and ends the run.
///
/// A training step of Burn cannot return an error. The first one ends the run: no later step
/// changes the model, its loss is NaN, and [`finish`](Self::finish) returns the error. With
/// [`with_interrupter`](Self::with_interrupter) the `Learner` stops there too.
///
/// The record of a trainee holds the run beside the raw parameters: its step, masks, scales, what
/// the compressors know, and the history. So a training that is resumed from the `Learner`'s own
/// checkpoint (`SupervisedTraining::checkpoint`) goes on bit for bit, if the trainee is built with the
/// same configuration and the data loader gives an epoch the same batches. [`EpochLoader`] does; a loader
/// of Burn that shuffles begins its order anew, as in every resumed training of Burn. A record of another configuration, and one
/// without a run, end the run at once; see [`accept_changes`](Self::accept_changes). A plain model
/// loads such a record with `ModuleRecord::allow_unused`.
///
/// # Metrics
///
/// A trainee of [`into_trainee`](Compressor::into_trainee) hands out a [`TraineeOutput`]: the loss, for
/// Burn's `LossMetric`, and what [`SparsityMetric`] and [`BitsMetric`] show. Where the evaluator has an
/// output ([`Evaluator::with_output`]), [`into_trainee_with_output`](Compressor::into_trainee_with_output)
/// hands that out, for `AccuracyMetric` and any other metric, for early stopping and for Burn's
/// dashboard; [`CompressionOutput`] adds sparsity and bits to it. Burn's `LearningRateMetric` works with
/// every output.
///
/// In training the loss is the one that is minimised, every compressor's part included; in validation
/// it is the user's own. Everything else is of the forward pass, as the user's function returned it.
///
/// # Several devices
///
/// On several devices, the steps run one after another; distributed training, where each device
/// optimizes a model of its own, is not supported.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn::train::Learner;
/// use burn_compress_core::{Compressor, Evaluator};
///
/// let device = Device::flex();
/// let batch = Tensor::<2>::ones([8, 4], &device);
/// let evaluator = Evaluator::new()
///     .with_loss(|model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).mean());
/// let chain = Compressor::from_model(LinearConfig::new(4, 2).init(&device), evaluator);
/// // Here pruners, quantizers and distillers join the chain.
///
/// let mut learner = Learner::new(chain.into_trainee(3)?, SgdConfig::new().init(), 0.1);
/// for _ in 0..3 {
///     let output = learner.train_step(batch.clone());
///     learner.lr_step();
///     learner.optimizer_step(output.grads);
/// }
/// let compressed = learner.model().valid().finish()?;
/// assert_eq!(compressed.history().steps.len(), 3);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub struct Trainee<M, I, O = TraineeOutput> {
    model: M,
    output: Output<M, I, O>,
    evaluator: Evaluator<M, I>,
    sizes: Arc<Sizes>,
    training: bool,
    /// Of a snapshot: sparsity and bits at its time.
    compression: Compression,
    /// Of a snapshot: what the learnables held.
    learned: Vec<(Arc<Learnable>, Tensor<1>)>,
    engine: Arc<Mutex<Engine>>,
}

const SNAPSHOT: Error = Error::Trainee {
    reason: "a validation snapshot does not train; call `train` on it before",
};

impl<M: Module + 'static, I: Send + 'static, O: StepOutput> Trainee<M, I, O> {
    /// Stops the `Learner` at the first error, with the error as the reason.
    ///
    /// Pass what `SupervisedTraining::interrupter` gives.
    pub fn with_interrupter(self, interrupter: Interrupter) -> Self {
        self.engine.lock().interrupter = Some(interrupter);
        self
    }

    /// Accepts records that were made with another configuration.
    ///
    /// The settings of this trainee count from the next step on, as in
    /// [`Compressor::resume_with_changes`].
    pub fn accept_changes(self) -> Self {
        self.engine.lock().accepts_changes = true;
        self
    }

    /// The model with its simulations.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The masks of this model: of a snapshot those of its time, otherwise the latest.
    pub fn masks(&self) -> Masks {
        attach::masks(&attach::spaces(&self.any_model()))
    }

    /// The error that ended the run, in words.
    pub fn error(&self) -> Option<String> {
        self.engine.lock().error.as_ref().map(ToString::to_string)
    }

    /// Ends the run with this model, its masks, its scales and its learnables.
    ///
    /// Those of an old snapshot are of its time. What else the compressors know, such as their
    /// counters, and the history are the latest of the run.
    ///
    /// # Errors
    ///
    /// The first error of the run, [`Error::Unfinished`] for a run that is not at its end,
    /// [`Error::NotFinite`] for a model with values that are not finite, the error of an algorithm,
    /// or a run that another handle has finished.
    pub fn finish(self) -> Result<Compressed<M>, Error> {
        {
            // A run that goes on is left to the other handles.
            let engine = self.engine.lock();
            if let (None, Some(chain)) = (&engine.error, &engine.chain) {
                chain.require_end()?;
            }
        }
        let (chain, evaluator) = self.finished()?;
        Ok(with_dummy_input(chain.finish()?, &evaluator))
    }

    /// Ends the run wherever it is, for instance where the `Learner` stopped early.
    ///
    /// What the compressors would have done in the remaining steps is not done, see
    /// [`Compressor::finish_early`].
    ///
    /// # Errors
    ///
    /// Those of [`finish`](Self::finish), but for [`Error::Unfinished`].
    pub fn finish_early(self) -> Result<Compressed<M>, Error> {
        let (chain, evaluator) = self.finished()?;
        Ok(with_dummy_input(chain.finish_early()?, &evaluator))
    }

    /// The chain with what this handle holds.
    fn finished(self) -> Result<(AnyChain, Evaluator<M, I>), Error> {
        let (chain, error) = {
            let mut engine = self.engine.lock();
            (engine.chain.take(), engine.error.take())
        };
        if let Some(error) = error {
            return Err(error);
        }
        let mut chain = chain.ok_or(FINISHED)?;
        // A snapshot holds copies of the states; the compressors must finish what it saw.
        for (id, copy) in attach::spaces(&self.any_model()) {
            if let Some(space) = chain.spaces.get(&id) {
                space.restore(&copy);
            }
        }
        for (learnable, values) in self.learned {
            learnable.hold(values);
        }
        chain.model = attach::rejoin(AnyModel::new(self.model).train(), &chain.spaces);
        chain.model = attach::rejoin_foldings(chain.model, &chain.foldings);
        training::read(&mut chain)?;
        let (step, total_steps) = (chain.progress.step, chain.progress.total_steps);
        if step > total_steps {
            chain.warn(format!(
                "the run ends after {step} steps, but was laid out for {total_steps}"
            ));
        }
        Ok((chain, self.evaluator))
    }

    fn any_model(&self) -> AnyModel {
        AnyModel::new(self.model.clone())
    }

    /// The model with the run, as a record holds them; none of a snapshot, and where the state of
    /// the run cannot be told.
    fn recorded(&self) -> Option<Recorded> {
        let model = self.any_model();
        attach::settle_statistics(&model);
        if !self.training {
            return None;
        }
        let mut engine = self.engine.lock();
        if engine.error.is_some() {
            return None;
        }
        let chain = engine.chain.as_mut()?;
        let finite = finite::require(&model, &chain.spaces, chain.progress.step);
        // Observers are told of what is in the record: who goes on with it does not tell them again.
        let read = finite.and_then(|()| training::read(chain));
        let state = read.and_then(|()| checkpoint::to_bytes(chain));
        let recorded = state.and_then(|state| {
            Recorded::new(model, &state).ok_or_else(|| Error::Record {
                reason: "the state of the run is too large for a record".to_string(),
            })
        });
        recorded.map_err(|error| engine.fail(error)).ok()
    }

    /// The trainee with the parameters of `record`, whose run goes on.
    fn restore(self, record: ModuleRecord) -> Result<Self, Error> {
        let unfit = |error: burn::store::RecordError| Error::Record {
            reason: format!(
                "{error}; of a model without a run, load the record before the chain is built"
            ),
        };
        let model = self.any_model();
        attach::settle_statistics(&model);
        if !self.training {
            let model = model.try_load_record(record).map_err(unfit)?.into_typed();
            return Ok(Self { model, ..self });
        }
        let recorded = Recorded::empty(model).try_load_record(record);
        let (model, state) = recorded.map_err(unfit)?.into_parts()?;
        // None where the caller allows a partial record.
        if let Some(state) = state {
            let mut engine = self.engine.lock();
            let accept = engine.accepts_changes;
            let chain = engine.chain.as_mut().ok_or(FINISHED)?;
            checkpoint::restore(chain, state, accept)?;
            chain.model = model.clone();
        }
        let model = model.into_typed();
        Ok(Self { model, ..self })
    }

    fn fail(&self, error: Error) {
        self.engine.lock().fail(error);
    }

    /// The optimizer's step and what follows it.
    fn update(
        self,
        learning_rate: f64,
        optimize: impl FnOnce(&mut AnyChain, AnyModel) -> AnyModel,
    ) -> Self {
        let mut engine = self.engine.lock();
        let model = match &mut *engine {
            Engine {
                chain: Some(chain),
                error: None,
                ..
            } => optimize(chain, self.any_model()),
            _ => {
                drop(engine);
                return self;
            }
        };
        // The chain may have projected parameters.
        let projected = engine.drive(&model, |chain| {
            training::after_step(chain, learning_rate)?;
            Ok(chain.model.clone())
        });
        drop(engine);
        Self {
            model: projected.unwrap_or(model).into_typed(),
            ..self
        }
    }
}

/// Steps the learnables of the compressors.
fn learn(
    chain: &mut AnyChain,
    optimizer: &mut ModuleOptimizer,
    learning_rate: &ModuleLearningRate,
) {
    let adam = &mut chain.progress.adam;
    training::learn(&chain.algorithms, adam, |due, gradients| {
        optimizer.step(learning_rate.clone(), due, gradients);
    });
}

impl<M: Module + 'static, I: Send + 'static, O: StepOutput> TrainStep for Trainee<M, I, O> {
    type Input = I;
    type Output = O;

    fn step(&self, item: I) -> TrainOutput<O> {
        if !self.training {
            self.fail(SNAPSHOT);
        }
        let (model, batch) = (self.any_model(), AnyBatch::new(item));
        let output = RefCell::new(None);
        let task_loss = |model: &AnyModel, batch: &AnyBatch| {
            let found = (self.output)(model.get(), batch.get());
            let loss = found.loss();
            output.replace(Some(found));
            loss
        };
        let outcome = self.engine.lock().drive(&model, |chain| {
            let compression = self.sizes.compression(&chain.spaces);
            let (loss, grads) = training::backward_with(chain, &batch, &task_loss)?;
            Ok((loss, grads, compression))
        });
        let (loss, grads, compression) = outcome.unwrap_or_else(|| {
            let device = self.model.devices().first().cloned().unwrap_or_default();
            let loss = Tensor::full([1], f32::NAN, &device);
            (loss, GradientsParams::new(), self.compression)
        });
        // A run that has ended is not to move the running statistics either.
        let output = output.into_inner();
        let output = output.unwrap_or_else(|| (self.output)(&self.model.valid(), batch.get()));
        TrainOutput {
            grads,
            item: output.with_step(compression.with_loss(loss)),
        }
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.update(lr_module.base(), |chain, model| {
            learn(chain, optim, &lr_module);
            optim.step(lr_module, model, grads)
        })
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        self.update(lr_module.base(), |chain, model| {
            learn(chain, optim, &lr_module);
            optim.step_multi(lr_module, model, grads)
        })
    }
}

impl<M: Module + 'static, I: Send + 'static, O: StepOutput> InferenceStep for Trainee<M, I, O> {
    type Input = I;
    type Output = O;

    fn step(&self, item: I) -> O {
        let output = (self.output)(&self.model, &item);
        let compression = match self.training {
            true => self.sizes.compression(&attach::spaces(&self.any_model())),
            false => self.compression,
        };
        let loss = output.loss();
        output.with_step(compression.with_loss(loss))
    }
}

#[cfg(test)]
mod tests;
