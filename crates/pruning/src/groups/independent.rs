//! A target with blocks of its own.

use std::sync::Arc;

use burn_compress_core::{Mask, Target, TargetId, TargetSpace};

use super::decision::Decision;
use super::selected::{Item, alignment};
use crate::importance::{Scorer, Scores};
use crate::mask::{MaskTarget, TargetMask};
use crate::{Axes, Blocks, Granularity, PruningError, PruningSettings};

/// A target with blocks of its own.
pub(super) struct IndependentTarget {
    pub(super) id: TargetId,
    pub(super) space: Arc<TargetSpace>,
    pub(super) settings: PruningSettings,
    pub(super) align: Option<(TargetId, Vec<usize>)>,
    /// Whether the mask waits for those of coupled channels.
    pub(super) follows: bool,
    granularity: Granularity,
    kind: String,
    /// The shape of an input or output with the dummy input.
    traced: Option<Vec<usize>>,
}

impl IndependentTarget {
    /// An independent target, once it is claimed.
    pub(super) fn new(
        item: Item,
        space: Arc<TargetSpace>,
        traced: Option<Vec<usize>>,
        default: &Granularity,
    ) -> Self {
        let set = item.settings.granularity.clone().unwrap_or_default();
        let granularity = match (&item.target, set) {
            (Target::Input(_) | Target::Output(_), Granularity::Default) => Granularity::PerChannel,
            // A pattern is about elements, whatever the score prunes by default.
            (Target::Param(_), Granularity::Default) if item.settings.pattern.is_none() => {
                default.clone()
            }
            (_, set) => set,
        };
        Self {
            id: item.id(),
            space,
            align: alignment(&item),
            settings: item.settings,
            follows: false,
            granularity,
            kind: item.layer.kind,
            traced,
        }
    }

    /// The target whose mask this one follows.
    pub(super) fn source(&self) -> Option<&TargetId> {
        self.align.as_ref().map(|(source, _)| source)
    }

    /// The shape of the target; of an input or output, that of its last pass.
    pub(super) fn shape(&self) -> Option<Vec<usize>> {
        self.space.shape().or_else(|| self.traced.clone())
    }

    pub(super) fn blocks(&self) -> Result<Blocks, PruningError> {
        let shape = self.shape();
        let shape = shape.ok_or_else(|| PruningError::UnknownShape.at(&self.id))?;
        let (axes, default) = (self.axes(shape.len()), Granularity::Default);
        Blocks::of(&self.granularity, &shape, axes, &default).map_err(|error| error.at(&self.id))
    }

    /// Channel dims of the target, which has `rank` dims.
    fn axes(&self, rank: usize) -> Axes {
        Axes::of(&self.kind, &self.id.target, rank)
    }

    /// Input of the mask generation, with goals scaled by `factor`.
    pub(super) fn target(
        &self,
        scores: &Scores,
        factor: f64,
    ) -> Result<MaskTarget<String>, PruningError> {
        let (key, blocks) = (self.id.to_string(), self.blocks()?);
        let axes = self.axes(blocks.shape().len());
        let scores = scores.by_path.get(&key);
        let scores = scores.filter(|_| self.settings.is_active()).cloned();
        let current = self.current(&blocks);
        let settings = self.settings.scaled(factor);
        let mut target = MaskTarget::new(key, blocks, settings).with_axes(axes);
        if let Some(scores) = scores {
            target = target.with_scores(scores);
        }
        if let Some((source, dims)) = &self.align {
            target = target.with_align(source.to_string(), dims.clone());
        }
        Ok(match current {
            Some(keep) => target.with_current(&keep),
            None => target,
        })
    }

    /// Rejects blocks without a score, and a pattern that does not fit.
    pub(super) fn check(&self, scorer: &Scorer) -> Result<(), PruningError> {
        let blocks = self.blocks()?;
        let axes = self.axes(blocks.shape().len());
        if let Some(pattern) = self.settings.pattern {
            let dim = pattern.dim(blocks.shape(), axes);
            dim.map_err(|error| error.at(&self.id))?;
        }
        scorer.check(&blocks, axes, &self.id)
    }

    /// Blocks that the present mask keeps, if there is one.
    fn current(&self, blocks: &Blocks) -> Option<Vec<bool>> {
        let mask = self.space.mask()?;
        if mask.shape() != blocks.shape() {
            return None;
        }
        let kept = blocks.reduce(mask.values(), |block| {
            block.iter().copied().fold(0.0, f32::max)
        });
        Some(kept.into_iter().map(|value| value > 0.0).collect())
    }

    pub(super) fn write(&self, mask: &TargetMask) -> Result<(), PruningError> {
        Ok(self.space.set_mask(Some(self.mask(mask)?))?)
    }

    /// The mask of the target, which keeps the blocks of `mask`.
    pub(super) fn mask(&self, mask: &TargetMask) -> Result<Mask, PruningError> {
        let (values, extent) = mask.expand_broadcast();
        let mut written = Mask::new(values, extent)?;
        if self.id.target.is_param() {
            written = written.expand(mask.blocks().shape())?;
        }
        Ok(written.with_method(self.settings.apply_method.unwrap_or_default()))
    }

    /// The decision about the target.
    pub(super) fn decision(&self, keep_at_least_one: bool) -> Result<Decision, PruningError> {
        let blocks = self.blocks()?;
        // In a global group the parts are ranked as one.
        let parts = self.settings.internal_metric_block.unwrap_or(1);
        let size = blocks.count() / parts;
        Ok(Decision {
            targets: vec![self.id.clone()],
            settings: self.settings.clone(),
            parts,
            size,
            free: size - usize::from(keep_at_least_one),
            reason: None,
            weight: blocks.block_len(),
            coupled: false,
            spaces: vec![self.space.clone()],
        })
    }
}
