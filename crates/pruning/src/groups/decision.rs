//! One decision of a pruner, counted in blocks.

use std::sync::Arc;

use burn_compress_core::{TargetId, TargetSpace};

use crate::PruningSettings;
use crate::mask::{gcd, part, rounded};

/// One decision: about a target, coupled channels, or a dependency group.
pub(super) struct Decision {
    /// The targets that have a score, of which an error names the first.
    pub(super) targets: Vec<TargetId>,
    pub(super) settings: PruningSettings,
    /// The number of equal parts, each of which loses equally many blocks.
    pub(super) parts: usize,
    /// The blocks of one part.
    pub(super) size: usize,
    /// Largest number of blocks of one part that may be removed.
    pub(super) free: usize,
    /// Reason that keeps blocks, unless it is only that one must stay.
    pub(super) reason: Option<String>,
    /// The elements of one block.
    pub(super) weight: usize,
    pub(super) coupled: bool,
    /// States that hold the masks.
    pub(super) spaces: Vec<Arc<TargetSpace>>,
}

impl Decision {
    /// The target that an error names.
    pub(super) fn target(&self) -> String {
        self.targets
            .first()
            .map(TargetId::to_string)
            .unwrap_or_default()
    }

    pub(super) fn blocks(&self) -> usize {
        self.parts * self.size
    }

    pub(super) fn what(&self) -> &'static str {
        match (self.coupled, self.blocks()) {
            (true, 1) => "channel",
            (true, _) => "channels",
            (false, 1) => "block",
            (false, _) => "blocks",
        }
    }

    /// The multiple of which each part keeps so many blocks that all keep one of `round_to`.
    pub(super) fn multiple(&self, round_to: usize) -> usize {
        round_to / gcd(round_to, self.parts)
    }

    /// Number of blocks of each part that are removed where `removed` may be, after rounding.
    pub(super) fn rounded(&self, removed: usize) -> usize {
        let multiple = self.multiple(self.settings.round_to.unwrap_or(1));
        rounded(removed.min(self.free), self.size, multiple)
    }

    /// Largest number of blocks of each part that the maximum allows to remove.
    pub(super) fn most(&self) -> usize {
        part(self.size, self.settings.clamped(1.0))
    }

    /// Setting that decides the sparsity, and its value.
    pub(super) fn key(&self) -> (&'static str, f64) {
        let settings = &self.settings;
        match (settings.sparse_threshold, settings.sparse_ratio) {
            (Some(threshold), _) => ("sparse_threshold", threshold),
            (None, ratio) => {
                let ratio = ratio.unwrap_or(0.0);
                let clamped = settings.clamped(ratio);
                if clamped < ratio {
                    ("max_sparse_ratio", clamped)
                } else if clamped > ratio {
                    ("min_sparse_ratio", clamped)
                } else {
                    ("sparse_ratio", ratio)
                }
            }
        }
    }
}
