//! The chains that the errors are made with.

use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Built, Chain, HALF};
use burn_compress_tests::nets::{Net, NetConfig, dummy_input, evaluator};

pub const STEPS: usize = 8;
pub const QUANTIZE: &str = r#"[{"op_types": ["Conv2d"], "quant_dtype": "int8"}]"#;

pub fn net() -> Net {
    NetConfig::default().init(1)
}

pub fn chain() -> Chain {
    Compressor::from_model(net(), evaluator(STEPS))
}

pub fn prune(rules: &str) -> Built {
    chains::prune(chain(), rules, PrunerConfig::new())
}

pub fn quantize(rules: &str) -> Built {
    chains::quantize(chain(), rules, QatConfig::new())
}

pub fn distill(rules: &str) -> Built {
    distill_from(rules, NetConfig::default())
}

/// A distiller whose teacher has other sizes than its student.
pub fn distill_from(rules: &str, teacher: NetConfig) -> Built {
    chains::distill(chain(), rules, &teacher.init(2), 1.0)
}

/// A model that has lost half of its channels.
pub fn small() -> Speedup<Net> {
    let compressed = prune(HALF).unwrap().compress(Budget::none()).unwrap();
    ModelSpeedup::new(compressed, dummy_input())
        .speedup_model()
        .unwrap()
}
