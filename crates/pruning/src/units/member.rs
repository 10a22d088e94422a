//! The parameters of a group of coupled channels.

use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::Selected;
use burn_compress_core::graph::ChannelGroup;
use burn_compress_core::layer::{LayerInfo, ParamInfo};
use burn_compress_core::{Compressor, Mask, Mode, Target, TargetId, TargetSpace};

use crate::mask::MaskTarget;
use crate::metrics::Importance;
use crate::{Blocks, PruningError, PruningSettings};

/// A parameter dimension that carries channels of a group.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) id: TargetId,
    pub(super) space: Arc<TargetSpace>,
    pub(super) shape: Vec<usize>,
    pub(super) dim: usize,
    /// The indices along the dimension of each channel of the group.
    pub(super) positions: Vec<Vec<usize>>,
}

/// Claims all members of a group; a weight among them that nobody selected must not be masked.
pub(super) fn claim_members<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    group: &ChannelGroup,
    items: &[Selected<PruningSettings>],
) -> Result<Vec<Member>, PruningError> {
    let mut found = Vec::new();
    for member in &group.members {
        let (layer, param) = find(compressor.layers(), &member.param)?;
        let id = TargetId::new(layer.path.clone(), Target::param(param.name.clone()));
        let selected = items.iter().any(|item| item.id() == id);
        if param.shape.len() > 1 && !selected {
            let coupled = id.layer.clone();
            return Err(PruningError::CoupledLayer { coupled }.at(items[0].id()));
        }
        found.push((id, param.shape.clone(), member));
    }
    let ids: Vec<TargetId> = found.iter().map(|(id, ..)| id.clone()).collect();
    let spaces = compressor.claim(Mode::Pruning, &ids)?;
    Ok(found
        .into_iter()
        .zip(spaces)
        .map(|((id, shape, member), space)| Member {
            id,
            space,
            shape,
            dim: member.dim,
            positions: member.positions.clone(),
        })
        .collect())
}

fn find<'a>(
    layers: &'a [LayerInfo],
    path: &str,
) -> Result<(&'a LayerInfo, &'a ParamInfo), PruningError> {
    layers
        .iter()
        .find_map(|layer| {
            let name = match layer.path.as_str() {
                "" => path,
                prefix => path.strip_prefix(prefix)?.strip_prefix('.')?,
            };
            Some((layer, layer.param(name)?))
        })
        .ok_or_else(|| PruningError::UnknownParameter {
            path: path.to_string(),
        })
}

impl Member {
    /// One block for each index along the dimension.
    pub(super) fn blocks(&self) -> Result<Blocks, PruningError> {
        let block: Vec<i64> = (0..self.shape.len())
            .map(|dim| if dim == self.dim { 1 } else { -1 })
            .collect();
        Blocks::new(&self.shape, &block).map_err(|error| error.at(&self.id))
    }

    /// The score of each index along the dimension, summed over the indices of each channel;
    /// `None` for channels that the parameter does not carry.
    pub(super) fn channel_scores(
        &self,
        data: &[f32],
        importance: &dyn Importance,
    ) -> Result<Vec<Option<f32>>, PruningError> {
        let scores = importance.score(data, &self.blocks()?);
        let sum = |indices: &Vec<usize>| match indices.is_empty() {
            true => None,
            false => Some(indices.iter().map(|&index| scores[index]).sum()),
        };
        Ok(self.positions.iter().map(sum).collect())
    }

    /// What is kept along the dimension when the group keeps the channels `keep`.
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
        let values = self.blocks()?.expand(&self.kept(keep));
        let mask = Mask::new(values, self.shape.clone())?
            .with_method(settings.apply_method.unwrap_or_default());
        Ok(self.space.set_mask(Some(mask))?)
    }
}
