//! Pruned by half while it trains to int8, in one run: the program of `docs/FROM_NNI.md`, in fewer
//! steps.

use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn_compress::prelude::*;
use burn_compress_examples::digits::{Augmentation, Digits, batches};

use crate::setup::{Net, loss};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let digits = Digits::load().map_err(Error::other)?;
    let model = Net::new(&device);
    let dummy_input = DummyInput::new(digits.test.head(4, &device).images, Net::forward);
    let data = move |epoch| batches(&digits.train, 32, (0, epoch), Augmentation::None, &device);
    let path = std::env::temp_dir().join(format!("int8-{}.small", std::process::id()));

    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let int8 = on(["Conv2d", "Linear"]).quant_dtype(QuantDtype::INT8);
    let evaluator = Evaluator::new()
        .with_dummy_input(dummy_input)
        .with_data(data)
        .with_loss(loss)
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(1e-3);
    let chain = TaylorPruner::new(model, half, evaluator, TaylorConfig::new(2))?;
    let chain = AgpPruner::new(chain, AgpConfig::new(2, 3))?;
    let chain = QatQuantizer::from_compressor(chain, int8, QatConfig::new())?;
    let small = chain.compress(Budget::steps(8))?.speedup()?;
    small.save(&path)?;

    assert_eq!(small.model.conv1.weight.dims(), [4, 1, 3, 3]);
    Ok(std::fs::remove_file(&path)?)
}
