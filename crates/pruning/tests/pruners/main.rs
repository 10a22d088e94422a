//! Pruners on whole models: every registered one, groups over a model, observed outputs, random
//! models and settings.

mod global;
mod nets;
mod outputs;
mod properties;
mod registered;
