//! Pruners on whole models: every registered one, importances and sources of a user's own, groups
//! over a model, alignments, schedules, observed outputs, half precision, goals and values that
//! cannot be, random models and settings.

mod aligned;
mod batches;
mod behind;
mod frozen;
mod global;
mod goals;
mod half;
mod joined;
mod nets;
mod outputs;
mod own;
mod properties;
mod registered;
mod schedules;
mod scores;
mod values;
