//! Shared code of the integration tests.

pub mod nets;
pub mod random_net;
pub mod reference;
