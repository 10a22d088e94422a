//! The hidden state of a layer, in the forms that losses use.

use burn::tensor::Tensor;
use burn_compress_core::{FlatTensor, TargetId};

use crate::error::DistillationError;
use crate::feature::channels::select;

/// The hidden state of a layer: the input or output that a rule selects, of any rank.
///
/// Dimension 0 holds the samples. The student's is in single precision at least and differentiated;
/// the teacher's has its device and its precision and is a constant, so that no gradient reaches the
/// teacher.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::feature::HiddenState;
///
/// let images = Tensor::<4>::ones([2, 3, 4, 4], &Device::flex());
/// let state = HiddenState::new("conv._output_0".parse()?, images, 1)?;
/// assert_eq!(state.samples().dims(), [2, 48]);
/// assert_eq!(state.channels_last().dims(), [2, 16, 3]);
/// assert_eq!(state.tensor::<4>()?.dims(), [2, 3, 4, 4]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct HiddenState {
    target: TargetId,
    pub(crate) state: FlatTensor,
    channel_dim: usize,
}

impl HiddenState {
    /// The hidden state of `target`, its channels in dimension `channel_dim`.
    ///
    /// # Errors
    ///
    /// [`DistillationError::Setting`] when there is no such dimension.
    pub fn new<const D: usize>(
        target: TargetId,
        state: Tensor<D>,
        channel_dim: usize,
    ) -> Result<Self, DistillationError> {
        Self::of("the", target, FlatTensor::new(state), channel_dim)
    }

    /// The hidden state of a layer of `whose` network.
    pub(crate) fn of(
        whose: &str,
        target: TargetId,
        state: FlatTensor,
        channel_dim: usize,
    ) -> Result<Self, DistillationError> {
        match channel_dim < state.shape.len() {
            true => Ok(Self {
                target,
                state,
                channel_dim,
            }),
            false => Err(DistillationError::Setting {
                key: "channel_dim",
                value: channel_dim.to_string(),
                expected: format!(
                    "a dimension of the hidden state of {whose} layer `{}`, of shape {:?}",
                    target.layer, state.shape
                ),
            }),
        }
    }

    /// The layer and which of its inputs and outputs it is.
    pub fn target(&self) -> &TargetId {
        &self.target
    }

    /// The path of the layer.
    pub fn layer(&self) -> &str {
        &self.target.layer
    }

    /// The shape, `[samples, ..]`.
    pub fn shape(&self) -> &[usize] {
        &self.state.shape
    }

    /// The dimension of the channels: the `channel_dim` of the rule, or else the one that the type
    /// of the layer has.
    pub fn channel_dim(&self) -> usize {
        self.channel_dim
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.shape()[self.channel_dim]
    }

    /// The values in row-major order, `[num_elements]`.
    pub fn values(&self) -> Tensor<1> {
        self.state.values.clone()
    }

    /// The state as a tensor of its rank.
    ///
    /// # Errors
    ///
    /// [`DistillationError::Rank`] when it has another rank than `D`.
    pub fn tensor<const D: usize>(&self) -> Result<Tensor<D>, DistillationError> {
        let shape: [usize; D] = self
            .shape()
            .try_into()
            .map_err(|_| DistillationError::Rank {
                layer: self.layer().to_string(),
                shape: self.shape().to_vec(),
                expected: D,
            })?;
        Ok(self.values().reshape(shape))
    }

    /// One row of features for each sample, `[samples, features]`.
    pub fn samples(&self) -> Tensor<2> {
        let samples = self.shape()[0];
        let features = self.shape()[1..].iter().product::<usize>();
        self.values().reshape([samples, features])
    }

    /// Samples, channels and positions, the positions behind the channels.
    pub fn sizes(&self) -> [usize; 3] {
        let (before, after) = self.around_channels();
        match self.channel_dim {
            0 => [1, self.shape()[0], after],
            _ => [self.shape()[0], self.channels(), before * after],
        }
    }

    /// The channels of each position, `[samples, positions, channels]`.
    pub fn channels_last(&self) -> Tensor<3> {
        let [samples, channels, positions] = self.sizes();
        let (before, after) = self.around_channels();
        self.values()
            .reshape([samples, before, channels, after])
            .swap_dims(2, 3)
            .reshape([samples, positions, channels])
    }

    /// The numbers of positions in the dimensions before and after that of the channels.
    fn around_channels(&self) -> (usize, usize) {
        let (shape, dim) = (self.shape(), self.channel_dim);
        let before = shape.get(1..dim).unwrap_or(&[]).iter().product();
        (before, shape[dim + 1..].iter().product())
    }

    /// The state with these channels alone.
    pub(crate) fn with_channels(&self, channels: &[usize]) -> Self {
        Self {
            state: select(&self.state, self.channel_dim, channels),
            ..self.clone()
        }
    }

    /// Whether there are no elements, or no dimension that a loss could run over.
    pub(crate) fn is_empty(&self) -> bool {
        self.shape().contains(&0)
    }

    pub(crate) fn empty(&self) -> DistillationError {
        DistillationError::Empty {
            student: self.layer().to_string(),
            shape: self.shape().to_vec(),
        }
    }
}
