//! One network, pruned by half and cut, with the costs of each part.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use burn::module::{ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use burn_compress::graph::{ChannelGraph, ForwardOutputs};
use burn_compress::layer::{LayerInfo, channel_dims, layers};
use burn_compress::prelude::*;
use burn_compress_examples::process::{Growth, timed};
use burn_compress_zoo::{
    Model, OWN_LAYERS, Task, Zoo, parameters, randomize_statistics, register_layers,
};

use super::row::{Cut, Outcome, Row, Seconds, Spread};

/// Types of the layers that are pruned.
const TYPES: [&str; 4] = ["Conv2d", "ConvTranspose2d", "Linear", "Embedding"];

/// Names of the layers that make heads of attention.
const HEADS: [&str; 8] = [
    "in_proj", "qkv", "query", "key", "value", "q_proj", "k_proj", "v_proj",
];

/// The measurement of a network.
pub struct Measure {
    /// The network.
    pub zoo: Zoo,
    /// Pixels a side, or tokens.
    pub size: usize,
    /// Measurements of every latency.
    pub repeats: usize,
    /// Seed of weights, statistics and inputs.
    pub seed: u64,
}

impl Task for Measure {
    type Output = anyhow::Result<Row>;

    fn run<M: Model>(self, model: M) -> anyhow::Result<Row> {
        let device = Device::flex();
        register_layers()?;
        let model = randomize_statistics(model.valid(), self.seed);
        let input = model.random_input(1, self.size, &device);
        let forward = || timed(|| model.run(input.clone()).data()).1;
        let growth = Growth::start();
        forward();
        let growth = growth.and_then(|growth| growth.peak());
        let (mut passes, mut seconds) = (0, 0.0);
        while passes < 3 || seconds < 0.1 {
            seconds += forward();
            passes += 1;
        }
        let row = Row {
            model: self.zoo.name().into(),
            parameters: parameters(&model) as u64,
            forward: seconds / f64::from(passes),
            result: Outcome::Refused(String::new()),
        };
        let result = match self.cut(&model, input)? {
            Ok(cut) => Outcome::Cut(Box::new(Cut {
                forward_growth: growth.map(|bytes| bytes as f64 / (4 * row.parameters) as f64),
                ..cut
            })),
            Err(error) => Outcome::Refused(first_reason(&*error)),
        };
        Ok(Row { result, ..row })
    }
}

type Refusal = Box<dyn std::error::Error + Send + Sync>;

impl Measure {
    fn cut<M: Model>(&self, model: &M, input: M::Input) -> anyhow::Result<Result<Cut, Refusal>> {
        let passes = Arc::new(Mutex::new(Passes::default()));
        let seconds =
            || std::mem::take(&mut *passes.lock().unwrap_or_else(PoisonError::into_inner));
        let dummy = dummy_input(input.clone(), passes.clone());
        let evaluator = || Evaluator::<M, ()>::new().with_dummy_input(dummy.clone());
        let plain = Compressor::from_model(model.clone(), evaluator());
        let (graph, analysis) = timed(|| plain.graph("bench"));
        let graph = match graph {
            Ok(graph) => graph,
            Err(error) => return Ok(Err(error.into())),
        };
        let capture = seconds().captured;
        let selected = selected(self.zoo, model);
        let half = half_of(&graph, &selected);

        let growth = Growth::start();
        let (heads, layers): (Vec<_>, Vec<_>) = selected.iter().partition(|layer| layer.is_split());
        let layers = [(heads, Granularity::Head), (layers, Granularity::Default)].into_iter();
        let layers = layers.filter(|(layers, _)| !layers.is_empty());
        let layers = layers.map(|(layers, granularity)| {
            let paths = layers.into_iter().map(|layer| layer.path.as_str());
            let rule: Rule<PruningSettings> = named(paths);
            rule.granularity(granularity)
        });
        let own = own_layers(model).map(|(path, parameter)| {
            let rule: Rule<PruningSettings> = named([path]);
            rule.with_target_names([Target::param(parameter)])
        });
        let rules = own.chain(layers);
        let rules: ConfigList<_> = rules.map(|rule| rule.sparse_ratio(0.5)).collect();
        let dense = model.clone();
        let (chain, building) =
            timed(|| L1NormPruner::new(dense, rules, evaluator(), PrunerConfig::new()));
        let chain = match chain {
            Ok(chain) => chain,
            Err(error) => return Ok(Err(error.into())),
        };
        let (compressed, scoring) = timed(|| chain.compress(Budget::none()));
        let compressed = compressed?;
        let masked = compressed.masked_model();
        seconds();
        let (small, speedup) = timed(|| compressed.speedup());
        let small = match small {
            Ok(small) => small,
            Err(error) => return Ok(Err(error.into())),
        };
        let verification = seconds().computed;
        let growth = growth.and_then(|growth| growth.peak());

        let device = Device::flex();
        device.seed(self.seed + 1);
        let unseen = model.random_input(1, self.size, &device);
        let expected = masked.run(unseen.clone());
        let seen = masked.run(input);
        let between = relative_error(&expected, &seen)?;
        let error = relative_error(&expected, &small.model.run(unseen.clone()))?;
        let exact = || exact_error(&masked, &small.model, unseen);
        let exact_error = (error > 1e-6).then(exact).transpose()?;
        drop(masked);
        let sparsity = selected.iter().map(|layer| {
            let kept = small.plan.params.get(&layer.weight);
            let kept = kept.and_then(|slice| slice.keep.get(&layer.dim));
            kept.map_or(0.0, |kept| 1.0 - kept.len() as f64 / layer.channels as f64)
        });
        let latency = |batch| self.latency(model, &small.model, batch);
        let report = &small.report;
        Ok(Ok(Cut {
            parameters: report.params.small,
            expected_parameters: half.as_ref().map(|half| half.parameters),
            dense_macs: report.macs.dense,
            macs: report.macs.small,
            expected_macs: half.map(|half| half.macs),
            sparsity: Spread::new(sparsity.collect()).context("no layer is selected")?,
            seconds: Seconds {
                capture,
                grouping: analysis - capture,
                building,
                scoring,
                cutting: speedup - verification,
                verification,
            },
            growth: growth.map(|bytes| bytes as f64 / (4 * report.params.dense) as f64),
            forward_growth: None,
            latency: [latency(1)?, latency(8)?],
            error,
            exact_error,
            between,
        }))
    }

    /// Median time of the small network over that of the dense one, in turns.
    fn latency<M: Model>(&self, dense: &M, small: &M, batch: usize) -> anyhow::Result<f64> {
        let input = dense.random_input(batch, self.size, &Device::flex());
        let seconds = |model: &M| {
            let start = Instant::now();
            model.run(input.clone()).data();
            start.elapsed().as_secs_f64()
        };
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..self.repeats {
            times[0].push(seconds(dense));
            times[1].push(seconds(small));
        }
        let [dense, small] = times.map(Spread::new);
        let both = dense.zip(small).context("no latency was timed")?;
        Ok(both.1.median / both.0.median)
    }
}

/// CPU seconds of forward passes.
#[derive(Default)]
struct Passes {
    /// Of those that are captured.
    captured: f64,
    /// Of those that compute.
    computed: f64,
}

/// A dummy input that adds the time of its passes up.
fn dummy_input<M: Model>(input: M::Input, passes: Arc<Mutex<Passes>>) -> DummyInput<M> {
    DummyInput::new(input, move |model: &M, input| {
        let (outputs, seconds) = timed(|| model.run(input));
        let mut passes = passes.lock().unwrap_or_else(PoisonError::into_inner);
        match model.devices().first() == Some(&Device::flex()) {
            true => passes.computed += seconds,
            false => passes.captured += seconds,
        }
        outputs
    })
}

/// A layer that is to lose half of its channels.
struct Selected {
    path: String,
    /// Path of its weight, the dimension of its output channels and their number.
    weight: String,
    dim: usize,
    channels: usize,
}

impl Selected {
    /// Whether its features are those of attention heads, which are removed as a whole.
    fn is_split(&self) -> bool {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        HEADS.contains(&name)
    }
}

fn selected<M: Model>(zoo: Zoo, model: &M) -> Vec<Selected> {
    let is_selected = |layer: &LayerInfo| {
        let stays = [zoo.outputs(), zoo.fixed()].concat();
        TYPES.contains(&layer.kind.as_str()) && !stays.contains(&layer.path.as_str())
    };
    let layers = layers(model).into_iter().filter(is_selected);
    layers
        .filter_map(|layer| {
            let shape = &layer.param("weight")?.shape;
            let dim = channel_dims(&layer.kind, "weight", shape.len()).output?;
            Some(Selected {
                weight: format!("{}.weight", layer.path),
                dim,
                channels: shape[dim],
                path: layer.path,
            })
        })
        .collect()
}

/// Parameters of the network's own layers, which share their channels with the selected ones: path of
/// the layer and name.
fn own_layers<M: Model>(model: &M) -> impl Iterator<Item = (String, String)> {
    let is_own = |layer: &LayerInfo| OWN_LAYERS.contains(&layer.kind.as_str());
    let layers = layers(model).into_iter().filter(is_own);
    layers.flat_map(|layer| {
        let parameters = layer.params.into_iter();
        parameters.map(move |parameter| (layer.path.clone(), parameter.name))
    })
}

/// What is left with half of the channels of every selected layer.
struct Half {
    parameters: u64,
    macs: u64,
}

/// Which half, as some shapes leave no choice: every second channel, so that all groups of a norm lose
/// as many; the first ones; two of four, so that both halves of a shuffle do.
const HALVES: [fn(usize, usize) -> bool; 3] = [
    |at, _| at % 2 == 1,
    |at, count| at < count / 2,
    |at, count| at % 4 > 1 && at < count / 4 * 4,
];

fn half_of(graph: &ChannelGraph, selected: &[Selected]) -> Option<Half> {
    let removed = HALVES.iter().map(|is_removed| {
        let removed = selected.iter().flat_map(|layer| {
            let channels = graph.param_channels(&layer.weight, layer.dim);
            let channels = channels.unwrap_or_default();
            let all = channels.iter().copied().enumerate();
            all.filter_map(|(at, channel)| is_removed(at, channels.len()).then_some(channel))
        });
        removed.collect::<BTreeSet<_>>()
    });
    let mut plans = removed.filter_map(|removed| Some((graph.slice_plan(&removed).ok()?, removed)));
    let (plan, removed) = plans.next()?;
    let params = graph.params().filter(|param| !param.statistic);
    let elements = params.map(|param| {
        let shape = plan.params.get(&param.path).map(|slice| &slice.shape);
        let shape = shape.unwrap_or(&param.shape);
        shape.iter().map(|&size| size as u64).product::<u64>()
    });
    Some(Half {
        parameters: elements.sum(),
        macs: graph.macs_after(&removed),
    })
}

/// The relative error of models that compute in double precision.
fn exact_error<M: Model>(masked: &M, small: &M, input: M::Input) -> anyhow::Result<f64> {
    struct Widen;

    impl ModuleMapper for Widen {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(FloatDType::F64))
        }
    }

    let input = DummyInput::new(input, M::run);
    let run = |model: &M| input.run_f64(&model.valid().map(&mut Widen), &Device::flex());
    let outputs = run(masked).zip(run(small));
    let (masked, small) = outputs.context("the input has no double precision")?;
    error_of(&masked, &small)
}

/// Largest difference over the largest value; infinite where a value is not finite.
fn relative_error(
    expected: &impl ForwardOutputs,
    found: &impl ForwardOutputs,
) -> anyhow::Result<f64> {
    error_of(&expected.data(), &found.data())
}

fn error_of(expected: &[TensorData], found: &[TensorData]) -> anyhow::Result<f64> {
    let (mut largest, mut difference) = (0_f64, 0_f64);
    for (expected, found) in expected.iter().zip(found) {
        for (expected, found) in expected.iter::<f64>().zip(found.iter::<f64>()) {
            if !(expected.is_finite() && found.is_finite()) {
                return Ok(f64::INFINITY);
            }
            largest = largest.max(expected.abs());
            difference = difference.max((expected - found).abs());
        }
    }
    anyhow::ensure!(largest > 0.0, "all outputs are zero");
    Ok(difference / largest)
}

/// The first obstacle of an error, in one line.
fn first_reason(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take(2).collect::<Vec<_>>().join(" ")
}
