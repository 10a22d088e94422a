//! Rules from a file.

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::setup::{Net, evaluator};

const FILE: &str = r#"
[[rules]]
op_types = ["Conv2d"]
sparse_ratio = 0.5

[[rules]]
op_names = ["head"]
sparse_ratio = 0.25
granularity = [1, 1]
"#;

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let rules = ConfigList::from_toml(FILE)?;
    let net = Net::new(&device);
    let pruner = L1NormPruner::new(net, &rules, evaluator(&device)?, PrunerConfig::new())?;
    let masks = pruner.compress(Budget::none())?.masks();
    println!("{masks}");

    assert_eq!(masks.len(), 8); // weights and biases of three layers, and the norm between them
    Ok(())
}
