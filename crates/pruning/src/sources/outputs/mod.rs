//! Outputs of layers, observed over training steps.
//!
//! Which output scores a layer is read from the captured forward pass: that of the activation
//! behind it, see [`search`]. In a step that counts for a score, the loss of the batch is computed
//! once more on a validation snapshot of the model that records what passes the wrapped layers.
//! Nothing is shared with the model that trains: a distiller may record the same layers, dropout is
//! off, and batch norms normalize as they will when the model is used. The snapshot is masked and
//! quantized as the model is.

mod observed;
mod search;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::layer::{LayerKind, PortChannels, channel_dims};
use burn_compress_core::{AlgorithmState, BoxError, Error, FlatTensor, Run, TargetId, reads, tap};
use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use self::observed::{Channels, Output, Statistic};
use self::search::Search;
use super::accumulator::Accumulator;
use super::source::{Collector, ScoreSource, Scored};
use crate::PruningError;
use crate::timing::{Phase, Timing};

/// Outputs of layers, one number a channel, summed over training steps.
///
/// The output that scores a layer is that of the activation behind it, as the forward pass of the
/// evaluator's dummy input has it; see [`ActivationPruner`](crate::ActivationPruner).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Outputs {
    training_steps: usize,
    statistic: Statistic,
    before_activation: bool,
}

impl Outputs {
    /// The sum over `training_steps` steps of the mean magnitude over batch and positions.
    pub const fn magnitudes(training_steps: usize) -> Self {
        Self {
            training_steps,
            statistic: Statistic::Magnitude,
            before_activation: false,
        }
    }

    /// The sum over `training_steps` steps of the fraction of values that are not positive.
    pub const fn zeros(training_steps: usize) -> Self {
        Self {
            training_steps,
            statistic: Statistic::NotPositive,
            before_activation: false,
        }
    }

    /// Observes the own output of each layer, before any norm and activation.
    #[must_use]
    pub const fn with_before_activation(self, before_activation: bool) -> Self {
        Self {
            before_activation,
            ..self
        }
    }
}

impl ScoreSource for Outputs {
    fn timing(&self) -> Timing {
        Timing::after(self.training_steps)
    }

    fn observes_outputs(&self) -> bool {
        true
    }

    fn collector<M: Module + 'static, I: 'static>(
        &self,
        scored: &Scored<'_, M, I>,
    ) -> Result<Box<dyn Collector<M, I>>, PruningError> {
        Ok(Box::new(Observer::new(*self, scored)?))
    }
}

type Loss<M, I> = Arc<dyn Fn(&M, &I) -> Tensor<1> + Send + Sync>;

/// The observed outputs of one chain.
struct Observer<M, I> {
    loss: Loss<M, I>,
    statistic: Statistic,
    targets: Vec<TargetId>,
    /// The channels of each scored parameter, by path.
    channels: IndexMap<String, Channels>,
    sums: Accumulator,
}

impl<M: Module + 'static, I: 'static> Observer<M, I> {
    /// Finds the outputs that score each of the parameters.
    fn new(source: Outputs, scored: &Scored<'_, M, I>) -> Result<Self, PruningError> {
        let (chain, pruner) = (scored.chain(), scored.pruner());
        chain.evaluator().require_training(pruner)?;
        let loss = chain.evaluator().loss();
        let loss = loss.ok_or(Error::MissingEvaluator {
            algorithm: pruner,
            missing: "the loss of a batch",
            builder: "with_loss",
        })?;
        let items = scored.selected();
        let unnamed = items.iter().any(|item| item.settings.activation.is_none());
        // Of a named layer it need not be known what is behind it.
        let needed = unnamed && !source.before_activation;
        let captured = match needed {
            true => Some(chain.captured(pruner)?),
            false => chain.captured(pruner).ok(),
        };
        let counts_zeros = source.statistic == Statistic::NotPositive;
        let search = Search::new(
            captured.as_ref(),
            chain.layers(),
            source.before_activation,
            counts_zeros,
        );
        let mut all = IndexMap::new();
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
            let mut channels = Channels {
                id: id.clone(),
                shape: param.shape.clone(),
                dim,
                outputs: Vec::new(),
                channels_first: LayerKind::of(kind).channels() != PortChannels::Last,
            };
            match search.outputs(item, &param.name, channels.channels_first) {
                Ok(stops) => {
                    for stop in &stops {
                        // Of what no forward pass has shown, the first step tells.
                        let known = !stop.shape.is_empty();
                        if known && channels.positions(&stop.shape, stop.first).is_none() {
                            return Err(channels.misfit(&stop.name, &stop.shape));
                        }
                    }
                    channels.outputs = stops.into_iter().filter_map(Output::of).collect();
                    all.insert(id.to_string(), channels);
                }
                Err(found) => unknown.push(format!("`{id}` {found}")),
            }
        }
        if !unknown.is_empty() {
            return Err(PruningError::UnknownActivation { found: unknown });
        }
        let outputs = all.values().flat_map(|channels| &channels.outputs);
        let ports = outputs.flat_map(|output| output.observed.ports());
        let targets: IndexSet<TargetId> = ports.map(|(target, _)| target.clone()).collect();
        let targets: Vec<TargetId> = targets.into_iter().collect();
        tap(chain.model(), &targets)?;
        let shapes = all.iter();
        let shapes = shapes.map(|(path, channels)| (path.clone(), vec![channels.count()]));
        let sums = Accumulator::with_shapes(scored.device(), shapes.collect());
        Ok(Self {
            loss,
            statistic: source.statistic,
            targets,
            channels: all,
            sums,
        })
    }

    /// One value for each output channel of each parameter.
    fn means(&self, model: &M, batch: &I) -> Result<Vec<(String, FlatTensor)>, BoxError> {
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
        for (path, channels) in &self.channels {
            let values = channels.values(&passed, self.statistic)?;
            let shape = vec![channels.count()];
            found.push((path.clone(), FlatTensor { values, shape }));
        }
        Ok(found)
    }
}

impl<M: Module + 'static, I: 'static> Collector<M, I> for Observer<M, I> {
    fn loss(
        &mut self,
        loss: Tensor<1>,
        batch: &I,
        run: Run<'_, M>,
        phase: Phase,
    ) -> Result<Tensor<1>, BoxError> {
        if phase.collects {
            let means = self.means(run.model, batch)?;
            self.sums.add(means);
        }
        Ok(loss)
    }

    fn values(&self, _model: &M) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        let sums = self.sums.sums();
        let seen = self.channels.iter();
        let seen = seen.filter_map(|(path, channels)| Some((path, channels, sums.get(path)?)));
        let values = reads::all(seen.clone().map(|(_, _, sum)| sum.values.clone()))?;
        let spread = seen.zip(values);
        let spread = spread.map(|((path, channels, _), sum)| (path.clone(), channels.spread(&sum)));
        Ok(spread.collect())
    }

    fn clear(&mut self) {
        self.sums.clear();
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        self.sums.state()
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.sums.load_state(state)
    }
}

const NO_CHANNELS: PruningError = PruningError::Unscorable {
    reason: "the parameter has no output channels",
    advice: "exclude it, or use a pruner that scores weights",
};
