//! Files that are written whole or not at all, and sealed ones that are read whole or not at all.
//!
//! Checkpoints, small models and teacher caches are [`Seal`]ed files; each has a magic number and a
//! version of its own.

pub(crate) mod checkpoint;
mod replace;
mod sealed;

pub use replace::{check_writable, write_whole};
pub use sealed::{Checksum, Seal, SealError};

#[cfg(test)]
mod tests;
