//! A target with blocks of its own.

use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::Selected;
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{Compressor, Mask, Mode, Target, TargetId, TargetSpace};

use crate::mask::TargetMask;
use crate::metrics::Importance;
use crate::{Axes, Blocks, Granularity, PruningError, PruningSettings};

/// A target with blocks of its own.
pub(super) struct Single {
    pub(super) id: TargetId,
    pub(super) space: Arc<TargetSpace>,
    pub(super) settings: PruningSettings,
    pub(super) axes: Axes,
    granularity: Granularity,
    pub(super) align: Option<(TargetId, Vec<usize>)>,
}

/// Claims a target that is decided about on its own.
pub(super) fn claim_single<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    item: Selected<PruningSettings>,
    default: &Granularity,
) -> Result<Single, PruningError> {
    let id = item.id();
    let axes = match &item.target {
        Target::Param(name) => {
            let rank = item.layer.param(name).map_or(0, |param| param.shape.len());
            Axes::from(channel_dims(&item.layer.kind, name, rank))
        }
        Target::Input(_) | Target::Output(_) => Axes::Activation { channel: 1 },
    };
    let align = item.settings.align.as_ref().map(|align| {
        let layer = align
            .module_name
            .clone()
            .unwrap_or_else(|| id.layer.clone());
        (
            TargetId::new(layer, align.target_name.clone()),
            align.dims.clone(),
        )
    });
    let granularity = match (&item.target, super::granularity(&item.settings)) {
        (Target::Input(_) | Target::Output(_), Granularity::Default) => Granularity::PerChannel,
        // A pattern is about elements, whatever the score prunes by default.
        (Target::Param(_), Granularity::Default) if item.settings.pattern.is_some() => {
            Granularity::Default
        }
        (Target::Param(_), Granularity::Default) => default.clone(),
        (_, set) => set,
    };
    let space = compressor
        .claim(Mode::Pruning, std::slice::from_ref(&id))?
        .remove(0);
    Ok(Single {
        id,
        space,
        settings: item.settings,
        axes,
        granularity,
        align,
    })
}

impl Single {
    pub(super) fn blocks(&self) -> Result<Blocks, PruningError> {
        let shape = self
            .space
            .shape()
            .ok_or_else(|| PruningError::UnknownShape.at(&self.id))?;
        self.granularity
            .resolve(&shape, self.axes, &Granularity::Default)
            .map_err(|error| error.at(&self.id))
    }

    /// Whether the score has a meaning for the target's blocks, and a pattern fits its shape.
    pub(super) fn check(&self, importance: &dyn Importance) -> Result<(), PruningError> {
        let blocks = self.blocks()?;
        let pattern = self.settings.pattern;
        let fits = pattern.map_or(Ok(0), |pattern| pattern.dim(blocks.shape(), self.axes));
        let checked = fits.and_then(|_| importance.check(&blocks, self.axes));
        checked.map_err(|error| error.at(&self.id))
    }

    /// Which blocks the mask in force keeps, if there is one.
    pub(super) fn current(&self, blocks: &Blocks) -> Option<Vec<bool>> {
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
        let (values, shape) = match self.id.target {
            Target::Param(_) => (mask.expand(), mask.blocks().shape().to_vec()),
            Target::Input(_) | Target::Output(_) => mask.expand_broadcast(),
        };
        let mask =
            Mask::new(values, shape)?.with_method(self.settings.apply_method.unwrap_or_default());
        Ok(self.space.set_mask(Some(mask))?)
    }
}
