//! The chains that are fused.

use burn_compress::Masks;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Built, Chain, id};
use burn_compress_tests::nets::{Net, NetConfig, evaluator};

pub const STEPS: usize = 16;
pub const QUANTIZE: &str = r#"[
    {"op_types": ["Conv2d"], "quant_dtype": "int8",
     "target_settings": {"weight": {"granularity": "out_channel"}}},
    {"op_types": ["Linear"], "quant_dtype": "int8"}
]"#;
pub const DISTILL: &str = r#"[{"op_types": ["Conv2d"], "lambda": 0.1, "apply_method": "mse"}]"#;

pub fn net() -> Net {
    NetConfig::default().init(1)
}

pub fn chain() -> Chain {
    Compressor::from_model(net(), evaluator(STEPS))
}

/// Taylor scores, their masks growing by AGP after every third step up to step 12.
pub fn pruned(chain: Chain, rules: &str) -> Built {
    chains::prune_by_schedule(chain, rules, AgpConfig::new(3, 4))
}

pub fn quantized(chain: Chain, rules: &str) -> Built {
    chains::quantize(chain, rules, QatConfig::new().with_start_step(4))
}

pub fn distilled(chain: Chain, rules: &str) -> Built {
    chains::distill(chain, rules, &NetConfig::default().init(100), 0.5)
}

/// The channels that a mask removes along dimension 0.
pub fn removed(masks: &Masks, target: &str) -> Vec<usize> {
    let removed = masks[&id(target)].removed_along(0);
    removed
        .iter()
        .enumerate()
        .filter_map(|(at, &removed)| removed.then_some(at))
        .collect()
}
