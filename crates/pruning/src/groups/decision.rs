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
    /// The most blocks of one part that may go.
    pub(super) free: usize,
    /// Why some must stay, if it is not only that one of them has to.
    pub(super) reason: Option<String>,
    /// The elements of one block.
    pub(super) weight: usize,
    pub(super) coupled: bool,
    /// Where the masks are.
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

    /// How many blocks of each part go where `removed` may, once they are rounded.
    pub(super) fn rounded(&self, removed: usize) -> usize {
        let multiple = self.multiple(self.settings.round_to.unwrap_or(1));
        rounded(removed.min(self.free), self.size, multiple)
    }

    /// The most blocks of each part that the maximum lets go.
    pub(super) fn most(&self) -> usize {
        part(self.size, self.settings.clamped(1.0))
    }

    /// The setting that decides how much goes, and its value.
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
