//! Errors of configurations.

use crate::target::{Target, TargetId};

/// An error in a configuration list: the rule, what was found there, and what to do about it.
///
/// Rules are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is no JSON or TOML, or holds something else than a list of rules.
    #[error("the configuration cannot be read as {format}, {expected} is expected: {reason}")]
    Syntax {
        /// `JSON` or `TOML`.
        format: &'static str,
        /// Expected content of the text.
        expected: &'static str,
        /// Message of the parser, with the position.
        reason: String,
    },
    /// The configuration has a value that the format cannot hold.
    #[error("the configuration cannot be written as {format}: {reason}")]
    Write {
        /// `JSON` or `TOML`.
        format: &'static str,
        /// Message of the writer.
        reason: String,
    },
    /// There is no rule, so nothing would be compressed.
    #[error("the configuration has no rules: write at least one, or leave the compressor out")]
    NoRules,
    /// A key that is neither a selection key nor a setting of this mode.
    #[error("rule {rule}: unknown key `{key}`{hint}")]
    UnknownKey {
        /// The rule.
        rule: usize,
        /// The key; `target_settings.weight.<key>` inside the settings of a target.
        key: String,
        /// Keys that look like it, and all there are.
        hint: String,
    },
    /// A value of the wrong type.
    #[error("rule {rule}: the value of `{key}` cannot be used: {reason}")]
    Value {
        /// The rule.
        rule: usize,
        /// The key.
        key: String,
        /// Found and expected value.
        reason: String,
    },
    /// A rule without a selection of layers.
    #[error(
        "rule {rule} selects no layers: give it at least one of `op_types`, `op_names` and \
         `op_names_re` (excluding keys alone select nothing)"
    )]
    NoSelector {
        /// The rule.
        rule: usize,
    },
    /// A name that no layer has.
    #[error("rule {rule}: `{key}` names `{name}`, which is no layer of the model{hint}")]
    UnknownName {
        /// The rule.
        rule: usize,
        /// `op_names` or `exclude_op_names`.
        key: &'static str,
        /// The name.
        name: String,
        /// Layers with a similar name, or what the name is instead.
        hint: String,
    },
    /// A type that no layer has.
    #[error("rule {rule}: `{key}` names the type `{kind}`, which no layer of the model has{hint}")]
    UnknownType {
        /// The rule.
        rule: usize,
        /// `op_types` or `exclude_op_types`.
        key: &'static str,
        /// The type.
        kind: String,
        /// The types that there are.
        hint: String,
    },
    /// A pattern that is no regular expression.
    #[error(
        "rule {rule}: `{key}` has the pattern `{pattern}`, which is no regular expression: {reason}"
    )]
    Pattern {
        /// The rule.
        rule: usize,
        /// `op_names_re` or `exclude_op_names_re`.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// Message of the parser.
        reason: String,
    },
    /// A pattern that matches no layer's path.
    #[error(
        "rule {rule}: `{key}` has the pattern `{pattern}`, which matches no layer; a pattern has \
         to match from the start of the full path{hint}"
    )]
    NoMatch {
        /// The rule.
        rule: usize,
        /// `op_names_re` or `exclude_op_names_re`.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// A pattern that would match, or some paths of the model.
        hint: String,
    },
    /// Selection keys that leave no layer together.
    #[error("rule {rule} selects no layer: {reason}")]
    Empty {
        /// The rule.
        rule: usize,
        /// Keys that contradict each other.
        reason: String,
    },
    /// A target that none of the rule's layers has.
    #[error(
        "rule {rule}: `target_names` has `{target}`, but no layer of the rule has that \
         parameter{hint}"
    )]
    UnknownTarget {
        /// The rule.
        rule: usize,
        /// The target.
        target: Target,
        /// The parameters that there are.
        hint: String,
    },
    /// Settings for something that is not among the rule's targets.
    #[error(
        "rule {rule}: `target_settings` has `{target}`, which is no target of the rule (its \
         targets are {targets}): add it to `target_names` or remove its settings"
    )]
    UnusedSettings {
        /// The rule.
        rule: usize,
        /// The target.
        target: Target,
        /// The rule's targets.
        targets: String,
    },
    /// A layer in which a rule has nothing to act on.
    #[error(
        "rule {rule}: {layer} has none of the rule's targets{hint}; name a target that it has in \
         `target_names`, or exclude it"
    )]
    NoTarget {
        /// The rule.
        rule: usize,
        /// The layer, with its type.
        layer: String,
        /// Targets of the layer.
        hint: String,
    },
    /// An input or output of a layer that is not wrapped.
    #[error(
        "rule {rule}: `{target}` cannot be reached without a wrapper around the layer. {change}"
    )]
    NotWrapped {
        /// The rule.
        rule: usize,
        /// The input or output.
        target: TargetId,
        /// The change to make in the model.
        change: String,
    },
    /// A target that is selected twice.
    #[error(
        "rule {second}: `{target}` is already selected by rule {first}; a target can be configured \
         once: exclude the layer in one of the rules, or name other targets"
    )]
    Duplicate {
        /// The target.
        target: TargetId,
        /// The rule that selects it first.
        first: usize,
        /// The rule that selects it again.
        second: usize,
    },
    /// Settings that make no sense for a target.
    #[error("rule {rule}: the settings of `{target}` of {layer} are invalid: {reason}")]
    Invalid {
        /// The rule.
        rule: usize,
        /// The layer, with its type.
        layer: String,
        /// The target in the layer.
        target: Target,
        /// Mistake and allowed values.
        reason: String,
    },
}

/// `, did you mean `a` or `b`?` for the candidates that look like `word`, nothing without any.
///
/// For the errors of settings that read names of their own.
///
/// ```
/// use burn_compress_core::config::did_you_mean;
///
/// let names = ["min_max", "mse"];
/// assert_eq!(did_you_mean("minmax", names), ", did you mean `min_max`?");
/// assert_eq!(did_you_mean("percentile", names), "");
/// ```
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    match near(word, candidates).as_slice() {
        [] => String::new(),
        near => format!(", did you mean {}?", listed(near, " or ")),
    }
}

/// `` `a`, `b` and `c` `` with `last` for `` and ``, cut off after a dozen.
pub(super) fn listed<T: AsRef<str>>(items: &[T], last: &str) -> String {
    const SHOWN: usize = 12;
    let quoted: Vec<String> = items
        .iter()
        .take(SHOWN)
        .map(|item| format!("`{}`", item.as_ref()))
        .collect();
    match quoted.as_slice() {
        [] => "none".to_string(),
        [one] => one.clone(),
        many if items.len() > SHOWN => {
            format!("{} and {} more", many.join(", "), items.len() - SHOWN)
        }
        [first @ .., end] => format!("{}{last}{end}", first.join(", ")),
    }
}

/// The up to three candidates that are nearest to `word`, nearest first.
fn near<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // 0.8 keeps two swapped or missing letters in a word of six, and drops words of another stem.
    const SIMILAR: f64 = 0.8;
    let lower = word.to_lowercase();
    let is_tail = |candidate: &str| {
        candidate
            .strip_suffix(word)
            .is_some_and(|head| head.ends_with('.'))
    };
    let mut scored: Vec<(f64, &str)> = candidates
        .into_iter()
        .filter(|candidate| !candidate.is_empty())
        .map(|candidate| {
            let score = strsim::jaro_winkler(&lower, &candidate.to_lowercase());
            let score = if is_tail(candidate) { 1.0 } else { score };
            (score, candidate)
        })
        .filter(|(score, _)| *score >= SIMILAR)
        .collect();
    // The sort is stable: equally near words stay in the order of the model.
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.dedup_by_key(|(_, candidate)| *candidate);
    scored.truncate(3);
    scored.into_iter().map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_words_come_first() {
        let keys = ["op_types", "op_names", "op_names_re", "sparse_ratio"];
        assert_eq!(near("op_type", keys), ["op_types"]);
        assert_eq!(near("sparse_ration", keys), ["sparse_ratio"]);
        assert_eq!(near("op_name", keys)[..2], ["op_names", "op_names_re"]);
        assert!(near("momentum", keys).is_empty());
        assert_eq!(did_you_mean("zzz", keys), "");
    }

    #[test]
    fn the_end_of_a_path_is_near() {
        assert_eq!(near("conv", ["stem", "blocks.0.conv"]), ["blocks.0.conv"]);
    }

    #[test]
    fn lists_are_sentences() {
        assert_eq!(listed::<&str>(&[], " and "), "none");
        assert_eq!(listed(&["a"], " and "), "`a`");
        assert_eq!(listed(&["a", "b", "c"], " or "), "`a`, `b` or `c`");
        let many: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        assert!(listed(&many, " and ").ends_with("`11` and 8 more"));
    }
}
