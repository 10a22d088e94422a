//! Distillation: a student learns from the hidden states and logits of a teacher.
//!
//! The student's layers are linked with layers of the teacher; each link adds a loss between their
//! outputs to the loss that the student has anyway. The distillers:
//!
//! | distiller                    | the student imitates                                        |
//! |------------------------------|-------------------------------------------------------------|
//! | [`DynamicLayerwiseDistiller`] | the nearest of several hidden states of equal shape         |
//! | [`Adaptive1dLayerwiseDistiller`] | one hidden state, through a trained linear layer         |
//! | [`FitNetsDistiller`]         | one hidden state, through a trained 1x1 convolution         |
//! | [`AttentionDistiller`]       | where a hidden state is active, whatever its channels       |
//! | [`RelationalDistiller`]      | distances and angles between the samples of a batch         |
//! | [`LogitsDistiller`]          | softened class probabilities                                |
//! | [`DkdDistiller`]             | the same, taken apart into target and other classes         |
//!
//! Student and teacher may differ in precision and device: what the teacher says is brought to the
//! student, and losses are computed in single precision at least.
//!
//! [`registry`] lists them by name. The pieces:
//!
//! - [`DistillationSettings`]: one rule of a configuration.
//! - [`Teacher`], [`Teachers`]: one or several networks to learn from, fused as [`TeacherFusion`]
//!   says; [`TeacherCache`] keeps what a teacher says of fixed data.
//! - [`losses`]: what two hidden states cost each other, [`mse`](losses::mse) or
//!   [`kl`](losses::kl).
//! - [`combine`], [`fusion`]: from the losses of all links and teachers to the loss that is
//!   trained.
#![warn(missing_docs)]

mod adaptive;
pub mod attention;
mod cache;
mod channels;
#[cfg(test)]
mod check;
mod classes;
pub mod combine;
pub mod dkd;
mod dynamic;
mod error;
mod fitnets;
pub mod fusion;
#[doc(hidden)]
pub mod internals;
mod layerwise;
mod link;
pub mod logits;
pub mod losses;
mod projection;
pub mod registry;
pub mod relational;
mod rule;
mod settings;
mod teacher;
mod teachers;
#[cfg(test)]
mod tests;

pub use adaptive::{Adaptive1dLayerwiseDistiller, AdaptiveConfig};
pub use attention::{AttentionConfig, AttentionDistiller};
pub use cache::TeacherCache;
pub use channels::Channels;
pub use dkd::{DkdConfig, DkdDistiller};
pub use dynamic::{DistillConfig, DynamicLayerwiseDistiller};
pub use error::DistillationError;
pub use fitnets::{FitNetsConfig, FitNetsDistiller};
pub use fusion::TeacherFusion;
pub use logits::{LogitsConfig, LogitsDistiller};
pub use losses::DistillationLoss;
pub use registry::distillers;
pub use relational::{RelationalConfig, RelationalDistiller};
pub use rule::DistillationRule;
pub use settings::{DistillationSettings, Link};
pub use teacher::Teacher;
pub use teachers::Teachers;
