//! Pruning for Burn models: importance scores, mask generation and schedules.
//!
//! A pruner works on the targets that a configuration selects, in four steps, each a pure function
//! of host data:
//!
//! 1. [`PruningSettings`] hold the goals, [`Granularity`] the shape of the blocks.
//! 2. An [`Importance`] gives each of the [`Blocks`] a score of what a [source](sources) gives: the
//!    weights, gradients, outputs of layers.
//! 3. [`mask::generate`] decides for all targets together which blocks stay.
//! 4. A [`Schedule`] repeats this with rising goals.
//!
//! [`Pruner`] makes a compressor of any importance over any source. The built-in ones are in
//! [`scores`], and [`registry`] lists them.
//!
//! # Example
//!
//! ```
//! use burn_compress_pruning::mask::{MaskConfig, MaskTarget, generate};
//! use burn_compress_pruning::scores::L1Norm;
//! use burn_compress_pruning::{Axes, Blocks, Granularity, Importance, PruningSettings, Schedule};
//!
//! let weight = [0.1, -0.2, 3.0, 4.0, -0.5, 0.5, 2.0, -1.0];
//! let axes = Axes::Parameter { output: Some(0), input: Some(1) };
//! let blocks = Blocks::of(&Granularity::OutChannel, &[4, 2], axes, &Granularity::Default)?;
//! let scores = L1Norm.score(&weight, &blocks);
//!
//! // After the first of two updates, 0.5 * (1 - (1 - 1/2)^3) = 0.4375 of the rows go.
//! let goal = PruningSettings { sparse_ratio: Some(0.5), ..Default::default() };
//! let factor = Schedule::agp(100, 2)?.progress(100);
//! let target = MaskTarget::new("fc.weight", blocks, goal.scaled(factor)).with_scores(scores);
//! let masks = generate(&[target], MaskConfig::new())?;
//! assert_eq!(masks["fc.weight"].keep(), [false, true, true, true]);
//! # Ok::<(), burn_compress_pruning::PruningError>(())
//! ```
#![warn(missing_docs)]

mod blocks;
mod config;
mod error;
mod fused;
mod gradual;
mod groups;
mod importance;
pub mod mask;
mod pattern;
mod pruner;
pub mod registry;
mod schedule;
pub mod scores;
mod settings;
pub mod sources;
mod timing;

pub use blocks::Blocks;
pub use built_in::*;
pub use burn_compress_core::{Axes, BlockError, Granularity, PadSide};
pub use config::{CutOf, PrunerConfig};
pub use error::PruningError;
pub use gradual::{AgpConfig, AgpPruner, LinearConfig, LinearPruner};
pub use importance::{Importance, Scale};
pub use pattern::Pattern;
pub use pruner::Pruner;
pub use registry::pruners;
pub use schedule::{Schedule, ScheduleKind};
pub use scores::built_in;
pub use settings::{Align, Normalizer, OnUnprunable, PruningRule, PruningSettings};
pub use sources::ScoreSource;
pub use timing::{Phase, Timing};
