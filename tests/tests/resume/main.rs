//! A run that was stopped and resumed ends bit for bit like one that was not.
//!
//! Dropout draws from the one random generator that a device has, so the tests of this binary take
//! turns.

mod changed;
mod equality;
mod fixtures;
mod learner;
mod refusals;
mod saving;
