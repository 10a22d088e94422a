//! Pruned, quantized and distilled in one run, then made smaller.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator, teach};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let model = Net::new(&device);
    let teacher = model.clone();

    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let int8 = on(["Conv2d", "Linear"]).quant_dtype(QuantDtype::INT8);
    let hidden = named(["conv2"]).lambda(0.1);

    let chain = TaylorPruner::new(model, half, evaluator(&device)?, TaylorConfig::new(2))?;
    let chain = QatQuantizer::from_compressor(chain, int8, QatConfig::new())?;
    let config = DistillConfig::new(0.1); // the weight of the task's own loss
    let chain = DynamicLayerwiseDistiller::from_compressor(chain, hidden, &teacher, teach, config)?;
    println!("{chain}");
    let small = chain.compress(Budget::steps(6))?.speedup()?;

    assert_eq!(small.model.conv1.weight.dims(), [4, 1, 3, 3]);
    Ok(())
}
