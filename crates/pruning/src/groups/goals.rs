//! Goals that remove nothing: found before the training where they do not depend on the scores, else
//! reported after it.
//!
//! A goal is a number of blocks once it is rounded: a ratio is cut to an integer, `round_to` keeps
//! more, one block always stays.
//!
//! - Nothing can be removed at any ratio, or nothing is left by `round_to`: an error.
//! - The ratio is less than one block: a warning before the run and after it.
//!
//! Only the goal at the end of a schedule counts; earlier ones may be less than one block.

use std::sync::Arc;

use burn_compress_core::TargetSpace;
use indexmap::IndexMap;

use super::decision::Decision;
use crate::PruningError;
use crate::mask::{part, rounded};

/// A positive goal that removes nothing, whatever the scores are.
struct Nothing {
    /// The target, or the global group.
    of: String,
    error: PruningError,
    /// Whether the goal is less than one block, rather than impossible.
    too_small: bool,
}

/// Rejects positive goals that can remove nothing, all of them at once.
pub(super) fn check_goals(decisions: &[Decision]) -> Result<(), PruningError> {
    let impossible = nothing(decisions)
        .into_iter()
        .filter(|goal| !goal.too_small);
    PruningError::all(impossible.map(|goal| goal.error).collect())
}

/// Warns of positive goals that are less than one block.
pub(super) fn warn_of_goals(pruner: &'static str, decisions: &[Decision]) {
    for goal in nothing(decisions).iter().filter(|goal| goal.too_small) {
        log::warn!("{pruner}: {}", goal.error);
    }
}

/// One warning for each positive goal that has removed nothing.
pub(super) fn unchanged(decisions: &[Decision]) -> Vec<String> {
    let nothing = nothing(decisions);
    let mut sentences: Vec<String> = nothing.iter().map(|n| n.error.to_string()).collect();
    let unknown = |of: &str| nothing.iter().all(|nothing| nothing.of != of);
    let mut global: IndexMap<&str, Vec<&Decision>> = IndexMap::new();
    for decision in decisions {
        match &decision.settings.global_group_id {
            Some(group) => global.entry(group).or_default().push(decision),
            None if decision.is_unchanged() && unknown(&decision.target()) => {
                let (target, (key, value)) = (decision.target(), decision.key());
                let (blocks, what) = (decision.blocks(), decision.what());
                sentences.push(format!(
                    "{target}: `{key}` {value} removed none of its {blocks} {what}: too few \
                     scores are below it"
                ));
            }
            None => {}
        }
    }
    for (group, members) in global {
        let reported = !unknown(group) || members.iter().any(|m| !unknown(&m.target()));
        if members.iter().all(|member| member.is_unchanged()) && !reported {
            let (key, value) = members[0].key();
            sentences.push(format!(
                "global group `{group}`: `{key}` {value} removed nothing of its {} targets: the \
                 first to go is more than that",
                members.len()
            ));
        }
    }
    sentences
}

/// The positive goals that remove nothing, whatever the scores are.
fn nothing(decisions: &[Decision]) -> Vec<Nothing> {
    let mut found = Vec::new();
    let mut global: IndexMap<&str, Vec<&Decision>> = IndexMap::new();
    for decision in decisions {
        match &decision.settings.global_group_id {
            Some(group) => {
                // How much of a ratio falls to one member, the scores decide.
                found.extend(decision.at_most());
                global.entry(group).or_default().push(decision);
            }
            None => found.extend(decision.of_goal()),
        }
    }
    let groups = global.iter();
    found.extend(groups.filter_map(|(group, members)| of_group(group, members)));
    found
}

impl Decision {
    fn is_unchanged(&self) -> bool {
        let (_, value) = self.key();
        let removes = |space: &Arc<TargetSpace>| {
            let mask = space.mask();
            mask.is_some_and(|mask| mask.removed() > 0)
        };
        let positive = self.settings.sparse_threshold.is_some() || value > 0.0;
        positive && !self.spaces.iter().any(removes)
    }

    /// The error of a positive goal where all blocks must stay.
    pub(super) fn stuck(&self) -> Option<PruningError> {
        let nothing = (self.free == 0).then(|| self.of_count(self.size, self.key()));
        nothing.flatten().map(|nothing| nothing.error)
    }

    /// Whether the goal of what is decided alone removes nothing.
    fn of_goal(&self) -> Option<Nothing> {
        let Some(threshold) = self.settings.sparse_threshold else {
            let (key, value) = self.key();
            return self.of_count(part(self.size, value), (key, value));
        };
        let least = part(self.size, self.settings.min_sparse_ratio.unwrap_or(0.0));
        // No score is negative. A threshold is one in single precision, as the scores are.
        if threshold as f32 <= 0.0 && self.rounded(least) == 0 {
            let reason = "no score is below it".to_string();
            let advice = "set it above 0".to_string();
            return Some(self.nothing(self.key(), reason, advice, false));
        }
        self.at_most()
    }

    /// Whether nothing is removed even at the maximum.
    fn at_most(&self) -> Option<Nothing> {
        let most = self.most();
        match self.settings.max_sparse_ratio {
            Some(max) if most == 0 => self.of_count(most, ("max_sparse_ratio", max)),
            _ => self.of_count(most, self.key()),
        }
    }

    /// Whether none of the `wanted` blocks of each part is removed.
    fn of_count(&self, wanted: usize, key: (&'static str, f64)) -> Option<Nothing> {
        let (name, value) = key;
        let positive = self.settings.sparse_threshold.is_some() || value > 0.0;
        if !positive || self.rounded(wanted) > 0 {
            return None;
        }
        let exclude = self.exclude();
        let (blocks, parts) = (self.blocks(), self.parts);
        let least = (1..=self.free).find(|&removed| self.rounded(removed) > 0);
        let enough = least.map(|removed| effective_ratio(removed, self.size));
        let (reason, advice) = if self.free == 0 {
            match (blocks, self.coupled) {
                (1, false) => (
                    "one always stays".to_string(),
                    format!("give a `granularity` of smaller blocks, or {exclude}"),
                ),
                (1, true) => (
                    "the graph joins all of its output channels to one, which can only go as a whole"
                        .to_string(),
                    exclude.clone(),
                ),
                _ => {
                    let why = self.reason.as_deref();
                    let why = why.map(|why| format!(": a channel of them {why}"));
                    let why = why.unwrap_or_default();
                    let reason = match self.size {
                        1 => format!(
                            "they are {parts} parts that lose equally many, and the only one of \
                             each stays{why}"
                        ),
                        _ => format!("all of them must stay{why}"),
                    };
                    (reason, exclude.clone())
                }
            }
        } else if wanted == 0 {
            let of = match parts {
                1 => format!("{blocks}"),
                _ => format!("the {} in each of {parts} parts", self.size),
            };
            let advice = match enough {
                Some(enough) => format!("set `{name}` to at least {enough}, or {exclude}"),
                None => exclude.clone(),
            };
            (format!("{value} of {of} is less than one"), advice)
        } else {
            let round_to = self.settings.round_to.unwrap_or(1);
            let wanted = wanted.min(self.free);
            let fits = |&to: &usize| rounded(wanted, self.size, self.multiple(to)) > 0;
            let fitting = (1..round_to.min(blocks)).rev().find(fits).unwrap_or(1);
            let fixed = self.settings.global_group_id.is_none() && name != "sparse_threshold";
            let (bound, enough) = match fixed {
                true => ("", enough),
                false => ("at least ", None),
            };
            let kept = (self.size - wanted) * parts;
            let reason = format!(
                "it keeps {bound}{kept}, which `round_to` {round_to} rounds up to all of them"
            );
            let or = enough.map(|enough| format!(" or `{name}` to at least {enough}"));
            let or = or.unwrap_or_default();
            let advice = format!("set `round_to` to {fitting}{or}, or {exclude}");
            (reason, advice)
        };
        let too_small = self.free > 0 && wanted == 0;
        Some(self.nothing(key, reason, advice, too_small))
    }

    /// The advice to leave out the targets, by name where there are several.
    fn exclude(&self) -> String {
        match &self.targets[..] {
            [] | [_] => "exclude it from the configuration".to_string(),
            targets => {
                let names: Vec<String> = targets.iter().map(|id| format!("`{id}`")).collect();
                format!("exclude {} from the configuration", names.join(", "))
            }
        }
    }

    fn nothing(
        &self,
        key: (&'static str, f64),
        reason: String,
        advice: String,
        too_small: bool,
    ) -> Nothing {
        let error = PruningError::RemovesNothing {
            targets: self.targets.clone().into(),
            key: key.0,
            value: key.1,
            blocks: self.blocks(),
            what: self.what().to_string(),
            reason,
            advice,
        };
        Nothing {
            of: self.target(),
            error: error.at(self.target()),
            too_small,
        }
    }
}

/// Whether the ratio of a global group is less than any block of its members.
fn of_group(group: &str, members: &[&Decision]) -> Option<Nothing> {
    let first = members.first()?;
    let ratio = first.settings.sparse_ratio.unwrap_or(0.0);
    let total: usize = members.iter().map(|m| m.blocks() * m.weight).sum();
    let wanted = part(total, ratio);
    let least = |member: &Decision| {
        let most = member.free.min(member.most());
        let removed = (1..=most).find(|&removed| member.rounded(removed) > 0)?;
        Some(removed * member.parts * member.weight)
    };
    let possible = members.iter().any(|member| {
        let minimum = part(member.size, member.settings.min_sparse_ratio.unwrap_or(0.0));
        let affordable = wanted / (member.parts * member.weight);
        member.rounded(minimum.max(affordable.min(member.most()))) > 0
    });
    if possible || ratio == 0.0 {
        return None;
    }
    let smallest = members.iter().filter_map(|member| least(member)).min()?;
    let error = PruningError::RemovesNothing {
        targets: members.iter().flat_map(|m| m.targets.clone()).collect(),
        key: "sparse_ratio",
        value: ratio,
        blocks: total,
        what: format!("elements of global group `{group}`"),
        reason: format!("that is {wanted}, and the smallest part that can go has {smallest}"),
        advice: format!("set it to at least {}", effective_ratio(smallest, total)),
    };
    Some(Nothing {
        of: group.to_string(),
        error: error.at(first.target()),
        too_small: true,
    })
}

/// A ratio with few digits that is `removed` of `count` blocks or little more.
fn effective_ratio(removed: usize, count: usize) -> f64 {
    let mut scale = 1000.0;
    while scale < 10.0 * count as f64 {
        scale *= 10.0;
    }
    let mut units = (removed as f64 / count as f64 * scale).ceil();
    while part(count, units / scale) < removed {
        units += 1.0;
    }
    units / scale
}
