//! Targets that are decided together: dependency groups and global groups.

use std::fmt::Display;
use std::hash::Hash;

use super::ranking::{Ranking, compare};
use super::{MaskConfig, MaskTarget, part};
use crate::{PruningError, PruningSettings};

/// The one mask of a dependency group.
///
/// The members' scores are averaged, raw and not scaled to each other. Blocks correspond by their
/// position in the grid without its dims of size 1, so that the rows of one weight can depend on
/// the columns of another.
pub(super) fn dependency<K: Clone + Eq + Hash + Display>(
    group: &str,
    members: &[&MaskTarget<K>],
    config: MaskConfig,
) -> Result<Vec<bool>, PruningError> {
    let ratio = agreed(group, members, "sparse_ratio", |s| s.sparse_ratio)?;
    let threshold = agreed(group, members, "sparse_threshold", |s| s.sparse_threshold)?;
    let first = members[0];
    let grid = first.blocks.squeezed_grid();
    for member in members {
        let found = member.blocks.squeezed_grid();
        if found != grid {
            let error = PruningError::GroupShape {
                group: group.to_string(),
                found,
                expected: grid,
                member: first.key.to_string(),
            };
            return Err(error.at(&member.key));
        }
    }

    let count = first.blocks.count();
    let mut parts = 1;
    for member in members {
        parts = lcm(parts, member.settings.internal_metric_block.unwrap_or(1));
        if !count.is_multiple_of(parts) {
            let error = PruningError::InternalBlocks {
                group: group.to_string(),
                scores: count,
                blocks: parts,
            };
            return Err(error.at(&member.key));
        }
    }
    let size = count / parts;

    let means = mean_scores(members, count);
    let pruned = |range: std::ops::Range<usize>| -> Vec<bool> {
        range
            .map(|i| {
                members
                    .iter()
                    .all(|m| m.pruned.as_ref().is_some_and(|p| p[i]))
            })
            .collect()
    };
    let rankings: Vec<Ranking> = (0..parts)
        .map(|p| p * size..(p + 1) * size)
        .map(|range| Ranking::new(means[range.clone()].to_vec(), Some(&pruned(range))))
        .collect();

    let removed = match (ratio, threshold) {
        (Some(ratio), _) => part(size, within_all(group, members, ratio)?),
        // Equally many in each part: as many as lie below the threshold in every one of them.
        (None, Some(threshold)) => {
            let below = rankings
                .iter()
                .map(|r| r.below(threshold))
                .min()
                .unwrap_or(0);
            let sparsity = below as f64 / size as f64;
            let allowed = within_all(group, members, sparsity)?;
            if allowed == sparsity {
                below
            } else {
                part(size, allowed)
            }
        }
        (None, None) => return Err(PruningError::NoGoal.at(&first.key)),
    };
    let removed = removed.min(config.removable(size));
    Ok(rankings
        .iter()
        .flat_map(|r| r.without_smallest(removed))
        .collect())
}

/// The masks of a global group, in the order of its members.
pub(super) fn global<K: Clone + Eq + Hash + Display>(
    group: &str,
    members: &[&MaskTarget<K>],
    config: MaskConfig,
) -> Result<Vec<Vec<bool>>, PruningError> {
    let ratio = agreed(group, members, "sparse_ratio", |s| s.sparse_ratio)?.unwrap_or(0.0);
    let total: usize = members.iter().map(|m| m.blocks.elements_count()).sum();
    let wanted = part(total, ratio);
    let limit = |member: &MaskTarget<K>, ratio: Option<f64>, without: f64| {
        let count = member.blocks.count();
        part(count, ratio.unwrap_or(without)).min(config.removable(count))
    };

    let rankings: Vec<Ranking> = members.iter().map(|m| m.ranking()).collect();
    let mut removed: Vec<usize> = members
        .iter()
        .map(|m| limit(m, m.settings.min_sparse_ratio, 0.0))
        .collect();
    let most: Vec<usize> = members
        .iter()
        .map(|m| limit(m, m.settings.max_sparse_ratio, 1.0))
        .collect();

    // The minima in elements, before they are rounded to whole blocks.
    let minima: usize = members
        .iter()
        .map(|m| {
            part(
                m.blocks.elements_count(),
                m.settings.min_sparse_ratio.unwrap_or(0.0),
            )
        })
        .sum();
    if wanted > minima {
        let mut candidates: Vec<(f32, bool, usize)> = Vec::new();
        for (m, ranking) in rankings.iter().enumerate() {
            let pruned = members[m].pruned.as_deref();
            candidates.extend(
                ranking.order()[removed[m]..most[m].max(removed[m])]
                    .iter()
                    .map(|&block| {
                        let kept = pruned.is_some_and(|pruned| !pruned[block]);
                        (ranking.score(block), kept, m)
                    }),
            );
        }
        // The sort is stable: within a member, and from member to member, the order stays.
        candidates.sort_by(|a, b| compare(a.0, b.0).then(a.1.cmp(&b.1)));
        let weight = |m: usize| members[m].blocks.block_len();
        let mut elements: usize = removed.iter().enumerate().map(|(m, n)| n * weight(m)).sum();
        for (_, _, m) in candidates {
            elements += weight(m);
            if elements > wanted {
                break;
            }
            removed[m] += 1;
        }
    }
    Ok(rankings
        .iter()
        .zip(removed)
        .map(|(ranking, removed)| ranking.without_smallest(removed))
        .collect())
}

/// The value of a setting on which all members agree.
fn agreed<K: Display, V: PartialEq + ToString + Copy>(
    group: &str,
    members: &[&MaskTarget<K>],
    key: &'static str,
    setting: impl Fn(&PruningSettings) -> Option<V>,
) -> Result<Option<V>, PruningError> {
    let show = |value: Option<V>| value.map_or("not set".to_string(), |v| v.to_string());
    let expected = setting(&members[0].settings);
    for member in members {
        let found = setting(&member.settings);
        if found != expected {
            let error = PruningError::GroupSetting {
                group: group.to_string(),
                key,
                found: show(found),
                expected: show(expected),
                member: members[0].key.to_string(),
            };
            return Err(error.at(&member.key));
        }
    }
    Ok(expected)
}

/// The ratio `wanted` within the minimum and maximum of every member.
fn within_all<K: Clone + Eq + Hash + Display>(
    group: &str,
    members: &[&MaskTarget<K>],
    wanted: f64,
) -> Result<f64, PruningError> {
    let highest = members
        .iter()
        .filter_map(|m| Some((m, m.settings.min_sparse_ratio?)))
        .reduce(|a, b| if b.1 > a.1 { b } else { a });
    let lowest = members
        .iter()
        .filter_map(|m| Some((m, m.settings.max_sparse_ratio?)))
        .reduce(|a, b| if b.1 < a.1 { b } else { a });
    if let (Some((low, min)), Some((high, max))) = (highest, lowest)
        && min > max
    {
        let error = PruningError::GroupSetting {
            group: group.to_string(),
            key: "min_sparse_ratio",
            found: min.to_string(),
            expected: format!("at most {max}, the `max_sparse_ratio`,"),
            member: high.key.to_string(),
        };
        return Err(error.at(&low.key));
    }
    let wanted = lowest.map_or(wanted, |(_, max)| wanted.min(max));
    Ok(highest.map_or(wanted, |(_, min)| wanted.max(min)))
}

fn mean_scores<K>(members: &[&MaskTarget<K>], count: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; count];
    for member in members {
        for (sum, &score) in sums.iter_mut().zip(member.scores.iter().flatten()) {
            *sum += f64::from(score);
        }
    }
    let n = members.len() as f64;
    sums.into_iter().map(|sum| (sum / n) as f32).collect()
}

/// The least common multiple; one that overflows is more than any number of blocks.
fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b)
}
