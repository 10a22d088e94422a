//! Rules of pruners, written in code.

use burn_compress_core::{MaskMethod, setters};

use crate::{Align, Granularity, Normalizer, OnUnprunable, Pattern, PruningSettings};

setters! {
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
    PruningRule for PruningSettings {
        /// The fraction of the blocks to remove, 0 to 1.
        sparse_ratio: f64,
        /// Blocks with a score below this are removed.
        sparse_threshold: f64,
        /// The largest fraction of each target that may be removed, above 0.
        max_sparse_ratio: f64,
        /// The smallest fraction of each target that must be removed, below 1.
        min_sparse_ratio: f64,
        /// Targets with the same id are ranked together.
        global_group_id: &str,
        /// Targets with the same id lose the same blocks.
        dependency_group_id: &str,
        /// The number of equal parts, each of which loses equally many blocks.
        internal_metric_block: usize,
        /// The number of blocks that stay is rounded up to a multiple of this.
        round_to: usize,
        /// Which of consecutive elements along the input dim stay.
        pattern: Pattern,
        /// The shape of a block.
        granularity: Granularity,
        /// Where the mask is taken from.
        align: Align,
        /// How the mask enters the value.
        apply_method: MaskMethod,
        /// The path of the wrapped layer whose output scores the targets.
        activation: &str,
        /// How the scores of layers that a concatenation joins are made comparable.
        normalizer: Normalizer,
        /// What becomes of channels that cannot be removed.
        on_unprunable: OnUnprunable,
    }
}
