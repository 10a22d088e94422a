//! TEMPORARY while the graph is being written.
#![allow(missing_docs, dead_code)]
mod capture;
mod dummy;
mod error;
pub(crate) mod ports;
pub use capture::{Captured, capture};
pub use dummy::*;
pub use error::GraphError;
pub struct ChannelGraph;
impl ChannelGraph { pub fn analyze(_: &Captured) -> Result<Self, GraphError> { Ok(Self) } }
