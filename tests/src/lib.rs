//! Shared code of the integration tests.

pub mod beyond;
pub mod chains;
pub mod nets;
pub mod random;
pub mod random_net;
pub mod reference;
pub mod zoo;
