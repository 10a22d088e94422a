//! Outputs of wrapped layers as the source of a score.
//!
//! In a step that belongs to a score, the loss of the batch is computed once more on a validation
//! snapshot of the model that records the observed outputs. Nothing is shared with the model that
//! trains: a distiller may record the same layers, dropout is off, and batch norms normalize as they
//! will when the model is used. The snapshot is masked and quantized as the model is.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{FloatDType, Tensor};
use burn_compress_core::config::Selected;
use burn_compress_core::layer::{LayerInfo, channel_dims};
use burn_compress_core::{BoxError, Compressor, Error, FlatTensor, Target, TargetId, tap};
use indexmap::{IndexMap, IndexSet};

use crate::granularity::channels_last;
use crate::signal::Statistic;
use crate::{PruningError, PruningSettings};

type Loss<M, I> = Arc<dyn Fn(&M, &I) -> Tensor<1> + Send + Sync>;

/// What a pruner observes.
pub(crate) struct Activations<M, I> {
    loss: Loss<M, I>,
    statistic: Statistic,
    targets: Vec<TargetId>,
    scored: IndexMap<String, Scored>,
}

/// A parameter that is scored by an output.
struct Scored {
    id: TargetId,
    shape: Vec<usize>,
    /// The dimension of the parameter's output channels.
    dim: usize,
    /// The observed output, as a position in the targets.
    observed: usize,
    /// Whether the output has its channels behind the batch, or else at the end.
    channels_first: bool,
}

impl<M: Module + 'static, I: 'static> Activations<M, I> {
    /// Finds the output that scores each of the parameters `sources`.
    pub(crate) fn new(
        compressor: &Compressor<M, I>,
        pruner: &'static str,
        statistic: Statistic,
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
        let mut targets = IndexSet::new();
        let mut scored = IndexMap::new();
        for item in selected {
            let id = item.id();
            let path = id.to_string();
            let name = item.target.param_name();
            let param = name.and_then(|name| item.layer.param(name));
            let Some(param) = param.filter(|_| sources.contains(&path)) else {
                continue;
            };
            let kind = &item.layer.kind;
            let dim = channel_dims(kind, &param.name, param.shape.len()).output;
            let dim = dim.ok_or_else(|| NO_CHANNELS.at(&id))?;
            let layer = match &item.settings.activation {
                Some(layer) => layer.clone(),
                None => observed_layer(compressor.layers(), &item.layer, statistic),
            };
            let (observed, _) = targets.insert_full(TargetId::new(layer, Target::Output(0)));
            let entry = Scored {
                id,
                shape: param.shape.clone(),
                dim,
                observed,
                channels_first: !channels_last(kind),
            };
            scored.insert(path, entry);
        }
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
        (self.loss)(&snapshot, batch);
        let mut outputs = Vec::new();
        for space in &spaces {
            let target = space.id().clone();
            outputs.push(space.take_hidden().ok_or(Error::Unreached { target })?);
        }
        let mut found = Vec::new();
        for (path, scored) in &self.scored {
            let output = &outputs[scored.observed];
            let values = scored.channel_means(output, self.statistic);
            let values = values.ok_or_else(|| {
                let error = PruningError::ActivationChannels {
                    observed: self.targets[scored.observed].layer.clone(),
                    shape: output.shape.clone(),
                    channels: scored.shape[scored.dim],
                };
                error.at(&scored.id)
            })?;
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
        let mut data = IndexMap::new();
        for (path, scored) in &self.scored {
            if let Some(sum) = sums.get(path) {
                data.insert(path.clone(), scored.spread(&sum.to_vec()?));
            }
        }
        Ok(data)
    }
}

const NO_CHANNELS: PruningError = PruningError::Unscorable {
    reason: "the parameter has no output channels",
    advice: "exclude it, or use a pruner that scores weights",
};

impl Scored {
    /// The statistic of each channel of an output, `None` if it has another number of channels.
    fn channel_means(&self, output: &FlatTensor, statistic: Statistic) -> Option<Tensor<1>> {
        let shape = &output.shape;
        let dim = match self.channels_first {
            true => 1,
            false => shape.len().checked_sub(1)?,
        };
        let channels = *shape.get(dim)?;
        if channels != self.shape[self.dim] {
            return None;
        }
        let outer: usize = shape[..dim].iter().product();
        let inner: usize = shape[dim + 1..].iter().product();
        let values = output.values.clone().detach().without_autodiff();
        // A sum of many values is not one of half precision.
        let values = values.cast(FloatDType::F32);
        let values = match statistic {
            Statistic::Magnitude => values.abs(),
            Statistic::NotPositive => values.lower_equal_elem(0.0).float(),
        };
        let values = values.reshape([outer, channels, inner]);
        Some(values.mean_dim(0).mean_dim(2).reshape([channels]))
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

/// The layer whose output scores the parameters of `layer`.
///
/// Magnitudes are those of the layer itself. For values that are not positive it is the activation
/// behind it, or the normalization where there is none in the model's fields: what a ReLU does to
/// values that are not positive is known without it. Behind means in the order of the model's
/// fields, up to the next layer with parameters that is no normalization.
fn observed_layer(layers: &[LayerInfo], layer: &LayerInfo, statistic: Statistic) -> String {
    let own = layer.path.clone();
    if statistic == Statistic::Magnitude {
        return own;
    }
    let at = layers.iter().position(|other| other.path == layer.path);
    let behind = layers.iter().skip(at.map_or(layers.len(), |at| at + 1));
    let is_norm = |layer: &LayerInfo| layer.kind.ends_with("Norm");
    let is_activation = |layer: &LayerInfo| ACTIVATIONS.contains(&layer.kind.as_str());
    let mut observed = own;
    for other in behind {
        if is_activation(other) {
            return other.path.clone();
        }
        if is_norm(other) {
            observed = other.path.clone();
        } else if !other.params.is_empty() {
            break;
        }
    }
    observed
}

/// The activations that turn values that are not positive to zero, or close to it.
const ACTIVATIONS: [&str; 6] = ["Relu", "Relu6", "HardSwish", "HardSigmoid", "Gelu", "SiLU"];

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;
    use burn::tensor::Device;
    use burn_compress_core::layer::ParamInfo;

    fn layer(path: &str, kind: &str, params: &[&str]) -> LayerInfo {
        let params = params.iter().map(|name| ParamInfo {
            name: name.to_string(),
            shape: vec![2],
            id: ParamId::new(),
        });
        LayerInfo {
            path: path.to_string(),
            kind: kind.to_string(),
            wrapped: true,
            params: params.collect(),
        }
    }

    #[test]
    fn zeros_are_looked_for_behind_the_layer() {
        let norm = ["gamma", "beta"];
        let layers = [
            layer("conv1", "Conv2d", &["weight"]),
            layer("norm1", "BatchNorm", &norm),
            layer("drop", "Dropout", &[]),
            layer("relu1", "Relu", &[]),
            layer("conv2", "Conv2d", &["weight"]),
            layer("norm2", "BatchNorm", &norm),
            layer("conv3", "Conv2d", &["weight"]),
            layer("pool", "MaxPool2d", &[]),
            layer("fc", "Linear", &["weight"]),
        ];
        let observed = |at: usize, statistic| observed_layer(&layers, &layers[at], statistic);
        let zeros = [0, 1, 4, 6, 8].map(|at| observed(at, Statistic::NotPositive));
        assert_eq!(zeros, ["relu1", "relu1", "norm2", "conv3", "fc"]);
        assert_eq!(observed(0, Statistic::Magnitude), "conv1");
    }

    fn scored(shape: &[usize], dim: usize, channels_first: bool) -> Scored {
        Scored {
            id: TargetId::new("layer", Target::param("weight")),
            shape: shape.to_vec(),
            dim,
            observed: 0,
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
            let means = scored.channel_means(&output, statistic).unwrap();
            means.into_data().try_to_vec::<f32>().unwrap()
        };
        assert_eq!(means(true, Statistic::Magnitude), [3.0, 1.5]);
        assert_eq!(means(true, Statistic::NotPositive), [0.5, 0.5]);
        assert_eq!(means(false, Statistic::Magnitude), [2.5, 2.0]);
        assert_eq!(means(false, Statistic::NotPositive), [0.5, 0.5]);
        // Three channels are asked for.
        let other = scored(&[3, 2], 0, true);
        assert!(other.channel_means(&output, Statistic::Magnitude).is_none());
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
