//! The statistic of each channel of an observed output.

use burn::tensor::{FloatDType, Tensor};
use burn_compress_core::graph::{Observed, Stop};
use burn_compress_core::{FlatTensor, TargetId};
use indexmap::IndexMap;
use serde::Serialize;

use crate::PruningError;

/// The statistic of a step for each channel of an output: a mean over batch and positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Statistic {
    /// The mean magnitude.
    Magnitude,
    /// The fraction of values that are not positive.
    NotPositive,
}

/// A tensor that is observed for the sake of a parameter.
#[derive(Debug, Clone)]
pub(super) struct Output {
    /// Name in errors.
    name: String,
    pub(super) observed: Observed,
    /// Whether no forward pass has shown how often it is computed, so that it must be once.
    once: bool,
    /// The position of the parameter's channels in it, where a concatenation has joined them with
    /// others.
    first: Option<usize>,
}

impl Output {
    /// The observation of a tensor, if it is possible.
    pub(super) fn of(stop: Stop) -> Option<Self> {
        Some(Self {
            name: stop.name,
            once: stop.shape.is_empty(),
            observed: stop.observed?,
            first: stop.first,
        })
    }
}

/// The output channels of a parameter that outputs score.
pub(super) struct Channels {
    pub(super) id: TargetId,
    /// The shape of the parameter.
    pub(super) shape: Vec<usize>,
    /// The dimension of the parameter's output channels.
    pub(super) dim: usize,
    /// Observed tensors; the score is their mean.
    pub(super) outputs: Vec<Output>,
    /// Whether the outputs have their channels behind the batch, or else at the end.
    pub(super) channels_first: bool,
}

impl Channels {
    /// The number of channels.
    pub(super) fn count(&self) -> usize {
        self.shape[self.dim]
    }

    /// The statistic of each channel, the mean over all outputs and their calls in a step.
    pub(super) fn values(
        &self,
        passed: &IndexMap<TargetId, Vec<FlatTensor>>,
        statistic: Statistic,
    ) -> Result<Tensor<1>, PruningError> {
        let mut means = Vec::new();
        for output in &self.outputs {
            let ports = output.observed.ports();
            // A loss may run the model several times.
            let mut runs = None;
            for (target, calls) in &ports {
                let found = passed[*target].len();
                let alike = runs.is_none_or(|runs| runs == found / calls);
                if !found.is_multiple_of(*calls) || !alike || (output.once && found > 1) {
                    let error = PruningError::ActivationCalls {
                        observed: target.to_string(),
                        found,
                        expected: *calls,
                    };
                    return Err(error.at(&self.id));
                }
                runs = Some(found / calls);
            }
            for run in 0..runs.unwrap_or(0) {
                let port = |target: &TargetId, call: usize| {
                    let calls = passed.get(target)?;
                    let runs = runs.unwrap_or(1);
                    calls.get(run * (calls.len() / runs) + call).cloned()
                };
                let value = output.observed.value(&port);
                let mean = value
                    .as_ref()
                    .and_then(|value| self.channel_means(value, output.first, statistic));
                means.push(mean.ok_or_else(|| {
                    let shape = value.map(|value| value.shape).unwrap_or_default();
                    self.misfit(&output.name, &shape)
                })?);
            }
        }
        let count = means.len();
        let sum = means.into_iter().reduce(|sum, mean| {
            let mean = mean.to_device(&sum.device());
            sum + mean
        });
        match sum {
            Some(sum) if count == 1 => Ok(sum),
            Some(sum) => Ok(sum / count as f64),
            None => Err(self.misfit("nothing", &[])),
        }
    }

    /// The dimension and the positions of the parameter's channels in an output of `shape`, `None`
    /// where it has not these channels.
    pub(super) fn positions(
        &self,
        shape: &[usize],
        first: Option<usize>,
    ) -> Option<(usize, usize)> {
        let dim = match self.channels_first {
            true => 1,
            false => shape.len().checked_sub(1)?,
        };
        let (found, channels) = (*shape.get(dim)?, self.count());
        match first {
            Some(first) => (first + channels <= found).then_some((dim, first)),
            None => (found == channels).then_some((dim, 0)),
        }
    }

    pub(super) fn misfit(&self, observed: &str, shape: &[usize]) -> PruningError {
        let error = PruningError::ActivationChannels {
            observed: observed.to_string(),
            shape: shape.to_vec(),
            channels: self.count(),
        };
        error.at(&self.id)
    }

    /// The statistic of each channel of an output, `None` if it has not the parameter's channels.
    fn channel_means(
        &self,
        output: &FlatTensor,
        first: Option<usize>,
        statistic: Statistic,
    ) -> Option<Tensor<1>> {
        let shape = &output.shape;
        let (dim, first) = self.positions(shape, first)?;
        let all = shape[dim];
        let outer: usize = shape[..dim].iter().product();
        let inner: usize = shape[dim + 1..].iter().product();
        let values = output.values.clone().detach().without_autodiff();
        // A sum of many values is not one of half precision.
        let values = values.cast(FloatDType::F32);
        let values = match statistic {
            Statistic::Magnitude => values.abs(),
            Statistic::NotPositive => values.lower_equal_elem(0.0).float(),
        };
        let values = values.reshape([outer, all, inner]);
        let means = values.mean_dim(0).mean_dim(2).reshape([all]);
        let channels = self.count();
        Some(match channels == all {
            true => means,
            false => means.narrow(0, first, channels),
        })
    }

    /// One value for each element: that of its output channel.
    pub(super) fn spread(&self, channels: &[f32]) -> Vec<f32> {
        let size = self.count();
        let inner: usize = self.shape[self.dim + 1..].iter().product();
        let elements: usize = self.shape.iter().product();
        (0..elements)
            .map(|at| channels[at / inner % size])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use burn_compress_core::Target;

    fn channels(shape: &[usize], dim: usize, channels_first: bool) -> Channels {
        Channels {
            id: TargetId::new("layer", Target::param("weight")),
            shape: shape.to_vec(),
            dim,
            outputs: Vec::new(),
            channels_first,
        }
    }

    #[test]
    fn means_are_over_everything_but_the_channels() {
        // [batch, channels, positions] = [2, 2, 2], or [batch, positions, channels].
        let values = [1.0, -3.0, 0.0, 2.0, -5.0, 3.0, 4.0, 0.0];
        let values = Tensor::<1>::from_floats(values, &Device::flex());
        let output = FlatTensor::new(values.reshape([2, 2, 2]));
        let means = |channels_first, statistic| {
            let scored = channels(&[2, 3], 0, channels_first);
            let means = scored.channel_means(&output, None, statistic).unwrap();
            means.into_data().try_to_vec::<f32>().unwrap()
        };
        assert_eq!(means(true, Statistic::Magnitude), [3.0, 1.5]);
        assert_eq!(means(true, Statistic::NotPositive), [0.5, 0.5]);
        assert_eq!(means(false, Statistic::Magnitude), [2.5, 2.0]);
        assert_eq!(means(false, Statistic::NotPositive), [0.5, 0.5]);
        // Three channels are asked for.
        let other = channels(&[3, 2], 0, true);
        assert!(
            other
                .channel_means(&output, None, Statistic::Magnitude)
                .is_none()
        );
        // A concatenation has put one channel behind another.
        let part = channels(&[1, 2], 0, true);
        let mean = part
            .channel_means(&output, Some(1), Statistic::Magnitude)
            .unwrap();
        assert_eq!(mean.into_data().try_to_vec::<f32>().unwrap(), [1.5]);
        assert!(
            part.channel_means(&output, Some(2), Statistic::Magnitude)
                .is_none()
        );
    }

    #[test]
    fn a_channel_s_value_is_that_of_all_its_elements() {
        assert_eq!(
            channels(&[2, 3], 0, true).spread(&[5.0, 7.0]),
            [5.0, 5.0, 5.0, 7.0, 7.0, 7.0]
        );
        assert_eq!(
            channels(&[2, 2], 1, false).spread(&[5.0, 7.0]),
            [5.0, 7.0, 5.0, 7.0]
        );
    }
}
