//! Teachers: one or several, with a cache or without, and the mean of their outputs.

pub mod aggregation;
mod cache;
mod fingerprint;
mod set;
mod source;
mod teachers;

pub use aggregation::TeacherAggregation;
pub(crate) use aggregation::mean_loss;
pub use cache::TeacherCache;
pub(crate) use set::TeacherSet;
pub use teachers::{Teacher, Teachers};
