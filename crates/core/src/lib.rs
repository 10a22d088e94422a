//! Contracts of burn-compress: how compressors select, simulate, train together and report.
//!
//! - [`config`]: rules that select layers, targets and settings.
//! - [`Wrapper`] and [`Simulation`]: what stands around layers and parameters.
//! - [`TargetSpace`]: the state of one target, in which all compressors meet.
//! - [`Compressor`] and [`Algorithm`]: the fused chain and what takes part in it.
//! - [`Evaluator`]: the data, optimizer and loss that the chain trains with.
//! - [`graph`]: the channels of a model and how they are coupled.
//! - [`file`](mod@file): files that are written and read whole or not at all.
//!
//! No algorithm is named here; the algorithm crates depend on this one and not on each other.
#![warn(missing_docs)]

pub mod algorithm;
mod attach;
mod block;
mod budget;
mod checkpoint;
mod compressed;
mod compressor;
pub mod config;
mod configuration;
mod error;
mod evaluator;
pub mod fake_quantize;
pub mod file;
mod finite;
mod flat;
mod folding;
pub mod graph;
mod history;
mod learnable;
mod mask;
mod masks;
mod obstacle;
mod params;
mod quantization;
pub mod reads;
mod rebuild;
mod simulation;
mod space;
mod summary;
#[cfg(test)]
mod tests;
mod trainee;
mod training;
mod transform;
mod walk;
mod wrapper;

pub use burn_compress_graph::{layer, target};

pub use algorithm::{Algorithm, AlgorithmState, HostTensor, Run};
pub use attach::tap;
pub use block::Grid;
pub use budget::Budget;
pub use compressed::{Calibration, Compressed};
pub use compressor::Compressor;
pub use configuration::{Configuration, Difference};
pub use error::{BoxError, Error};
pub use evaluator::Evaluator;
pub use fake_quantize::{RoundGradient, fake_quantize};
pub use flat::FlatTensor;
pub use folding::{Fold, Folding, Host, Norm};
pub use graph::DummyInput;
pub use history::{History, StepRecord};
pub use learnable::{Learnable, TrainedBy};
pub use mask::{Mask, MaskMethod};
pub use masks::Masks;
pub use obstacle::Obstacle;
pub use params::{gradients, parameters, with_parameters};
pub use quantization::{CalibrationEntry, Observer, Quantization};
pub use rebuild::{edit_layers, set_groups, simulated};
pub use simulation::Simulation;
pub use space::TargetSpace;
pub use target::{Mode, Target, TargetId};
pub use trainee::{Trainee, TraineeOutput};
pub use transform::{Stage, Transform};
pub use wrapper::{Activation, Layer, Port, Wrapper};
