//! Contracts of burn-compress: how compressors select, simulate, train together and report.
//!
//! - [`config`]: rules that select layers, targets and settings.
//! - [`Wrapper`] and [`Simulation`]: what stands around layers and parameters.
//! - [`TargetSpace`]: the state of one target, shared by all compressors.
//! - [`Compressor`]: the fused chain.
//! - [`Method`], [`Chain`] and [`Algorithm`]: how an algorithm is made, the chain as it sees it, and
//!   its part in a run.
//! - [`Evaluator`]: the data, optimizer and loss that the chain trains with.
//! - [`RunObserver`]: what follows a run from outside.
//! - [`graph`]: the channels of a model and how they are coupled.
//! - [`erased`]: models and batches of any type, over which a chain is compiled once.
//! - [`file`](mod@file): files that are written and read whole or not at all.
//!
//! No algorithm is named here; the algorithm crates depend on this one and not on each other.
#![warn(missing_docs)]

pub mod config;
pub mod erased;
mod error;
pub mod file;
pub mod graph;
mod module;
mod run;
mod simulate;
mod table;
#[cfg(test)]
mod tests;

pub use burn_compress_graph::{layer, target};

pub use error::{BoxError, Detail, Error};
pub use graph::DummyInput;
pub use run::algorithm::{Algorithm, AlgorithmState, Run};
pub use run::budget::Budget;
pub use run::chain::Chain;
pub use run::compressed::Compressed;
pub use run::compressor::Compressor;
pub use run::configuration::{Configuration, Difference};
pub use run::evaluator::Evaluator;
pub use run::history::{History, StepRecord};
pub use run::learnable::{Learnable, TrainedBy};
pub use run::method::{Constructors, Method};
pub use run::observer::{ChangedMask, EvaluationEvent, MasksEvent, RunObserver, StepEvent};
pub use run::obstacle::Obstacle;
pub use run::planned_mask::{Certainty, PlannedMask};
pub use run::trainee::{
    BitsInput, BitsMetric, CompressionOutput, EpochLoader, SparsityInput, SparsityMetric,
    StepOutput, StepState, Trainee, TraineeOutput,
};
pub use run::{algorithm, reads};
pub use simulate::attach::{capture, tap};
pub use simulate::block::{BlockError, Grid};
pub use simulate::fake_quantize::{self, RoundGradient, fake_quantize};
pub use simulate::flat::{FlatTensor, HostTensor, in_dtype};
pub use simulate::folding::{Folding, Host};
pub use simulate::gradient;
pub use simulate::granularity::{Axes, Granularity, PadSide};
pub use simulate::mask::{Mask, MaskMethod};
pub use simulate::masks::Masks;
pub use simulate::operation::{by_block, extremes};
pub use simulate::params::{gradients, parameters, with_parameters};
pub use simulate::quant_dtype::{IntegerType, QuantDtype, QuantScheme, UnknownDtype};
pub use simulate::quantization::{Calibration, CalibrationEntry, Observer, Quantization};
pub use simulate::reading::{Fold, Norm};
pub use simulate::rebuild::simulated;
pub use simulate::simulation::Simulation;
pub use simulate::sizes::{edit_layers, set_sizes};
pub use simulate::space::TargetSpace;
pub use simulate::transform::{Stage, Transform};
pub use simulate::wrapper::{Activation, Add, AttentionInput, Concat, Layer, Port, Wrapper};
pub use table::write_table;
pub use target::{Mode, Target, TargetId};
