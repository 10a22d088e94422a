//! From scores to masks.
//!
//! [`generate`] decides for all targets of a pruner at once, in this order:
//!
//! 1. **Dependency groups.** The scores of the members are averaged, the smallest means are removed
//!    and all members get the same mask. With internal blocks, equally many are removed in each.
//!    A member's `global_group_id` is ignored.
//! 2. **Thresholds.** Blocks that score less are removed. When that leaves `[min, max]`, the target
//!    is pruned by ratio to the bound instead.
//! 3. **Global groups.** The blocks of all members are ranked together and removed, smallest first,
//!    until the next one would exceed `sparse_ratio` of the group's elements. A block weighs as
//!    many elements as it has.
//! 4. **Ratios.** Of `n` blocks, the `int(n * ratio)` smallest are removed, the ratio clamped to
//!    `[min, max]`.
//! 5. **Patterns.** Of every M consecutive elements along the input dim, the M - N smallest are
//!    removed.
//! 6. **Alignments.** A mask is copied from another target. On a target that has a threshold too,
//!    the masks multiply.
//!
//! # Rounding
//!
//! With `round_to`, fewer blocks are removed, so that the number of those that stay is a multiple of
//! it, or all stay. Rounding comes last and wins over `min_sparse_ratio`; a maximum holds all the
//! more. In a dependency group it is the number of blocks that all parts keep together that is a
//! multiple, of the least common multiple of the members' `round_to`. In a global group each member
//! is rounded after the ranking, so that the group's ratio is a limit that need not be reached.
//!
//! # Ties
//!
//! Blocks of equal score are removed in this order: those that are already pruned, then those of
//! the earlier target, then those of the lower index. The masks depend on nothing else, and with
//! scores of 0 for pruned blocks a rising goal brings no block back, but for one case: in a global
//! group, when the minimum of a member with large blocks grows by one of them.
//!
//! # References
//!
//! The rules are those of NNI 3.0 (<https://github.com/microsoft/nni>) with these deviations. A
//! maximum and minimum hold in dependency groups and for each member of a global group. At least
//! one block of a target stays, unless [`MaskConfig`] says otherwise. A threshold works in a
//! dependency group. A target can be aligned to an aligned one and to a vector. Equal scores are
//! cut at the exact count. Internal blocks have an effect in global groups too: the members' n-th
//! smallest of each part are ranked as one, by their mean. Patterns and rounding are additions.

mod align;
mod groups;
mod pattern;
mod ranking;

use std::fmt::Display;
use std::hash::Hash;

use indexmap::IndexMap;

use crate::{Axes, Blocks, PruningError, PruningSettings};
pub(crate) use align::check_dims;
pub(crate) use groups::{gcd, lcm};
use ranking::Ranking;

/// How masks are generated.
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

    /// How many of `count` blocks may be removed at most.
    fn removable(self, count: usize) -> usize {
        count - usize::from(self.keep_at_least_one && count > 0)
    }
}

/// A target whose mask is to be generated.
#[derive(Debug, Clone)]
pub struct MaskTarget<K> {
    key: K,
    blocks: Blocks,
    settings: PruningSettings,
    axes: Axes,
    scores: Option<Vec<f32>>,
    pruned: Option<Vec<bool>>,
    align: Option<(K, Vec<usize>)>,
    /// The mask, where it is decided elsewhere and only followed here.
    decided: Option<Vec<bool>>,
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

    /// Sets the source of the mask. A target whose settings have `align` needs it. The `dims` of the
    /// source correspond in order to those dims of this target that its blocks do not span.
    pub fn with_align(mut self, source: K, dims: Vec<usize>) -> Self {
        self.align = Some((source, dims));
        self
    }

    fn check(&self) -> Result<(), PruningError> {
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

    /// How many blocks are removed where `removed` were, of `count`, so that a multiple of
    /// `round_to` stays.
    fn rounded(&self, removed: usize, count: usize) -> usize {
        rounded(removed, count, self.settings.round_to.unwrap_or(1))
    }

    fn ranking(&self) -> Ranking {
        let scores = self.scores.as_deref().unwrap_or_default();
        Ranking::new(scores, self.pruned.as_deref())
    }

    /// The ratio `wanted` within this target's minimum and maximum.
    fn clamp(&self, wanted: f64) -> f64 {
        let wanted = self
            .settings
            .max_sparse_ratio
            .map_or(wanted, |max| wanted.min(max));
        self.settings
            .min_sparse_ratio
            .map_or(wanted, |min| wanted.max(min))
    }
}

/// The mask of a target, one decision for each block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetMask {
    blocks: Blocks,
    keep: Vec<bool>,
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

/// Generates the masks of `targets`, in their order.
///
/// # Errors
///
/// When settings are invalid or contradict each other within a group, scores are missing or NaN, or
/// an alignment has no source that fits. The error names the target.
///
/// # Example
///
/// ```
/// use burn_compress_pruning::mask::{MaskConfig, MaskTarget, generate};
/// use burn_compress_pruning::{Blocks, PruningSettings};
///
/// let settings = PruningSettings { sparse_ratio: Some(0.5), ..Default::default() };
/// let rows = Blocks::new(&[4, 2], &[1, -1])?;
/// let target = MaskTarget::new("fc.weight", rows, settings).with_scores(vec![3.0, 1.0, 4.0, 2.0]);
/// let masks = generate(&[target], MaskConfig::new())?;
/// assert_eq!(masks["fc.weight"].keep(), [true, false, true, false]);
/// # Ok::<(), burn_compress_pruning::PruningError>(())
/// ```
pub fn generate<K: Clone + Eq + Hash + Display>(
    targets: &[MaskTarget<K>],
    config: MaskConfig,
) -> Result<IndexMap<K, TargetMask>, PruningError> {
    let mut index = IndexMap::new();
    for (i, target) in targets.iter().enumerate() {
        let at = |error: PruningError| error.at(&target.key);
        target.check().map_err(at)?;
        if index.insert(target.key.clone(), i).is_some() {
            return Err(PruningError::Duplicate.at(&target.key));
        }
    }

    let mut dependency: IndexMap<&str, Vec<usize>> = IndexMap::new();
    let mut global: IndexMap<&str, Vec<usize>> = IndexMap::new();
    let mut keeps: Vec<Option<Vec<bool>>> = vec![None; targets.len()];
    for (i, target) in targets.iter().enumerate() {
        let settings = &target.settings;
        if let Some(keep) = &target.decided {
            keeps[i] = Some(keep.clone());
        } else if let Some(group) = &settings.dependency_group_id {
            dependency.entry(group).or_default().push(i);
        } else if let Some(threshold) = settings.sparse_threshold {
            keeps[i] = Some(by_threshold(target, threshold, config));
        } else if let Some(group) = &settings.global_group_id {
            global.entry(group).or_default().push(i);
        } else if let Some(ratio) = settings.sparse_ratio {
            keeps[i] = Some(by_ratio(target, target.clamp(ratio), config));
        } else if let Some(pattern) = settings.pattern {
            let keep = pattern::keep(target, pattern);
            keeps[i] = Some(keep.map_err(|error| error.at(&target.key))?);
        }
    }
    for (group, indices) in dependency {
        let members: Vec<_> = indices.iter().map(|&i| &targets[i]).collect();
        let keep = groups::dependency(group, &members, config)?;
        for i in indices {
            keeps[i] = Some(keep.clone());
        }
    }
    for (group, indices) in global {
        let members: Vec<_> = indices.iter().map(|&i| &targets[i]).collect();
        let masks = groups::global(group, &members, config)?;
        for (i, keep) in indices.into_iter().zip(masks) {
            keeps[i] = Some(keep);
        }
    }
    let keeps = align::resolve(targets, &index, keeps)?;

    let masks = targets.iter().zip(keeps).map(|(target, keep)| {
        let blocks = target.blocks.clone();
        (target.key.clone(), TargetMask { blocks, keep })
    });
    Ok(masks.collect())
}

/// How many of `count` blocks are `ratio` of them: the integer part in double precision.
pub(crate) fn part(count: usize, ratio: f64) -> usize {
    (count as f64 * ratio) as usize
}

/// How many blocks are removed where `removed` were, of `count`, so that a multiple of `multiple`
/// stays, or all do.
pub(crate) fn rounded(removed: usize, count: usize, multiple: usize) -> usize {
    let kept = (count - removed)
        .div_ceil(multiple)
        .saturating_mul(multiple);
    count.saturating_sub(kept)
}

fn by_ratio<K: Clone + Eq + Hash + Display>(
    target: &MaskTarget<K>,
    ratio: f64,
    config: MaskConfig,
) -> Vec<bool> {
    let count = target.blocks.count();
    let removed = part(count, ratio).min(config.removable(count));
    target
        .ranking()
        .without_smallest(target.rounded(removed, count))
}

fn by_threshold<K: Clone + Eq + Hash + Display>(
    target: &MaskTarget<K>,
    threshold: f64,
    config: MaskConfig,
) -> Vec<bool> {
    let ranking = target.ranking();
    let below = ranking.below(threshold);
    let count = target.blocks.count();
    let sparsity = below as f64 / count as f64;
    let allowed = target.clamp(sparsity);
    if allowed != sparsity {
        return by_ratio(target, allowed, config);
    }
    let removed = below.min(config.removable(count));
    ranking.without_smallest(target.rounded(removed, count))
}

#[cfg(test)]
mod tests;
