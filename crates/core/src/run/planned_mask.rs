//! A mask before the run that makes it.

use serde::{Deserialize, Serialize};

use crate::simulate::mask::Mask;
use crate::target::TargetId;

/// A mask that a run would leave if no score were better than another.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedMask {
    /// The target.
    pub target: TargetId,
    /// A mask that removes as much as the run is going to.
    pub mask: Mask,
    /// Certainty of the mask.
    pub certainty: Certainty,
}

/// Certainty of a mask, or of a cut, before the run that makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Number and choice of the removed blocks are known.
    #[default]
    Decided,
    /// Their number is known, and the run chooses them.
    Counted,
    /// Their number depends on the run, for this reason: a threshold, for example.
    Estimated(String),
}

impl Certainty {
    /// The less certain of two, the first one among equals.
    pub fn and(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Decided, _) | (Self::Counted, Self::Estimated(_)) => other,
            _ => self,
        }
    }
}
