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
//! one block of a target stays, unless [`MaskConfig`] turns that off. A threshold works in a
//! dependency group. A target can be aligned to an aligned one and to a vector. Equal scores are
//! cut at the exact count. Internal blocks have an effect in global groups too: the members' n-th
//! smallest of each part are ranked as one, by their mean. Patterns and rounding are additions.

mod align;
mod groups;
mod pattern;
mod ranking;
mod target;

use std::fmt::Display;
use std::hash::Hash;

use indexmap::IndexMap;

use crate::PruningError;
pub(crate) use align::check_dims;
pub(crate) use groups::{gcd, lcm};
pub use target::{MaskConfig, MaskTarget, TargetMask};
pub(crate) use target::{part, rounded};

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
            keeps[i] = Some(by_ratio(target, target.settings.clamped(ratio), config));
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
    let allowed = target.settings.clamped(sparsity);
    if allowed != sparsity {
        return by_ratio(target, allowed, config);
    }
    let removed = below.min(config.removable(count));
    ranking.without_smallest(target.rounded(removed, count))
}

#[cfg(test)]
mod tests;
