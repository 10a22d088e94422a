//! Targets that a configuration selects and a compressor cannot act on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::target::TargetId;

/// A selected target that a compressor cannot act on, with the reason and the remedy.
///
/// Either part of an error, or of the list of what a chain has left out on request, see
/// [`Compressor::skipped`](crate::Compressor::skipped).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obstacle {
    /// The target.
    pub target: TargetId,
    /// The type of its layer, `Conv2d`; empty where it cannot be known.
    pub kind: String,
    /// Reason why the compressor cannot act on it.
    pub reason: String,
    /// Remedy.
    pub remedy: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            kind,
            reason,
            remedy,
        } = self;
        match kind.as_str() {
            "" => write!(f, "`{target}`: {reason}; {remedy}"),
            kind => write!(f, "`{target}` ({kind}): {reason}; {remedy}"),
        }
    }
}
