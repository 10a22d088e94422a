//! Outputs of wrapped layers as the source of a score.
//!
//! Which output scores a layer is read from the captured forward pass: that of the activation behind
//! it, see [`behind`]. In a step that belongs to a score, the loss of the batch is computed once more
//! on a validation snapshot of the model that records what passes the wrapped layers. Nothing is
//! shared with the model that trains: a distiller may record the same layers, dropout is off, and
//! batch norms normalize as they will when the model is used. The snapshot is masked and quantized as
//! the model is.

mod behind;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{FloatDType, Tensor};
use burn_compress_core::config::Selected;
use burn_compress_core::graph::Observed;
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{BoxError, Compressor, Error, FlatTensor, TargetId, reads, tap};
use indexmap::{IndexMap, IndexSet};

use crate::granularity::channels_last;
use crate::signal::{Place, Statistic};
use crate::{PruningError, PruningSettings};
use behind::Search;

type Loss<M, I> = Arc<dyn Fn(&M, &I) -> Tensor<1> + Send + Sync>;

/// What a pruner observes.
pub(crate) struct Activations<M, I> {
    loss: Loss<M, I>,
    statistic: Statistic,
    targets: Vec<TargetId>,
    scored: IndexMap<String, Scored>,
}

/// A parameter that is scored by outputs.
struct Scored {
    id: TargetId,
    shape: Vec<usize>,
    /// The dimension of the parameter's output channels.
    dim: usize,
    /// What is observed; the mean counts.
    outputs: Vec<Output>,
    /// Whether the outputs have their channels behind the batch, or else at the end.
    channels_first: bool,
}

/// A tensor that is observed for the sake of a parameter.
#[derive(Debug, Clone)]
struct Output {
    /// How errors name it.
    name: String,
    observed: Observed,
    /// Whether no forward pass has shown how often it is computed, so that it must be once.
    once: bool,
    /// The position of the parameter's channels in it, where a concatenation has joined them with
    /// others.
    first: Option<usize>,
}

impl<M: Module + 'static, I: 'static> Activations<M, I> {
    /// Finds the outputs that score each of the parameters `sources`.
    pub(crate) fn new(
        compressor: &Compressor<M, I>,
        pruner: &'static str,
        (statistic, place): (Statistic, Place),
        selected: &[Selected<PruningSettings>],
        sources: &IndexSet<String>,
    ) -> Result<Self, PruningError> {
        compressor.evaluator().require_training(pruner)?;
        let loss = compressor.evaluator().loss();
        let loss = loss.ok_or(Error::MissingEvaluator {
            algorithm: pruner,
            missing: "the loss of a batch",
            builder: "with_loss",
        })?;
        let scores = |item: &&Selected<PruningSettings>| sources.contains(&item.id().to_string());
        let items: Vec<_> = selected.iter().filter(scores).collect();
        let unnamed = items.iter().any(|item| item.settings.activation.is_none());
        // Of a named layer it need not be known what is behind it.
        let needed = unnamed && place == Place::Activation;
        let captured = match needed {
            true => Some(compressor.captured(pruner)?),
            false => compressor.captured(pruner).ok(),
        };
        let search = Search::new(captured.as_ref(), compressor.layers(), statistic, place);
        let mut scored = IndexMap::new();
        let mut unknown = Vec::new();
        for item in items {
            let id = item.id();
            let name = item.target.param_name();
            let Some(param) = name.and_then(|name| item.layer.param(name)) else {
                continue;
            };
            let kind = &item.layer.kind;
            let dim = channel_dims(kind, &param.name, param.shape.len()).output;
            let dim = dim.ok_or_else(|| NO_CHANNELS.at(&id))?;
            let mut entry = Scored {
                id: id.clone(),
                shape: param.shape.clone(),
                dim,
                outputs: Vec::new(),
                channels_first: !channels_last(kind),
            };
            match search.outputs(item, &param.name, entry.channels_first) {
                Ok(stops) => {
                    for stop in &stops {
                        // Of what no forward pass has shown, the first step tells.
                        let known = !stop.shape.is_empty();
                        if known && entry.channels(&stop.shape, stop.first).is_none() {
                            return Err(entry.misfit(&stop.name, &stop.shape));
                        }
                    }
                    entry.outputs = stops.into_iter().filter_map(Output::of).collect();
                    scored.insert(id.to_string(), entry);
                }
                Err(found) => unknown.push(format!("`{id}` {found}")),
            }
        }
        if !unknown.is_empty() {
            return Err(PruningError::UnknownActivation { found: unknown });
        }
        let outputs = scored.values().flat_map(|entry: &Scored| &entry.outputs);
        let ports = outputs.flat_map(|output| output.observed.ports());
        let targets: IndexSet<TargetId> = ports.map(|(target, _)| target.clone()).collect();
        let targets: Vec<TargetId> = targets.into_iter().collect();
        tap(compressor.model(), &targets)?;
        Ok(Self {
            loss,
            statistic,
            targets,
            scored,
        })
    }

    /// One value for each output channel of each parameter.
    pub(crate) fn observe(
        &self,
        model: &M,
        batch: &I,
    ) -> Result<Vec<(String, FlatTensor)>, BoxError> {
        let (snapshot, spaces) = tap(model, &self.targets)?;
        spaces.iter().for_each(|space| space.record_calls());
        (self.loss)(&snapshot, batch);
        let mut passed = IndexMap::new();
        for space in &spaces {
            let target = space.id().clone();
            let calls = space.take_calls();
            if calls.is_empty() {
                return Err(Error::Unreached { target }.into());
            }
            passed.insert(target, calls);
        }
        let mut found = Vec::new();
        for (path, scored) in &self.scored {
            let values = scored.values(&passed, self.statistic)?;
            let shape = vec![scored.shape[scored.dim]];
            found.push((path.clone(), FlatTensor { values, shape }));
        }
        Ok(found)
    }

    /// The sums by channel, spread over the elements of the parameters.
    pub(crate) fn spread(
        &self,
        sums: &IndexMap<String, FlatTensor>,
    ) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        let seen = self.scored.iter();
        let seen = seen.filter_map(|(path, scored)| Some((path, scored, sums.get(path)?)));
        let values = reads::all(seen.clone().map(|(_, _, sum)| sum.values.clone()))?;
        let spread = seen.zip(values);
        let spread = spread.map(|((path, scored, _), sum)| (path.clone(), scored.spread(&sum)));
        Ok(spread.collect())
    }
}

const NO_CHANNELS: PruningError = PruningError::Unscorable {
    reason: "the parameter has no output channels",
    advice: "exclude it, or use a pruner that scores weights",
};

impl Scored {
    /// The statistic of each channel, the mean over all outputs and their calls in a step.
    fn values(
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
    fn channels(&self, shape: &[usize], first: Option<usize>) -> Option<(usize, usize)> {
        let dim = match self.channels_first {
            true => 1,
            false => shape.len().checked_sub(1)?,
        };
        let (found, channels) = (*shape.get(dim)?, self.shape[self.dim]);
        match first {
            Some(first) => (first + channels <= found).then_some((dim, first)),
            None => (found == channels).then_some((dim, 0)),
        }
    }

    fn misfit(&self, observed: &str, shape: &[usize]) -> PruningError {
        let error = PruningError::ActivationChannels {
            observed: observed.to_string(),
            shape: shape.to_vec(),
            channels: self.shape[self.dim],
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
        let (dim, first) = self.channels(shape, first)?;
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
        let channels = self.shape[self.dim];
        Some(match channels == all {
            true => means,
            false => means.narrow(0, first, channels),
        })
    }

    /// One value for each element: that of its output channel.
    fn spread(&self, channels: &[f32]) -> Vec<f32> {
        let size = self.shape[self.dim];
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

    fn scored(shape: &[usize], dim: usize, channels_first: bool) -> Scored {
        Scored {
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
            let scored = scored(&[2, 3], 0, channels_first);
            let means = scored.channel_means(&output, None, statistic).unwrap();
            means.into_data().try_to_vec::<f32>().unwrap()
        };
        assert_eq!(means(true, Statistic::Magnitude), [3.0, 1.5]);
        assert_eq!(means(true, Statistic::NotPositive), [0.5, 0.5]);
        assert_eq!(means(false, Statistic::Magnitude), [2.5, 2.0]);
        assert_eq!(means(false, Statistic::NotPositive), [0.5, 0.5]);
        // Three channels are asked for.
        let other = scored(&[3, 2], 0, true);
        assert!(
            other
                .channel_means(&output, None, Statistic::Magnitude)
                .is_none()
        );
        // A concatenation has put one channel behind another.
        let part = self::scored(&[1, 2], 0, true);
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
            scored(&[2, 3], 0, true).spread(&[5.0, 7.0]),
            [5.0, 5.0, 5.0, 7.0, 7.0, 7.0]
        );
        assert_eq!(
            scored(&[2, 2], 1, false).spread(&[5.0, 7.0]),
            [5.0, 7.0, 5.0, 7.0]
        );
    }
}
