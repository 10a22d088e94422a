//! N:M sparsity: of every M consecutive elements along the input dimension, N are kept.
//!
//! Written `"2:4"`: of four, two stay. Some processors multiply by such weights at a multiple of the
//! dense speed, at no loss of regularity. The consecutive elements are those that meet in one dot
//! product: along dim 0 of a linear weight `[in, out]`, along dim 1 of a convolution's weight
//! `[out, in / groups, ..]`.

mod checked;

use std::fmt;

use serde::{Deserialize, Serialize};

/// An N:M pattern: N of every M consecutive elements are kept.
///
/// ```
/// use burn_compress_pruning::Pattern;
///
/// let pattern: Pattern = "2:4".parse()?;
/// assert_eq!((pattern.kept(), pattern.of()), (2, 4));
/// assert!("4:2".parse::<Pattern>().is_err());
/// # Ok::<(), burn_compress_pruning::PruningError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pattern {
    kept: usize,
    of: usize,
}

impl Pattern {
    /// The number of elements that are kept.
    pub const fn kept(self) -> usize {
        self.kept
    }

    /// The number of consecutive elements among which they are.
    pub const fn of(self) -> usize {
        self.of
    }

    /// The pattern that removes the integer part of `factor` times as many elements.
    #[must_use]
    pub(crate) fn scaled(self, factor: f64) -> Self {
        let removed = (self.of - self.kept) as f64 * factor;
        let kept = self.of - (removed as usize).min(self.of - self.kept);
        Self { kept, ..self }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kept, self.of)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}
