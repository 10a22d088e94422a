//! The channels of hidden states, and which of them are compared.
//!
//! A student whose channels are being pruned shows zeros where the teacher shows features. A loss
//! over all channels then pushes the channels that remain to make up for those that cannot change;
//! with `channels = "kept"` the masked ones are left out on both sides and the mean runs over what
//! remains.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use burn_compress_core::config::Selected;
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{Chain, Error, FlatTensor, Mode, Target, TargetId, TargetSpace};

use crate::error::DistillationError;
use crate::settings::DistillationSettings;

/// The masks by which channels of a student's hidden state are kept.
pub(crate) struct KeptChannels {
    own: Arc<TargetSpace>,
    /// The parameter that makes the channels, and its dimension of them.
    param: Option<(Arc<TargetSpace>, usize)>,
}

impl KeptChannels {
    /// Follows the masks of a target and of the parameter behind it, also those that a pruner sets
    /// that is fused later.
    ///
    /// That parameter is the layer's weight, or the first of its vectors if it has nothing else:
    /// the scale of a batch norm. A masked element of a bias does not remove its channel.
    pub(crate) fn new<M: Module + 'static, I: 'static>(
        chain: &mut Chain<'_, M, I>,
        item: &Selected<DistillationSettings>,
        own: Arc<TargetSpace>,
    ) -> Result<Self, Error> {
        let params = &item.layer.params;
        let matrix = params.iter().find(|param| param.shape.len() > 1);
        let param = match matrix.or(params.first()) {
            None => None,
            Some(param) => {
                let dims = channel_dims(&item.layer.kind, &param.name, param.shape.len());
                let dim = match item.target {
                    Target::Input(_) => dims.input,
                    _ => dims.output,
                };
                let id = TargetId::new(&item.layer.path, Target::param(&param.name));
                let space = match chain.space(&id) {
                    Some(space) => space.clone(),
                    None => chain
                        .claim(Mode::Distillation, std::slice::from_ref(&id))?
                        .remove(0),
                };
                dim.map(|dim| (space, dim))
            }
        };
        Ok(Self { own, param })
    }

    /// Whether a pruner has claimed a mask that is followed, or there is one already.
    pub(crate) fn is_followed(&self) -> bool {
        let has_mask =
            |space: &TargetSpace| space.is_claimed(Mode::Pruning) || space.mask().is_some();
        let param = self.param.as_ref();
        has_mask(&self.own) || param.is_some_and(|(space, _)| has_mask(space))
    }

    /// The kept ones of the channels in dimension `dim` of a hidden state, or `None` when all are.
    pub(crate) fn of(
        &self,
        state: &FlatTensor,
        dim: usize,
    ) -> Result<Option<Vec<usize>>, DistillationError> {
        let channels = state.shape.get(dim).copied().unwrap_or(0);
        let own = self.own.mask();
        let masks = [
            own.as_ref()
                .map(|mask| (mask.shape().to_vec(), own.clone(), dim)),
            self.param
                .as_ref()
                .and_then(|(space, dim)| Some((space.shape()?, space.mask(), *dim))),
        ];
        let mut is_masked = false;
        let mut kept = vec![true; channels];
        for (shape, mask, dim) in masks.into_iter().flatten() {
            if shape.get(dim) != Some(&channels) {
                continue;
            }
            is_masked = true;
            let removed = mask.filter(|mask| mask.shape().get(dim) == Some(&channels));
            for (kept, removed) in kept
                .iter_mut()
                .zip(removed.iter().flat_map(|mask| mask.removed_along(dim)))
            {
                *kept &= !removed;
            }
        }
        if !is_masked {
            return Err(DistillationError::NoChannels {
                layer: self.own.id().layer.clone(),
                dim,
                channels,
            });
        }
        Ok(kept
            .contains(&false)
            .then(|| (0..channels).filter(|&channel| kept[channel]).collect()))
    }
}

/// The given channels of a hidden state, in dimension `dim`.
///
/// The state has such a dimension and the channels are in it.
pub(crate) fn select(state: &FlatTensor, dim: usize, channels: &[usize]) -> FlatTensor {
    let outer: usize = state.shape[..dim].iter().product();
    let inner: usize = state.shape[dim + 1..].iter().product();
    let mut shape = state.shape.clone();
    shape[dim] = channels.len();
    let index: Vec<i64> = channels.iter().map(|&channel| channel as i64).collect();
    let device = state.values.device().without_autodiff();
    let index = Tensor::<1, Int>::from_data(TensorData::from(&index[..]), &device);
    let values = state
        .values
        .clone()
        .reshape([outer, state.shape[dim], inner])
        .select(1, index)
        .reshape([outer * channels.len() * inner]);
    FlatTensor { values, shape }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn channels_are_selected_in_their_dimension() {
        let device = Device::flex();
        // [2, 3, 2]: sample, channel, position.
        let values: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let state = FlatTensor {
            values: Tensor::from_data(TensorData::from(&values[..]), &device),
            shape: vec![2, 3, 2],
        };
        let kept = select(&state, 1, &[0, 2]);
        assert_eq!(kept.shape, [2, 2, 2]);
        let expected = [0.0, 1.0, 4.0, 5.0, 6.0, 7.0, 10.0, 11.0];
        assert_eq!(kept.to_vec().unwrap(), expected);
        let last = select(&state, 2, &[1]);
        assert_eq!(last.shape, [2, 3, 1]);
        assert_eq!(last.to_vec().unwrap(), [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]);
    }
}
