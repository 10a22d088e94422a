//! Shared code of the integration tests.

pub use burn_compress_testkit::{nets, random};

pub mod beyond;
pub mod chains;
pub mod random_net;
pub mod random_ops;
pub mod reference;
pub mod zoo;
