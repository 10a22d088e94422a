//! Shared code of the integration tests.

pub mod random_net;
pub mod nets;
pub mod reference;
