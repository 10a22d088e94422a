//! The settings of pruning for one target.
//!
//! ```text
//! key                    value                 meaning
//! sparse_ratio           0 to 1                fraction of the blocks to remove
//! sparse_threshold       number                blocks that score less are removed
//! max_sparse_ratio       above 0, up to 1      never remove more of this target
//! min_sparse_ratio       0 to below 1          never remove less of this target
//! global_group_id        string or integer     rank blocks across all targets of the group
//! dependency_group_id    string or integer     all targets of the group lose the same blocks
//! internal_metric_block  1 or more             in a group: split the scores into so many parts
//!                                              and remove equally many in each
//! round_to               1 or more             the number of blocks that stay is rounded up to a
//!                                              multiple of it
//! pattern                "N:M"                 of M consecutive elements along the input dim, the
//!                                              N of the largest scores stay
//! granularity            see Granularity       the shape of a block
//! align                  see Align             take the mask from another target
//! apply_method           "mul" or "add"        how the mask enters the value
//! activation             path of a layer       the wrapped layer whose output scores the target,
//!                                              for pruners that observe outputs
//! normalizer             "rank", "mean",       how the scores of layers that a concatenation joins
//!                        "none"                are made comparable, see Normalizer
//! on_unprunable          "error" or "skip"     what becomes of channels that cannot be removed: an
//!                                              error that lists all of them, or they stay and the
//!                                              rest is pruned (`Compressor::skipped` has the list)
//! ```
//!
//! A target needs one goal: `sparse_ratio`, `sparse_threshold`, `pattern` or `align`. A ratio is
//! cut to whole blocks. A positive goal that can remove nothing whatever the scores are is refused
//! when the pruner is made: `round_to` beyond the target, a target of one block. One that is less
//! than one block is warned of, as is a threshold below which no score turned out to be, in the log
//! and in [`Compressed::warnings`](burn_compress_core::Compressed::warnings).

mod check;
mod select;

use burn_compress_core::target::Target;
use burn_compress_core::{MaskMethod, settings};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Granularity, Pattern};

settings! {
    /// The settings of pruning for one target. What is `None` is not set.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_compress_pruning::PruningSettings;
    ///
    /// let settings: PruningSettings =
    ///     serde_json::from_str(r#"{"sparse_ratio": 0.5, "granularity": [2, -1]}"#)?;
    /// assert_eq!(settings.sparse_ratio, Some(0.5));
    /// settings.check()?;
    /// # Ok::<(), burn_compress_core::Error>(())
    /// ```
    pub struct PruningSettings;

    /// The settings of [`PruningSettings`] under the names that they have in a file.
    ///
    /// ```
    /// use burn_compress_core::config::{ConfigList, named, on};
    /// use burn_compress_pruning::{Granularity, PruningRule};
    ///
    /// let rules = ConfigList::from([
    ///     on(["Conv2d"]).with_exclude_op_names(["stem"]).sparse_ratio(0.5).round_to(8),
    ///     named(["head"]).sparse_ratio(0.8).granularity(Granularity::Block(vec![1, 4])),
    /// ]);
    /// let json = r#"[
    ///     {"op_types": ["Conv2d"], "exclude_op_names": ["stem"], "sparse_ratio": 0.5, "round_to": 8},
    ///     {"op_names": ["head"], "sparse_ratio": 0.8, "granularity": [1, 4]}
    /// ]"#;
    /// assert_eq!(rules, ConfigList::from_json(json)?);
    /// # Ok::<(), burn_compress_core::config::ConfigError>(())
    /// ```
    pub trait PruningRule {
        /// The fraction of the blocks to remove, 0 to 1.
        sparse_ratio: f64,
        /// Blocks with a score below this are removed.
        sparse_threshold: f64,
        /// The largest fraction of this target that may be removed, above 0.
        max_sparse_ratio: f64,
        /// The smallest fraction of this target that must be removed, below 1.
        min_sparse_ratio: f64,
        /// Targets with the same id are ranked together. An integer is read as its digits.
        #[serde(deserialize_with = "string_or_integer")]
        global_group_id: String = &str,
        /// Targets with the same id lose the same blocks. An integer is read as its digits.
        #[serde(deserialize_with = "string_or_integer")]
        dependency_group_id: String = &str,
        /// Into how many equal contiguous parts the scores of a group's members are split, each of
        /// which loses equally many blocks. A dependency group uses the least common multiple of
        /// its members', in a global group each member has its own. Channels that the graph couples
        /// in parts, as grouped convolutions do, use the least common multiple of those and this.
        internal_metric_block: usize,
        /// The number of blocks that stay is rounded up to a multiple of this; see
        /// [`mask`](crate::mask) for the rule in groups.
        round_to: usize,
        /// Kept of consecutive elements along the input dim.
        pattern: Pattern,
        /// The shape of a block.
        granularity: Granularity,
        /// Source of the mask.
        align: Align,
        /// Application of the mask to the value.
        apply_method: MaskMethod,
        /// The path of the wrapped layer whose output scores this target, for pruners that observe
        /// outputs.
        activation: String = &str,
        /// Normalization of the scores of layers that a concatenation joins; [`Normalizer::Rank`]
        /// if not set, [`Normalizer::Mean`] in a global group.
        normalizer: Normalizer,
        /// Treatment of targets that cannot be pruned; an error by default.
        on_unprunable: OnUnprunable,
    }
}

/// Normalization of scores across layers whose channels are ranked together, because a
/// concatenation joins them and one layer reads all, as the batch norms of a DenseNet do.
///
/// It concerns scores that grow with the number of weights of a channel, as norms do: of a 1x1 and
/// a 3x3 convolution side by side, the first would lose nearly all channels and the second none.
/// Scores on a [common scale](crate::Scale) are ranked as they are, and so is any score with
/// `sparse_threshold`, which is a value of the score itself.
///
/// Torch-Pruning has groups of one layer in front of a concatenation each, so that each loses the ratio
/// exactly, as it does here by rank. By the mean, the ratio is that of all channels together, and each
/// layer loses about as much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalizer {
    /// The score of a channel is its rank among those of its layer, as a fraction of them: each layer
    /// loses the ratio, to within one channel.
    Rank,
    /// The scores of the channels of each layer are multiplied by a number, so that all layers have
    /// the mean of the whole group.
    Mean,
    /// Scores are ranked as they are.
    None,
}

/// The treatment of a target whose channels cannot be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnprunable {
    /// The pruner is not made: one error lists all such targets.
    #[default]
    Error,
    /// The target stays as it is. The chain [lists](burn_compress_core::Compressor::skipped) it, and
    /// so does what the run returns.
    Skip,
}

/// A mask that follows another target's.
///
/// An element is removed when everything at the same index of `dims` of the source is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Align {
    /// The path of the source's layer; the layer itself when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_name: Option<String>,
    /// The source in that layer.
    pub target_name: Target,
    /// The dims of the source that correspond to this target's dims, in order.
    pub dims: Vec<usize>,
}

impl PruningSettings {
    /// Whether the target has a goal of its own, so that it needs scores.
    pub const fn is_active(&self) -> bool {
        self.sparse_ratio.is_some() || self.sparse_threshold.is_some() || self.pattern.is_some()
    }

    /// These settings with every goal (ratio, threshold, maximum and minimum) multiplied by
    /// `factor`. A factor of 1 changes no bit.
    ///
    /// Of a pattern, the number of removed elements is multiplied and cut to an integer: half of
    /// `"1:4"` removes one of four.
    ///
    /// This is what a [`Schedule`](crate::Schedule) does to a target at each update.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |goal: Option<f64>| goal.map(|goal| goal * factor);
        Self {
            sparse_ratio: scale(self.sparse_ratio),
            sparse_threshold: scale(self.sparse_threshold),
            max_sparse_ratio: scale(self.max_sparse_ratio),
            min_sparse_ratio: scale(self.min_sparse_ratio),
            pattern: self.pattern.map(|pattern| pattern.scaled(factor)),
            ..self.clone()
        }
    }

    /// The ratio `wanted` within the minimum and the maximum.
    pub(crate) fn clamped(&self, wanted: f64) -> f64 {
        let most = self.max_sparse_ratio;
        let wanted = most.map_or(wanted, |max| wanted.min(max));
        let least = self.min_sparse_ratio;
        least.map_or(wanted, |min| wanted.max(min))
    }

    /// These settings without those that equal a default, so that equal ones do the same.
    pub(crate) fn without_defaults(&self) -> Self {
        let settings = self.clone();
        Self {
            internal_metric_block: settings.internal_metric_block.filter(|&parts| parts != 1),
            round_to: settings.round_to.filter(|&multiple| multiple != 1),
            granularity: settings.granularity.filter(|g| *g != Granularity::Default),
            apply_method: settings.apply_method.filter(|m| *m != MaskMethod::Mul),
            ..settings
        }
    }
}

fn string_or_integer<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or an integer")]
    enum Id {
        Text(String),
        Number(i64),
    }
    Ok(Option::<Id>::deserialize(from)?.map(|id| match id {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    }))
}

#[cfg(test)]
mod tests;
