//! The chain that is stopped, and a place for its checkpoints.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Built, Chain, HALF};
use burn_compress_tests::nets::{Net, NetConfig, evaluator};
use tempfile::TempDir;

/// Three epochs of seven batches and three more.
pub const STEPS: usize = 24;
pub const NET: NetConfig = NetConfig {
    stem: 6,
    width: 8,
    dropout: 0.3,
};
pub const QUANTIZE: &str = r#"[
    {"op_types": ["Conv2d"], "quant_dtype": "int8",
     "target_settings": {"weight": {"granularity": "out_channel"}}},
    {"op_types": ["Linear"], "quant_dtype": "int4", "quant_scheme": "affine"}
]"#;
const DISTILL: &str = r#"[{"op_types": ["Conv2d"], "lambda": 0.1}]"#;

static TURN: Mutex<()> = Mutex::new(());

/// A test's turn, and a folder for its checkpoint.
pub struct Place {
    _turn: MutexGuard<'static, ()>,
    folder: TempDir,
    /// The file of the checkpoint.
    pub path: PathBuf,
}

impl Place {
    /// Waits for all tests that came before.
    pub fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("run.checkpoint");
        Self {
            _turn: turn,
            folder,
            path,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A plain chain over a network with the weights of `seed`.
pub fn plain(seed: u64) -> Chain {
    Compressor::from_model(NET.init(seed), evaluator(STEPS))
}

pub fn pruned(seed: u64) -> Built {
    let evaluator = evaluator(STEPS).with_evaluation(5, |net: &Net| f64::from(mean(net)));
    let chain = Compressor::from_model(NET.init(seed), evaluator);
    chains::prune_by_schedule(chain, HALF, AgpConfig::new(4, 5))
}

pub fn quantized(chain: Chain) -> Built {
    chains::quantize(chain, QUANTIZE, QatConfig::new().with_start_step(3))
}

pub fn distilled(chain: Chain) -> Built {
    chains::distill(chain, DISTILL, &NET.init(100), 0.7)
}

/// Pruner, quantizer and distiller over a network with the weights of `seed`.
pub fn fused(seed: u64) -> Chain {
    pruned(seed)
        .and_then(quantized)
        .and_then(distilled)
        .unwrap()
}

fn mean(net: &Net) -> f32 {
    let weights: Vec<f32> = net.head.weight.val().into_data().try_to_vec().unwrap();
    weights.iter().sum::<f32>() / weights.len() as f32
}

/// A checkpoint of the fused chain after 9 steps.
pub fn written(path: &Path) -> Vec<u8> {
    let mut chain = fused(1);
    chain.advance(&Budget::steps(STEPS), Some(9)).unwrap();
    chain.save_checkpoint(path).unwrap();
    fs::read(path).unwrap()
}
