//! A chain as the model of Burn's own `Learner`, with your loop, metrics and checkpoints.

use burn::module::Module;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::Learner;
use burn_compress::prelude::*;
use burn_compress_examples::digits::{Augmentation, Digits, batches};

use crate::setup::{Net, evaluator};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let net = Net::new(&device);
    let pruner = TaylorPruner::new(net, half, evaluator(&device)?, TaylorConfig::new(2))?;

    let steps = 4;
    let mut learner = Learner::new(pruner.into_trainee(steps)?, AdamConfig::new().init(), 1e-3);
    let digits = Digits::load().map_err(Error::other)?;
    let data = batches(&digits.train, 32, (0, 0), Augmentation::None, &device);
    for batch in data.into_iter().take(steps) {
        let output = learner.train_step(batch);
        learner.lr_step();
        learner.optimizer_step(output.grads);
    }
    let compressed = learner.model().valid().finish()?;

    let weight: TargetId = "conv1.weight".parse()?;
    assert_eq!(compressed.masks()[&weight].sparsity(), 0.5);
    Ok(())
}
