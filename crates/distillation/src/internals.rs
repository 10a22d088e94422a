//! Parts of algorithms by themselves, for comparison with other implementations of them.
//!
//! Not part of the interface: what is here may change or go without notice.

pub use crate::feature::fitnets::hint_loss;
