//! How often a training run reads its device, and what it finds out then.

mod counting;
mod failing;
mod sources;
