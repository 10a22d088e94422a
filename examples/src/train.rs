//! Plain training, without any compression: how the dense network of every example is made.

use anyhow::anyhow;
use burn::config::Config;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Int, Tensor};
use indicatif::{ProgressBar, ProgressStyle};

use crate::digits::{self, Augmentation, Split};
use crate::resnet::DigitsResNet;

/// Images of a batch in an evaluation.
const EVALUATION_BATCH: usize = 360;

/// How a dense network is trained: Adam without weight decay, and a learning rate that falls to
/// zero along half a cosine over all steps.
#[derive(Config, Debug, PartialEq)]
pub struct TrainingConfig {
    /// Passes over the training rows.
    #[config(default = 15)]
    pub epochs: usize,
    /// Images of a batch.
    #[config(default = 64)]
    pub batch_size: usize,
    /// Learning rate of the first step.
    #[config(default = 1e-3)]
    pub learning_rate: f64,
    /// Seed of the order of the batches.
    #[config(default = 0)]
    pub seed: u64,
    /// How the digits are varied.
    #[config(default = "Augmentation::None")]
    pub augmentation: Augmentation,
}

/// A trained network and its history.
#[derive(Debug)]
pub struct Trained {
    /// The network, still with autodiff.
    pub model: DigitsResNet,
    /// Cross entropy of every step's batch, before the step.
    pub losses: Vec<f64>,
}

/// Trains `model` on `split`.
///
/// # Errors
///
/// If the configuration asks for no epoch or for a learning rate outside of (0, 1], or if `model` is
/// not on a device with autodiff.
pub fn train(
    mut model: DigitsResNet,
    split: &Split,
    config: &TrainingConfig,
) -> anyhow::Result<Trained> {
    let device = model.device();
    if !device.is_autodiff() {
        return Err(anyhow!(
            "the network is on {device:?}; initialise it on `device.autodiff()` to train it"
        ));
    }
    let steps = config.epochs * split.len().div_ceil(config.batch_size.max(1));
    let mut schedule = CosineAnnealingLrSchedulerConfig::new(config.learning_rate, steps)
        .init()
        .map_err(|message| anyhow!("no schedule over {steps} steps: {message}"))?;
    let mut optimizer = AdamConfig::new().with_epsilon(1e-8).init();
    let mut losses = Vec::with_capacity(steps);
    let bar = progress_bar(steps);

    for epoch in 0..config.epochs {
        for batch in digits::batches(
            split,
            config.batch_size,
            (config.seed, epoch),
            config.augmentation,
            &device,
        ) {
            let loss = cross_entropy(model.forward(batch.images), batch.labels);
            losses.push(loss.clone().into_scalar::<f64>());
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(schedule.step(), model, gradients);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(Trained { model, losses })
}

/// Silent when the output is not a terminal.
fn progress_bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    let style = ProgressStyle::with_template("dense {bar:40} {pos}/{len} steps, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Mean cross entropy of `logits` `[batch, classes]` against `labels` `[batch]`.
pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    CrossEntropyLossConfig::new()
        .init(&logits.device())
        .forward(logits, labels)
}

/// Percentage of `split` that `model` names correctly, in evaluation mode: running statistics, and
/// no change to the network.
pub fn accuracy(model: &DigitsResNet, split: &Split) -> f64 {
    let device = model.device().inner();
    let model = model.valid();
    let mut correct = 0;
    for batch in digits::ordered_batches(split, EVALUATION_BATCH, &device) {
        let [size] = batch.labels.dims();
        let predicted = model.forward(batch.images).argmax(1).reshape([size]);
        let hits = predicted.equal(batch.labels).int().sum();
        correct += hits.into_scalar::<i64>();
    }
    100.0 * correct as f64 / split.len() as f64
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::digits::Digits;
    use crate::resnet::DigitsResNetConfig;

    #[test]
    fn cross_entropy_is_the_mean_over_the_batch() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_floats([[0.0, 0.0], [0.0, 3f32.ln()]], &device);
        let labels = Tensor::<1, Int>::from_ints([0, 1], &device);
        // -ln(1/2) = 0.69315 and -ln(3/4) = 0.28768.
        let loss = cross_entropy(logits, labels).into_scalar::<f64>();
        assert!((loss - 0.490_415).abs() < 1e-5, "{loss}");
    }

    #[test]
    fn a_narrow_network_learns_and_an_evaluation_changes_nothing() {
        let device = Device::flex().autodiff();
        device.seed(0);
        let digits = Digits::load().unwrap();
        let model = DigitsResNetConfig::new()
            .with_widths([4, 8, 8])
            .init(&device);
        let before = accuracy(&model, &digits.test);
        let config = TrainingConfig::new()
            .with_epochs(3)
            .with_learning_rate(1e-2);
        let trained = train(model, &digits.train, &config).unwrap();
        assert_eq!(trained.losses.len(), 3 * 23);

        let statistics = |model: &DigitsResNet| model.stem_bn.running_mean.value_sync().into_data();
        let untouched = statistics(&trained.model);
        let after = accuracy(&trained.model, &digits.test);
        assert!(before < 30.0 && after > 70.0, "{before} % to {after} %");
        assert_eq!(accuracy(&trained.model.valid(), &digits.test), after);
        assert_eq!(statistics(&trained.model), untouched);
    }

    #[test]
    fn what_cannot_train_is_an_error() {
        let split = Digits::load().unwrap().train;
        let plain = DigitsResNetConfig::new().init(&Device::flex());
        let error = train(plain, &split, &TrainingConfig::new()).unwrap_err();
        assert!(error.to_string().contains("autodiff"), "{error}");

        let device = Device::flex().autodiff();
        for config in [
            TrainingConfig::new().with_epochs(0),
            TrainingConfig::new().with_learning_rate(0.0),
        ] {
            let model = DigitsResNetConfig::new().init(&device);
            assert!(train(model, &split, &config).is_err(), "{config:?}");
        }
    }
}
