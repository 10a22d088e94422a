//! Bad input, one kind after the other: a typed error that says where, what was found and what to
//! do, and never a panic.

mod configuration;
mod files;
mod fixtures;
mod masks_and_scales;
mod model;
mod sources;
mod training;
mod unfinished;
mod unprunable;
