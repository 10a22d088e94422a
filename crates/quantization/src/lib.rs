//! Quantization: integer types, ranges, scales and zero points, and their simulation in training.
//!
//! A quantizer observes the values of a target, turns their range into a scale and a zero point,
//! and lets the model compute with values rounded to that grid. The pieces:
//!
//! - [`QuantDtype`], [`QuantScheme`]: which integers, and how a range is laid over them.
//! - [`QuantizationSettings`]: one rule of a configuration.
//! - [`blocks`]: the smallest and largest value of each block of a tensor.
//! - [`range`]: scale and zero point of a range.
//! - [`fold`]: a batch norm folded into the layer before it.
//! - [`observer`]: from the values of a target to its range.
//! - [`QatQuantizer`]: quantization-aware training.
//! - [`PtqQuantizer`]: calibration without training.
//! - [`AdaRoundQuantizer`]: calibration with learned rounding.
//! - [`LsqQuantizer`]: training with scales that are learned.
//! - [`LsqPlusQuantizer`]: training with scales and zero points that are learned.
//! - [`DoReFaQuantizer`]: weights squeezed into a fixed range, and gradients of few bits.
//! - [`BnnQuantizer`]: signs in place of numbers.
//! - [`quantizers`]: all of them by name.
#![warn(missing_docs)]

mod adaround;
mod backward;
mod bias;
pub mod blocks;
mod bnn;
mod claim;
mod constructors;
pub mod dorefa;
mod dtype;
mod error;
mod fixed;
pub mod fold;
mod fuse;
mod granularity;
#[doc(hidden)]
pub mod internals;
mod learned;
pub mod lsq;
pub mod lsq_plus;
mod observed;
pub mod observer;
mod precision;
#[cfg(test)]
mod properties;
mod ptq;
mod qat;
pub mod range;
mod raw;
mod reconstruction;
mod refuse;
pub mod registry;
mod rule;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use adaround::{AdaRoundConfig, AdaRoundQuantizer};
pub use bnn::{BnnConfig, BnnQuantizer};
pub use dorefa::{DoReFaConfig, DoReFaQuantizer, GradientDtype};
pub use dtype::{QuantDtype, QuantScheme};
pub use error::QuantizationError;
pub use granularity::Granularity;
pub use lsq::{LsqConfig, LsqInit, LsqQuantizer};
pub use lsq_plus::{LsqPlusConfig, LsqPlusQuantizer};
pub use observer::{ObserverKind, TargetObserver};
pub use ptq::{PtqConfig, PtqQuantizer};
pub use qat::{QatConfig, QatQuantizer};
pub use registry::{Entry, Fuse, quantizers};
pub use rule::QuantizationRule;
pub use settings::{ApplyMethod, QuantizationSettings};
