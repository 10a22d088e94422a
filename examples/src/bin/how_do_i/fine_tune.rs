//! A small model trained on: with a chain, or as any Burn model.

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress_examples::digits::{Augmentation, Digits, batches};

use crate::setup::{Net, evaluator, loss, teach};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let net = Net::new(&device);
    let teacher = net.clone();
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let pruner = L1NormPruner::new(net, half, evaluator(&device)?, PrunerConfig::new())?;
    let small = pruner.compress(Budget::none())?.speedup()?.model;

    // A chain begins with it as with any model: here a distiller from the full-size network.
    let rules = named(["head"]).lambda(1.0);
    let config = LogitsConfig::new();
    let chain = LogitsDistiller::new(small, rules, evaluator(&device)?, &teacher, teach, config)?;
    let small = chain.compress(Budget::steps(4))?.into_model();

    // Your own loop, with a fresh optimizer.
    let (mut small, mut adam) = (small.train(), AdamConfig::new().init());
    let digits = Digits::load().map_err(Error::other)?;
    for batch in batches(&digits.train, 32, (0, 0), Augmentation::None, &device)
        .into_iter()
        .take(2)
    {
        let gradients = GradientsParams::from_grads(loss(&small, &batch).backward(), &small);
        small = adam.step(1e-3, small, gradients);
    }

    assert_eq!(small.conv1.weight.dims(), [4, 1, 3, 3]);
    Ok(())
}
