//! The parameters of a group of coupled channels.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use burn_compress_core::graph::{ChannelGroup, Positions};
use burn_compress_core::layer::{LayerInfo, LayerKind, LayerRole, ParamInfo};
use burn_compress_core::{Mask, Target, TargetId, TargetSpace};
use indexmap::IndexMap;

use super::selected::Item;
use crate::mask::MaskTarget;
use crate::{Blocks, PruningError, PruningSettings};

/// A parameter dimension that carries channels of a group.
#[derive(Clone)]
pub(super) struct FoundMember {
    pub(super) id: TargetId,
    pub(super) shape: Vec<usize>,
    pub(super) dim: usize,
    /// The indices along the dimension of each channel of the group.
    pub(super) positions: Positions,
}

/// A member whose target is claimed.
#[derive(Clone)]
pub(super) struct GroupMember {
    pub(super) space: Arc<TargetSpace>,
    pub(super) found: FoundMember,
}

impl Deref for GroupMember {
    type Target = FoundMember;

    fn deref(&self) -> &FoundMember {
        &self.found
    }
}

impl FoundMember {
    /// One block for each index along the dimension.
    pub(super) fn blocks(&self) -> Result<Blocks, PruningError> {
        Blocks::along(&self.shape, self.dim).map_err(|error| error.at(&self.id))
    }
}

/// The parameters of a model by path, each with its layer.
pub(super) struct Parameters<'a>(BTreeMap<String, (&'a LayerInfo, &'a ParamInfo)>);

impl<'a> Parameters<'a> {
    pub(super) fn new(layers: &'a [LayerInfo]) -> Self {
        let mut found = BTreeMap::new();
        for layer in layers {
            for param in &layer.params {
                let id = TargetId::new(&layer.path, Target::param(&param.name));
                found.insert(id.to_string(), (layer, param));
            }
        }
        Self(found)
    }

    fn at(&self, path: &str) -> Result<(&'a LayerInfo, &'a ParamInfo), PruningError> {
        let found = self.0.get(path).copied();
        found.ok_or_else(|| PruningError::UnknownParameter {
            path: path.to_string(),
        })
    }
}

/// Whether a parameter is no vector: its channels go only if it is selected. A scale
/// `[channels, 1, 1]` is a vector, but not the weight of a convolution that happens to have that shape.
pub(super) fn is_matrix(layer: &LayerInfo, param: &ParamInfo) -> bool {
    let long = param.shape.iter().filter(|&&size| size > 1).count();
    let is_weighted = LayerKind::of(&layer.kind).role() == LayerRole::Weighted;
    long > 1 || (is_weighted && param.shape.len() > 1)
}

/// All members of a group; a weight among them that is not selected must not be masked.
pub(super) fn find_members(
    parameters: &Parameters<'_>,
    group: &ChannelGroup,
    items: &IndexMap<TargetId, &Item>,
) -> Result<Vec<FoundMember>, PruningError> {
    let mut found = Vec::new();
    for member in &group.members {
        let (layer, param) = parameters.at(&member.param)?;
        let id = TargetId::new(layer.path.clone(), Target::param(param.name.clone()));
        if is_matrix(layer, param) && !items.contains_key(&id) {
            let coupled = id.layer.clone();
            return Err(PruningError::CoupledLayer { coupled }.at(items[0].id()));
        }
        found.push(FoundMember {
            id,
            shape: param.shape.clone(),
            dim: member.dim,
            positions: member.positions.clone(),
        });
    }
    Ok(found)
}

impl GroupMember {
    /// The score of each index along the dimension, summed over the indices of each channel;
    /// `None` for channels that the parameter does not carry.
    pub(super) fn channel_scores(&self, scores: &[f32]) -> Vec<Option<f32>> {
        let sum = |indices: &[usize]| match indices.is_empty() {
            true => None,
            false => Some(indices.iter().map(|&index| scores[index]).sum()),
        };
        self.positions.iter().map(sum).collect()
    }

    /// Kept indices along the dimension when the group keeps the channels `keep`.
    fn kept(&self, keep: &[bool]) -> Vec<bool> {
        let mut kept = vec![true; self.shape[self.dim]];
        for (positions, keep) in self.positions.iter().zip(keep) {
            for &position in positions {
                kept[position] = *keep;
            }
        }
        kept
    }

    /// The parameter with its mask decided, for others to follow.
    pub(super) fn decided(&self, keep: &[bool]) -> Result<MaskTarget<String>, PruningError> {
        let key = self.id.to_string();
        Ok(MaskTarget::decided(key, self.blocks()?, self.kept(keep)))
    }

    /// Masks the parameter where the group loses channels.
    pub(super) fn write(
        &self,
        keep: &[bool],
        settings: &PruningSettings,
    ) -> Result<(), PruningError> {
        Ok(self.space.set_mask(Some(self.mask(keep, settings)?))?)
    }

    /// The mask of the parameter when the group keeps the channels `keep`.
    pub(super) fn mask(
        &self,
        keep: &[bool],
        settings: &PruningSettings,
    ) -> Result<Mask, PruningError> {
        let (values, extent) = self.blocks()?.expand_broadcast(&self.kept(keep));
        let mask = Mask::new(values, extent)?.expand(self.shape.clone())?;
        Ok(mask.with_method(settings.apply_method.unwrap_or_default()))
    }
}
