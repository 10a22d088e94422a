//! Properties of pruning and speedup on random networks.
//!
//! A small model computes what the simulated model does, on inputs that the speedup has not seen;
//! what it saved is recounted from its shapes; masks remove exactly as many channels as configured.
//! Equality is shown twice: in single precision with the tolerance of the speedup, and in double
//! precision, where no rounding can hide or feign a difference.
//!
//! The cases are the same in every run. `PROPTEST_RNG_SEED` draws others.

mod comparison;
mod groups;
mod harness;
mod masks;
mod pruned;
mod small_models;
mod strategy;
mod unprunable;
