//! One training run of all compressors of a chain.
//!
//! `compressor` holds the chain, `training` its loop, `trainee` the form in which Burn's `Learner`
//! drives it. A pruner, quantizer or distiller is a `method` that adds an `algorithm` to a `chain`.

pub mod algorithm;
pub(crate) mod any_chain;
pub(crate) mod budget;
pub(crate) mod chain;
pub(crate) mod compressed;
pub(crate) mod compressor;
pub(crate) mod configuration;
pub(crate) mod evaluator;
pub(crate) mod events;
pub(crate) mod finish;
pub(crate) mod finite;
pub(crate) mod graphs;
pub(crate) mod history;
pub(crate) mod learnable;
pub(crate) mod method;
pub(crate) mod observer;
pub(crate) mod obstacle;
pub(crate) mod planned;
pub(crate) mod planned_mask;
pub(crate) mod progress_line;
pub mod reads;
pub(crate) mod summary;
pub(crate) mod trainee;
pub(crate) mod training;
pub(crate) mod unread;
