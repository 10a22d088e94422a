//! Real speedup for burn-compress: channels that a compressor masked are removed, the result is
//! verified, saved and loaded.
//!
//! - [`ModelSpeedup`]: from a compressed model, or a plain one and masks, to a small one of the same
//!   Rust type; [`SpeedupExt`]: the same with the dummy input of the run.
//! - [`PartialChannels`]: what becomes of channels that only some of their layers mask.
//! - [`CutPlan`]: what will go, before a run or before a cut, and cutting by it.
//! - [`GraphCut`]: a cut of the captured forward pass, where the model's own code does not follow one.
//! - [`slice_module`]: cutting channels out of parameters and running statistics.
//! - [`reindex`]: masks, scales and zero points follow the channels.
//! - [`verify`]: the small model computes what the simulated one did.
//! - [`SpeedupReport`]: what was saved, and what is masked and was not cut ([`UncutMask`]).
//! - [`Small`], [`save_small`] and [`load_small`]: one file for the small model and what is left of its
//!   compression, quantized parameters as integers of 1 to 8 bits; [`Storage`]: how large it is.
//! - [`latency()`]: the forward time of the small model beside that of the dense one.
//! - [`quantize_parameters`]: quantized parameters as integers in memory, as tensors of Burn's own
//!   quantization.
#![warn(missing_docs)]

mod burn_tensors;
mod change;
mod comparison;
mod container;
mod content;
mod counts;
mod cut;
mod decision;
mod error;
mod graph_cut;
mod integers;
mod latency;
mod moments;
mod outputs;
mod packed;
mod partial;
pub mod plan;
pub mod reindex;
mod report;
mod save;
mod save_config;
mod slice;
mod small;
mod sparsity;
mod speedup;
mod state;
mod tensors;
mod uncut;
pub mod verify;
mod widen;

pub use burn_tensors::{burn_scheme, quantize_parameters, quantize_tensor};
pub use change::Change;
pub use error::SpeedupError;
pub use graph_cut::GraphCut;
pub use latency::{Latency, LatencyConfig, Quartiles, latency};
pub use partial::PartialChannels;
pub use plan::{CutPlan, PlanExt};
pub use report::{LayerChange, SpeedupReport, Storage};
pub use save::{load_small, save_small, save_small_with};
pub use save_config::SaveConfig;
pub use slice::slice_module;
pub use small::Small;
pub use speedup::{ModelSpeedup, Speedup, SpeedupExt};
pub use state::SmallState;
pub use uncut::UncutMask;
