//! The one place that names the compressors' API.
//!
//! The families describe what a compressor is to do in terms of the files; here this becomes calls
//! of the library. Every compressor is fused onto a chain, so that all of them are built alike.

pub use burn_compress::{core, distillation, pruning, quantization};

use std::sync::Arc;

use serde_json::Value;

use super::case::{Array, Case, Result};
use super::drive::Step;
use super::model::{Activation, RefModel};

/// A layer whose inputs and outputs can be targets.
pub type Wrapped<L> = core::Wrapper<L>;

/// Compressors fused over a network of a case.
pub type Chain = core::Compressor<RefModel, Step>;

/// Wraps a layer.
pub fn wrap<L>(layer: L) -> Wrapped<L> {
    core::Wrapper::new(layer)
}

/// Fuses a first-order Taylor pruner that collects gradients for `steps` steps.
///
/// Targets are independent and a target may lose everything, as in NNI.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn taylor(case: &Case, _chain: Chain, _rules: &Value, _steps: usize) -> Result<Chain> {
    case.not_covered("TaylorPruner is not connected")
}

/// Lets the automated gradual schedule drive the newest pruner of the chain.
///
/// # Errors
///
/// When the library refuses the schedule.
pub fn agp(case: &Case, _chain: Chain, _interval: usize, _times: usize) -> Result<Chain> {
    case.not_covered("AGPPruner is not connected")
}

/// Fuses quantization-aware training that rounds from `start_step` on.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn qat(case: &Case, _chain: Chain, _rules: &Value, _start_step: usize) -> Result<Chain> {
    case.not_covered("QATQuantizer is not connected")
}

/// Fuses a dynamic layer-wise distiller; `inputs` are those of every step.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn distil(
    case: &Case,
    _chain: Chain,
    _rules: &Value,
    _teacher: RefModel,
    _inputs: Arc<Vec<Activation>>,
    _origin_lambda: f64,
) -> Result<Chain> {
    case.not_covered("DynamicLayerwiseDistiller is not connected")
}

/// A network without its masked channels.
#[derive(Debug)]
pub struct Small {
    /// The network, with the quantization that it had.
    pub model: RefModel,
    /// The network without simulation.
    pub plain: RefModel,
    /// Scales and zero points of what is left.
    pub calibration: core::Calibration,
    /// Surviving input and output channels of each layer.
    pub kept: indexmap::IndexMap<String, (Vec<usize>, Vec<usize>)>,
}

/// Removes the masked channels.
///
/// # Errors
///
/// When the library refuses.
pub fn speedup(
    case: &Case,
    _compressed: core::Compressed<RefModel>,
    _input: &Array,
) -> Result<Small> {
    case.not_covered("ModelSpeedup is not connected")
}
