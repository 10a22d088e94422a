//! Quantization: integer types, ranges, scales and zero points, and their simulation in training.
//!
//! A quantizer observes the values of a target, turns their range into a scale and a zero point,
//! and rounds the values to that grid in the model. The pieces:
//!
//! - [`QuantDtype`], [`QuantScheme`]: integer types, and how a range is laid over them.
//! - [`QuantizationSettings`]: one rule of a configuration.
//! - [`ranges`]: the range of a target from its values.
//! - [`qparams`]: scale and zero point of a range.
//! - [`fold`]: a batch norm folded into the layer before it.
//! - [`methods`]: the quantizers, one a file, and all of them by name.
//!
//! A quantizer of one's own is a [`RangeRule`] (from ranges to scales and zero points), a
//! [`LearnedRule`] (scales that are trained), or an [`Algorithm`](burn_compress_core::Algorithm) over
//! [`QuantTargets`].
#![warn(missing_docs)]

pub mod blocks;
mod bn_fusion;
pub mod deploy;
mod error;
mod granularity;
#[doc(hidden)]
pub mod internals;
pub mod methods;
mod parameters;
mod precision;
#[cfg(test)]
mod properties;
pub mod qparams;
mod quantizer;
mod range_rule;
pub mod ranges;
mod reject;
mod settings;
mod targets;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use bn_fusion::fold;
pub use built_in::*;
pub use burn_compress_core::{BlockError, Granularity, QuantDtype, QuantScheme};
pub use deploy::Deployment;
pub use error::QuantizationError;
pub use methods::{
    Entry, Fuse, LearnedMethod, LearnedQuantizer, LearnedRule, LearnedStart, LsqInit, built_in,
    dorefa, lsq, lsq_plus, quantizers,
};
pub use qparams::QParams;
pub use quantizer::Quantizer;
pub use range_rule::RangeRule;
pub use ranges::{ObserverKind, RangeEstimator, Ranges};
pub use settings::{ApplyMethod, QuantizationRule, QuantizationSettings};
pub use targets::{QuantDefaults, QuantTarget, QuantTargets, TargetObserver};

/// All quantizers by name.
pub mod registry {
    pub use crate::methods::{Entry, Fuse, quantizers};
}
