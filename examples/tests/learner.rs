//! A training by Burn's `Learner`: interrupted and resumed, and stopped early.

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress_examples::digits::Digits;
use burn_compress_examples::learner::LearnerTraining;
use burn_compress_examples::resnet::{DigitsResNet, DigitsResNetConfig};
use burn_compress_testkit::nets::bits;

/// Two batches an epoch, the second of them a small one.
fn training(epochs: usize, directory: &Path) -> LearnerTraining {
    LearnerTraining {
        epochs,
        batch_size: 1000,
        sparsity: 0.5,
        patience: 100,
        seed: 3,
        checkpoints: epochs,
        directory: directory.to_path_buf(),
        resume: None,
    }
}

fn network(seed: u64) -> DigitsResNet {
    let device = Device::flex();
    device.seed(seed);
    let config = DigitsResNetConfig::new().with_widths([2, 4, 4]);
    config.init(&device.autodiff()).valid()
}

fn run(training: &LearnerTraining, seed: u64) -> anyhow::Result<Compressed<DigitsResNet>> {
    let digits = Arc::new(Digits::load()?);
    training.run(network(seed), &digits, &Device::flex())
}

/// The logits of some test digits, as bits.
fn logits(compressed: &Compressed<DigitsResNet>) -> Vec<u32> {
    let digits = Digits::load().unwrap();
    let images = digits.test.head(20, &Device::flex()).images;
    let logits = compressed.model().forward(images).into_data();
    logits.iter::<f32>().map(f32::to_bits).collect()
}

#[test]
fn a_resumed_training_ends_with_the_same_model_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let whole = run(&training(4, directory.path()), 1).unwrap();
    assert_eq!(whole.history().steps.len(), 8);
    // The masks are complete after four steps, the rounding begins then.
    for epoch in 1..4 {
        // The other epochs once more, from other weights and with what these have left.
        let again = tempfile::tempdir().unwrap();
        let files = again.path().join("checkpoint");
        std::fs::create_dir(&files).unwrap();
        for name in ["model", "optim", "scheduler"] {
            let name = format!("{name}-{epoch}.bpk");
            let from = directory.path().join("checkpoint").join(&name);
            std::fs::copy(from, files.join(name)).unwrap();
        }
        let resumed = LearnerTraining {
            resume: Some(epoch),
            ..training(4, again.path())
        };
        let resumed = run(&resumed, 2).unwrap();

        assert_eq!(resumed.history(), whole.history(), "after epoch {epoch}");
        assert_eq!(resumed.masks(), whole.masks());
        assert_eq!(resumed.calibration().unwrap(), whole.calibration().unwrap());
        assert_eq!(bits(&resumed.unwrap_model()), bits(&whole.unwrap_model()));
        assert_eq!(logits(&resumed), logits(&whole));
    }
    assert_ne!(bits(&whole.unwrap_model()), bits(&network(1)));
}

/// The accuracy of an epoch on the test digits, as the metric has logged it.
fn accuracy(directory: &Path, epoch: usize) -> f64 {
    let path = directory.join(format!("valid/epoch-{epoch}/Accuracy.log"));
    let log = std::fs::read_to_string(path).unwrap();
    let last = log.lines().last().unwrap();
    last.strip_suffix(",final").unwrap().parse().unwrap()
}

#[test]
fn early_stopping_stops_after_the_pruning_at_the_earliest() {
    let directory = tempfile::tempdir().unwrap();
    let stopped = LearnerTraining {
        patience: 1,
        ..training(12, directory.path())
    };
    let compressed = run(&stopped, 1).unwrap();
    let epoch = compressed.history().steps.len() / 2;
    // The masks are complete after six epochs, and the seventh is the first that counts.
    let is_worse = |epoch: &usize| {
        let best = (7..*epoch).map(|before| accuracy(directory.path(), before));
        accuracy(directory.path(), *epoch) <= best.fold(0.0, f64::max)
    };
    let expected = (8..=epoch).find(is_worse).unwrap_or(12);
    assert_eq!(epoch, expected);
    assert!(epoch < 12, "it went on to the end");
    let weight: TargetId = "stage1.0.conv1.weight".parse().unwrap();
    assert_eq!(compressed.masks()[&weight].sparsity(), 0.5);

    // Resumed, it stops after the same epoch.
    let resumed = LearnerTraining {
        resume: Some(epoch - 1),
        ..stopped
    };
    let resumed = run(&resumed, 2).unwrap();
    assert_eq!(resumed.history(), compressed.history());
    assert_eq!(
        bits(&resumed.unwrap_model()),
        bits(&compressed.unwrap_model())
    );
}

#[test]
fn a_missing_checkpoint_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = LearnerTraining {
        resume: Some(3),
        ..training(4, directory.path())
    };
    let error = run(&missing, 1).unwrap_err().to_string();
    assert!(error.contains("no checkpoint of epoch 3"), "{error}");
}
