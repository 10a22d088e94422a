//! The contract of an importance: a score for each block.

use burn_compress_core::{Configuration, TargetId};
use indexmap::IndexMap;

use crate::{Axes, Blocks, Granularity, PruningError};

/// The scale that the scores of different layers have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Every layer has a scale of its own, as norms do, which grow with the weights of a channel.
    Layer,
    /// One scale for all layers, as fractions have.
    Common,
    /// Changes of the loss, which add up over everything that is removed together.
    Loss,
}

/// A score for each block of a parameter: what makes one pruner another.
///
/// [`Pruner::with`](crate::Pruner::with) makes a pruner of it that is grouped, scheduled, fused,
/// checkpointed, resumed and cut as the built-in ones are.
///
/// # Laws
///
/// An importance gives
///
/// - one score for each block, in row-major order of the grid;
/// - finite scores for finite values;
/// - the smaller score to the block that is pruned earlier; only the order counts, but for a
///   `sparse_threshold`, which is compared with the score itself, and for scores that are combined
///   as [`scale`](Self::scale) says;
/// - the same scores for the same values and blocks, or a resumed run is another one.
///
/// Another number of scores, or one that is not finite, is an error that names the pruner and the
/// target.
///
/// The values are those of the [source](crate::sources), in host memory. An importance reads no
/// device.
///
/// # Example
///
/// Channels whose weights spread least around their mean go first.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Method};
/// use burn_compress_pruning::{Blocks, Importance, Pruner, PrunerConfig};
///
/// struct Spread;
///
/// impl Importance for Spread {
///     fn score(&self, values: &[f32], blocks: &Blocks) -> Vec<f32> {
///         blocks.reduce(values, |block| {
///             let mean = block.iter().sum::<f32>() / block.len() as f32;
///             block.iter().map(|value| (value - mean).powi(2)).sum()
///         })
///     }
/// }
///
/// let model = LinearConfig::new(4, 6).init(&Device::flex());
/// let rules = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let pruner = Pruner::with(Spread)
///     .with_config(PrunerConfig::new().with_coupled(false))
///     .new(model, &rules, Evaluator::<Linear, ()>::new())?;
/// assert_eq!(pruner.algorithms(), ["Spread"]);
/// assert_eq!(pruner.compress(Budget::none())?.masks()[0].sparsity(), 0.5);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub trait Importance {
    /// The score of each block, in row-major order of the grid.
    ///
    /// `values` has one number for each element of the parameter, row-major: the weight itself, or
    /// what another [source](crate::sources) gives for it.
    ///
    /// # Panics
    ///
    /// May panic when there are not as many values as `blocks` has elements, which a pruner never
    /// passes.
    fn score(&self, values: &[f32], blocks: &Blocks) -> Vec<f32>;

    /// The granularity of a parameter for which the configuration gives none.
    fn default_granularity(&self) -> Granularity {
        Granularity::OutChannel
    }

    /// The scale of the scores, which decides how those of coupled parameters are combined.
    ///
    /// A channel of several parameters scores the sum of its members on the scale of the
    /// [loss](Scale::Loss) and their mean on any other. Where a concatenation joins layers whose
    /// channels are ranked together, scores on the scale of a [layer](Scale::Layer) are first made
    /// comparable; see [`Normalizer`](crate::Normalizer).
    fn scale(&self) -> Scale {
        Scale::Layer
    }

    /// Checks that the score has a meaning for such blocks of a target with channels at `axes`.
    /// Called for every target when the pruner is made.
    ///
    /// # Errors
    ///
    /// When it has none: [`PruningError::Unscorable`].
    fn check(&self, _blocks: &Blocks, _axes: Axes) -> Result<(), PruningError> {
        Ok(())
    }

    /// The settings on which the scores depend: `Configuration::of(self)` for an importance with
    /// fields.
    ///
    /// They become part of every checkpoint. A chain whose importance has other settings does not
    /// resume unasked.
    fn configuration(&self) -> Configuration {
        Configuration::default()
    }
}

/// The scores of the blocks of parameters, by path.
pub(crate) struct Scores {
    pub(crate) scale: Scale,
    pub(crate) by_path: IndexMap<String, Vec<f32>>,
}

/// The importance of one pruner, whose laws are checked.
pub(crate) struct Scorer {
    /// The name of the pruner.
    pub(crate) pruner: &'static str,
    importance: Box<dyn Importance + Send>,
    /// Whether the values are one number an output channel.
    by_channel: bool,
}

impl Scorer {
    pub(crate) fn new(
        pruner: &'static str,
        importance: impl Importance + Send + 'static,
        by_channel: bool,
    ) -> Self {
        let importance = Box::new(importance);
        Self {
            pruner,
            importance,
            by_channel,
        }
    }

    pub(crate) fn default_granularity(&self) -> Granularity {
        self.importance.default_granularity()
    }

    pub(crate) fn scale(&self) -> Scale {
        self.importance.scale()
    }

    /// Rejects blocks of `id` that have no score.
    pub(crate) fn check(
        &self,
        blocks: &Blocks,
        axes: Axes,
        id: &TargetId,
    ) -> Result<(), PruningError> {
        let channels = match self.by_channel {
            true => require_channels(blocks, axes),
            false => Ok(()),
        };
        let checked = channels.and_then(|()| self.importance.check(blocks, axes));
        checked.map_err(|error| error.at(id))
    }

    /// The scores of the blocks of `id`.
    pub(crate) fn score(
        &self,
        values: &[f32],
        blocks: &Blocks,
        id: &TargetId,
    ) -> Result<Vec<f32>, PruningError> {
        if let Some((at, value)) = infinite(values) {
            let what = "value";
            return Err(PruningError::NotFinite { what, at, value }.at(id));
        }
        let scores = self.importance.score(values, blocks);
        let (pruner, found, expected) = (self.pruner, scores.len(), blocks.count());
        if found != expected {
            return Err(PruningError::ScoreCount {
                pruner,
                found,
                expected,
            }
            .at(id));
        }
        match infinite(&scores) {
            Some((at, value)) => Err(PruningError::ScoreNotFinite { pruner, at, value }.at(id)),
            None => Ok(scores),
        }
    }
}

/// The first number that is not finite, and its position.
fn infinite(numbers: &[f32]) -> Option<(usize, f32)> {
    // Counted before it is searched for: that is done for many numbers at once.
    match numbers.iter().filter(|number| !number.is_finite()).count() {
        0 => None,
        _ => {
            let at = numbers.iter().position(|number| !number.is_finite())?;
            Some((at, numbers[at]))
        }
    }
}

/// Rejects blocks that hold only a part of an output channel.
fn require_channels(blocks: &Blocks, axes: Axes) -> Result<(), PruningError> {
    let Axes::Parameter { output, .. } = axes else {
        return Err(PruningError::NotScored);
    };
    let spanned = |dim: usize| blocks.grid()[dim] == 1 || Some(dim) == output;
    match output.is_some() && (0..blocks.grid().len()).all(spanned) {
        true => Ok(()),
        false => Err(PruningError::Unscorable {
            reason: "outputs score whole output channels only",
            advice: "use the granularity `out_channel`, or a pruner that scores weights",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scores::L1Norm;

    const LINEAR: Axes = Axes::Parameter {
        output: Some(1),
        input: Some(0),
    };

    fn id() -> TargetId {
        "fc.weight".parse().unwrap()
    }

    /// The same numbers for all blocks.
    struct Always(Vec<f32>);

    impl Importance for Always {
        fn score(&self, _values: &[f32], _blocks: &Blocks) -> Vec<f32> {
            self.0.clone()
        }
    }

    #[test]
    fn blocks_within_a_channel_have_no_score_by_outputs() {
        let scorer = Scorer::new("Means", L1Norm, true);
        let check =
            |block: &[i64]| scorer.check(&Blocks::new(&[2, 4], block).unwrap(), LINEAR, &id());
        check(&[-1, 1]).unwrap();
        check(&[-1, 2]).unwrap();
        for block in [&[1, 1][..], &[1, -1]] {
            let error = check(block).unwrap_err().to_string();
            assert!(error.contains("whole output channels"), "{error}");
        }
    }

    #[test]
    fn scores_that_break_a_law_name_the_pruner_and_the_target() {
        let blocks = Blocks::elements(&[3]).unwrap();
        let error = |scores: &[f32]| {
            let scorer = Scorer::new("Mine", Always(scores.to_vec()), false);
            let error = scorer.score(&[1.0; 3], &blocks, &id()).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            error(&[1.0, 2.0]),
            "fc.weight: `Mine` gave 2 scores for 3 blocks; an importance gives one for each"
        );
        let text = error(&[1.0, 2.0, f32::NAN]);
        assert!(
            text.starts_with("fc.weight: score 2 is NaN, by `Mine`"),
            "{text}"
        );
    }
}
