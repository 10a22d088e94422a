//! Selected targets: their alignment, their blocks, their output channels.

use burn_compress_core::TargetId;
use burn_compress_core::config::Selected;
use burn_compress_core::layer::{ChannelDims, ParamInfo, channel_dims};

use crate::settings::OnUnprunable;
use crate::{Blocks, Granularity, PruningError, PruningSettings};

/// A selected target with its settings.
pub(super) type Item = Selected<PruningSettings>;

/// Whether the rule of an item is set to skip it where it cannot be pruned.
pub(super) fn skips(item: &Item) -> bool {
    item.settings.on_unprunable == Some(OnUnprunable::Skip)
}

/// The source and the dims of an alignment.
pub(super) fn alignment(item: &Item) -> Option<(TargetId, Vec<usize>)> {
    let align = item.settings.align.as_ref()?;
    let layer = align.module_name.as_ref().unwrap_or(&item.layer.path);
    let source = TargetId::new(layer, align.target_name.clone());
    Some((source, align.dims.clone()))
}

/// The blocks of a selected parameter.
pub(super) struct ParamBlocks<'a> {
    item: &'a Item,
    param: &'a ParamInfo,
    /// Granularity of a target that sets none.
    default: &'a Granularity,
    granularity: Granularity,
}

impl<'a> ParamBlocks<'a> {
    /// The blocks of the item, if it is a parameter.
    pub(super) fn of(item: &'a Item, default: &'a Granularity) -> Option<Self> {
        let name = item.target.param_name()?;
        let param = item.layer.param(name)?;
        let granularity = item.settings.granularity.clone().unwrap_or_default();
        Some(Self {
            item,
            param,
            default,
            granularity,
        })
    }

    pub(super) fn dims(&self) -> ChannelDims {
        let rank = self.param.shape.len();
        channel_dims(&self.item.layer.kind, &self.param.name, rank)
    }

    /// Whether they are single elements.
    pub(super) fn are_elements(&self) -> bool {
        match &self.granularity {
            Granularity::Default => *self.default == Granularity::Default,
            Granularity::Block(sizes) => sizes.iter().all(|&size| size == 1),
            _ => false,
        }
    }

    pub(super) fn resolve(&self) -> Result<Blocks, PruningError> {
        let (shape, axes) = (&self.param.shape, self.dims().into());
        let blocks = Blocks::of(&self.granularity, shape, axes, self.default);
        blocks.map_err(|error| error.at(self.item.id()))
    }
}

/// Dimension of the output channels if
///
/// - the item removes whole output channels of a parameter, and
/// - its dependencies are not set by hand.
pub(super) fn output_dim(
    item: &Item,
    default: &Granularity,
    coupled: bool,
) -> Result<Option<usize>, PruningError> {
    let settings = &item.settings;
    let by_hand = settings.dependency_group_id.is_some();
    let channels = settings.is_active() && settings.pattern.is_none();
    let Some(blocks) = ParamBlocks::of(item, default).filter(|_| coupled && channels && !by_hand)
    else {
        return Ok(None);
    };
    let Some(dim) = blocks.dims().output else {
        return Ok(None);
    };
    let grid = blocks.resolve()?;
    // Elements are no channels, not even where a channel has a single element. Of a vector, a list
    // of sizes gives channels.
    let listed = matches!(blocks.granularity, Granularity::Block(_));
    let vector = listed && blocks.param.shape.len() <= 1;
    if blocks.are_elements() && !vector {
        return Ok(None);
    }
    let whole = Blocks::along(grid.shape(), dim)?;
    Ok((grid.grid() == whole.grid()).then_some(dim))
}
