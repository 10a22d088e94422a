//! The input and the result of a generation of masks.

use std::fmt::Display;
use std::hash::Hash;

use super::ranking::Ranking;
use crate::{Axes, Blocks, PruningError, PruningSettings};

/// Settings of mask generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskConfig {
    /// Whether the highest score of each target survives whatever its goal is, and the highest of
    /// each internal block in a dependency group. True by default: a layer without channels cannot
    /// be executed. It wins over `min_sparse_ratio`.
    pub keep_at_least_one: bool,
}

impl Default for MaskConfig {
    fn default() -> Self {
        Self {
            keep_at_least_one: true,
        }
    }
}

impl MaskConfig {
    /// The default configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether the highest score of each target survives.
    pub fn with_keep_at_least_one(mut self, keep_at_least_one: bool) -> Self {
        self.keep_at_least_one = keep_at_least_one;
        self
    }

    /// Largest number of `count` blocks that may be removed.
    pub(super) fn removable(self, count: usize) -> usize {
        count - usize::from(self.keep_at_least_one && count > 0)
    }
}

/// A target whose mask is to be generated.
#[derive(Debug, Clone)]
pub struct MaskTarget<K> {
    pub(super) key: K,
    pub(super) blocks: Blocks,
    pub(crate) settings: PruningSettings,
    pub(super) axes: Axes,
    pub(super) scores: Option<Vec<f32>>,
    pub(super) pruned: Option<Vec<bool>>,
    pub(super) align: Option<(K, Vec<usize>)>,
    /// The mask, where it is decided elsewhere and only followed here.
    pub(super) decided: Option<Vec<bool>>,
}

impl<K: Clone + Eq + Hash + Display> MaskTarget<K> {
    /// A target with the settings in force, after a schedule has scaled them.
    pub fn new(key: K, blocks: Blocks, settings: PruningSettings) -> Self {
        Self {
            key,
            blocks,
            settings,
            axes: Axes::Parameter {
                output: None,
                input: None,
            },
            scores: None,
            pruned: None,
            align: None,
            decided: None,
        }
    }

    /// A target whose mask is known, for others to be aligned to.
    pub(crate) fn decided(key: K, blocks: Blocks, keep: Vec<bool>) -> Self {
        Self {
            decided: Some(keep),
            ..Self::new(key, blocks, PruningSettings::default())
        }
    }

    /// Sets one score for each block. A target with a ratio or a threshold needs them.
    pub fn with_scores(mut self, scores: Vec<f32>) -> Self {
        self.scores = Some(scores);
        self
    }

    /// Sets where the channels are. A target with a pattern needs the input dim.
    pub fn with_axes(mut self, axes: Axes) -> Self {
        self.axes = axes;
        self
    }

    /// Sets the mask in force, one value for each block, true where it is kept. It decides ties
    /// only; scores count as they are.
    pub fn with_current(mut self, keep: &[bool]) -> Self {
        self.pruned = Some(keep.iter().map(|keep| !keep).collect());
        self
    }

    /// Sets the source of the mask. A target whose settings have `align` needs it. The `dims` of
    /// the source correspond in order to those dims of this target that its blocks do not span.
    pub fn with_align(mut self, source: K, dims: Vec<usize>) -> Self {
        self.align = Some((source, dims));
        self
    }

    pub(super) fn check(&self) -> Result<(), PruningError> {
        if self.decided.is_some() {
            return Ok(());
        }
        self.settings.check_scaled()?;
        match (&self.settings.align, &self.align) {
            (Some(align), None) => {
                let from = align.target_name.to_string();
                return Err(PruningError::AlignSource { from });
            }
            (None, Some(_)) => {
                let (key, requires) = ("source of an alignment", "align");
                return Err(PruningError::Requires { key, requires });
            }
            _ => {}
        }
        let expected = self.blocks.count();
        let lengths = [
            ("scores", self.scores.as_ref().map(Vec::len)),
            (
                "values of the current mask",
                self.pruned.as_ref().map(Vec::len),
            ),
        ];
        for (what, found) in lengths {
            if let Some(found) = found.filter(|&found| found != expected) {
                return Err(PruningError::Length {
                    what,
                    found,
                    expected,
                });
            }
        }
        if self.settings.is_active() && self.scores.is_none() {
            return Err(PruningError::Length {
                what: "scores",
                found: 0,
                expected,
            });
        }
        let nan = |scores: &Vec<f32>| scores.iter().position(|score| score.is_nan());
        match self.scores.as_ref().and_then(nan) {
            Some(block) => Err(PruningError::NotANumber { block }),
            None => Ok(()),
        }
    }

    /// Number of removed blocks of `count`, at most `removed`, so that a multiple of `round_to`
    /// stays.
    pub(super) fn rounded(&self, removed: usize, count: usize) -> usize {
        rounded(removed, count, self.settings.round_to.unwrap_or(1))
    }

    pub(super) fn ranking(&self) -> Ranking {
        let scores = self.scores.as_deref().unwrap_or_default();
        Ranking::new(scores, self.pruned.as_deref())
    }
}

/// The mask of a target, one decision for each block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetMask {
    pub(super) blocks: Blocks,
    pub(super) keep: Vec<bool>,
}

impl TargetMask {
    /// The blocks of the target.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Whether each block is kept, in row-major order of the grid.
    pub fn keep(&self) -> &[bool] {
        &self.keep
    }

    /// The fraction that is removed.
    pub fn sparsity(&self) -> f64 {
        let removed = self.keep.iter().filter(|keep| !**keep).count();
        removed as f64 / self.keep.len() as f64
    }

    /// The mask in the target's shape, 1 where it is kept and 0 where it is removed.
    pub fn expand(&self) -> Vec<f32> {
        self.blocks.expand(&self.keep)
    }

    /// The mask in the smallest shape that broadcasts to the target's, and that shape.
    pub fn expand_broadcast(&self) -> (Vec<f32>, Vec<usize>) {
        self.blocks.expand_broadcast(&self.keep)
    }
}

/// Number of blocks that are `ratio` of `count`: the integer part in double precision.
pub(crate) fn part(count: usize, ratio: f64) -> usize {
    (count as f64 * ratio) as usize
}

/// Number of removed blocks of `count`, at most `removed`, so that a multiple of `multiple` stays,
/// or all do.
pub(crate) fn rounded(removed: usize, count: usize, multiple: usize) -> usize {
    let kept = (count - removed)
        .div_ceil(multiple)
        .saturating_mul(multiple);
    count.saturating_sub(kept)
}
