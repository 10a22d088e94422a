//! Quantization: integer types, ranges, scales and zero points, and their simulation in training.
//!
//! A quantizer observes the values of a target, turns their range into a scale and a zero point,
//! and lets the model compute with values rounded to that grid. The pieces:
//!
//! - [`QuantDtype`], [`QuantScheme`]: which integers, and how a range is laid over them.
//! - [`QuantizationSettings`]: one rule of a configuration.
//! - [`blocks`]: the smallest and largest value of each block of a tensor.
//! - [`range`]: scale and zero point of a range.
//! - [`observer`]: the range followed over a training run.
//! - [`QatQuantizer`]: quantization-aware training.
#![warn(missing_docs)]

pub mod blocks;
mod dtype;
mod error;
mod granularity;
pub mod observer;
mod qat;
pub mod range;
mod settings;

pub use dtype::{QuantDtype, QuantScheme};
pub use error::QuantizationError;
pub use granularity::Granularity;
pub use observer::MovingAverageObserver;
pub use qat::{QatConfig, QatQuantizer};
pub use settings::{ApplyMethod, QuantizationSettings};
