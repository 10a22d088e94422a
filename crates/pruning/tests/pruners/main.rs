//! Pruners on whole models: every registered one, groups over a model, alignments, schedules,
//! observed outputs, half precision, goals and values that cannot be, random models and settings.

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
mod properties;
mod registered;
mod schedules;
mod scores;
mod values;
