//! A compression that Burn's `Learner` trains, with its metrics, early stopping and checkpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{anyhow, bail, ensure};
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::metric::store::{Aggregate, Direction, EventStoreClient, Split};
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{
    ClassificationOutput, EarlyStoppingStrategy, Learner, MetricEarlyStoppingStrategy,
    StoppingCondition, SupervisedTraining,
};
use burn_compress::prelude::*;

use crate::digits::{Augmentation, Digits, DigitsBatch, batches, ordered_batches};
use crate::resnet::DigitsResNet;
use crate::train::cross_entropy;

/// What a step hands out: for accuracy and loss the output of a classification, for sparsity and bits the
/// state of the compression.
type Output = CompressionOutput<ClassificationOutput>;

const LEARNING_RATE: f64 = 1e-3;
const EVALUATION_BATCH: usize = 120;

/// A training of a chain that prunes and quantizes.
#[derive(Clone, Debug)]
pub struct LearnerTraining {
    /// Passes over the training digits. In the first half of them the network is pruned.
    pub epochs: usize,
    /// Digits of a batch.
    pub batch_size: usize,
    /// Fraction of channels to remove.
    pub sparsity: f64,
    /// Epochs without a better accuracy after which the training stops.
    pub patience: usize,
    /// Seed of the order of the digits.
    pub seed: u64,
    /// Checkpoints that are kept, those of the last epochs.
    pub checkpoints: usize,
    /// Where metrics and checkpoints are written.
    pub directory: PathBuf,
    /// The epoch whose checkpoint the training goes on from.
    pub resume: Option<usize>,
}

impl LearnerTraining {
    /// Trains `network`; with a checkpoint its weights do not matter, for they are in there too.
    ///
    /// # Errors
    ///
    /// A checkpoint that is not there, an interruption, and the errors of the compressors.
    pub fn run(
        &self,
        network: DigitsResNet,
        digits: &Arc<Digits>,
        device: &Device,
    ) -> anyhow::Result<Compressed<DigitsResNet>> {
        if let Some(epoch) = self.resume {
            require_checkpoint(&self.directory, epoch)?;
        }
        let (train, valid) = (digits.clone(), digits.clone());
        let (on_train, on_valid) = (device.clone(), device.clone());
        let (size, seed) = (self.batch_size, self.seed);
        let train = EpochLoader::new(move |epoch| {
            let varied = Augmentation::Shift;
            batches(&train.train, size, (seed, epoch), varied, &on_train)
        });
        let valid =
            EpochLoader::new(move |_| ordered_batches(&valid.test, EVALUATION_BATCH, &on_valid));
        let steps = self.epochs * digits.train.len().div_ceil(size);

        // ANCHOR: metrics
        let mut training = SupervisedTraining::new(
            &self.directory,
            train.after(self.resume.unwrap_or(0)).into_shared(),
            valid.into_shared(),
        )
        .num_epochs(self.epochs)
        .with_default_checkpointers()
        .with_checkpointing_strategy(KeepLastNCheckpoints::new(self.checkpoints))
        .metric_train_numeric(LearningRateMetric::new())
        .metrics((
            AccuracyMetric::new(),
            LossMetric::new(),
            SparsityMetric::new(),
            BitsMetric::new(),
        ))
        .early_stopping(self.early_stopping());
        // ANCHOR_END: metrics
        if let Some(epoch) = self.resume {
            training = training.checkpoint(epoch);
        }

        // ANCHOR: launch
        let chain = self.chain(network, digits, device, steps)?;
        let trainee = chain.into_trainee_with_output::<Output>(steps)?;
        let trainee = trainee.with_interrupter(training.interrupter());
        // ANCHOR_END: launch
        let optimizer = AdamConfig::new().with_epsilon(1e-8).init();
        let schedule = CosineAnnealingLrSchedulerConfig::new(LEARNING_RATE, steps);
        let schedule = schedule
            .init()
            .map_err(|reason| anyhow!("the learning-rate schedule: {reason}"))?;
        let result = training.launch(Learner::new(trainee, optimizer, schedule));
        if let Some(error) = result.error {
            bail!("the training stopped: {error}");
        }
        // An error of a compressor interrupts, too. It is what is returned then.
        let error = result.model.error();
        if let (Some(interruption), None) = (result.interrupted, error) {
            let reason = interruption.reason.unwrap_or_default();
            bail!("the training was interrupted: {reason}; go on with `--resume EPOCH`");
        }
        // Early stopping looks at nothing before all masks are there, so that none is missing.
        Ok(result.model.finish_early()?)
    }

    /// Pruned with a schedule of first-order Taylor scores in the first half of the epochs, and then
    /// trained with the rounding to eight bits.
    fn chain(
        &self,
        network: DigitsResNet,
        digits: &Digits,
        device: &Device,
        steps: usize,
    ) -> anyhow::Result<Compressor<DigitsResNet, DigitsBatch>> {
        let images = digits.test.head(8, device).images;
        // ANCHOR: output
        let evaluator = Evaluator::new()
            .with_learner()
            .with_dummy_input(DummyInput::new(images, |net: &DigitsResNet, images| {
                net.forward(images)
            }))
            .with_output(|net: &DigitsResNet, batch: &DigitsBatch| {
                let logits = net.forward(batch.images.clone());
                let loss = cross_entropy(logits.clone(), batch.labels.clone());
                Output::from(ClassificationOutput::new(
                    loss,
                    logits,
                    batch.labels.clone(),
                ))
            });
        // ANCHOR_END: output
        let half = steps / self.epochs * self.pruned_epochs();
        let interval = half.div_ceil(20).max(1);
        let pruned = on(["Conv2d"]).sparse_ratio(self.sparsity);
        let int8 = on(["Conv2d", "Linear"]).quant_dtype(QuantDtype::INT8);
        let chain = TaylorPruner::new(network, pruned, evaluator, TaylorConfig::new(interval))?;
        let chain = AgpPruner::new(chain, AgpConfig::new(interval, half / interval))?;
        let quantizer = QatConfig::new().with_start_step(half);
        Ok(QatQuantizer::from_compressor(chain, int8, quantizer)?)
    }

    fn pruned_epochs(&self) -> usize {
        self.epochs.div_ceil(2)
    }

    fn early_stopping(&self) -> AfterPruning {
        AfterPruning {
            strategy: MetricEarlyStoppingStrategy::new(
                &AccuracyMetric::new(),
                Aggregate::Mean,
                Direction::Highest,
                Split::Valid,
                StoppingCondition::NoImprovementSince {
                    n_epochs: self.patience,
                },
            ),
            next: self.pruned_epochs() + 1,
        }
    }
}

/// Early stopping on the epochs after the pruning: those before are better, and not what is wanted.
///
/// Burn keeps nothing of early stopping in a checkpoint. What the metric was in the epochs before is
/// in the directory, so a resumed training looks at them again first.
#[derive(Clone)]
struct AfterPruning {
    strategy: MetricEarlyStoppingStrategy,
    /// The next epoch to look at.
    next: usize,
}

impl EarlyStoppingStrategy for AfterPruning {
    fn should_stop(&mut self, epoch: usize, store: &EventStoreClient) -> bool {
        let mut stops = false;
        while self.next <= epoch {
            stops = self.strategy.should_stop(self.next, store);
            self.next += 1;
        }
        stops
    }
}

/// Burn would panic.
fn require_checkpoint(directory: &Path, epoch: usize) -> anyhow::Result<()> {
    let folder = directory.join("checkpoint");
    let mut epochs: Vec<usize> = Vec::new();
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let number = name
            .strip_prefix("model-")
            .and_then(|name| name.strip_suffix(".bpk"));
        epochs.extend(number.and_then(|number| number.parse::<usize>().ok()));
    }
    epochs.sort_unstable();
    ensure!(
        epochs.contains(&epoch),
        "there is no checkpoint of epoch {epoch} in {}, but of {epochs:?}",
        folder.display()
    );
    Ok(())
}
