//! Conformance tests for algorithms of burn-compress: those of the library pass them, and so should
//! one of your own.
//!
//! A chain trains a small residual network for a few steps on the CPU. It has to
//!
//! - keep the promises of its algorithms: masks that reach the ratio, scales that can be used, a loss
//!   that is not the task's alone;
//! - end bit for bit the same when it is stopped in the middle and resumed from its checkpoint, in a
//!   chain that is built anew;
//! - refuse the checkpoint of a chain without the algorithm;
//! - become smaller without becoming another function, where it masks channels.
//!
//! [`check`] puts one chain through this, [`conform`] an algorithm alone and fused with each built-in
//! algorithm of the other kinds.
//!
//! ```
//! use burn_compress::prelude::*;
//! use burn_compress_testkit::{Subject, check, half_of_the_channels};
//!
//! let pruner = Subject::pruner("L1NormPruner", |chain| {
//!     Ok(L1NormPruner::from_compressor(chain, &half_of_the_channels(), PrunerConfig::new())?)
//! });
//! check(&[&pruner])?;
//! # Ok::<(), burn_compress_testkit::Failure>(())
//! ```
#![warn(missing_docs)]

mod built_in;
mod check;
pub mod nets;
pub mod onnx;
pub mod random;
mod rules;
mod subject;

pub use built_in::{distillers, folding_quantizers, pruners, quantizers};
pub use check::{Failure, Failures, check, conform};
pub use rules::{half_of_the_channels, hidden_states, int8, logits};
pub use subject::{Built, Chain, Subject};
