//! Targets that are decided together: dependency groups and global groups.

use std::fmt::Display;
use std::hash::Hash;

use super::ranking::{self, Ranking};
use super::target::{MaskConfig, MaskTarget, part, rounded};
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
    let parts = agreed_parts(group, members)?;
    let count = first.blocks.count();
    let size = count / parts;

    let means = mean_scores(members, count);
    // Infinities of both signs have no mean.
    if let Some(block) = means.iter().position(|mean| mean.is_nan()) {
        return Err(PruningError::NotANumber { block }.at(&first.key));
    }
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
        .map(|range| Ranking::new(&means[range.clone()], Some(&pruned(range))))
        .collect();

    let removed = match (ratio, threshold) {
        (Some(ratio), _) => part(size, within_all(group, members, ratio)?),
        // Equally many in each part: as many as lie below the threshold in every one of them.
        (None, Some(threshold)) => {
            let below = rankings.iter().map(|r| r.below(threshold)).min();
            let below = below.unwrap_or(0);
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
    let multiples = members.iter().filter_map(|m| m.settings.round_to);
    let multiple = multiples.fold(1, lcm);
    // So many in each part that all parts together keep a multiple.
    let removed = rounded(removed, size, multiple / gcd(multiple, parts));
    Ok(rankings
        .iter()
        .flat_map(|r| r.without_smallest(removed))
        .collect())
}

/// The number of parts that lose equally many blocks, after a check that all members have the same
/// grid and that the parts tile it.
fn agreed_parts<K: Clone + Eq + Hash + Display>(
    group: &str,
    members: &[&MaskTarget<K>],
) -> Result<usize, PruningError> {
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
    Ok(parts)
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
    let mut ranked = members
        .iter()
        .map(|member| Ranked::new(group, member))
        .collect::<Result<Vec<_>, _>>()?;
    let limit = |ranked: &Ranked, ratio: Option<f64>, without: f64| {
        part(ranked.size, ratio.unwrap_or(without)).min(config.removable(ranked.size))
    };
    let limits = |ratio: fn(&PruningSettings) -> Option<f64>, without: f64| -> Vec<usize> {
        let both = members.iter().zip(&ranked);
        both.map(|(m, ranked)| limit(ranked, ratio(&m.settings), without))
            .collect()
    };
    let mut removed = limits(|settings| settings.min_sparse_ratio, 0.0);
    let most = limits(|settings| settings.max_sparse_ratio, 1.0);

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
        let mut candidates: Vec<(u64, usize)> = Vec::new();
        for (m, ranked) in ranked.iter_mut().enumerate() {
            let free = ranked.keys_between(removed[m], most[m].max(removed[m]));
            candidates.extend(free.iter().map(|&key| (key, m)));
        }
        let weights = members.iter().zip(&ranked);
        let weights =
            weights.map(|(member, ranked)| member.blocks.block_len() * ranked.parts.len());
        let weights: Vec<usize> = weights.collect();
        let taken: usize = removed
            .iter()
            .zip(&weights)
            .map(|(n, weight)| n * weight)
            .sum();
        for m in smallest(&mut candidates, &weights, wanted.saturating_sub(taken)) {
            removed[m] += 1;
        }
    }
    let both = members.iter().zip(&ranked);
    let masks = both.zip(removed).map(|((member, ranked), removed)| {
        let multiple = member.settings.round_to.unwrap_or(1);
        let multiple = multiple / gcd(multiple, ranked.parts.len());
        ranked.without_smallest(rounded(removed, ranked.size, multiple))
    });
    Ok(masks.collect())
}

/// The members of the smallest candidates that weigh at most `budget` together, up to the first that
/// does not fit, in any order. Of equal keys those of the earlier member come first.
///
/// Halves the candidates in which the last one lies until it is found, in linear time.
fn smallest(candidates: &mut [(u64, usize)], weights: &[usize], budget: usize) -> Vec<usize> {
    let (mut taken, mut left, mut rest) = (Vec::new(), budget, candidates);
    while let Some(last) = rest.len().checked_sub(1) {
        let middle = last / 2;
        rest.select_nth_unstable(middle);
        let (lower, upper) = rest.split_at_mut(middle + 1);
        let weight: usize = lower.iter().map(|&(_, m)| weights[m]).sum();
        if weight <= left {
            left -= weight;
            taken.extend(lower.iter().map(|&(_, m)| m));
            rest = upper;
        } else if lower.len() > 1 {
            rest = lower;
        } else {
            break;
        }
    }
    taken
}

/// A member of a global group: the rankings of its internal blocks, which lose equally many.
struct Ranked {
    parts: Vec<Ranking>,
    /// The keys under which its blocks are ranked with those of others: of the `n`-th ones of all parts
    /// together.
    keys: Vec<u64>,
    size: usize,
}

impl Ranked {
    fn new<K: Clone + Eq + Hash + Display>(
        group: &str,
        member: &MaskTarget<K>,
    ) -> Result<Self, PruningError> {
        let count = member.blocks.count();
        let parts = member.settings.internal_metric_block.unwrap_or(1);
        if !count.is_multiple_of(parts) {
            let error = PruningError::InternalBlocks {
                group: group.to_string(),
                scores: count,
                blocks: parts,
            };
            return Err(error.at(&member.key));
        }
        let size = count / parts;
        let scores = member.scores.as_deref().unwrap_or_default();
        let pruned = |start: usize| member.pruned.as_ref().map(|p| &p[start..start + size]);
        let starts = || (0..parts).map(|part| part * size);
        let ranking = |start| Ranking::new(&scores[start..start + size], pruned(start));
        let keys = match parts {
            1 => ranking(0).keys().to_vec(),
            _ => {
                let keys = mean_keys(
                    starts().map(|start| ranking(start).sorted()).collect(),
                    size,
                );
                // Infinities of both signs have no mean.
                let infinite = || scores.iter().position(|score| score.is_infinite());
                keys.ok_or_else(|| {
                    let block = infinite().unwrap_or_default();
                    PruningError::NotANumber { block }.at(&member.key)
                })?
            }
        };
        Ok(Self {
            parts: starts().map(ranking).collect(),
            keys,
            size,
        })
    }

    /// The keys from the `low`-th smallest to before the `high`-th, in any order.
    fn keys_between(&mut self, low: usize, high: usize) -> &[u64] {
        if high < self.keys.len() {
            self.keys.select_nth_unstable(high);
        }
        let lower = &mut self.keys[..high];
        if low > 0 && low < high {
            lower.select_nth_unstable(low);
        }
        &lower[low..]
    }

    fn without_smallest(&self, removed: usize) -> Vec<bool> {
        let parts = self.parts.iter();
        parts
            .flat_map(|part| part.without_smallest(removed))
            .collect()
    }
}

/// The mean of the `n`-th smallest scores of all parts for each `n`, and whether one of these blocks is
/// known to be kept at present; none if there is no mean.
fn mean_keys(parts: Vec<Vec<u64>>, size: usize) -> Option<Vec<u64>> {
    let mean = |n: usize| {
        let scores = parts.iter().map(|keys| ranking::score(keys[n]));
        let mean = scores.map(f64::from).sum::<f64>() / parts.len() as f64;
        let kept = parts.iter().any(|keys| ranking::is_kept(keys[n]));
        (!mean.is_nan()).then(|| ranking::key(mean as f32, kept))
    };
    (0..size).map(mean).collect()
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
pub(crate) fn lcm(a: usize, b: usize) -> usize {
    (a / gcd(a, b)).saturating_mul(b)
}

pub(crate) fn gcd(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

#[cfg(test)]
mod tests;
