//! Evaluator: what compressors need to train.

mod data;
mod output;
mod passes;

use std::fmt;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::tensor::Tensor;

use crate::Error;
use crate::erased::{AnyBatch, AnyModel, same};
use crate::graph::DummyInput;
use data::{Batches, Erased, FromClosure, FromLoader, Visit};
use output::AnyOutput;
pub(crate) use output::Output;

pub(crate) type Loss<M, I> = Arc<dyn Fn(&M, &I) -> Tensor<1> + Send + Sync>;
type Evaluation<M> = Arc<dyn Fn(&M) -> f64 + Send + Sync>;

/// Data, optimizer, learning-rate schedule, loss and evaluation of a training run.
///
/// Every part is optional, and each compressor checks at its construction that the parts it needs
/// are there. Compressors that are fused share the evaluator of the first.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::AdamConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::{DummyInput, Evaluator};
///
/// let device = Device::flex();
/// let batch = Tensor::<2>::ones([8, 4], &device);
/// let evaluator = Evaluator::<Linear, Tensor<2>>::new()
///     .with_dummy_input(DummyInput::new(batch.clone(), |model: &Linear, x| model.forward(x)))
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(AdamConfig::new().init())
///     .with_learning_rate(1e-3)
///     .with_loss(|model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).mean());
/// ```
pub struct Evaluator<M, I> {
    dummy_input: Option<DummyInput<M>>,
    batches: Option<Arc<dyn Batches<I>>>,
    optimizer: Option<ModuleOptimizer>,
    learning_rate: Option<ModuleLrScheduler>,
    loss: Option<Loss<M, I>>,
    output: Option<AnyOutput>,
    evaluation: Option<(usize, Evaluation<M>)>,
    seed: Option<u64>,
    log_every: usize,
    /// Whether data, optimizer and learning rate are those of a `Learner`.
    has_learner: bool,
}

impl<M, I> Clone for Evaluator<M, I> {
    fn clone(&self) -> Self {
        Self {
            dummy_input: self.dummy_input.clone(),
            batches: self.batches.clone(),
            optimizer: self.optimizer.clone(),
            learning_rate: self.learning_rate.clone(),
            loss: self.loss.clone(),
            output: self.output.clone(),
            evaluation: self.evaluation.clone(),
            seed: self.seed,
            log_every: self.log_every,
            has_learner: self.has_learner,
        }
    }
}

impl<M, I> fmt::Debug for Evaluator<M, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluator")
            .field("dummy_input", &self.dummy_input.is_some())
            .field("data", &self.batches.is_some())
            .field("optimizer", &self.optimizer.is_some())
            .field("learning_rate", &self.learning_rate.is_some())
            .field("loss", &self.loss.is_some())
            .field("output", &self.output)
            .field("evaluation", &self.evaluation.is_some())
            .field("seed", &self.seed)
            .field("log_every", &self.log_every)
            .field("has_learner", &self.has_learner)
            .finish()
    }
}

impl<M, I> Default for Evaluator<M, I> {
    fn default() -> Self {
        Self {
            dummy_input: None,
            batches: None,
            optimizer: None,
            learning_rate: None,
            loss: None,
            output: None,
            evaluation: None,
            seed: None,
            log_every: 1,
            has_learner: false,
        }
    }
}

impl<M: Module, I: 'static> Evaluator<M, I> {
    /// An evaluator that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the input with which the model's graph is captured.
    pub fn with_dummy_input(mut self, dummy_input: DummyInput<M>) -> Self {
        self.dummy_input = Some(dummy_input);
        self
    }

    /// Sets the data: for each epoch, counted from 0, its batches.
    ///
    /// The same epoch must give the same batches each time, so that a resumed run sees the data
    /// that an uninterrupted one would have seen.
    pub fn with_data<B>(mut self, batches: impl Fn(usize) -> B + Send + Sync + 'static) -> Self
    where
        B: IntoIterator<Item = I>,
    {
        self.batches = Some(Arc::new(FromClosure(batches)));
        self
    }

    /// Sets the data to Burn's data loader, one pass an epoch.
    ///
    /// A shuffling loader draws another order at each pass and cannot go back. A resumed run sees
    /// the data of an uninterrupted one if its loader is built anew with the same seed and nothing
    /// but the construction of the chain passes over the data beside the training; one that goes on
    /// after [`advance`](crate::Compressor::advance) does if that ended between two epochs. With
    /// [`with_data`](Self::with_data) there are no such conditions.
    pub fn with_data_loader(mut self, loader: Arc<dyn DataLoader<I>>) -> Self {
        self.batches = Some(Arc::new(FromLoader::new(loader)));
        self
    }

    /// Sets the optimizer, for example `AdamConfig::new().init()`.
    pub fn with_optimizer(mut self, optimizer: ModuleOptimizer) -> Self {
        self.optimizer = Some(optimizer);
        self
    }

    /// Sets the learning rate: a number or any scheduler of Burn.
    pub fn with_learning_rate(mut self, learning_rate: impl Into<ModuleLrScheduler>) -> Self {
        self.learning_rate = Some(learning_rate.into());
        self
    }

    /// Sets the loss of a batch, a tensor with one element.
    pub fn with_loss(mut self, loss: impl Fn(&M, &I) -> Tensor<1> + Send + Sync + 'static) -> Self {
        self.loss = Some(Arc::new(loss));
        self.output = None;
        self
    }

    /// Leaves data, optimizer and learning rate to Burn's `Learner`: compressors that train do not ask
    /// for them.
    ///
    /// The chain runs by [`into_trainee`](crate::Compressor::into_trainee) then. A calibration before the
    /// training needs data all the same.
    pub fn with_learner(mut self) -> Self {
        self.has_learner = true;
        self
    }

    /// Evaluates the model every `steps` steps and after the last one; larger is better. A run with
    /// `steps` of 0 is refused.
    ///
    /// The closure is given a `valid()` snapshot.
    pub fn with_evaluation(
        mut self,
        steps: usize,
        evaluation: impl Fn(&M) -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.evaluation = Some((steps, Arc::new(evaluation)));
        self
    }

    /// Seeds the devices of the model before each step with a number drawn from `seed` and the
    /// step; before each batch where a `Learner` accumulates several in a step.
    ///
    /// Dropout and other random layers then repeat exactly, also in a run that was stopped and
    /// resumed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Reads the losses and checks of every `steps` steps together, after the forward pass of the
    /// last of them; 1 without this call.
    ///
    /// A read waits for the device. Between two reads nothing is waited for but what an algorithm
    /// decides on the host, such as masks; see [`reads`](crate::run::reads). The price is that a run
    /// that diverges goes on until the next read; its error names the step in which it did. The [`History`](crate::History) has all steps, and
    /// the last step of a run and one with a checkpoint are read in any case.
    pub fn with_log_every(mut self, steps: usize) -> Self {
        self.log_every = steps.max(1);
        self
    }

    /// The dummy input, if one was given.
    pub fn dummy_input(&self) -> Option<&DummyInput<M>> {
        self.dummy_input.as_ref()
    }

    /// Whether nothing at all was given.
    pub fn is_empty(&self) -> bool {
        self.dummy_input.is_none() && self.batches.is_none() && self.loss.is_none()
    }

    /// Checks that a training run is possible, be it one of a [`Learner`](Self::with_learner).
    ///
    /// # Errors
    ///
    /// [`Error::MissingEvaluator`] with the first missing part.
    pub fn require_training(&self, algorithm: &'static str) -> Result<(), Error> {
        match self.has_learner {
            true => require(algorithm, &[self.loss_part()]),
            false => self.require_own_training(algorithm),
        }
    }

    /// Checks that a training run is possible without a `Learner`.
    pub(crate) fn require_own_training(&self, algorithm: &'static str) -> Result<(), Error> {
        require(
            algorithm,
            &[
                (self.batches.is_some(), "data to train on", "with_data"),
                self.loss_part(),
                (self.optimizer.is_some(), "an optimizer", "with_optimizer"),
                (
                    self.learning_rate.is_some(),
                    "a learning rate",
                    "with_learning_rate",
                ),
            ],
        )
    }

    fn loss_part(&self) -> (bool, &'static str, &'static str) {
        (self.loss.is_some(), "the loss of a batch", "with_loss")
    }

    /// The dummy input.
    ///
    /// # Errors
    ///
    /// [`Error::MissingEvaluator`] when none was given.
    pub fn require_dummy_input(&self, algorithm: &'static str) -> Result<&DummyInput<M>, Error> {
        self.dummy_input.as_ref().ok_or(Error::MissingEvaluator {
            algorithm,
            missing: "a dummy input to capture the model's graph",
            builder: "with_dummy_input",
        })
    }

    /// Checks that the model can be run on data, which is all that a calibration needs.
    ///
    /// # Errors
    ///
    /// [`Error::MissingEvaluator`] with the first missing part.
    pub fn require_forward(&self, algorithm: &'static str) -> Result<(), Error> {
        let runs = "the loss of a batch, which runs the model";
        require(
            algorithm,
            &[
                (self.batches.is_some(), "data to calibrate on", "with_data"),
                (self.loss.is_some(), runs, "with_loss"),
            ],
        )
    }

    /// Passes the batches of an epoch of training to `visit` until it ends them; returns whether the
    /// epoch is over.
    pub(crate) fn for_each_batch(&self, epoch: usize, visit: Visit<'_, I>) -> Result<bool, Error> {
        match &self.batches {
            Some(batches) => batches.epoch(epoch, visit),
            None => Err(Error::NoBatches { epoch }),
        }
    }

    /// The number of batches in an epoch.
    pub(crate) fn batches_in_epoch(&self) -> Result<usize, Error> {
        match &self.batches {
            Some(batches) => batches.count(),
            None => Err(Error::NoBatches { epoch: 0 }),
        }
    }

    pub(crate) fn optimizer(&self) -> Option<ModuleOptimizer> {
        self.optimizer.clone()
    }

    pub(crate) fn learning_rate(&self) -> Option<ModuleLrScheduler> {
        self.learning_rate.clone()
    }

    /// Optimizer and learning rate, if both were given.
    pub(crate) fn trains_with(&self) -> Option<(ModuleOptimizer, ModuleLrScheduler)> {
        self.optimizer.clone().zip(self.learning_rate.clone())
    }

    pub(crate) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The loss of a batch, if one was given: for algorithms that look at a batch themselves.
    pub fn loss(&self) -> Option<Loss<M, I>> {
        self.loss.clone()
    }

    pub(crate) fn evaluation(&self) -> Option<&(usize, Evaluation<M>)> {
        self.evaluation.as_ref()
    }

    /// Whether losses and checks are read in this step, counted from 1.
    pub(crate) fn reads(&self, step: usize) -> bool {
        step.is_multiple_of(self.log_every)
    }

    /// The seed of one backward pass of a step.
    pub(crate) fn seed_of(&self, step: usize, pass: usize) -> Option<u64> {
        let seed = decorrelated(self.seed?, step as u64 + 1);
        match pass {
            0 => Some(seed),
            pass => Some(decorrelated(seed, pass as u64)),
        }
    }
}

impl<M: Module + 'static, I: 'static> Evaluator<M, I> {
    /// The same evaluator for a model and batches whose types are not known.
    pub(crate) fn erased(&self) -> Evaluator<AnyModel, AnyBatch> {
        same(self.clone()).unwrap_or_else(|own| Evaluator {
            dummy_input: own.dummy_input.as_ref().map(AnyModel::dummy_input),
            batches: own.batches.map(|batches| Arc::new(Erased(batches)) as _),
            optimizer: own.optimizer,
            learning_rate: own.learning_rate,
            // Only a shell, which knows the type of the model, hands outputs out.
            output: None,
            loss: own.loss.map(|loss| {
                Arc::new(move |model: &AnyModel, batch: &AnyBatch| loss(model.get(), batch.get()))
                    as _
            }),
            evaluation: own.evaluation.map(|(every, evaluate)| {
                let evaluate = move |model: &AnyModel| evaluate(model.get());
                (every, Arc::new(evaluate) as _)
            }),
            seed: own.seed,
            log_every: own.log_every,
            has_learner: own.has_learner,
        })
    }
}

/// A seed without relation to its neighbours, by SplitMix64.
fn decorrelated(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The first part that is not there, with its name and its builder method, is an error.
fn require(
    algorithm: &'static str,
    parts: &[(bool, &'static str, &'static str)],
) -> Result<(), Error> {
    match parts.iter().find(|(present, ..)| !present) {
        Some(&(_, missing, builder)) => Err(Error::MissingEvaluator {
            algorithm,
            missing,
            builder,
        }),
        None => Ok(()),
    }
}
