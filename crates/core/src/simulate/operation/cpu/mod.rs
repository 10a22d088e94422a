//! The operations as loops over the memory of the processor, for `flex` and libtorch.
//!
//! Values are changed in place where nothing else holds them, and otherwise in the copy, chunk by
//! chunk while it is in the cache. The loops are compiled for the vector instructions of the
//! processor at hand; none of them changes a result.

mod extremes;
#[cfg(feature = "flex")]
mod flex;
mod learned;
#[cfg(feature = "tch")]
mod libtorch;
mod memory;
mod numbers;
mod repeated;
mod round;
mod rules;
mod values;
mod vector;

pub(super) use extremes::extremes;
pub(super) use learned::learned;
pub(super) use numbers::by_block;
pub(super) use round::{backward, forward};
