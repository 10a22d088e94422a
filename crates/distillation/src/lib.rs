//! Distillation: a student learns from the hidden states of a teacher.
//!
//! The student's layers are linked with layers of the teacher; each link adds a loss between their
//! outputs to the loss that the student has anyway. The pieces:
//!
//! - [`DistillationSettings`]: one rule of a configuration.
//! - [`losses`]: what two hidden states cost each other, [`mse`](losses::mse) or
//!   [`kl`](losses::kl).
//! - [`combine`]: from the losses of all links to the loss that is trained.
//! - [`DynamicLayerwiseDistiller`]: each layer learns from the nearest of its links.
#![warn(missing_docs)]

pub mod combine;
mod dynamic;
mod error;
pub mod losses;
mod settings;

pub use dynamic::{DistillConfig, DynamicLayerwiseDistiller};
pub use error::DistillationError;
pub use losses::DistillationLoss;
pub use settings::{DistillationSettings, Link};
