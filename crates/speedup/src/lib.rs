//! Real speedup for burn-compress: channels that a compressor masked are removed, the result is
//! verified, saved and loaded.
//!
//! - [`ModelSpeedup`]: from a compressed model to a small one of the same Rust type.
//! - [`propagate`]: which channels can be removed, given the masks.
//! - [`PartialChannels`]: what becomes of channels that only some of their layers mask.
//! - [`slice_module`]: cutting channels out of parameters and running statistics.
//! - [`reindex`]: masks, scales and zero points follow the channels.
//! - [`verify`]: the small model computes what the simulated one did.
//! - [`SpeedupReport`]: what was saved.
//! - [`save_small`] and [`load_small`]: one file for the small model and what is left of its
//!   compression.
#![warn(missing_docs)]

mod error;
mod outputs;
mod packed;
mod partial;
pub mod propagate;
pub mod reindex;
mod report;
mod save;
mod slice;
mod speedup;
mod state;
pub mod verify;
mod view;

pub use error::SpeedupError;
pub use partial::PartialChannels;
pub use report::{Change, LayerChange, SpeedupReport};
pub use save::{load_small, save_small};
pub use slice::slice_module;
pub use speedup::{ModelSpeedup, Speedup};
pub use state::SmallState;
