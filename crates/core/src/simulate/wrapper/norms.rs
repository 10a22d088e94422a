//! Norms over channels: the statistics are those of the channels that are kept.
//!
//! A mean over channels changes when channels go, so that a model whose masked channels are zero and
//! the model without them would compute something else. A wrapped norm therefore takes the channels
//! whose `gamma` and `beta` are masked out of its statistics, as the small model does:
//!
//! ```text
//! k_i = 0 where gamma_i and beta_i are masked, otherwise 1;  n = sum k_i
//! mean = sum(k_i x_i) / n,  variance = sum(k_i (x_i - mean)^2) / n
//! y_i = k_i ((x_i - mean) / sqrt(variance + eps) * gamma_i + beta_i)
//! ```
//!
//! The masks are read where they act, from the state of the two parameters. So a copy, a teacher, a
//! resumed run and a model with masks from elsewhere compute the same without further ado. Without a
//! masked channel the layer's own forward pass runs.
//!
//! While a forward pass is captured the norm records itself as one operation, whose rule knows all
//! this, see [`builtin`](burn_compress_graph::builtin).

use burn::module::{Param, ParamId};
use burn::nn::{GroupNorm, InstanceNorm, LayerNorm, RmsNorm};
use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};
use burn_compress_graph::{CustomOp, builtin};

use super::Layer;
use crate::graph::ports::recording_layers;
use crate::simulate::flat::in_dtype;
use crate::simulate::mask::Mask;
use crate::simulate::simulation::Simulation;

type Vector = Param<Tensor<1>>;

/// Which channels of a norm are kept, some of which are not.
struct Kept(Vec<bool>);

impl Kept {
    /// The channels of a norm with these parameters; `None` where all are kept.
    fn of(gamma: Option<&Vector>, beta: Option<&Vector>) -> Option<Self> {
        let mask = |vector: &Vector| vector.reparameterization::<Simulation>()?.space().zeros();
        let gamma = mask(gamma?)?;
        let beta = match beta {
            Some(beta) => Some(mask(beta)?),
            None => None,
        };
        let is_kept = |mask: &Mask, at: usize| mask.values()[at] != 0.0;
        let kept = (0..gamma.values().len())
            .map(|at| is_kept(&gamma, at) || beta.as_ref().is_some_and(|beta| is_kept(beta, at)));
        let kept: Vec<bool> = kept.collect();
        kept.contains(&false).then_some(Self(kept))
    }

    /// The positions of the kept channels.
    fn positions(&self, device: &Device) -> Option<Tensor<1, Int>> {
        let kept = self.0.iter().enumerate().filter(|(_, kept)| **kept);
        let positions: Vec<i64> = kept.map(|(at, _)| at as i64).collect();
        if positions.is_empty() {
            return None;
        }
        Some(Tensor::from_data(TensorData::from(&positions[..]), device))
    }

    /// 1 for a channel that is kept and 0 for one that is not, `[channels]`.
    fn mask(&self, dtype: DType, device: &Device) -> Tensor<1> {
        let mask: Vec<f32> = self
            .0
            .iter()
            .map(|&kept| f32::from(u8::from(kept)))
            .collect();
        in_dtype(
            Tensor::from_data(TensorData::from(&mask[..]), device),
            dtype,
        )
    }

    /// What `norm` makes of the kept channels along dimension `dim`; the others are zero.
    fn within<const D: usize>(
        &self,
        input: Tensor<D>,
        dim: usize,
        norm: impl FnOnce(&Tensor<1, Int>, Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let zeros = input.zeros_like();
        match self.positions(&input.device().without_autodiff()) {
            None => zeros,
            Some(positions) => {
                let output = norm(&positions, input.select(dim, positions.clone()));
                zeros.select_assign(dim, positions, output, IndexingUpdateOp::Add)
            }
        }
    }
}

/// The entries of a vector at some positions, simulated.
fn select(vector: &Vector, positions: &Tensor<1, Int>) -> Vector {
    let selected = vector.val().select(0, positions.clone());
    Param::initialized(ParamId::from(0), selected)
}

/// The operation that a norm records, with its output in the shape of its input.
fn record<const D: usize>(
    op: CustomOp,
    input: &Tensor<D>,
    dim: usize,
    vectors: [Option<&Vector>; 2],
) -> Option<Tensor<D>> {
    let mut op = op;
    for vector in vectors.into_iter().flatten() {
        let vector = vector.val();
        // What the operation would do with other shapes, the capture cannot find out.
        assert_eq!(
            input.dims()[dim],
            vector.dims()[0],
            "the channels of the norm"
        );
        op = op.input(&vector);
    }
    op.output(input.dims())
}

impl<const D: usize> Layer<Tensor<D>> for LayerNorm {
    type Output = Tensor<D>;

    fn forward(&self, input: Tensor<D>) -> Tensor<D> {
        LayerNorm::forward(self, input)
    }

    fn simulate(&self, input: Tensor<D>) -> Tensor<D> {
        if recording_layers() {
            let op = CustomOp::new(builtin::LAYER_NORM).input(&input);
            let vectors = [Some(&self.gamma), self.beta.as_ref()];
            if let Some(output) = record(op, &input, D - 1, vectors) {
                return output;
            }
        }
        let Some(kept) = Kept::of(Some(&self.gamma), self.beta.as_ref()) else {
            return LayerNorm::forward(self, input);
        };
        kept.within(input, D - 1, |positions, input| {
            let mut norm = self.clone();
            norm.gamma = select(&self.gamma, positions);
            norm.beta = self.beta.as_ref().map(|beta| select(beta, positions));
            LayerNorm::forward(&norm, input)
        })
    }
}

impl<const D: usize> Layer<Tensor<D>> for RmsNorm {
    type Output = Tensor<D>;

    fn forward(&self, input: Tensor<D>) -> Tensor<D> {
        RmsNorm::forward(self, input)
    }

    fn simulate(&self, input: Tensor<D>) -> Tensor<D> {
        if recording_layers() {
            let op = CustomOp::new(builtin::RMS_NORM).input(&input);
            if let Some(output) = record(op, &input, D - 1, [Some(&self.gamma), None]) {
                return output;
            }
        }
        let Some(kept) = Kept::of(Some(&self.gamma), None) else {
            return RmsNorm::forward(self, input);
        };
        kept.within(input, D - 1, |positions, input| {
            let mut norm = self.clone();
            norm.gamma = select(&self.gamma, positions);
            RmsNorm::forward(&norm, input)
        })
    }
}

impl<const D: usize> Layer<Tensor<D>> for GroupNorm {
    type Output = Tensor<D>;

    fn forward(&self, input: Tensor<D>) -> Tensor<D> {
        GroupNorm::forward(self, input)
    }

    fn simulate(&self, input: Tensor<D>) -> Tensor<D> {
        let vectors = [self.gamma.as_ref(), self.beta.as_ref()];
        if recording_layers() {
            assert_eq!(
                input.dims()[1],
                self.num_channels,
                "`num_channels` of the norm"
            );
            let groups = self.num_groups;
            assert!(
                self.num_channels.is_multiple_of(groups),
                "{groups} groups of the norm"
            );
            let op = CustomOp::new(builtin::GROUP_NORM).input(&input);
            let op = op.scalar(self.num_groups as f64);
            if let Some(output) = record(op, &input, 1, vectors) {
                return output;
            }
        }
        let Some(kept) = Kept::of(vectors[0], vectors[1]) else {
            return GroupNorm::forward(self, input);
        };
        let Some((groups, channels)) = kept.equal_groups(self.num_groups) else {
            return kept.in_groups(self, input);
        };
        kept.within(input, 1, |positions, input| {
            let mut norm = self.clone();
            (norm.num_groups, norm.num_channels) = (groups, groups * channels);
            norm.gamma = self.gamma.as_ref().map(|gamma| select(gamma, positions));
            norm.beta = self.beta.as_ref().map(|beta| select(beta, positions));
            GroupNorm::forward(&norm, input)
        })
    }
}

impl Kept {
    /// Of so many groups the number of those that keep a channel, and how many channels each of them
    /// keeps; `None` where one keeps more than another.
    fn equal_groups(&self, groups: usize) -> Option<(usize, usize)> {
        let groups = self.0.chunks(self.0.len() / groups);
        let counts = groups.map(|group| group.iter().filter(|kept| **kept).count());
        let counts: Vec<usize> = counts.filter(|count| *count > 0).collect();
        let first = counts.first().copied().unwrap_or(0);
        let equal = counts.iter().all(|count| *count == first);
        equal.then_some((counts.len(), first))
    }

    /// A group norm over what is kept in each group, which may be more in one than in another.
    fn in_groups<const D: usize>(&self, norm: &GroupNorm, input: Tensor<D>) -> Tensor<D> {
        let (dims, given) = (input.dims(), input.dtype());
        let dtype = match given {
            DType::F16 | DType::BF16 => DType::F32,
            wide => wide,
        };
        let device = input.device().without_autodiff();
        let (groups, channels) = (norm.num_groups, dims[1] / norm.num_groups);
        let places = dims[2..].iter().product::<usize>();
        let mask = self.mask(dtype, &device);
        let by_channel = mask.clone().reshape([1, groups, channels, 1]);
        // Nothing is left of a sum over a group that is masked as a whole.
        let count = by_channel.clone().sum_dim(2).clamp_min(1.0) * places as f64;
        let sum = |x: Tensor<4>| x.sum_dim(3).sum_dim(2);

        let x = in_dtype(input, dtype).reshape([dims[0], groups, channels, places]);
        let mean = sum(x.clone() * by_channel.clone()) / count.clone();
        let x = (x - mean) * by_channel;
        let variance = sum(x.clone().square()) / count;
        let x = (x / (variance + norm.epsilon).sqrt()).reshape(dims);
        let x = in_dtype(x, given);
        let along = |vector: Tensor<1>| {
            let mut shape = [1; D];
            shape[1] = dims[1];
            vector.reshape(shape)
        };
        match (&norm.gamma, &norm.beta) {
            (Some(gamma), Some(beta)) => x * along(gamma.val()) + along(beta.val()),
            _ => x,
        }
    }
}

/// The statistics are those of each channel by itself, so that a masked one touches no other.
impl<const D: usize> Layer<Tensor<D>> for InstanceNorm {
    type Output = Tensor<D>;

    fn forward(&self, input: Tensor<D>) -> Tensor<D> {
        InstanceNorm::forward(self, input)
    }

    fn simulate(&self, input: Tensor<D>) -> Tensor<D> {
        if recording_layers() {
            assert_eq!(
                input.dims()[1],
                self.num_channels,
                "`num_channels` of the norm"
            );
            let op = CustomOp::new(builtin::INSTANCE_NORM).input(&input);
            let vectors = [self.gamma.as_ref(), self.beta.as_ref()];
            if let Some(output) = record(op, &input, 1, vectors) {
                return output;
            }
        }
        InstanceNorm::forward(self, input)
    }
}

#[cfg(test)]
mod tests;
