//! Sources of scores.
//!
//! A [`ScoreSource`] gives a number for each element of each parameter that is scored; an
//! [`Importance`](crate::Importance) makes one score a block of them.
//!
//! | source | number of an element |
//! |---|---|
//! | [`Weights`] | the weight |
//! | [`Gradients::taylor`] | sum over steps of (weight times gradient) squared |
//! | [`Gradients::fisher`] | squared weight times the sum over steps of the squared gradient |
//! | [`Outputs::magnitudes`] | sum over steps of the mean magnitude of its output channel |
//! | [`Outputs::zeros`] | sum over steps of the fraction of values of its output channel that are not positive |

mod accumulator;
mod block_broadcast;
mod block_parameters;
mod gradients;
mod outputs;
mod scale_invariance;
mod source;
mod weights;

pub use accumulator::Accumulator;
pub(crate) use block_broadcast::BlockBroadcast;
#[cfg(test)]
pub(crate) use block_parameters::tests as models;
pub(crate) use block_parameters::{
    BlockParameters, BlockValue, check_training_numbers, multiplied, penalised,
};
pub use gradients::Gradients;
pub use outputs::Outputs;
#[cfg(test)]
pub(crate) use scale_invariance::{advice, normed_layers};
pub use source::{Collector, ScoreSource, Scored, ScoredTarget, Visit};
pub use weights::{Weights, for_each_weight, read_weights};
