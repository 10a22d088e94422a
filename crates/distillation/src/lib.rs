//! Distillation: a student learns from the hidden states and logits of a teacher.
//!
//! The student's layers are linked with layers of the teacher; each link adds a loss between their
//! hidden states to the loss that the student has anyway. Distillers of logits compare class
//! probabilities. [`registry`] lists the built-in distillers by name.
//!
//! Student and teacher may differ in precision and device: the teacher's outputs are cast to the
//! student's, and losses are computed in single precision at least.
//!
//! - [`DistillationSettings`]: one rule of a configuration.
//! - [`FeatureLoss`](feature::FeatureLoss), [`LogitLoss`](logit::LogitLoss): the contracts of a
//!   loss. [`FeatureDistiller`] and [`LogitDistiller`] make a distiller of any; the built-in
//!   distillers are such losses.
//! - [`Teacher`], [`Teachers`]: one or several networks to learn from, aggregated by
//!   [`TeacherAggregation`]; [`TeacherCache`] keeps the outputs of a teacher for fixed data.
//! - [`losses`]: [`mse`](losses::mse) and [`kl`](losses::kl), which rules name.
//! - [`combine`], [`aggregation`]: from the losses of all links and teachers to the loss that is
//!   trained.
#![warn(missing_docs)]

#[cfg(test)]
mod check;
pub mod combine;
mod distiller;
mod error;
pub mod feature;
mod fused;
#[doc(hidden)]
pub mod internals;
mod laws;
pub mod logit;
pub mod losses;
pub mod registry;
mod settings;
mod teacher;
mod tensors;
#[cfg(test)]
mod tests;

pub use distiller::{Distiller, Distillers, Reads, Taught};
pub use error::DistillationError;
pub use feature::{FeatureDistiller, attention, relational};
pub use logit::{LogitDistiller, dkd, logits};
pub use losses::DistillationLoss;
pub use registry::built_in::*;
pub use registry::distillers;
pub use settings::{Channels, DistillationRule, DistillationSettings, Link};
pub use teacher::{Teacher, TeacherAggregation, TeacherCache, Teachers, aggregation};
